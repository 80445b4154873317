"""BDD100K: lane marking in both conventions that are in use (they share nothing but the name), drivable classes, vehicles.

**Papers' lane IoU** (YOLOP and after): lane marking is one class of pixels. IoU = |P and G| / |P or G|; "accuracy" is really
recall, |P and G| / |G|. YOLOP's code averages the IoU of its test *batches* (and counts an empty batch as 0); `pixel_row` gives
sums, so that both its mean (of rows of a batch each; for batches of one, the mean over pictures that is reported) and the pooled
IoU, which needs no batch size, can be had.

**Official** (the bdd100k toolkit): for each class of direction, style and category the boundary F-measure of its pixels:
precision = share of predicted pixels within r px of a labelled one, recall the reverse, F = 2PR / (P + R), for r = 1, 2, 5 px. A
class that is in neither picture scores 1, in one only 0. Mean over pictures, then over the classes of a task, then over the three
tasks. Masks are bytes: bits 0-2 category, bit 3 background, bit 4 style, bit 5 direction.

**Drivable area, official** (the toolkit's ``seg.py``): IoU of the direct (0) and the alternative (1) class. Pixels labelled as
background (2) are *not looked at*, so area that is predicted there costs nothing; `training.metrics.drivable` has the papers'
number, which counts it. mIoU is the mean over the classes that the labels have.

**Vehicles, papers** (YOLOP and after): car, truck, bus and train are one class, "vehicle". Every prediction, by falling
confidence, is a hit if the label with the greatest IoU has IoU > 0.5 and is not taken (COCO would try the next label). AP is
the area under the interpolated precision envelope at 101 recalls by the trapezoidal rule, with precision 1 at recall 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from training.metrics.boundary import f_measure
from training.metrics.detection import Boxes, ScoredHits, paired_ious
from training.metrics.intervals import ratio
from training.metrics.raster import draw_polyline

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]

RADII_PX = (1, 2, 5)
STROKES_PX = (8, 2)  # lines are drawn 8 px wide to train on and 2 px to test on in YOLOP and after, at 1280x720
DRIVABLE = ("direct", "alternative")  # values 0 and 1 of the masks; 2 is background, 255 ignored
VEHICLES = ("car", "truck", "bus", "train")
PAIRS_AT_ONCE = 1 << 20  # of boxes, to keep memory small
LANE_BACKGROUND = 255
# (name, first bit, bits, classes)
TASKS = (("direction", 5, 1, 2), ("style", 4, 1, 2), ("category", 0, 3, 8))


def pixel_row(truth: BoolArray, predicted: BoolArray) -> FloatArray:
    """``(3,)``: pixels in common, in either, in the label; of one picture or one batch, any equal shapes."""
    return np.array([np.sum(truth & predicted), np.sum(truth | predicted), np.sum(truth)], dtype=np.float64)


def pixel_iou(rows: FloatArray) -> FloatArray:
    """Pooled lane IoU of summed `pixel_row` ``(..., 3)``; 0 where there is nothing at all, as in YOLOP."""
    return ratio(rows[..., 0], rows[..., 1], 0.0)


def pixel_recall(rows: FloatArray) -> FloatArray:
    """Papers' lane "accuracy" of summed `pixel_row` ``(..., 3)``; 0 without labels."""
    return ratio(rows[..., 0], rows[..., 2], 0.0)


def lane_mask(lanes: Sequence[tuple[npt.ArrayLike, str, str]], size_wh: tuple[int, int]) -> ByteArray:
    """Lane lines as the data set encodes them, 2 px wide and along the road; a line's middle, where the labels have both edges.

    Args:
        lanes: polyline ``(N, 2)`` in pixels, type (``solid``, ``dashed``, ``double``) and colour (``white``, ``yellow``) of each.
        size_wh: of the picture.
    """
    mask = np.full((size_wh[1], size_wh[0]), LANE_BACKGROUND, dtype=np.uint8)
    for points_px, kind, color in lanes:
        category = (2 if kind == "double" else 6) + (color == "yellow")  # white, then yellow
        mask[lane_pixels([points_px], size_wh, 2)] = category + ((kind == "dashed") << 4)
    return mask


def lane_pixels(lanes_px: Sequence[npt.ArrayLike], size_wh: tuple[int, int], width_px: int) -> BoolArray:
    """``(H, W)``: the pixels of lane lines drawn ``width_px`` wide, as papers make masks of the labelled lines."""
    drawn = np.zeros((size_wh[1], size_wh[0]), dtype=bool)
    for points_px in lanes_px:
        drawn |= draw_polyline(np.rint(np.asarray(points_px, dtype=np.float64)).astype(np.int64), size_wh, width_px)
    return drawn


def lane_row(truth: ByteArray, predicted: ByteArray) -> FloatArray:
    """``(12, 3)`` F of one picture: classes of direction (2), style (2), category (8) by radius 1, 2, 5 px.

    Args:
        truth: ``(H, W)`` bytes as the data set encodes them.
        predicted: likewise.
    """
    result = []
    drawn = [(mask >> 3 & 1) == 0 for mask in (truth, predicted)]
    for _, first_bit, bits, classes in TASKS:
        codes = [mask >> first_bit & ((1 << bits) - 1) for mask in (truth, predicted)]
        for value in range(classes):
            masks = [(code == value) & lane for code, lane in zip(codes, drawn, strict=True)]
            result.append([f_measure(masks[0], masks[1], radius) for radius in RADII_PX])
    return np.array(result)


def lane_f1(mean: FloatArray) -> dict[str, FloatArray]:
    """The official numbers from the mean over pictures of `lane_row`, ``(..., 12, 3)``.

    Returns:
        By task, and ``"average"``: ``(..., 3)`` by radius, as shares (the toolkit prints per cent).
    """
    numbers, at = {}, 0
    for name, _, _, classes in TASKS:
        numbers[name] = mean[..., at : at + classes, :].mean(axis=-2)
        at += classes
    return {**numbers, "average": np.mean(list(numbers.values()), axis=0)}


def drivable_row(truth: ByteArray, predicted: ByteArray) -> FloatArray:
    """One picture's confusion ``(6,)``: labelled direct, alternative by predicted direct, alternative, neither.

    Args:
        truth: ``(H, W)`` bytes: 0 direct, 1 alternative, 2 and above not looked at.
        predicted: likewise; 2 and above is neither.
    """
    looked_at = truth < len(DRIVABLE)
    codes = 3 * truth[looked_at].astype(np.int64) + np.minimum(predicted[looked_at], 2)
    return np.bincount(codes, minlength=6)[:6].astype(np.float64)


def drivable_ious(rows: FloatArray) -> FloatArray:
    """IoU of the two classes of summed `drivable_row`, ``(..., 6)``: ``(..., 2)``; 0 for a class that is nowhere."""
    matrix = rows.reshape(*rows.shape[:-1], 2, 3)
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    return ratio(right, matrix.sum(axis=-1) + matrix[..., :2].sum(axis=-2) - right, 0.0)


def drivable_miou(rows: FloatArray) -> FloatArray:
    """Mean over the classes that are labelled somewhere, of summed `drivable_row`, ``(..., 6)``; NaN without any."""
    labelled = rows.reshape(*rows.shape[:-1], 2, 3).sum(axis=-1) > 0
    return ratio((drivable_ious(rows) * labelled).sum(axis=-1), labelled.sum(axis=-1))


def vehicle_hits(truth: Sequence[Boxes], predicted: Sequence[Boxes]) -> ScoredHits:
    """Papers' matching of the vehicles of N pictures."""
    gt_xyxy, gt_pictures, _ = _vehicles(truth)
    dt_xyxy, dt_pictures, confidences = _vehicles(predicted)
    order = np.lexsort((-confidences, dt_pictures))
    dt_xyxy, dt_pictures, confidences = dt_xyxy[order], dt_pictures[order], confidences[order]
    labels = np.bincount(gt_pictures, minlength=len(truth))
    first_label = np.cumsum(labels) - labels
    takers, taken = [], []
    for part in _parts(labels[dt_pictures]):
        partners = labels[dt_pictures[part]]
        ends = np.cumsum(partners)
        dt = np.repeat(np.arange(part.start, part.stop), partners)
        gt = np.arange(ends[-1]) + np.repeat(first_label[dt_pictures[part]] - ends + partners, partners)
        ious = paired_ious(dt_xyxy[dt], gt_xyxy[gt])
        best = np.maximum.reduceat(ious, (ends - partners)[partners > 0]) if len(ious) else ious
        found = np.flatnonzero((ious > 0.5) & (ious == np.repeat(best, partners[partners > 0])))
        found = found[np.diff(dt[found], prepend=-1) > 0]  # of labels equally near the first
        takers.append(dt[found])
        taken.append(gt[found])
    hits = np.zeros(len(confidences), dtype=bool)
    if takers:
        hits[np.concatenate(takers)[np.unique(np.concatenate(taken), return_index=True)[1]]] = True
    return ScoredHits(confidences, hits, dt_pictures, labels.astype(np.float64))


def _vehicles(pictures: Sequence[Boxes]) -> tuple[FloatArray, npt.NDArray[np.int64], FloatArray]:
    """Boxes, picture numbers and confidences of all vehicles."""
    keep = np.array([name in VEHICLES for boxes in pictures for name in boxes.classes], dtype=bool)
    numbers = np.repeat(np.arange(len(pictures)), [len(boxes.classes) for boxes in pictures])
    xyxy_px = np.concatenate([np.zeros((0, 4)), *(boxes.xyxy_px for boxes in pictures)])
    confidences = np.concatenate([np.zeros(0), *(boxes.confidences for boxes in pictures)])
    return xyxy_px[keep], numbers[keep], confidences[keep]


def _parts(costs: npt.NDArray[np.int64]) -> list[slice]:
    """Cuts a list where its summed costs pass multiples of `PAIRS_AT_ONCE`."""
    cuts = np.flatnonzero(np.diff(np.cumsum(costs) // PAIRS_AT_ONCE)) + 1
    ends = [0, *cuts.tolist(), len(costs)]
    return [slice(start, end) for start, end in pairwise(ends) if end > start]


def vehicle_ap50(scored: ScoredHits, weights: npt.ArrayLike | None = None) -> float:
    """Papers' vehicle mAP50 of `vehicle_hits`; NaN without vehicles, 0 without predictions.

    Args:
        scored: the matched predictions.
        weights: ``(N,)`` how often each picture counts (a bootstrap draw); one each by default.
    """
    weight = np.ones(len(scored.truth)) if weights is None else np.asarray(weights, dtype=np.float64)
    total = float(weight @ scored.truth)
    order = np.argsort(-scored.confidences, kind="stable")
    each = weight[scored.pictures[order]]
    each, hits = each[each > 0], scored.hits[order][each > 0]
    if not total or not len(each):
        return 0.0 if total else float("nan")
    true = np.cumsum(each * hits)
    recalls = np.concatenate([[0.0], true / total, [true[-1] / total + 0.01]])
    precisions = np.concatenate([[1.0], true / np.cumsum(each), [0.0]])
    envelope = np.maximum.accumulate(precisions[::-1])[::-1]
    at = np.linspace(0.0, 1.0, 101)
    values = np.interp(at, recalls, envelope)
    return float(np.sum((values[1:] + values[:-1]) / 2.0 * np.diff(at)))
