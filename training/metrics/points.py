"""Points (signs, pointing): F1 with matching inside a radius.

Definition. Within a picture, predicted and labelled points are matched one to one so that as many pairs as possible lie at most
``radius_px`` apart (among those, the least total distance: the Hungarian method). Matched pairs are true positives, the other
predictions false positives, the other labels false negatives; F1 over the counts of all pictures. For signs the radius is 2 % of
the image *width* (both axes in pixels, so it is a circle). Class-aware: only points of one class may match (the headline);
class-agnostic: all may.

`pointing_counts` is the rule of point-in-region benchmarks instead: a point hits an object if it lies in the object's mask, each
object can be hit once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.metrics.assignment import assign, assign_within

FloatArray = npt.NDArray[np.float64]

SIGN_RADIUS = 0.02  # of the image width


def point_counts(truth_px: npt.ArrayLike, predicted_px: npt.ArrayLike, radius_px: float) -> FloatArray:
    """``(TP, FP, FN)`` of one picture.

    Args:
        truth_px: ``(G, 2)`` labelled points.
        predicted_px: ``(P, 2)`` predicted points.
        radius_px: greatest distance of a match, inclusive.
    """
    truth, predicted = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (truth_px, predicted_px))
    distances = np.linalg.norm(truth[:, None] - predicted[None], axis=2)
    hits = len(assign_within(distances, radius_px)[0])
    return np.array([hits, len(predicted) - hits, len(truth) - hits], dtype=np.float64)


def point_counts_by_class(
    truth_px: npt.ArrayLike, truth_classes: Sequence[str], predicted_px: npt.ArrayLike, predicted_classes: Sequence[str],
    classes: Sequence[str], radius_px: float,
) -> FloatArray:  # fmt: skip
    """``(C, 3)`` rows of (TP, FP, FN) of one picture, one a class; their sum is the class-aware count."""
    truth, predicted = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (truth_px, predicted_px))
    counts = np.zeros((len(classes), 3))
    for index, name in enumerate(classes):
        of_truth = np.array([c == name for c in truth_classes], dtype=bool)
        of_predicted = np.array([c == name for c in predicted_classes], dtype=bool)
        if of_truth.any() or of_predicted.any():
            counts[index] = point_counts(truth[of_truth], predicted[of_predicted], radius_px)
    return counts


def point_hits(
    truth_px: npt.ArrayLike, truth_classes: Sequence[str], predicted_px: npt.ArrayLike, predicted_classes: Sequence[str],
    radius_px: float,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """For each prediction the index of the label of its class that it matches, -1 for none: ``(P,)``."""
    truth, predicted = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (truth_px, predicted_px))
    distances = np.linalg.norm(truth[:, None] - predicted[None], axis=2)
    same = np.array([[t == p for p in predicted_classes] for t in truth_classes], dtype=bool).reshape(distances.shape)
    rows, columns = assign_within(np.where(same, distances, np.inf), radius_px)
    match = np.full(len(predicted), -1, dtype=np.int64)
    match[columns] = rows
    return match


def pointing_counts(masks: Sequence[npt.NDArray[np.bool_]], predicted_px: npt.ArrayLike) -> FloatArray:
    """``(TP, FP, FN)`` of points against object masks ``(H, W)``: each point and each object counts once, at the best matching.

    A point belongs to the pixel nearest to it; outside the picture it hits nothing.
    """
    points = np.rint(np.asarray(predicted_px, dtype=np.float64).reshape(-1, 2)).astype(np.int64)
    inside = np.zeros((len(masks), len(points)))
    for row, mask in enumerate(masks):
        height, width = mask.shape
        visible = (points >= 0).all(axis=1) & (points[:, 0] < width) & (points[:, 1] < height)
        inside[row, visible] = mask[points[visible, 1], points[visible, 0]]
    hits = float(inside[assign(inside)].sum()) if inside.size else 0.0
    return np.array([hits, len(points) - hits, len(masks) - hits])
