"""Boundary F-measure of sets of pixels within a tolerance: DAVIS scores contours of masks with it, BDD100K thin lane masks.

Definition. Precision is the share of predicted pixels that lie within r px (Euclidean, between centres) of a labelled one, recall
the reverse, F = 2PR / (P + R). Two empty sets score 1, one empty set 0.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def contour(mask: BoolArray) -> BoolArray:
    """Pixels that differ from their right, lower or lower right neighbour; the last row and column look along themselves."""
    edge = np.zeros_like(mask)
    edge[:, :-1] = mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    edge[-1, -1] = False
    return edge


def f_measure(truth: BoolArray, predicted: BoolArray, radius_px: int) -> float:
    """F of two pictures ``(H, W)`` of pixels, see the module."""
    # places count row after row, with a gap between rows so that no disc reaches from a row's end into the next
    width = truth.shape[1]
    sets = [(flat := np.flatnonzero(mask)) + flat // max(width, 1) * radius_px for mask in (truth, predicted)]
    counts = [len(places) for places in sets]
    if not all(counts):
        return float(counts[0] == counts[1])
    recall = _count_near(sets[0], sets[1], width + radius_px, radius_px) / counts[0]
    precision = _count_near(sets[1], sets[0], width + radius_px, radius_px) / counts[1]
    return 2.0 * precision * recall / (precision + recall) if precision + recall else 0.0


def _count_near(places: IntArray, others: IntArray, stride: int, radius_px: int) -> int:
    """How many places have one of the others at most ``radius_px`` away; both sorted, rows ``stride`` apart.

    For each row of the disc around a place, a table of the next one of the others tells whether there is one.
    """
    reach = radius_px * (stride + 1)
    first, last = int(places[0]) - reach, int(places[-1]) + reach
    others = others[np.searchsorted(others, first) : np.searchsorted(others, last, side="right")]
    upcoming = np.concatenate(([first - 1], others, [last + 2 * radius_px + 1]))  # the last is beyond every disc
    next_other = np.repeat(upcoming[1:], upcoming[1:] - upcoming[:-1])
    far = places
    for dy in sorted(range(-radius_px, radius_px + 1), key=abs):
        half = math.isqrt(radius_px * radius_px - dy * dy)
        start = far + (dy * stride - half)
        far = far[next_other[start - first] > start + 2 * half]
    return len(places) - len(far)
