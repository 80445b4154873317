r"""Which prediction answers which label: pairwise similarities and the Hungarian assignment (supplement C.3, eq. 6-9).

| symbol | here |
|---|---|
| P, G | predictions, labels of one answer |
| b_p, b_g | boxes ``(x0, y0, x1, y1)``; the label's is the tight box of its mask |
| P_p = {q} | points of prediction p |
| M_g | mask of label g |
| IoU_pg (6) | `similarity_parts`, first |
| H_pg (7) | second: share of p's points inside M_g |
| S_pg (8) | third: clip(1 - mean |b_p - b_g| / tau_l1, 0, 1) |
| Sim (9), C = 3 - Sim | their sum; `match` maximises it, which is the least cost |

Departures: none in the equations. A prediction without a box has IoU and S of 0; one without points has H = 0, as eq. 7's
max(1, .) says. The Hungarian method pairs everything it can; pairs of similarity 0 have nothing in common and are left out, so
that they neither earn nor dilute anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics.assignment import assign
from training.metrics.detection import box_ious

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Predicted:
    """One predicted instance.

    Attributes:
        points_px: ``(m, 2)``, m may be 0.
        box_xyxy_px: ``(4,)`` or None.
        mask: ``(H, W)`` what a segmenter makes of the points and the box; None: nothing.
    """

    points_px: FloatArray
    box_xyxy_px: FloatArray | None = None
    mask: BoolArray | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """One labelled instance: ``mask (H, W)`` with at least one pixel."""

    mask: BoolArray

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or not self.mask.any():
            raise ValueError(f"label: expected an (H, W) mask with a pixel in it, got shape {self.mask.shape}")

    @property
    def box_xyxy_px(self) -> FloatArray:
        """The tight box around the mask's pixels; pixel centres are integers, so it ends half a pixel further out."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])


def inside(points_px: npt.ArrayLike, mask: BoolArray) -> BoolArray:
    """Whether each point ``(m, 2)`` lies on a pixel of the mask (the nearest one); outside the picture: no."""
    points = np.floor(np.asarray(points_px, dtype=np.float64).reshape(-1, 2) + 0.5).astype(np.int64)
    height, width = mask.shape
    visible = (points >= 0).all(axis=1) & (points[:, 0] < width) & (points[:, 1] < height)
    hit = np.zeros(len(points), dtype=bool)
    hit[visible] = mask[points[visible, 1], points[visible, 0]]
    return hit


def l1_scores(predicted_xyxy: npt.ArrayLike, label_xyxy: npt.ArrayLike, scale_px: float) -> FloatArray:
    """Eq. 8 for every pair: ``(P, G)`` from ``(P, 4)`` and ``(G, 4)`` boxes."""
    a, b = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) for boxes in (predicted_xyxy, label_xyxy))
    return np.clip(1.0 - np.abs(a[:, None] - b[None]).mean(axis=2) / scale_px, 0.0, 1.0)


def similarity_parts(predicted: Sequence[Predicted], labels: Sequence[Label], l1_scale_px: float) -> FloatArray:
    """Eq. 6, 7 and 8 of every pair: ``(3, P, G)``."""
    parts = np.zeros((3, len(predicted), len(labels)))
    if not parts.size:
        return parts
    truth = np.stack([label.box_xyxy_px for label in labels])
    for p, instance in enumerate(predicted):
        if instance.box_xyxy_px is not None:
            parts[0, p] = box_ious(instance.box_xyxy_px, truth)[0]
            parts[2, p] = l1_scores(instance.box_xyxy_px, truth, l1_scale_px)[0]
        if len(instance.points_px):
            parts[1, p] = [inside(instance.points_px, label.mask).mean() for label in labels]
    return parts


def match(similarity: FloatArray) -> tuple[IntArray, IntArray]:
    """The pairs of the Hungarian assignment with any similarity at all: predictions and their labels.

    Args:
        similarity: ``(P, G)``, eq. 9, 0 or more.
    """
    if not similarity.size:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    rows, columns = assign(similarity)
    common = similarity[rows, columns] > 0
    return rows[common], columns[common]
