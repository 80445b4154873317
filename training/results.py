"""`Report`: the result of an evaluation, with the cases that are shown, the machine, and what was evaluated."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.machine import cores, cpu_name
from getok_drive.tokens.confidence import Reliability
from getok_drive.types import Scene
from training.metrics.frame import FrameScore
from training.metrics.headlines import HEADLINES
from training.metrics.summary import Numbers
from training.prompted.answers import Answer
from training.prompted.queries import Query
from training.samples import Sample

FloatArray = npt.NDArray[np.float64]


def machine() -> dict[str, Any]:
    """The machine and the versions that a speed belongs to."""
    versions = {}
    for package in ("numpy", "opencv-python-headless", "onnxruntime", "torch"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"cpu": cpu_name(), "cores": cores(), "system": platform.platform(), "python": platform.python_version(), **versions}


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
    for phrase in sample.phrases:
        digest.update(repr((phrase.task, phrase.text, phrase.answer, phrase.ignore)).encode())
        for region in phrase.regions:
            places = [None if place is None else place.tolist() for place in (region.xyxy_px, region.point_px)]
            digest.update(repr((places, region.rle)).encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Case:
    """A picture that is kept to be shown, with its score."""

    score: FrameScore
    sample: Sample
    scene: Scene


@dataclass(frozen=True, slots=True, eq=False)
class PromptedCase:
    """A query that is kept to be shown, with its answer."""

    key: str
    quality: float
    sample: Sample
    query: Query
    answer: Answer


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an evaluation.

    Attributes:
        frames: number of pictures.
        numbers: by kind, then by name; the first of each kind is its headline.
        outputs: counts of truncated and invalid outputs, reasons, tokens.
        speed: milliseconds and frames/s of the pipeline alone, milliseconds a query; empty when unknown.
        reliability: by kind and for ``"all"``.
        pairs: by kind and for ``"all"``, ``(N, 2)`` confidence and hit, for `training.evaluate.fit_calibration`.
        curves: by name, ``(N, 2)`` recall and precision.
        confusion: by attribute, the words and the counts ``(K, K + 1)`` of labelled by answered (the last: no valid answer).
        worst: the worst pictures, worst first.
        worst_prompted: the worst answers to queries, worst first.
        about: data set, bundle, command, machine.
    """

    frames: int
    numbers: dict[str, Numbers]
    outputs: dict[str, Any]
    speed: dict[str, float]
    reliability: dict[str, Reliability]
    pairs: dict[str, FloatArray]
    curves: dict[str, FloatArray]
    confusion: dict[str, tuple[tuple[str, ...], FloatArray]]
    worst: tuple[Case, ...]
    worst_prompted: tuple[PromptedCase, ...]
    about: dict[str, Any]

    def headline(self) -> dict[str, float]:
        """The first number of each kind, e.g. ``{"lanes/f1_50": 0.81}``."""
        return {f"{kind}/{HEADLINES[kind].number}": each[HEADLINES[kind].number].value for kind, each in self.numbers.items()}

    def table(self) -> str:
        """The headlines as text."""
        lines = [(HEADLINES[kind].title, str(numbers[HEADLINES[kind].number])) for kind, numbers in self.numbers.items()]
        if "all" in self.reliability:
            lines.append(("expected calibration error", f"{self.reliability['all'].ece:.4f}"))
        lines.append(("truncated / invalid outputs", f"{self.outputs['truncated']} / {self.outputs['invalid']}"))
        if "frames_per_s" in self.speed:
            lines.append(("frames/s (p50, p95 ms)", "{frames_per_s:.2f} ({p50_ms:.0f}, {p95_ms:.0f})".format(**self.speed)))
        if "query_p50_ms" in self.speed:
            lines.append(("a query, ms (p50, p95)", "{query_p50_ms:.0f}, {query_p95_ms:.0f}".format(**self.speed)))
        lines.append(("peak memory of the evaluation, MB", f"{self.about.get('peak_memory_mb', float('nan')):.0f}"))
        width = max(len(name) for name, _ in lines)
        return "\n".join([f"{self.frames} frames", *(f"{name:<{width}}  {value}" for name, value in lines)])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        cases = [{"key": case.score.key, "quality": round(case.score.quality, 4)} for case in self.worst]
        cases += [
            {"key": case.key, "task": case.query.task, "query": case.query.number, "quality": round(case.quality, 4)}
            for case in self.worst_prompted
        ]
        return {
            "schema": 1,
            **self.about,
            "frames": self.frames,
            "metrics": {kind: {name: e.to_json() for name, e in numbers.items()} for kind, numbers in self.numbers.items()},
            "outputs": self.outputs,
            "speed": {name: round(value, 3) for name, value in self.speed.items()},
            "reliability": {kind: _plain(curve) for kind, curve in self.reliability.items()},
            "confusion": {
                name: {"words": list(words), "counts": m.astype(int).tolist()} for name, (words, m) in self.confusion.items()
            },
            "worst": cases,
        }


def _plain(curve: Reliability) -> dict[str, Any]:
    def numbers(values: FloatArray) -> list[float | None]:
        return [round(float(v), 4) if np.isfinite(v) else None for v in values]

    return {
        "ece": round(curve.ece, 5), "brier": round(curve.brier, 5), "edges": numbers(curve.edges), "count": curve.count.tolist(),
        "confidence": numbers(curve.confidence), "precision": numbers(curve.precision),
    }  # fmt: skip
