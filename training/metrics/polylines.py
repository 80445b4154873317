"""Precision, recall and F1 of lane polylines, as in the paper's table 5, with the matching rule that it leaves open.

Source: GETok (arXiv 2512.10554), table 5; the data and the rule are private. **Our rule, and why.** Lanes are resampled evenly
along their length (`SAMPLES` points). The distance of two lanes is symmetric: the greater of the two mean distances from the
points of one to the nearest point of the other's *line* (so that a short prediction lying on a long lane does not pass, as it
would one way only; the mean rather than the maximum, so that one bent end does not fail a lane that is right elsewhere).
Predictions and labels are matched one to one, as many as possible within `TOLERANCE` of the image's width, then the nearest
(Hungarian). Matched pairs are true positives; F1 over the counts of all pictures. The tolerance, 1.5 % of the width, is about
half of a grid cell of 1/32: a representation that only knows cells can just pass, a better one is not rewarded twice. Unlike
CULane's rule, it needs no drawing, and a lane's length counts at any width of stroke.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.metrics.assignment import assign_within

FloatArray = npt.NDArray[np.float64]

SAMPLES = 64
TOLERANCE = 0.015  # of the image width


def resample(points_px: npt.ArrayLike, count: int = SAMPLES) -> FloatArray:
    """``count`` points evenly spaced along a polyline ``(N, 2)``, both ends included; a line without length repeats its point."""
    points = np.asarray(points_px, dtype=np.float64).reshape(-1, 2)
    along = np.append(0.0, np.cumsum(np.hypot(*np.diff(points, axis=0).T)))
    at = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(at, along, points[:, axis]) for axis in (0, 1)], axis=1)


def distances_to_line(points_px: npt.ArrayLike, line_px: npt.ArrayLike) -> FloatArray:
    """Distance of each point ``(N, 2)`` to the nearest point of a polyline ``(M >= 1, 2)``, pixels: ``(N,)``."""
    points, line = np.asarray(points_px, dtype=np.float64), np.asarray(line_px, dtype=np.float64)
    if len(line) == 1:
        return np.asarray(np.hypot(*(points - line[0]).T))
    start, step = line[:-1], np.diff(line, axis=0)
    length2 = np.maximum(np.sum(step**2, axis=1), np.finfo(np.float64).tiny)
    t = np.clip(np.einsum("nmk,mk->nm", points[:, None] - start[None], step) / length2, 0.0, 1.0)
    nearest = start[None] + t[..., None] * step[None]
    return np.asarray(np.sqrt(np.sum((points[:, None] - nearest) ** 2, axis=2)).min(axis=1))


def lane_distances(truth_px: Sequence[npt.ArrayLike], predicted_px: Sequence[npt.ArrayLike]) -> FloatArray:
    """Symmetric mean distance of every label to every prediction, pixels: ``(G, P)``."""
    truth, predicted = (
        [np.asarray(lane, dtype=np.float64).reshape(-1, 2) for lane in lanes] for lanes in (truth_px, predicted_px)
    )
    even = [[resample(lane) for lane in lanes] for lanes in (truth, predicted)]
    result = np.zeros((len(truth), len(predicted)))
    for g, gt in enumerate(truth):
        for p, dt in enumerate(predicted):
            there = distances_to_line(even[0][g], dt).mean()
            back = distances_to_line(even[1][p], gt).mean()
            result[g, p] = max(there, back)
    return result


def polyline_counts(
    truth_px: Sequence[npt.ArrayLike], predicted_px: Sequence[npt.ArrayLike], image_width_px: float, tolerance: float = TOLERANCE
) -> FloatArray:
    """``(TP, FP, FN)`` of one picture.

    Args:
        truth_px: labelled lanes ``(N, 2)``, pixels.
        predicted_px: predicted lanes, likewise.
        image_width_px: width of the picture.
        tolerance: greatest distance of a match as a share of the width.
    """
    rows, _ = assign_within(lane_distances(truth_px, predicted_px), tolerance * image_width_px)
    return np.array([len(rows), len(predicted_px) - len(rows), len(truth_px) - len(rows)], dtype=np.float64)
