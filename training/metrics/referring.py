"""Referring expression comprehension: Acc@0.5 and Acc@0.8, the share of expressions whose box has at least that IoU.

Definition. One box is asked for and at most one counts (the first): it is right at t if IoU >= t. No box, or a malformed one, is
wrong. Benchmarks' code writes ``iou >= 0.5`` (MDETR, LISA's REC tables) or ``> 0.5`` (older); they differ only at exact ties.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.metrics.detection import box_ious
from training.metrics.intervals import ratio

FloatArray = npt.NDArray[np.float64]

THRESHOLDS = (0.5, 0.8)


def rec_row(truth_xyxy: npt.ArrayLike, predicted_xyxy: npt.ArrayLike | None) -> FloatArray:
    """One expression's row ``(3,)``: right at 0.5, right at 0.8, 1.

    Args:
        truth_xyxy: ``(4,)`` labelled box, pixels.
        predicted_xyxy: ``(4,)`` predicted box, or None.
    """
    box = np.zeros(4) if predicted_xyxy is None else np.asarray(predicted_xyxy, dtype=np.float64).reshape(-1)
    valid = box.shape == (4,) and bool(np.isfinite(box).all()) and box[0] < box[2] and box[1] < box[3]
    iou = float(box_ious(np.asarray(truth_xyxy), box)[0, 0]) if valid else 0.0
    return np.array([*(float(iou >= t) for t in THRESHOLDS), 1.0])


def accuracy_at(rows: FloatArray, threshold: float) -> FloatArray:
    """Acc@0.5 or Acc@0.8 of summed rows ``(..., 3)``."""
    return ratio(rows[..., THRESHOLDS.index(threshold)], rows[..., 2])
