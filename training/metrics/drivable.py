"""Drivable area: how well the predicted polygons cover the labelled ones, in pixels of the image.

Definition. Ground truth and prediction are filled (`raster.fill_polygons`: a pixel counts if its centre is inside; several
polygons are united). For picture i with intersection I_i and union U_i:

- **pooled IoU** (the headline): sum I_i / sum U_i over all pictures. It weighs every pixel alike, needs no rule for pictures
  without any area, and is the drivable class's IoU as segmentation benchmarks compute it.
- **mean IoU over pictures**: mean of I_i / U_i; a picture with neither label nor prediction counts 1 (it is right). It shows
  failures on pictures with little road, which pooling hides.
- **mIoU** as in BDD100K papers: mean of the pooled IoU of the drivable class and of the background.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.metrics.intervals import ratio
from training.metrics.raster import fill_polygons

FloatArray = npt.NDArray[np.float64]


def region_row(truth_px: Sequence[npt.ArrayLike], predicted_px: Sequence[npt.ArrayLike], size_wh: tuple[int, int]) -> FloatArray:
    """One picture's row ``(6,)``: intersection, union, the same two of the background (pixels), the picture's IoU, and 1.

    Args:
        truth_px: labelled polygons ``(N, 2)``, pixels.
        predicted_px: predicted polygons, likewise.
        size_wh: picture size, pixels.
    """
    return mask_row(fill_polygons(truth_px, size_wh), fill_polygons(predicted_px, size_wh))


def mask_row(truth: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]) -> FloatArray:
    """`region_row` of two ``(H, W)`` masks."""
    common, union = float(np.sum(truth & predicted)), float(np.sum(truth | predicted))
    return np.array([common, union, truth.size - union, truth.size - common, common / union if union else 1.0, 1.0])


def pooled_iou(rows: FloatArray) -> FloatArray:
    """Pooled IoU of summed rows ``(..., 6)``; NaN where there is neither label nor prediction."""
    return ratio(rows[..., 0], rows[..., 1])


def mean_iou(rows: FloatArray) -> FloatArray:
    """Mean over pictures of each picture's IoU, from summed rows ``(..., 6)``."""
    return ratio(rows[..., 4], rows[..., 5])


def class_mean_iou(rows: FloatArray) -> FloatArray:
    """Mean of the pooled IoU of drivable area and of background, from summed rows ``(..., 6)``."""
    return (ratio(rows[..., 0], rows[..., 1]) + ratio(rows[..., 2], rows[..., 3])) / 2.0
