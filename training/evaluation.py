"""`Collector`: takes scored pictures and answers one by one, and turns them into a `Report`."""

from __future__ import annotations

import hashlib
import heapq
import json
import resource
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from getok_drive.tokens.prompts import CLASSIFY_CHOICES
from getok_drive.tokens.vocab import BOX_CLASSES, SIGN_CLASSES
from getok_drive.types import Scene
from training.metrics import headlines
from training.metrics.calibration import reliability_of
from training.metrics.captions import tokenize
from training.metrics.classification import confusion
from training.metrics.curves import precision_recall
from training.metrics.drives import DriveScorer, drive_numbers
from training.metrics.frame import FrameScore, score_frame
from training.metrics.nuscenes import Boxes3d, DetectionScores, detection_numbers
from training.metrics.openlane_topology import GraphScores, RoadGraph, graph_numbers
from training.metrics.summary import Numbers, RowSet, defined, pairs_of, summarise
from training.prompted.answers import Answer
from training.prompted.queries import Query
from training.prompted.scoring import CaptionPair, add_rows, prompted_numbers, score_captions, score_query
from training.results import Case, PromptedCase, Report
from training.results import machine as machine  # also for importers of this module
from training.results import sample_sha256 as sample_sha256
from training.samples import Sample

FloatArray = npt.NDArray[np.float64]

HEADLINES = {kind: (headline.number, headline.title) for kind, headline in headlines.HEADLINES.items()}


class Watcher(Protocol):
    """Sees every scene that is scored."""

    def add(self, key: str, sample: Sample, scene: Scene, wall_ms: float | None) -> None:
        """One picture, its labels, the prediction, and how long that took."""
        ...


class Collector:
    """Takes scored pictures one by one; keeps rows of sums, and only the worst pictures themselves.

    Args:
        tasks: element kinds to score.
        worst: how many of the worst pictures, and of the worst answers, are kept to be shown.
        watch: is handed every scene, too (a writer of submissions).
    """

    def __init__(self, tasks: Sequence[str], worst: int = 12, watch: Watcher | None = None) -> None:
        self._tasks = tuple(tasks)
        self._watch = watch
        self._worst_count = worst
        self._scores: list[FrameScore] = []
        self._drives = DriveScorer(tasks)
        self._graphs: list[tuple[object, RoadGraph, RoadGraph]] = []
        self._boxes_3d: list[tuple[object, Boxes3d, Boxes3d]] = []
        self._prompted: list[FrameScore] = []
        self._captions: list[CaptionPair] = []
        self._digests: dict[str, str] = {}
        self._worst: list[tuple[float, int, Case]] = []
        self._worst_prompted: list[tuple[float, int, PromptedCase]] = []
        self._wall_ms: list[float] = []
        self._query_ms: list[float] = []
        self._stages: Counter[str] = Counter()
        self._issues: Counter[str] = Counter()
        self._truncated = self._invalid = self._tokens = self._passes = self._deleted = self._repeated = self._queries = 0
        self._bundles: Counter[tuple[str, str]] = Counter()
        self.missing = 0
        self.missing_answers = 0

    @property
    def dataset_sha256(self) -> str:
        """Hash of all pictures and labels so far, in order."""
        return hashlib.sha256("".join(self._digests.values()).encode()).hexdigest()

    def add(self, key: str, sample: Sample, scene: Scene, wall_ms: float | None = None, digest: str = "") -> FrameScore:
        """Score one picture.

        Args:
            key: its name.
            sample: picture and labels.
            scene: the prediction.
            wall_ms: time that the pipeline took, milliseconds; None if unknown.
            digest: `sample_sha256`.
        """
        if self._watch is not None:
            self._watch.add(key, sample, scene, wall_ms)
        score = score_frame(sample, scene, self._tasks, BOX_CLASSES, SIGN_CLASSES, key, wall_ms)
        self._drives.add(key, sample, scene)
        self._keep(self._worst, score.quality, len(self._scores), Case(score, sample, scene))
        self._scores.append(score)
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
        self._repeated += scene.report.repeated
        self._bundles[(scene.bundle_name, scene.bundle_sha256)] += 1
        self._digests[key] = digest
        return score

    def add_answers(self, key: str, sample: Sample, answered: Sequence[tuple[Query, Answer]], digest: str = "") -> FrameScore:
        """Score the answers to the queries about one picture.

        Args:
            key: its name.
            sample: picture and labels.
            answered: the queries with their answers.
            digest: `sample_sha256`.
        """
        rows: dict[str, FloatArray] = {}
        qualities = []
        for query, answer in answered:
            each, quality = score_query(query, answer, sample.size_wh)
            add_rows(rows, each)
            qualities.append(quality)
            if query.task == "caption":
                add_rows(rows, {"caption": np.ones(1)})
                self._captions.append((key, tokenize(answer.caption), [tokenize(text) for text in query.references]))
            self._keep(self._worst_prompted, quality, self._queries, PromptedCase(key, quality, sample, query, answer))
            self._queries += 1
            self._truncated += answer.truncated
            self._issues.update(answer.issues)
            if answer.wall_ms is not None:
                self._query_ms.append(answer.wall_ms)
        group = sample.meta.get("sequence") or key
        score = FrameScore(key, group, rows, quality=float(np.mean(qualities)) if qualities else 1.0)
        self._prompted.append(score)
        self._digests[key] = digest
        return score

    def add_graph(self, key: str, sample: Sample, truth: RoadGraph, predicted: RoadGraph, digest: str = "") -> None:
        """Score the road graph of one picture; arguments as of `add`."""
        self._graphs.append((sample.meta.get("sequence") or key, truth, predicted))
        self._digests[key] = digest

    def add_boxes_3d(self, key: str, group: object, truth: Boxes3d, predicted: Boxes3d, digest: str = "") -> None:
        """Score the boxes of one key frame of nuScenes; frames of a ``group`` (a scene) are drawn together."""
        self._boxes_3d.append((group, truth, predicted))
        self._digests[key] = digest

    def _keep(self, heap: list[Any], quality: float, number: int, case: Case | PromptedCase) -> None:
        """Keep the worst; of equals the earlier."""
        item = (-quality, -number, case)
        if len(heap) < self._worst_count:
            heapq.heappush(heap, item)
        elif self._worst_count:
            heapq.heappushpop(heap, item)

    def report(self, **about: Any) -> Report:
        """Everything so far; ``about`` goes into the report as it is."""
        count = max(len(self._scores), 1)
        pairs = pairs_of(self._scores)
        curves = {kind: curve for kind, values in pairs.items() if (curve := reliability_of(values)) is not None}
        bundles = [{"name": name, "sha256": sha} for name, sha in self._bundles if name or sha]
        prompted, note = score_captions(self._prompted, self._captions)
        outputs = {
            "truncated": self._truncated, "invalid": self._invalid, "issues": dict(self._issues), "missing": self.missing,
            "deleted_elements": self._deleted, "repeated_boxes": self._repeated,
            "tokens_per_frame": round(self._tokens / count, 2), "passes_per_frame": round(self._passes / count, 2),
        }  # fmt: skip
        if self._queries:
            outputs |= {"queries": self._queries, "missing_answers": self.missing_answers}
        return Report(
            frames=len(self._digests),
            numbers=self._numbers(prompted),
            outputs=outputs | ({"note": note} if note else {}),
            speed=self._speed(),
            reliability=curves,
            pairs=pairs,
            curves=precision_recall(self._scores, BOX_CLASSES),
            confusion=self._confusion(),
            worst=_worst_first(self._worst),
            worst_prompted=_worst_first(self._worst_prompted),
            about={
                "bundle": bundles[0] if len(bundles) == 1 else bundles, **about,
                "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1),
            },
        )  # fmt: skip

    def write_scores(self, path: Path) -> None:
        """Write the rows of every picture, a JSON line each: what `training.compare` resamples."""
        prompted, _ = score_captions(self._prompted, self._captions)
        rows: dict[str, dict[str, Any]] = {}
        for score in [*self._scores, *self._drives.scores(), *prompted]:
            record = rows.setdefault(score.key, {"key": score.key, "group": str(score.group), "sample_sha256": "", "rows": {}})
            record["sample_sha256"] = self._digests[score.key]
            record["rows"] |= {name: np.round(row, 9).tolist() for name, row in score.rows.items()}
        path.write_text("".join(json.dumps(record) + "\n" for record in rows.values()), encoding="utf-8")

    def _numbers(self, prompted: Sequence[FrameScore]) -> dict[str, Numbers]:
        drives = defined(drive_numbers(RowSet(self._drives.scores())))
        numbers = summarise(self._scores, BOX_CLASSES, SIGN_CLASSES) | drives | prompted_numbers(prompted)
        if self._graphs:
            groups, truth, predicted = zip(*self._graphs, strict=True)
            numbers["openlane_v2"] = graph_numbers(GraphScores(truth, predicted), groups)
        if self._boxes_3d:
            scenes, labels, answers = zip(*self._boxes_3d, strict=True)
            numbers["nuscenes"] = detection_numbers(DetectionScores(labels, answers), scenes)
        return numbers

    def _speed(self) -> dict[str, float]:
        speed: dict[str, float] = {}
        if self._wall_ms:
            mean = float(np.mean(self._wall_ms))
            speed = {"frames_per_s": 1e3 / mean, "mean_ms": mean, **_percentiles("", self._wall_ms)}
            speed |= {f"mean_{stage}": total / len(self._wall_ms) for stage, total in self._stages.items()}
        return speed | (_percentiles("query_", self._query_ms) if self._query_ms else {})

    def _confusion(self) -> dict[str, tuple[tuple[str, ...], FloatArray]]:
        found = {}
        for attribute, choices in CLASSIFY_CHOICES.items():
            rows = [s.rows[name] for s in self._prompted if (name := f"classification/{attribute}") in s.rows]
            if rows:
                found[attribute] = (choices, confusion(np.sum(rows, axis=0)))
        return found


def _worst_first(heap: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(case for _, _, case in sorted(heap, key=lambda item: item[:2], reverse=True))


def _percentiles(prefix: str, values_ms: Sequence[float]) -> dict[str, float]:
    return {f"{prefix}p{share}_ms": float(np.percentile(values_ms, share)) for share in (50, 95)}
