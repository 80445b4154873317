"""What an evaluation collects and what it reports: scores, invalid outputs, speed, memory, machine."""

from __future__ import annotations

import hashlib
import heapq
import os
import platform
import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.tokens.confidence import Reliability
from getok_drive.tokens.vocab import BOX_CLASSES, SIGN_CLASSES
from getok_drive.types import Scene
from training.metrics.calibration import reliability_of
from training.metrics.detection import average_precision, match_by_confidence
from training.metrics.frame import FrameScore, score_frame
from training.metrics.summary import Numbers, pairs_of, summarise
from training.samples import Sample

FloatArray = npt.NDArray[np.float64]

HEADLINES = {
    "lanes": ("f1_50", "lanes, CULane F1@50"),
    "drivable": ("iou", "drivable area IoU, pooled"),
    "boxes": ("f1", "boxes, F1 at IoU 0.5, taller than 5 % of the image"),
    "signs": ("f1", "sign points, F1 at 2 % of the image width"),
}


def machine() -> dict[str, Any]:
    """The machine and the versions that a speed belongs to."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    versions = {}
    for package in ("numpy", "opencv-python-headless", "onnxruntime", "torch"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "cores": cores, "system": platform.platform(), "python": platform.python_version(), **versions}


def sample_sha256(sample: Sample) -> str:
    """SHA-256 of a sample's pixels and labels: what was evaluated, whatever made it."""
    digest = hashlib.sha256(np.ascontiguousarray(sample.image_bgr).tobytes())
    digest.update(repr((sample.size_wh, sample.known)).encode())
    for lane in sample.lanes:
        digest.update(lane.points_px.tobytes() + f"{lane.type} {lane.color}".encode())
    for area in sample.drivable:
        digest.update(area.polygon_px.tobytes())
    for box in sample.boxes:
        digest.update(box.xyxy_px.tobytes() + f"{box.class_name} {sorted(box.attributes.items())}".encode())
    for sign in sample.signs:
        digest.update(sign.point_px.tobytes() + f"{sign.class_name} {sign.color} {sorted(sign.attributes.items())}".encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Case:
    """A picture that is kept to be shown, with its score."""

    score: FrameScore
    sample: Sample
    scene: Scene


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an evaluation.

    Attributes:
        frames: number of pictures.
        numbers: by kind, then by name; the first of each kind is its headline.
        outputs: counts of truncated and invalid outputs, reasons, tokens.
        speed: milliseconds and frames/s of the pipeline alone; empty when unknown.
        reliability: by kind and for ``"all"``.
        pairs: by kind and for ``"all"``, ``(N, 2)`` confidence and hit, for `training.evaluate.fit_calibration`.
        curves: by name, ``(N, 2)`` recall and precision.
        worst: the worst pictures, worst first.
        about: data set, bundle, command, machine.
    """

    frames: int
    numbers: dict[str, Numbers]
    outputs: dict[str, Any]
    speed: dict[str, float]
    reliability: dict[str, Reliability]
    pairs: dict[str, FloatArray]
    curves: dict[str, FloatArray]
    worst: tuple[Case, ...]
    about: dict[str, Any]

    def headline(self) -> dict[str, float]:
        """The first number of each kind, e.g. ``{"lanes/f1_50": 0.81}``."""
        return {f"{kind}/{HEADLINES[kind][0]}": numbers[HEADLINES[kind][0]].value for kind, numbers in self.numbers.items()}

    def table(self) -> str:
        """The headlines as text."""
        lines = [(HEADLINES[kind][1], str(numbers[HEADLINES[kind][0]])) for kind, numbers in self.numbers.items()]
        if "all" in self.reliability:
            lines.append(("expected calibration error", f"{self.reliability['all'].ece:.4f}"))
        lines.append(("truncated / invalid outputs", f"{self.outputs['truncated']} / {self.outputs['invalid']}"))
        if self.speed:
            lines.append(("frames/s (p50, p95 ms)", "{frames_per_s:.2f} ({p50_ms:.0f}, {p95_ms:.0f})".format(**self.speed)))
        lines.append(("peak memory of the evaluation, MB", f"{self.about.get('peak_memory_mb', float('nan')):.0f}"))
        width = max(len(name) for name, _ in lines)
        return "\n".join([f"{self.frames} frames", *(f"{name:<{width}}  {value}" for name, value in lines)])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": 1,
            **self.about,
            "frames": self.frames,
            "metrics": {kind: {name: e.to_json() for name, e in numbers.items()} for kind, numbers in self.numbers.items()},
            "outputs": self.outputs,
            "speed": {name: round(value, 3) for name, value in self.speed.items()},
            "reliability": {kind: _plain(curve) for kind, curve in self.reliability.items()},
            "worst": [{"key": case.score.key, "quality": round(case.score.quality, 4)} for case in self.worst],
        }


def _plain(curve: Reliability) -> dict[str, Any]:
    def numbers(values: FloatArray) -> list[float | None]:
        return [round(float(v), 4) if np.isfinite(v) else None for v in values]

    return {
        "ece": round(curve.ece, 5), "brier": round(curve.brier, 5), "edges": numbers(curve.edges), "count": curve.count.tolist(),
        "confidence": numbers(curve.confidence), "precision": numbers(curve.precision),
    }  # fmt: skip


class Collector:
    """Takes scored pictures one by one; keeps rows of sums, and only the worst pictures themselves."""

    def __init__(self, tasks: Sequence[str], worst: int = 12) -> None:
        self._tasks = tuple(tasks)
        self._worst_count = worst
        self._scores: list[FrameScore] = []
        self._worst: list[tuple[float, int, Case]] = []
        self._wall_ms: list[float] = []
        self._stages: Counter[str] = Counter()
        self._issues: Counter[str] = Counter()
        self._truncated = self._invalid = self._tokens = self._passes = self._deleted = 0
        self._bundles: Counter[tuple[str, str]] = Counter()
        self._digest = hashlib.sha256()
        self.missing = 0

    @property
    def dataset_sha256(self) -> str:
        """Hash of all pictures and labels so far, in order."""
        return self._digest.hexdigest()

    def add(self, key: str, sample: Sample, scene: Scene, wall_ms: float | None = None, digest: str = "") -> FrameScore:
        """Score one picture.

        Args:
            key: its name.
            sample: picture and labels.
            scene: the prediction.
            wall_ms: time that the pipeline took, milliseconds; None if unknown.
            digest: `sample_sha256`.
        """
        score = score_frame(sample, scene, self._tasks, BOX_CLASSES, SIGN_CLASSES, key)
        item = (-score.quality, -len(self._scores), Case(score, sample, scene))
        self._scores.append(score)
        if len(self._worst) < self._worst_count:
            heapq.heappush(self._worst, item)
        elif self._worst_count:
            heapq.heappushpop(self._worst, item)
        if wall_ms is not None:
            self._wall_ms.append(wall_ms)
            for stage in ("preprocess_ms", "vision_ms", "prefill_ms", "decode_ms", "parse_ms"):
                self._stages[stage] += getattr(scene.timings, stage)
        self._truncated += scene.truncated
        self._invalid += scene.report.dropped > 0
        self._issues.update(scene.report.issues)
        self._tokens += scene.report.tokens
        self._passes += scene.report.passes
        self._deleted += scene.report.deleted
        self._bundles[(scene.bundle_name, scene.bundle_sha256)] += 1
        self._digest.update(digest.encode())
        return score

    def report(self, **about: Any) -> Report:
        """Everything so far; ``about`` goes into the report as it is."""
        count = max(len(self._scores), 1)
        pairs = pairs_of(self._scores)
        curves = {kind: curve for kind, values in pairs.items() if (curve := reliability_of(values)) is not None}
        bundles = [{"name": name, "sha256": sha} for name, sha in self._bundles if name or sha]
        return Report(
            frames=len(self._scores),
            numbers=summarise(self._scores, BOX_CLASSES, SIGN_CLASSES),
            outputs={
                "truncated": self._truncated, "invalid": self._invalid, "issues": dict(self._issues), "missing": self.missing,
                "deleted_elements": self._deleted, "tokens_per_frame": round(self._tokens / count, 2),
                "passes_per_frame": round(self._passes / count, 2),
            },
            speed=self._speed(),
            reliability=curves,
            pairs=pairs,
            curves=self._precision_recall(),
            worst=tuple(case for _, _, case in sorted(self._worst, key=lambda item: item[:2], reverse=True)),
            about={
                "bundle": bundles[0] if len(bundles) == 1 else bundles, **about,
                "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1),
            },
        )  # fmt: skip

    def _speed(self) -> dict[str, float]:
        if not self._wall_ms:
            return {}
        wall = np.array(self._wall_ms)
        mean = float(wall.mean())
        speed = {
            "frames_per_s": 1e3 / mean, "mean_ms": mean, "p50_ms": float(np.percentile(wall, 50)),
            "p95_ms": float(np.percentile(wall, 95)),
        }  # fmt: skip
        return speed | {f"mean_{stage}": total / len(wall) for stage, total in self._stages.items()}

    def _precision_recall(self) -> dict[str, FloatArray]:
        """The class-agnostic precision-recall curve of boxes."""
        having = [s for s in self._scores if s.truth_boxes is not None and s.predicted_boxes is not None]
        truth = [s.truth_boxes for s in having if s.truth_boxes is not None]
        predicted = [s.predicted_boxes for s in having if s.predicted_boxes is not None]
        if not having:
            return {}
        hits = match_by_confidence(truth, predicted, (0.5,), None, [s.box_limit_px for s in having])[0]
        if not np.isfinite(average_precision(hits)) or not len(hits.hits):
            return {}
        order = np.argsort(-hits.confidences, kind="stable")
        true = np.cumsum(hits.hits[order])
        recall, precision = true / hits.truth.sum(), true / np.arange(1, len(order) + 1)
        return {"boxes, any class, IoU 0.5": np.stack([recall, precision], axis=1)}
