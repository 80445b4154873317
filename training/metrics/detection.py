"""Boxes: F1 at an IoU threshold, and average precision as COCO and Pascal VOC (2010 on) define it.

Definition of F1. Within a picture predictions and ground truth are matched one to one so that as many pairs as possible have
IoU >= t (ties: greatest total IoU). Matched pairs are true positives, the other predictions false positives, the other ground
truth false negatives; counts are summed over pictures; F1 = 2 TP / (2 TP + FP + FN). *Class-aware* (the headline): only boxes of
one class may match. *Class-agnostic*: all may.

Size filter, as COCO's area ranges work: ground truth shorter than ``min_height_px`` is *ignored*: missing it costs nothing, and a
prediction that matches it (only) counts neither way. An unmatched prediction that is itself shorter counts neither way, too.

Definition of AP. Predictions of all pictures in order of falling confidence; each takes the free ground truth box of its picture
with the highest IoU >= t, counted ground truth before ignored. Precision over recall is made monotone from the right; AP is
its mean at recall 0, 0.01 ... 1 (``"coco"``) or its area (``"voc"``). mAP is the mean over classes that have ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.metrics.assignment import assign_within

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Interpolation = Literal["coco", "voc"]

COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes of one picture.

    Attributes:
        xyxy_px: ``(N, 4)``, x0 < x1 and y0 < y1.
        classes: N class names.
        confidences: ``(N,)``; ones for ground truth.
    """

    xyxy_px: FloatArray
    classes: tuple[str, ...]
    confidences: FloatArray

    @staticmethod
    def of(xyxy_px: npt.ArrayLike, classes: Sequence[str], confidences: npt.ArrayLike | None = None) -> Boxes:
        """Boxes from anything array-like; confidence 1 unless given."""
        xyxy = np.asarray(xyxy_px, dtype=np.float64).reshape(-1, 4)
        scores = np.ones(len(xyxy)) if confidences is None else np.asarray(confidences, dtype=np.float64).reshape(-1)
        if not len(xyxy) == len(classes) == len(scores):
            raise ValueError(f"boxes: {len(xyxy)} boxes, {len(classes)} classes, {len(scores)} confidences")
        return Boxes(xyxy, tuple(classes), scores)

    def only(self, class_name: str | None) -> Boxes:
        """Those of one class; all for None."""
        if class_name is None:
            return self
        keep = np.array([name == class_name for name in self.classes], dtype=bool)
        return Boxes(self.xyxy_px[keep], (class_name,) * int(keep.sum()), self.confidences[keep])

    @property
    def heights_px(self) -> FloatArray:
        """``(N,)`` heights."""
        return self.xyxy_px[:, 3] - self.xyxy_px[:, 1]


def paired_ious(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """IoU of boxes ``(..., 4)`` with others, one by one (shapes broadcast): ``(...)``; extents are x1 - x0, without a +1."""
    overlap = np.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - np.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    common = np.prod(np.maximum(overlap, 0.0), axis=-1)
    areas_a, areas_b = (np.prod(xyxy[..., 2:] - xyxy[..., :2], axis=-1) for xyxy in (a_xyxy, b_xyxy))
    union = areas_a + areas_b - common
    return np.where(union > 0, common / np.where(union > 0, union, 1.0), 0.0)


def box_ious(a_xyxy: npt.ArrayLike, b_xyxy: npt.ArrayLike) -> FloatArray:
    """IoU of every box of ``a (N, 4)`` with every box of ``b (M, 4)``: ``(N, M)``, see `paired_ious`."""
    a, b = np.asarray(a_xyxy, dtype=np.float64).reshape(-1, 4), np.asarray(b_xyxy, dtype=np.float64).reshape(-1, 4)
    return paired_ious(a[:, None], b[None])


def _pairs(ious: FloatArray, threshold: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """As many pairs as possible with ``iou >= threshold``."""
    return assign_within(np.where(ious >= threshold, 1.0 - ious, np.inf), 1.0)


def box_hits(truth: Boxes, predicted: Boxes, threshold: float = 0.5) -> npt.NDArray[np.int64]:
    """For each prediction the index of the ground truth box of its class that it matches, -1 for none: ``(P,)``."""
    ious = box_ious(truth.xyxy_px, predicted.xyxy_px)
    same = np.array([[t == p for p in predicted.classes] for t in truth.classes], dtype=bool).reshape(ious.shape)
    rows, columns = _pairs(np.where(same, ious, -1.0), threshold)
    match = np.full(len(predicted.classes), -1, dtype=np.int64)
    match[columns] = rows
    return match


def detection_counts(
    truth: Boxes, predicted: Boxes, threshold: float = 0.5, min_height_px: float = 0.0, max_height_px: float = np.inf
) -> FloatArray:
    """``(TP, FP, FN)`` of one picture, whatever the classes; `detection_counts_by_class` for class-aware counts."""
    ious = box_ious(truth.xyxy_px, predicted.xyxy_px)
    counted = (truth.heights_px >= min_height_px) & (truth.heights_px < max_height_px)
    rows, columns = _pairs(ious[counted], threshold)
    free = np.ones(len(predicted.xyxy_px), dtype=bool)
    free[columns] = False
    excused = (predicted.heights_px < min_height_px) | (predicted.heights_px >= max_height_px)
    left_over = np.flatnonzero(free)
    _, neutral = _pairs(ious[np.ix_(~counted, left_over)], threshold)
    free[left_over[neutral]] = False
    return np.array([len(rows), np.sum(free & ~excused), counted.sum() - len(rows)], dtype=np.float64)


def detection_counts_by_class(
    truth: Boxes, predicted: Boxes, classes: Sequence[str], threshold: float = 0.5, min_height_px: float = 0.0,
    max_height_px: float = np.inf,
) -> FloatArray:  # fmt: skip
    """``(C, 3)`` rows of (TP, FP, FN) of one picture, one a class; their sum is the class-aware count."""
    present = {*truth.classes, *predicted.classes}
    counts = np.zeros((len(classes), 3))
    for index, name in enumerate(classes):
        if name in present:
            counts[index] = detection_counts(truth.only(name), predicted.only(name), threshold, min_height_px, max_height_px)
    return counts


@dataclass(frozen=True, slots=True)
class ScoredHits:
    """All predictions of a set after matching at one threshold, for precision-recall curves.

    Attributes:
        confidences: ``(D,)``.
        hits: ``(D,)`` true positives; predictions that count neither way are left out.
        pictures: ``(D,)`` index of each prediction's picture.
        truth: ``(N,)`` counted ground truth boxes of each picture.
    """

    confidences: FloatArray
    hits: BoolArray
    pictures: npt.NDArray[np.int64]
    truth: FloatArray


def match_by_confidence(
    truth: Sequence[Boxes],
    predicted: Sequence[Boxes],
    thresholds: Sequence[float] = (0.5,),
    class_name: str | None = None,
    min_height_px: Sequence[float] | float = 0.0,
    max_height_px: Sequence[float] | float = np.inf,
) -> list[ScoredHits]:
    """COCO's greedy matching over a set of pictures (without its limit of 100 predictions a picture).

    Args:
        truth: ground truth of each of N pictures.
        predicted: predictions of the same pictures.
        thresholds: least IoU of a match; one result each.
        class_name: match this class alone; None: all classes as one.
        min_height_px: ground truth below it is ignored; one number, or one a picture.
        max_height_px: ground truth from it on is ignored, likewise.
    """
    least, most = (np.broadcast_to(np.asarray(px, dtype=np.float64), (len(truth),)) for px in (min_height_px, max_height_px))
    limits = list(zip(least.tolist(), most.tolist(), strict=True))
    confidences: list[FloatArray] = []
    pictures: list[npt.NDArray[np.int64]] = []
    states: list[list[int]] = [[] for _ in thresholds]  # of every prediction: 1 hit, 0 miss, -1 counts neither way
    counted_truth = np.zeros(len(truth))
    for picture, (all_truth, all_predicted, limit) in enumerate(zip(truth, predicted, limits, strict=True)):
        gt, dt = all_truth.only(class_name), all_predicted.only(class_name)
        counted = (gt.heights_px >= limit[0]) & (gt.heights_px < limit[1])
        counted_truth[picture] = counted.sum()
        order = np.argsort(-dt.confidences, kind="stable")
        confidences.append(dt.confidences[order])
        pictures.append(np.full(len(order), picture))
        candidates = _candidates(box_ious(dt.xyxy_px[order], gt.xyxy_px), counted, min(thresholds))
        other_size = ((dt.heights_px[order] < limit[0]) | (dt.heights_px[order] >= limit[1])).tolist()
        for threshold, state in zip(thresholds, states, strict=True):
            taken: set[int] = set()
            for index, partners in enumerate(candidates):
                for iou, box in partners:
                    if iou >= threshold and box not in taken:
                        taken.add(box)
                        state.append(1 if counted[box] else -1)
                        break
                else:
                    state.append(-1 if other_size[index] else 0)
    scores = np.concatenate([np.zeros(0), *confidences])
    of_picture = np.concatenate([np.zeros(0, dtype=np.int64), *pictures])
    results = []
    for state in states:
        kept = np.array(state, dtype=np.int64) >= 0
        results.append(ScoredHits(scores[kept], np.array(state, dtype=np.int64)[kept] == 1, of_picture[kept], counted_truth))
    return results


def _candidates(ious: FloatArray, counted: BoolArray, threshold: float) -> list[list[tuple[float, int]]]:
    """For each row of ``ious`` (P, G) its possible partners in COCO's order: counted boxes first, then by falling IoU.

    Of two equal IoUs COCO takes the later box.
    """
    partners: list[list[tuple[float, int]]] = [[] for _ in range(len(ious))]
    rows, columns = np.nonzero(ious >= threshold)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        partners[row].append((float(ious[row, column]), column))
    for choices in partners:
        choices.sort(key=lambda choice: (counted[choice[1]], choice[0], choice[1]), reverse=True)
    return partners


def average_precision(scored: ScoredHits, interpolation: Interpolation = "coco", weights: npt.ArrayLike | None = None) -> float:
    """AP of matched predictions; NaN without ground truth.

    Args:
        scored: from `match_by_confidence`.
        interpolation: ``"coco"``: mean over 101 recalls; ``"voc"``: area under the curve.
        weights: ``(N,)`` how often each picture counts (a bootstrap draw); one each by default.
    """
    weight = np.ones(len(scored.truth)) if weights is None else np.asarray(weights, dtype=np.float64)
    total = float(weight @ scored.truth)
    if total <= 0:
        return float("nan")
    order = np.argsort(-scored.confidences, kind="stable")
    each = weight[scored.pictures[order]]
    true = np.cumsum(each * scored.hits[order])
    seen = np.cumsum(each)
    curve = true / np.maximum(seen, np.finfo(np.float64).tiny)
    curve = np.maximum.accumulate(curve[::-1])[::-1]
    recalls = true / total
    if interpolation == "voc":
        return float(np.sum(np.diff(recalls, prepend=0.0) * curve)) if len(curve) else 0.0
    at = np.searchsorted(recalls, np.linspace(0.0, 1.0, 101), side="left")
    return float(np.mean(np.append(curve, 0.0)[np.minimum(at, len(curve))]))
