"""OpenLane-V2 detection scores: DET_l of centrelines by Frechet distance, DET_t of traffic elements by IoU distance.

Definition (the toolkit's ``evaluate.py``). The distance of two centrelines ``(N, 3)`` in metres is their *discrete* Frechet
distance, times a relaxation max(0.5, 1 - 0.005 d) where d is how near the labelled line comes to the ego vehicle; pairs whose
relaxed Chamfer distance (mean of both directions' means) is not below the largest threshold are put at 1024. Traffic elements:
1 - IoU of boxes. Predictions in order of falling confidence are true positives if the *nearest* label of their frame is nearer
than the threshold and not yet taken. AP is the mean over recalls 0, 0.1 ... 1 of the greatest precision at that recall or
above; without labels and predictions 1. DET_l is the mean over the thresholds (`FRECHET_M`: 1, 2, 3 in the released code; the
paper's text has 0.5, 1.0, 1.5, so they are an argument), DET_t over attributes at distance 0.75 (that is, IoU > 0.25). The
topology scores TOP_ll and TOP_lt, and the OpenLane-V2 score of all four, are in `training.metrics.openlane_topology`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics.detection import box_ious

FloatArray = npt.NDArray[np.float64]

FRECHET_M = (1.0, 2.0, 3.0)
IOU_DISTANCE = 0.75
_FAR = 1024.0


def _pairwise(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.sum((a[:, None] - b[None]) ** 2, axis=2)))


def frechet_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Discrete Frechet distance of K pairs of curves ``(K, N, D)`` and ``(K, M, D)``: ``(K,)`` (Eiter and Mannila, 1994).

    c(i, j) = max(d(i, j), min(c(i-1, j), c(i-1, j-1), c(i, j-1))), worked out one antidiagonal at a time for all pairs.
    """
    distance = np.sqrt(np.sum((a[:, :, None] - b[:, None]) ** 2, axis=3))
    pairs, rows, columns = distance.shape
    reach = np.full((pairs, rows + 1, columns + 1), np.inf)
    reach[:, 0, 0] = -np.inf
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        before = np.minimum(np.minimum(reach[:, i - 1, j], reach[:, i, j - 1]), reach[:, i - 1, j - 1])
        reach[:, i, j] = np.maximum(distance[:, i - 1, j - 1], before)
    return reach[:, rows, columns]


def chamfer_distance(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Mean of the two directions' mean nearest distances; a closed label counts its first point once."""
    gt, dt = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if np.array_equal(gt[0], gt[-1]):
        gt = gt[:-1]
    distance = _pairwise(dt, gt)
    return float((distance.min(axis=1).mean() + distance.min(axis=0).mean()) / 2.0)


def lane_distances(
    truth: Sequence[npt.ArrayLike], predicted: Sequence[npt.ArrayLike], thresholds: Sequence[float] = FRECHET_M
) -> FloatArray:
    """Relaxed Frechet distance of every label to every prediction of a frame: ``(G, P)``, metres; 1024 if far by Chamfer.

    Args:
        truth: labelled centrelines ``(N, 3)`` in the ego frame, metres.
        predicted: predicted centrelines.
        thresholds: of the evaluation; the last is the Chamfer limit.
    """
    result = np.full((len(truth), len(predicted)), _FAR)
    labels, answers = ([np.asarray(line, dtype=np.float64) for line in lines] for lines in (truth, predicted))
    relax = [max(0.5, 1.0 - 5e-3 * float(np.sqrt(np.sum(line**2, axis=1)).min())) for line in labels]
    near: dict[tuple[int, int], list[tuple[int, int]]] = {}  # pairs by their numbers of points
    for g, label in enumerate(labels):
        for p, answer in enumerate(answers):
            if chamfer_distance(label, answer) * relax[g] < thresholds[-1]:
                near.setdefault((len(label), len(answer)), []).append((g, p))
    for pairs in near.values():
        distances = frechet_distances(np.stack([answers[p] for _, p in pairs]), np.stack([labels[g] for g, _ in pairs]))
        for (g, p), distance in zip(pairs, distances, strict=True):
            result[g, p] = distance * relax[g]
    return result


def element_distances(truth_xyxy: npt.ArrayLike, predicted_xyxy: npt.ArrayLike) -> FloatArray:
    """1 - IoU of every labelled box with every predicted one of a frame: ``(G, P)``."""
    return 1.0 - box_ious(truth_xyxy, predicted_xyxy)


def match_predictions(distances: FloatArray, confidences: npt.ArrayLike, threshold: float) -> npt.NDArray[np.int64]:
    """For each prediction of a frame the label that it takes, -1 for none: ``(P,)``, from ``(G, P)`` distances."""
    score = np.asarray(confidences, dtype=np.float64).reshape(-1)
    match = np.full(len(score), -1, dtype=np.int64)
    if distances.size:
        nearest, taken = distances.argmin(axis=0), set()
        for p in np.argsort(-score).tolist():
            if distances[nearest[p], p] < threshold and int(nearest[p]) not in taken:
                taken.add(int(nearest[p]))
                match[p] = nearest[p]
    return match


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """The predictions of a set of frames by falling confidence.

    Attributes:
        hits: ``(P,)`` 1 for those that took a label, else 0.
        frames: ``(P,)`` the frame of each.
        labels: ``(F,)`` labels of each frame.
    """

    hits: FloatArray
    frames: npt.NDArray[np.int64]
    labels: FloatArray


def rank(distances: Sequence[FloatArray], confidences: Sequence[npt.ArrayLike], threshold: float) -> Ranked:
    """Match the predictions of each frame and rank those of all frames.

    Args:
        distances: ``(G, P)`` of each frame.
        confidences: ``(P,)`` of each frame.
        threshold: a pair must be nearer.
    """
    scores = [np.asarray(confidence, dtype=np.float64).reshape(-1) for confidence in confidences]
    hits = [match_predictions(matrix, score, threshold) >= 0 for matrix, score in zip(distances, scores, strict=True)]
    frames = np.repeat(np.arange(len(scores)), [len(score) for score in scores])
    order = np.argsort(-np.concatenate([np.zeros(0), *scores]))
    flat = np.concatenate([np.zeros(0), *hits])
    return Ranked(flat[order], frames[order], np.array([matrix.shape[0] for matrix in distances], dtype=np.float64))


def average_precision(ranked: Ranked, weights: npt.ArrayLike | None = None) -> float:
    """AP over frames.

    Args:
        ranked: the predictions.
        weights: ``(F,)`` how often each frame counts (a bootstrap draw); one each by default.
    """
    weight = np.ones(len(ranked.labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    labels, each = float(weight @ ranked.labels), weight[ranked.frames]
    hits, each = ranked.hits[each > 0], each[each > 0]
    if not len(hits) and not labels:
        return 1.0
    true = np.cumsum(each * hits)
    precision = true / np.cumsum(each)
    # recall >= level / 10 in whole numbers: the original compares 32-bit floats, where a recall of exactly 0.3 reaches 0.3
    best = [precision[10.0 * true >= level * labels].max(initial=0.0) if labels else 0.0 for level in range(11)]
    return float(np.sum(best) / 11.0)
