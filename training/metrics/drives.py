"""Takes the frames of drives as they come and keeps the sums of `training.metrics.temporal`, a row a frame and kind.

Frames belong together if they are of one ``meta["sequence"]`` and (where it is named) ``meta["camera"]``, follow each other,
and their ``meta["stamp_ns"]`` are at most `MAX_STEP_S` apart; data sets of single pictures, or of a few frames a second, have
none that do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from getok_drive.types import Scene
from training.metrics.frame import FrameScore
from training.metrics.intervals import Estimate, ratio
from training.metrics.temporal import KINDS, Elements, bends_px, pair
from training.samples import Sample

if TYPE_CHECKING:
    from training.metrics.summary import RowSet

FloatArray = npt.NDArray[np.float64]
Links = Mapping[int, int]  # indices of elements of one frame -> of the same elements in the next

MAX_STEP_S = 0.25
ROW = ("bends_px", "bends", "label_bends_px", "label_bends", "alone", "elements", "switches", "pairs")


@dataclass(frozen=True, slots=True)
class _Seen:
    """Elements of one kind in one frame, with their tracks."""

    elements: Elements
    tracks: Sequence[object]


@dataclass(frozen=True, slots=True)
class _Step:
    """One frame of one kind: labels and predictions, and how they were followed from the frame before."""

    key: str
    truth: _Seen
    predicted: _Seen
    truth_links: Links
    predicted_links: Links


def _elements(scene: Sample | Scene, kind: str) -> tuple[Elements, list[str | None]]:
    """The elements of a kind, and the tracks that they say they belong to."""
    if kind == "lanes":
        return [lane.points_px for lane in scene.lanes], [None for _ in scene.lanes]
    if kind == "boxes":
        return [box.xyxy_px for box in scene.boxes], [box.attributes.get("track_id") for box in scene.boxes]
    return [sign.point_px for sign in scene.signs], [sign.attributes.get("track_id") for sign in scene.signs]


class DriveScorer:
    """See the module; frames of several sequences may come interleaved, as those of cameras do.

    Args:
        tasks: element kinds to score, of which those of `temporal.KINDS` are.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self._kinds = [kind for kind in KINDS if kind in tasks]
        self._drives: dict[tuple[object, object, str], _Drive] = {}
        self._rows: dict[str, dict[str, FloatArray]] = {}
        self._groups: dict[str, object] = {}

    def add(self, key: str, sample: Sample, scene: Scene) -> None:
        """The next frame; frames that belong to no drive, and kinds that are not labelled, are passed over."""
        sequence, stamp_ns = sample.meta.get("sequence"), sample.meta.get("stamp_ns")
        if sequence is None or stamp_ns is None:
            return
        self._groups[key] = sequence
        for kind in self._kinds:
            if kind not in sample.known:
                continue
            place = sequence, sample.meta.get("camera"), kind
            drive = self._drives.get(place)
            if drive is None or not 0 < stamp_ns - drive.stamp_ns <= MAX_STEP_S * 1e9:
                drive = self._drives[place] = _Drive(kind)
            for name, sums in drive.advance(key, int(stamp_ns), sample, scene).items():
                rows = self._rows.setdefault(name, {})
                row = np.array([sums.get(column, 0.0) for column in ROW], dtype=np.float64)
                rows[f"drive_{kind}"] = rows[f"drive_{kind}"] + row if f"drive_{kind}" in rows else row

    def scores(self) -> list[FrameScore]:
        """The frames that have neighbours: rows ``drive_lanes``, ``drive_boxes``, ``drive_signs`` in the order of `ROW`."""
        return [FrameScore(key, self._groups[key], rows) for key, rows in self._rows.items()]


class _Drive:
    """One kind of elements in consecutive frames of one sequence."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.stamp_ns = 0
        self._numbers = count()
        self._steps: list[_Step] = []  # the last two frames
        self._paired: dict[object, object] = {}  # labelled track -> predicted track
        self._waiting: dict[str, dict[str, float]] = {}  # sums of the first frame, until there is a second

    def advance(self, key: str, stamp_ns: int, sample: Sample, scene: Scene) -> dict[str, dict[str, float]]:
        """Take the next frame; sums that it adds, by the frame that they are of, named as in `ROW`."""
        self.stamp_ns = stamp_ns
        width_px, height_px = sample.size_wh
        before = self._steps[-1] if self._steps else None
        truth, truth_links = self._follow(sample, before.truth if before else None, width_px)
        predicted, predicted_links = self._follow(scene, before.predicted if before else None, width_px)
        self._steps.append(_Step(key, truth, predicted, truth_links, predicted_links))
        labels, answers = pair(self.kind, truth.elements, predicted.elements, width_px)
        switches = 0
        for g, p in zip(labels.tolist(), answers.tolist(), strict=True):
            label, track = truth.tracks[g], predicted.tracks[p]
            switches += self._paired.get(label, track) != track
            self._paired[label] = track
        self._waiting[key] = {"switches": switches, "pairs": len(labels)}
        if before is None:
            return {}  # a picture that stands alone has no sums at all
        found, self._waiting = self._waiting, {}
        if len(self._steps) == 3:
            found[self._steps[1].key] = self._look_back(height_px)
            del self._steps[0]
        return found

    def _follow(self, scene: Sample | Scene, before: _Seen | None, width_px: int) -> tuple[_Seen, Links]:
        elements, tracks = _elements(scene, self.kind)
        links: dict[int, int] = {}
        if before is not None:
            then, now = pair(self.kind, before.elements, elements, width_px)
            links = dict(zip(then.tolist(), now.tolist(), strict=True))
        inherited = {now: before.tracks[then] for then, now in links.items()} if before is not None else {}
        named = [t if t is not None else inherited[i] if i in inherited else next(self._numbers) for i, t in enumerate(tracks)]
        return _Seen(elements, named), links

    def _look_back(self, height_px: int) -> dict[str, float]:
        """Jitter and flicker of the middle one of three frames."""
        _, second, third = self._steps
        sums: dict[str, float] = {}
        for name, seen, into, out in (
            ("label_", [step.truth for step in self._steps], second.truth_links, third.truth_links),
            ("", [step.predicted for step in self._steps], second.predicted_links, third.predicted_links),
        ):
            first, middle, last = (each.elements for each in seen)
            bends = bends_px(self.kind, [(first[a], middle[b], last[out[b]]) for a, b in into.items() if b in out], height_px)
            sums |= {f"{name}bends_px": float(bends.sum()), f"{name}bends": len(bends)}
        elements = len(second.predicted.elements)
        followed = set(second.predicted_links.values()) | set(third.predicted_links)
        return sums | {"alone": elements - len(followed), "elements": elements}


def _ratio_of(rows: FloatArray, above: str, below: str) -> FloatArray:
    return ratio(rows[..., ROW.index(above)], rows[..., ROW.index(below)])


def jitter_px(rows: FloatArray) -> FloatArray:
    """Mean absolute second difference of the predictions' places, of summed rows; NaN if none was followed."""
    return _ratio_of(rows, "bends_px", "bends")


def label_jitter_px(rows: FloatArray) -> FloatArray:
    """The same of the labels: what the drive itself has."""
    return _ratio_of(rows, "label_bends_px", "label_bends")


def flicker(rows: FloatArray) -> FloatArray:
    """Share of predictions that are in one frame only, of summed rows."""
    return _ratio_of(rows, "alone", "elements")


def switches_per_100(rows: FloatArray) -> FloatArray:
    """Identity switches per 100 pairs of labels and predictions, of summed rows."""
    return 100.0 * _ratio_of(rows, "switches", "pairs")


def drive_numbers(of: RowSet) -> dict[str, dict[str, Estimate]]:
    """All numbers by kind, headline first; kinds that no drive had are absent."""
    numbers: dict[str, dict[str, Estimate]] = {}
    for kind in KINDS:
        name = f"drive_{kind}"
        if of.has(name):
            each = {"jitter_px": jitter_px, "switches_per_100": switches_per_100}
            order = list(each) if kind == "lanes" else list(each)[::-1]
            statistics = {n: each[n] for n in order} | {"label_jitter_px": label_jitter_px, "flicker": flicker}
            numbers[name] = {n: of.estimate(name, statistic) for n, statistic in statistics.items()}
    return numbers
