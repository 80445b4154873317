"""The numbers of a set of scored pictures, each with its interval; headlines first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from training.metrics import bdd100k, culane, drivable
from training.metrics.benchmarks import benchmark_numbers
from training.metrics.detection import average_precision, match_by_confidence
from training.metrics.frame import SIZES, FrameScore
from training.metrics.headlines import share
from training.metrics.intervals import (
    Estimate,
    Statistic,
    bootstrap,
    bootstrap_weighted,
    f1,
    precision,
    recall,
)

FloatArray = npt.NDArray[np.float64]
Numbers = dict[str, Estimate]


def _counts(name: int | None, width: int) -> Callable[[FloatArray], FloatArray]:
    """From flattened ``(..., C * 3)`` rows to the ``(..., 3)`` counts of one class, or of all of them."""

    def pick(rows: FloatArray) -> FloatArray:
        table = rows.reshape(*rows.shape[:-1], width, 3)
        return table.sum(axis=-2) if name is None else table[..., name, :]

    return pick


def _after(pick: Callable[[FloatArray], FloatArray], statistic: Statistic) -> Statistic:
    return lambda rows: statistic(pick(rows))


class RowSet:
    """Scored pictures with the rows of one name stacked."""

    def __init__(self, scores: Sequence[FrameScore]) -> None:
        self.scores = scores

    def estimate(self, name: str, statistic: Statistic) -> Estimate:
        """A number from the rows of a name, with its interval."""
        having = [score for score in self.scores if name in score.rows]
        rows = np.array([score.rows[name] for score in having]) if having else np.zeros((0, 1))
        return bootstrap(rows, statistic, [score.group for score in having])

    def has(self, name: str) -> bool:
        """Whether any picture has rows of a name."""
        return any(name in score.rows for score in self.scores)


def lane_numbers(scores: Sequence[FrameScore]) -> Numbers:
    """CULane F1@50 (headline), F1@75, mF1, precision and recall at 50; the same of polylines; type and colour of hits."""
    of, width = RowSet(scores), len(culane.THRESHOLDS)

    def table(rows: FloatArray) -> FloatArray:
        return rows.reshape(*rows.shape[:-1], width, 3)

    at_50 = _counts(0, width)
    return {
        "f1_50": of.estimate("lanes", lambda rows: culane.f1_at(table(rows), 0)),
        "f1_75": of.estimate("lanes", lambda rows: culane.f1_at(table(rows), 5)),
        "mf1": of.estimate("lanes", lambda rows: culane.mean_f1(table(rows))),
        "precision_50": of.estimate("lanes", _after(at_50, precision)),
        "recall_50": of.estimate("lanes", _after(at_50, recall)),
        "polyline_f1": of.estimate("lane_polylines", f1),
        "polyline_precision": of.estimate("lane_polylines", precision),
        "polyline_recall": of.estimate("lane_polylines", recall),
        "type_accuracy": of.estimate("lane_type", share),
        "color_accuracy": of.estimate("lane_color", share),
    }


def drivable_numbers(scores: Sequence[FrameScore]) -> Numbers:
    """Pooled IoU (headline), mean IoU over pictures, mIoU with background, boundary F (mean over pictures)."""
    of = RowSet(scores)
    return {
        "iou": of.estimate("drivable", drivable.pooled_iou),
        "iou_mean_over_pictures": of.estimate("drivable", drivable.mean_iou),
        "miou_with_background": of.estimate("drivable", drivable.class_mean_iou),
        "boundary_f": of.estimate("drivable_boundary", share),
    }


def _class_numbers(of: RowSet, name: str, classes: Sequence[str]) -> Numbers:
    every = _counts(None, len(classes))
    numbers = {
        "f1": of.estimate(name, _after(every, f1)),
        "precision": of.estimate(name, _after(every, precision)),
        "recall": of.estimate(name, _after(every, recall)),
        "f1_class_agnostic": of.estimate(f"{name}_class_agnostic", f1),
    }
    for index, class_name in enumerate(classes):
        numbers[f"f1/{class_name}"] = of.estimate(name, _after(_counts(index, len(classes)), f1))
    return numbers


def _ap_estimate(
    scores: Sequence[FrameScore], class_names: Sequence[str | None] = (None,), heights: tuple[float, float] | None = None
) -> Estimate:
    """AP50 (mean over ``class_names`` with ground truth) with an interval, over pictures resampled by group.

    Args:
        scores: of the pictures.
        class_names: classes; None: all of them as one.
        heights: of boxes that count, shares of the picture's height; by default those of the headline.
    """
    having = [s for s in scores if s.truth_boxes is not None and s.predicted_boxes is not None]
    truth = [s.truth_boxes for s in having if s.truth_boxes is not None]
    predicted = [s.predicted_boxes for s in having if s.predicted_boxes is not None]
    least, most = [s.box_limit_px for s in having], [np.inf for _ in having]
    if heights is not None:
        least, most = ([share * s.height_px for s in having] for share in heights)
    matched = [match_by_confidence(truth, predicted, (0.5,), name, least, most)[0] for name in class_names if having]
    return _resampled(having, lambda weights: [average_precision(hits, weights=weights) for hits in matched])


def _vehicle_estimate(scores: Sequence[FrameScore]) -> Estimate:
    """AP50 of vehicles as one class, by the rule of BDD100K's papers."""
    having = [s for s in scores if s.truth_boxes is not None and s.predicted_boxes is not None]
    truth = [s.truth_boxes for s in having if s.truth_boxes is not None]
    predicted = [s.predicted_boxes for s in having if s.predicted_boxes is not None]
    hits = bdd100k.vehicle_hits(truth, predicted)
    return _resampled(having, lambda weights: [bdd100k.vehicle_ap50(hits, weights)])


def _resampled(scores: Sequence[FrameScore], values: Callable[[FloatArray], Sequence[float]]) -> Estimate:
    """The mean of those ``values`` that are defined, as a function of how often each picture counts, with its interval."""

    def mean(weights: FloatArray) -> list[float]:
        present = [number for number in values(weights) if np.isfinite(number)]
        return [float(np.mean(present)) if present else float("nan")]

    return bootstrap_weighted(mean, [s.group for s in scores])[0]


def box_numbers(scores: Sequence[FrameScore], classes: Sequence[str]) -> Numbers:
    """F1 at IoU 0.5 of boxes taller than 5 % of the image (headline), class-agnostic, per class and size, AP50, attributes."""
    of = RowSet(scores)
    return {
        **_class_numbers(of, "boxes", classes),
        "f1_all_sizes": of.estimate("boxes_all_sizes", _after(_counts(None, len(classes)), f1)),
        **{f"f1_by_height/{size}": of.estimate(f"boxes_{size}", f1) for size in SIZES},
        "ap50_class_agnostic": _ap_estimate(scores),
        **{f"ap50_by_height/{size}": _ap_estimate(scores, heights=heights) for size, heights in SIZES.items()},
        "map50": _ap_estimate(scores, classes),
        "ap50_vehicle": _vehicle_estimate(scores),
        "visible_state_accuracy": of.estimate("box_visible_state", share),
        "road_blockage_accuracy": of.estimate("box_road_blockage", share),
    }


def sign_numbers(scores: Sequence[FrameScore], classes: Sequence[str]) -> Numbers:
    """F1 within 2 % of the image width (headline), class-agnostic, per class; colour of signs that were hit."""
    of = RowSet(scores)
    return {**_class_numbers(of, "signs", classes), "color_accuracy": of.estimate("sign_color", share)}


def summarise(scores: Sequence[FrameScore], box_classes: Sequence[str], sign_classes: Sequence[str]) -> dict[str, Numbers]:
    """All numbers by kind; kinds that no picture was scored on are absent, and so are numbers without a single case."""
    of = RowSet(scores)
    every: dict[str, Numbers] = {}
    if of.has("lanes"):
        every["lanes"] = lane_numbers(scores)
    if of.has("drivable"):
        every["drivable"] = drivable_numbers(scores)
    if of.has("boxes"):
        every["boxes"] = box_numbers(scores, box_classes)
    if of.has("signs"):
        every["signs"] = sign_numbers(scores, sign_classes)
    return defined(every | benchmark_numbers(of))


def defined(every: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """Without the numbers that have not a single case; headlines, which come first, stay."""
    return {
        kind: {name: number for index, (name, number) in enumerate(numbers.items()) if index == 0 or np.isfinite(number.value)}
        for kind, numbers in every.items()
    }


def pairs_of(scores: Sequence[FrameScore]) -> dict[str, FloatArray]:
    """By kind, and under ``"all"``: ``(N, 2)`` confidence and hit of every prediction."""
    kinds = dict.fromkeys(kind for score in scores for kind in score.pairs)
    by_kind = {kind: np.concatenate([s.pairs[kind] for s in scores if kind in s.pairs]) for kind in kinds}
    return {**by_kind, "all": np.concatenate([np.zeros((0, 2)), *by_kind.values()])}
