"""CULane F1: lanes as 30 px wide strokes in a 1640x590 picture, a hit if the strokes' IoU exceeds a threshold.

Definition. Every lane is interpolated by a cubic spline and drawn ``width_px`` wide. Ground truth and predictions of a picture
are matched one to one for the greatest total IoU; a matched pair with IoU > t is a true positive, every other prediction a false
positive, every other ground truth lane a false negative. Counts are summed over all pictures:
F1 = 2 TP / (2 TP + FP + FN). F1@50 has t = 0.5, F1@75 t = 0.75, mF1 is the mean of F1 over t = 0.50, 0.55 ... 0.95.

Two evaluators are in use, and they differ in the last digits; ``convention`` chooses:

- ``"culane"``: the benchmark's C++ (X. Pan, SCNN): natural cubic spline, 50 samples a segment, coordinates *rounded* to pixels,
  edges of the matching counted as tight within 0.01.
- ``"clrnet"``: the Python port that CLRNet and its successors report (and that introduced mF1): SciPy's interpolating spline,
  5 samples a segment, coordinates *truncated*, exact matching.

Departures, all on input where the originals break: repeated points are dropped (the C++ divides by zero, SciPy raises); two
lanes outside the picture have IoU 0 (NaN in the originals); a set without any true positive has F1 0 (the C++ prints NaN).
Lanes of other picture sizes are scaled to 1640x590 first. Strokes are those of OpenCV 2 to 4; OpenCV 5 draws a segment that
leaves the picture a few pixels differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.metrics.assignment import assign, assign_culane
from training.metrics.raster import common_pixels, polyline_runs
from training.metrics.spline import drop_repeated, natural_spline, not_a_knot_spline

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Convention = Literal["culane", "clrnet"]

PICTURE_WH = (1640, 590)
WIDTH_PX = 30
THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))  # column 0 is F1@50, column 5 is F1@75


def scale_points(points_px: npt.ArrayLike, from_wh: tuple[int, int], to_wh: tuple[int, int]) -> FloatArray:
    """Pixel coordinates of one picture size in another; integer coordinates are pixel centres in both."""
    scale = np.array(to_wh, dtype=np.float64) / np.array(from_wh, dtype=np.float64)
    return (np.asarray(points_px, dtype=np.float64).reshape(-1, 2) + 0.5) * scale - 0.5


def lane_pixels(points_px: npt.ArrayLike, convention: Convention = "culane") -> IntArray:
    """The whole-pixel polyline that is drawn for a lane; empty for fewer than two points."""
    points = drop_repeated(points_px)
    if len(points) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    if convention == "culane":
        return np.rint(natural_spline(points)).astype(np.int64)
    return np.trunc(not_a_knot_spline(points)).astype(np.int64)


def stroke_ious(
    truth_px: Sequence[npt.ArrayLike],
    predicted_px: Sequence[npt.ArrayLike],
    size_wh: tuple[int, int] = PICTURE_WH,
    width_px: int = WIDTH_PX,
    convention: Convention = "culane",
) -> FloatArray:
    """IoU of every drawn ground truth lane with every drawn prediction: ``(G, P)``; 0 where nothing is drawn.

    Args:
        truth_px: G lanes ``(N, 2)``, pixels of the picture of ``size_wh``.
        predicted_px: P lanes, likewise.
        size_wh: the picture that is drawn in.
        width_px: stroke width.
        convention: whose spline and rounding.
    """
    truth, predicted = (
        [polyline_runs(lane_pixels(lane, convention), size_wh, width_px) for lane in lanes] for lanes in (truth_px, predicted_px)
    )
    areas = [np.array([np.sum(r[2] - r[1] + 1) for r in runs], dtype=np.float64) for runs in (truth, predicted)]
    common = np.array([[common_pixels(t, p, size_wh[0]) for p in predicted] for t in truth], dtype=np.float64)
    common = common.reshape(len(truth), len(predicted))
    union = areas[0][:, None] + areas[1][None] - common
    return np.where(union > 0, common / np.maximum(union, 1.0), 0.0)


def match_lanes(
    truth_px: Sequence[npt.ArrayLike],
    predicted_px: Sequence[npt.ArrayLike],
    image_size_wh: tuple[int, int] = PICTURE_WH,
    convention: Convention = "culane",
) -> tuple[IntArray, IntArray, FloatArray]:
    """Matched pairs of one picture, whatever their IoU: indices of ground truth, of predictions, and the IoUs.

    Args:
        truth_px: G lanes ``(N, 2)``, pixels of the image.
        predicted_px: P lanes, likewise.
        image_size_wh: size of the image that the lanes belong to; scaled to 1640x590.
        convention: which of the two evaluators to follow.
    """
    if tuple(image_size_wh) != PICTURE_WH:
        truth_px = [scale_points(lane, image_size_wh, PICTURE_WH) for lane in truth_px]
        predicted_px = [scale_points(lane, image_size_wh, PICTURE_WH) for lane in predicted_px]
    ious = stroke_ious(truth_px, predicted_px, convention=convention)
    if not ious.size:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    rows, columns = assign_culane(ious) if convention == "culane" else assign(ious)
    return rows, columns, ious[rows, columns]


def culane_counts(
    truth_px: Sequence[npt.ArrayLike],
    predicted_px: Sequence[npt.ArrayLike],
    image_size_wh: tuple[int, int] = PICTURE_WH,
    thresholds: Sequence[float] = THRESHOLDS,
    convention: Convention = "culane",
) -> IntArray:
    """True positives, false positives, false negatives of one picture at each threshold: ``(T, 3)``; see `match_lanes`."""
    _, _, ious = match_lanes(truth_px, predicted_px, image_size_wh, convention)
    hits = (ious[None] > np.asarray(thresholds)[:, None]).sum(axis=1)
    return np.stack([hits, len(predicted_px) - hits, len(truth_px) - hits], axis=1)


def f1_at(counts: FloatArray, index: int) -> FloatArray:
    """F1 at one threshold from summed `culane_counts`, ``(..., T, 3)``; 0 without a true positive, as the Python port."""
    tp, fp, fn = counts[..., index, 0], counts[..., index, 1], counts[..., index, 2]
    total = 2.0 * tp + fp + fn
    return np.where(total > 0, 2.0 * tp / np.maximum(total, 1.0), 0.0)


def mean_f1(counts: FloatArray) -> FloatArray:
    """mF1: the mean of F1 over the thresholds of summed `culane_counts`, ``(..., T, 3)``."""
    return np.asarray(np.mean([f1_at(counts, index) for index in range(counts.shape[-2])], axis=0))
