"""BDD100K lane marking in both conventions that are in use; they share nothing but the name.

**Papers' lane IoU** (YOLOP and after): lane marking is one class of pixels. IoU = |P and G| / |P or G|; "accuracy" is really
recall, |P and G| / |G|. YOLOP's code averages the IoU of its test *batches* (and counts an empty batch as 0); `pixel_row` gives
sums, so that both its mean (`batch_mean_iou`, one row a batch) and the pooled IoU, which needs no batch size, can be had.

**Official** (the bdd100k toolkit): for each class of direction, style and category the boundary F-measure of its pixels:
precision = share of predicted pixels within r px of a labelled one, recall the reverse, F = 2PR / (P + R), for r = 1, 2, 5 px. A
class that is in neither picture scores 1, in one only 0. Mean over pictures, then over the classes of a task, then over the three
tasks, times 100. Masks are bytes: bits 0-2 category, bit 3 background, bit 4 style, bit 5 direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.metrics.intervals import ratio

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]

RADII_PX = (1, 2, 5)
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


def batch_mean_iou(rows: npt.ArrayLike, sizes: npt.ArrayLike) -> float:
    """YOLOP's number: the mean of the batches' IoU, weighted by their pictures.

    Args:
        rows: ``(B, 3)`` `pixel_row` of each batch.
        sizes: ``(B,)`` pictures in each batch.
    """
    weights = np.asarray(sizes, dtype=np.float64)
    return float(pixel_iou(np.asarray(rows, dtype=np.float64)) @ weights / weights.sum())


def dilate(mask: BoolArray, radius_px: int) -> BoolArray:
    """Pixels at most ``radius_px`` (Euclidean, between centres) from a set one: dilation by a disc, ``(H, W)``.

    Row by row of the disc: a running count widens each row by the disc's half width there, and the rows are united.
    """
    height, width = mask.shape
    grown = np.zeros_like(mask)
    running = np.zeros((height, width + 2 * radius_px + 1), dtype=np.int32)
    np.cumsum(mask, axis=1, out=running[:, radius_px + 1 : radius_px + 1 + width])
    running[:, radius_px + 1 + width :] = running[:, radius_px + width : radius_px + width + 1]
    for dy in range(min(radius_px + 1, height)):
        half = int(np.sqrt(radius_px * radius_px - dy * dy))
        last = radius_px + half + 1
        wide = running[:, last : last + width] > running[:, radius_px - half : radius_px - half + width]
        grown[dy:] |= wide[: height - dy]
        grown[: height - dy] |= wide[dy:]
    return grown


def boundary_f(truth: BoolArray, predicted: BoolArray, radius_px: int) -> float:
    """The official F-measure of one class of one picture."""
    truth_count, predicted_count = int(truth.sum()), int(predicted.sum())
    if not truth_count or not predicted_count:
        return 1.0 if truth_count == predicted_count else 0.0
    # only the part of the picture that holds either mask matters
    rows, columns = np.any(truth | predicted, axis=1).nonzero()[0], np.any(truth | predicted, axis=0).nonzero()[0]
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    truth, predicted = truth[window], predicted[window]
    precision = float(np.sum(predicted & dilate(truth, radius_px))) / predicted_count
    recall = float(np.sum(truth & dilate(predicted, radius_px))) / truth_count
    return 2.0 * precision * recall / (precision + recall) if precision + recall else 0.0


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
            result.append([boundary_f(masks[0], masks[1], radius) for radius in RADII_PX])
    return np.array(result)


def lane_f1(rows: Sequence[FloatArray] | FloatArray) -> dict[str, FloatArray]:
    """The official numbers in per cent from `lane_row` of each picture: by task, and ``"average"``; ``(3,)`` by radius."""
    mean = 100.0 * np.mean(np.asarray(rows), axis=0)
    numbers, at = {}, 0
    for name, _, _, classes in TASKS:
        numbers[name] = mean[at : at + classes].mean(axis=0)
        at += classes
    return {**numbers, "average": np.mean(list(numbers.values()), axis=0)}
