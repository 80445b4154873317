"""Masks of referred objects: cIoU, gIoU, and the boundary F-measure.

Definition (referring and reasoning segmentation; LISA, GRES). For expression i with intersection I_i and union U_i in pixels:

- **gIoU**: mean over expressions of I_i / U_i; where neither mask has a pixel it is 1 (rightly nothing), the gRefCOCO rule;
- **cIoU**: sum I_i / sum U_i, which favours large objects;
- **N-acc.** and **T-acc.** (GRES): share of expressions without a target that got no mask, and with a target that got one;
- **Pr@t**: share of expressions with a target whose IoU is at least t.

Boundary F (DAVIS; Perazzi et al., 2016): precision and recall of the masks' contours within a tolerance of 0.8 % of the picture's
diagonal, see `training.metrics.boundary`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.metrics.boundary import contour, f_measure
from training.metrics.intervals import ratio

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

BOUNDARY_TOLERANCE = 0.008  # of the diagonal


def referred_row(truth: BoolArray, predicted: BoolArray) -> FloatArray:
    """One expression's row ``(11,)``:

    intersection, union, IoU (1 if both are empty), 1; without target, of these rightly empty; with target, of these not empty;
    IoU >= 0.5, 0.7, 0.9 of those with a target.

    Args:
        truth: ``(H, W)`` labelled mask; empty: the expression names nothing in the picture.
        predicted: ``(H, W)`` predicted mask.
    """
    common, union = float(np.sum(truth & predicted)), float(np.sum(truth | predicted))
    target, answered = bool(truth.any()), bool(predicted.any())
    iou = common / union if union else 1.0
    good = [float(target and iou >= t) for t in (0.5, 0.7, 0.9)]
    return np.array([common, union, iou, 1.0, not target, not target and not answered, target, target and answered, *good])


def c_iou(rows: FloatArray) -> FloatArray:
    """Cumulative IoU of summed rows."""
    return ratio(rows[..., 0], rows[..., 1])


def g_iou(rows: FloatArray) -> FloatArray:
    """Mean IoU over expressions of summed rows."""
    return ratio(rows[..., 2], rows[..., 3])


def no_target_accuracy(rows: FloatArray) -> FloatArray:
    """Share of expressions without a target that got no mask."""
    return ratio(rows[..., 5], rows[..., 4])


def target_accuracy(rows: FloatArray) -> FloatArray:
    """Share of expressions with a target that got a mask."""
    return ratio(rows[..., 7], rows[..., 6])


def precision_at(rows: FloatArray, threshold: float) -> FloatArray:
    """Pr@0.5, 0.7 or 0.9 of summed rows."""
    return ratio(rows[..., 8 + (0.5, 0.7, 0.9).index(threshold)], rows[..., 6])


def boundary_f(truth: BoolArray, predicted: BoolArray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """Boundary F of two ``(H, W)`` masks; ``tolerance`` is a share of the diagonal, or pixels from 1 on."""
    radius = int(tolerance) if tolerance >= 1 else int(np.ceil(tolerance * np.hypot(*truth.shape)))
    return f_measure(contour(truth), contour(predicted), radius)
