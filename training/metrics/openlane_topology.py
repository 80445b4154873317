"""OpenLane-V2: topology among centrelines (TOP_ll), of centrelines and traffic elements (TOP_lt), and the score of all (OLS).

Definition (the toolkit's ``evaluate.py``, centreline task). Predictions are matched to labels as for DET_l and DET_t, elements
whatever their attribute. A frame's labelled topology is a 0/1 matrix, the predicted one holds confidences; the predicted
values of matched pairs are carried over to the labels' rows and columns, and every pair with an unmatched label is wrong: 0 where
the label says 1, just above 0.5 where it says 0. A vertex (a row; then a column) has as predictions the neighbours above 0.5, in
order of falling confidence; its AP is the sum of the precisions at its right neighbours over the number of labelled ones, 1
with neither, 0 with only one of the two. TOP is the mean over vertices, frames and thresholds; frames without such pairs are
left out.

    DET_t = mean AP over the attributes of traffic elements      OLS = (DET_l + DET_t + sqrt(TOP_ll) + sqrt(TOP_lt)) / 4
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics.intervals import Estimate, bootstrap_weighted, ratio
from training.metrics.openlane import (
    FRECHET_M,
    IOU_DISTANCE,
    Ranked,
    average_precision,
    element_distances,
    lane_distances,
    match_predictions,
    rank,
)

FloatArray = npt.NDArray[np.float64]

NAMES = ("OLS", "DET_l", "DET_t", "TOP_ll", "TOP_lt")
ATTRIBUTES = 13  # of traffic elements, numbered from 0: unknown, red, green, yellow, nine arrows and turns
CONNECTED = 0.5  # a relation is predicted above it
_WRONG = CONNECTED + float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class RoadGraph:
    """Centrelines, traffic elements and what belongs together, of one frame; labels or predictions.

    Attributes:
        lanes_m: L centrelines ``(N, 3)`` in the ego frame, metres.
        elements_xyxy: ``(T, 4)`` boxes of traffic elements in the front camera, pixels.
        attributes: T attribute numbers.
        lane_lane: ``(L, L)``: confidence (labels: 0 or 1) that lane i leads into lane j.
        lane_element: ``(L, T)``: confidence that lane i obeys element j.
        lane_confidences: ``(L,)``; not needed of labels.
        element_confidences: ``(T,)``; likewise.
    """

    lanes_m: Sequence[npt.ArrayLike]
    elements_xyxy: npt.ArrayLike
    attributes: Sequence[int]
    lane_lane: npt.ArrayLike
    lane_element: npt.ArrayLike
    lane_confidences: npt.ArrayLike = ()
    element_confidences: npt.ArrayLike = ()


def _vertex_ap(truth: FloatArray, predicted: FloatArray) -> float:
    """AP of one vertex: labelled (0 or 1) and predicted relations ``(N,)`` to all others."""
    chosen = np.flatnonzero(predicted > CONNECTED)
    count = int(truth.sum())
    if not count or not len(chosen):
        return float(count == len(chosen))
    right = truth[chosen[np.argsort(-predicted[chosen], kind="stable")]]
    return float((np.cumsum(right) / np.arange(1, len(right) + 1)) @ right) / count


def _carried_over(
    truth: FloatArray, predicted: FloatArray, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> FloatArray:
    """The predicted relations in the labels' places; ``rows`` and ``columns`` say which label each prediction matches."""
    result = (1.0 - truth) * _WRONG
    here, there = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
    result[np.ix_(rows[here], columns[there])] = predicted[np.ix_(here, there)]
    return result


def _vertices(truth: FloatArray, predicted: FloatArray) -> Iterator[float]:
    yield from (_vertex_ap(a, b) for a, b in zip(truth, predicted, strict=True))
    yield from (_vertex_ap(a, b) for a, b in zip(truth.T, predicted.T, strict=True))


class GraphScores:
    """Scored frames, from which the numbers of any draw of them follow.

    Args:
        truth: labels of each frame.
        predicted: predictions of the same frames.
        thresholds: Frechet distances, metres.

    Raises:
        ValueError: a topology whose shape is not that of its lanes and elements.
    """

    def __init__(
        self, truth: Sequence[RoadGraph], predicted: Sequence[RoadGraph], thresholds: Sequence[float] = FRECHET_M
    ) -> None:
        lanes, elements = [], []
        self._topology = np.zeros((len(truth), 4))  # sum and number of the vertices' AP, of ll and of lt
        for frame, (gt, dt) in enumerate(zip(truth, predicted, strict=True)):
            lanes.append(lane_distances(gt.lanes_m, dt.lanes_m, thresholds))
            elements.append(element_distances(gt.elements_xyxy, dt.elements_xyxy))
            element_match = match_predictions(elements[-1], dt.element_confidences, IOU_DISTANCE)
            relations = [(_matrix(g.lane_lane, g, "ll"), _matrix(g.lane_element, g, "lt")) for g in (gt, dt)]
            for threshold in thresholds:
                lane_match = match_predictions(lanes[-1], dt.lane_confidences, threshold)
                for at, columns, a, b in zip((0, 2), (lane_match, element_match), *relations, strict=True):
                    values = list(_vertices(a, _carried_over(a, b, lane_match, columns))) if a.size else []
                    self._topology[frame, at : at + 2] += np.sum(values), len(values)
        confidences = [dt.lane_confidences for dt in predicted]
        self._lanes = [rank(lanes, confidences, threshold) for threshold in thresholds]
        self._elements = [_of_attribute(truth, predicted, elements, attribute) for attribute in range(ATTRIBUTES)]

    def values(self, weights: npt.ArrayLike | None = None) -> FloatArray:
        """``(5,)`` in the order of `NAMES`.

        Args:
            weights: ``(F,)`` how often each frame counts (a bootstrap draw); one each by default.
        """
        weight = np.ones(len(self._topology)) if weights is None else np.asarray(weights, dtype=np.float64)
        det_l, det_t = (np.mean([average_precision(each, weight) for each in group]) for group in (self._lanes, self._elements))
        sums = weight @ self._topology
        top_ll, top_lt = ratio(sums[[0, 2]], sums[[1, 3]], 0.0)
        return np.array([(det_l + det_t + np.sqrt(top_ll) + np.sqrt(top_lt)) / 4.0, det_l, det_t, top_ll, top_lt])


def graph_numbers(scores: GraphScores, groups: Sequence[object]) -> dict[str, Estimate]:
    """The five numbers by name, headline first, with intervals over frames drawn by group (their segments)."""
    return dict(zip(NAMES, bootstrap_weighted(scores.values, groups), strict=False))


def _matrix(values: npt.ArrayLike, graph: RoadGraph, name: str) -> FloatArray:
    shape = (len(graph.lanes_m), len(graph.lanes_m) if name == "ll" else len(graph.attributes))
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.size != shape[0] * shape[1]:
        raise ValueError(f"OpenLane-V2: topology {name} of shape {matrix.shape}, expected {shape}")
    return matrix.reshape(shape)


def _of_attribute(
    truth: Sequence[RoadGraph], predicted: Sequence[RoadGraph], distances: Sequence[FloatArray], attribute: int
) -> Ranked:
    """The elements of one attribute."""
    some, scores = [], []
    for gt, dt, matrix in zip(truth, predicted, distances, strict=True):
        rows, columns = (np.asarray(graph.attributes, dtype=np.int64) == attribute for graph in (gt, dt))
        some.append(matrix[np.ix_(rows, columns)])
        scores.append(np.asarray(dt.element_confidences, dtype=np.float64).reshape(-1)[columns])
    return rank(some, scores, IOU_DISTANCE)
