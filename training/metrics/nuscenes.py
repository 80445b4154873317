"""nuScenes detection scores: mAP by distance on the ground, five errors of what was found, and the NDS of both.

Definition (Caesar et al. 2020, arXiv 1903.11027, section 3.1, and the devkit's ``detection_cvpr_2019``). For each class and each
of `DISTANCES_M`, the predictions of all frames in order of falling score take the nearest label of their frame and class that is
not yet taken, if its centre is nearer than the distance on the ground plane. With precision p at 101 recalls 0, 0.01 ... 1
(between two predictions in a straight line, 0 above the greatest recall that is reached)

    AP = mean over recalls above 0.1 of max(p - 0.1, 0) / 0.9        mAP: its mean over distances, then classes.

Errors are those of the matches at 2 m: centre distance in metres (ATE), 1 - IoU of the aligned sizes (ASE), angle between the
headings in radians, a barrier's up to half a turn (AOE), difference of velocities in m/s (AVE), 1 where the attribute is wrong
(AAE). Each is averaged over all matches down to a score (what is not labelled is left out), read at the score of each recall, and
averaged over the recalls above 0.1 that are reached; 1 where none is. Cones have no AOE, AVE and AAE, barriers no AVE and AAE.
A class without labels has AP 0 and errors of 1.

    NDS = (5 mAP + sum over the five of max(1 - mean error over classes, 0)) / 10
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.metrics.intervals import Estimate, bootstrap_weighted

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CLASSES = (
    "car", "truck", "bus", "trailer", "construction_vehicle", "pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier",
)  # fmt: skip
DISTANCES_M = (0.5, 1.0, 2.0, 4.0)
ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")
NAMES = ("NDS", "mAP", *(f"m{name}" for name in ERRORS), *(f"AP/{name}" for name in CLASSES))
_UNDEFINED = {"traffic_cone": ("AOE", "AVE", "AAE"), "barrier": ("AVE", "AAE")}
_RECALLS = np.linspace(0.0, 1.0, 101)
_FIRST = 11  # of the recalls: the first above 0.1
_LEAST_PRECISION = 0.1
_ERROR_DISTANCE = DISTANCES_M.index(2.0)
_MAP_WEIGHT = 5


@dataclass(frozen=True, slots=True)
class Boxes3d:
    """The boxes of one frame, labelled or predicted.

    Attributes:
        classes: ``(N,)`` indices into `CLASSES`.
        centers_m: ``(N, 2)`` on the ground plane, in one frame for labels and predictions.
        sizes_m: ``(N, 3)``, above 0.
        yaws_rad: ``(N,)``.
        velocities_mps: ``(N, 2)`` on the ground plane; NaN where unknown.
        attributes: ``(N,)`` numbers of attributes, -1 for none.
        scores: ``(N,)``; not needed of labels.
    """

    classes: npt.ArrayLike
    centers_m: npt.ArrayLike
    sizes_m: npt.ArrayLike
    yaws_rad: npt.ArrayLike
    velocities_mps: npt.ArrayLike
    attributes: npt.ArrayLike
    scores: npt.ArrayLike = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """All frames' boxes, one a row."""

    frames: IntArray
    classes: IntArray
    centers_m: FloatArray
    sizes_m: FloatArray
    yaws_rad: FloatArray
    velocities_mps: FloatArray
    attributes: IntArray
    scores: FloatArray

    @classmethod
    def of(cls, boxes: Sequence[Boxes3d]) -> _Table:
        def column(name: str, kind: type, *width: int) -> Any:
            parts: list[Any] = [np.asarray(getattr(each, name), kind).reshape(-1, *width) for each in boxes]
            return np.concatenate([np.zeros((0, *width), kind), *parts])

        counts = [len(np.asarray(each.classes).reshape(-1)) for each in boxes]
        return cls(
            np.repeat(np.arange(len(boxes)), counts), column("classes", np.int64), column("centers_m", np.float64, 2),
            column("sizes_m", np.float64, 3), column("yaws_rad", np.float64), column("velocities_mps", np.float64, 2),
            column("attributes", np.int64), column("scores", np.float64),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """The predictions of one class by falling score.

    Attributes:
        frames: ``(P,)`` the frame of each.
        scores: ``(P,)``.
        hits: ``(P, len(DISTANCES_M))`` whether it took a label.
        errors: ``(M, len(ERRORS))`` of those that took one at 2 m, in order.
        labels: ``(F,)`` labels of each frame.
    """

    frames: IntArray
    scores: FloatArray
    hits: npt.NDArray[np.bool_]
    errors: FloatArray
    labels: FloatArray


class DetectionScores:
    """Scored frames, from which the numbers of any draw of them follow.

    Args:
        truth: labels of each frame.
        predicted: predictions of the same frames.
    """

    def __init__(self, truth: Sequence[Boxes3d], predicted: Sequence[Boxes3d]) -> None:
        labels, answers = _Table.of(truth), _Table.of(predicted)
        self._frames = len(truth)
        self._classes = [_rank(labels, answers, number, self._frames) for number in range(len(CLASSES))]

    def values(self, weights: npt.ArrayLike | None = None) -> FloatArray:
        """``(17,)`` in the order of `NAMES`.

        Args:
            weights: ``(F,)`` how often each frame counts (a bootstrap draw); one each by default.
        """
        weight = np.ones(self._frames) if weights is None else np.asarray(weights, dtype=np.float64)
        aps, errors = zip(*(_class_values(ranked, weight) for ranked in self._classes), strict=True)
        table = np.array(errors)
        for number, name in enumerate(CLASSES):
            table[number, [ERRORS.index(error) for error in _UNDEFINED.get(name, ())]] = np.nan
        mean_errors = np.nanmean(table, axis=0)
        mean_ap = float(np.mean(aps))
        nds = (_MAP_WEIGHT * mean_ap + np.maximum(1.0 - mean_errors, 0.0).sum()) / (_MAP_WEIGHT + len(ERRORS))
        return np.array([nds, mean_ap, *mean_errors, *aps])


def detection_numbers(scores: DetectionScores, groups: Sequence[object]) -> dict[str, Estimate]:
    """The numbers by name, headline first, with intervals over frames drawn by group (their scenes)."""
    return dict(zip(NAMES, bootstrap_weighted(scores.values, groups), strict=False))


def _rank(labels: _Table, answers: _Table, number: int, frames: int) -> _Ranked:
    own, theirs = np.flatnonzero(labels.classes == number), np.flatnonzero(answers.classes == number)
    order = theirs[np.lexsort((np.arange(len(theirs)), answers.scores[theirs]))[::-1]]  # of equal scores the later first
    match = np.full((len(order), len(DISTANCES_M)), -1, dtype=np.int64)
    for rows, candidates in _by_frame(answers.frames[order], labels.frames[own]):
        offsets = answers.centers_m[order[rows], None] - labels.centers_m[own[candidates]][None]
        taken = _take_nearest(np.linalg.norm(offsets, axis=2))
        match[rows] = np.where(taken >= 0, own[candidates][taken], -1)
    found = match[:, _ERROR_DISTANCE]
    errors = _errors(labels, found[found >= 0], answers, order[found >= 0], number)
    counts = np.bincount(labels.frames[own], minlength=frames).astype(np.float64)
    return _Ranked(answers.frames[order], answers.scores[order], match >= 0, errors, counts)


def _by_frame(answers: IntArray, labels: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """For each frame with both: the places of its predictions, in order, and of its labels."""
    by_answer, by_label = np.argsort(answers, kind="stable"), np.argsort(labels, kind="stable")
    for frame in np.intersect1d(answers, labels):
        rows = by_answer[np.searchsorted(answers[by_answer], frame) : np.searchsorted(answers[by_answer], frame, "right")]
        yield rows, by_label[np.searchsorted(labels[by_label], frame) : np.searchsorted(labels[by_label], frame, "right")]


def _take_nearest(distance: FloatArray) -> IntArray:
    """Which label each prediction takes at each of `DISTANCES_M`, -1 for none: ``(P, D)`` of distances ``(P, G)`` in order."""
    taken = np.full((len(distance), len(DISTANCES_M)), -1, dtype=np.int64)
    for column, limit in enumerate(DISTANCES_M):
        free = distance.copy()
        for row in np.flatnonzero(distance.min(axis=1) < limit):
            nearest = int(free[row].argmin())
            if free[row, nearest] < limit:
                taken[row, column] = nearest
                free[:, nearest] = np.inf
    return taken


def _errors(labels: _Table, own: IntArray, answers: _Table, theirs: IntArray, number: int) -> FloatArray:
    """``(M, 5)`` of matched pairs."""
    smaller = np.minimum(labels.sizes_m[own], answers.sizes_m[theirs]).prod(axis=1)
    union = labels.sizes_m[own].prod(axis=1) + answers.sizes_m[theirs].prod(axis=1) - smaller
    period = np.pi if CLASSES[number] == "barrier" else 2.0 * np.pi
    turn = (labels.yaws_rad[own] - answers.yaws_rad[theirs] + period / 2) % period - period / 2
    attribute = np.where(
        labels.attributes[own] < 0, np.nan, (labels.attributes[own] != answers.attributes[theirs]).astype(np.float64)
    )
    return np.stack(
        [
            np.linalg.norm(labels.centers_m[own] - answers.centers_m[theirs], axis=1),
            1.0 - smaller / union,
            np.abs(turn),
            np.linalg.norm(labels.velocities_mps[own] - answers.velocities_mps[theirs], axis=1),
            attribute,
        ],
        axis=1,
    )


def _class_values(ranked: _Ranked, weight: FloatArray) -> tuple[float, FloatArray]:
    """AP, mean over the distances, and the five errors of one class."""
    labels = float(weight @ ranked.labels)
    each = weight[ranked.frames]
    here = each > 0
    scores, each = ranked.scores[here], each[here]
    aps, errors = [], np.ones(len(ERRORS))
    for column in range(len(DISTANCES_M)):
        hits = ranked.hits[here, column]
        if not labels or not hits.any():
            aps.append(0.0)
            continue
        right = np.cumsum(each * hits)
        recall = right / labels
        precision = np.interp(_RECALLS, recall, right / np.cumsum(each), right=0.0)
        aps.append(float(np.maximum(precision[_FIRST:] - _LEAST_PRECISION, 0.0).mean()) / (1.0 - _LEAST_PRECISION))
        if column == _ERROR_DISTANCE:
            at_recall = np.interp(_RECALLS, recall, scores, right=0.0)
            drawn = here[ranked.hits[:, column]]
            errors = _mean_errors(at_recall, scores[hits], ranked.errors[drawn], each[hits])
    return float(np.mean(aps)), errors


def _mean_errors(at_recall: FloatArray, scores: FloatArray, errors: FloatArray, weight: FloatArray) -> FloatArray:
    """Each error, averaged over the recalls that are reached: of scores by recall ``(101,)`` and matches by falling score."""
    last = int(np.flatnonzero(at_recall)[-1]) if at_recall.any() else 0
    found = np.ones(len(ERRORS))
    if last < _FIRST:
        return found
    for number, column in enumerate(errors.T):
        known = ~np.isnan(column)
        if not known.any():
            continue
        count = np.cumsum(weight * known)
        total = np.cumsum(np.where(known, column, 0.0) * weight)
        running = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        by_recall = np.interp(at_recall[::-1], scores[::-1], running[::-1])[::-1]
        found[number] = by_recall[_FIRST : last + 1].mean()
    return found
