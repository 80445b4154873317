"""Precision over recall as the confidence falls: a point for each prediction, by the matching of each kind's headline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.metrics.detection import match_by_confidence
from training.metrics.frame import FrameScore

FloatArray = npt.NDArray[np.float64]


def _curve(confidences: FloatArray, hits: npt.NDArray[np.generic], labels: float) -> FloatArray | None:
    """``(N, 2)`` recall and precision, None without labels or predictions; at equal confidence only the last point counts."""
    if not labels or not len(hits):
        return None
    order = np.argsort(-confidences, kind="stable")
    true = np.cumsum(hits[order].astype(np.float64))
    last = np.append(np.diff(confidences[order]) != 0, True)
    return np.stack([true / labels, true / np.arange(1, len(true) + 1)], axis=1)[last]


def precision_recall(scores: Sequence[FrameScore], box_classes: Sequence[str]) -> dict[str, FloatArray]:
    """Curves by name: lanes, signs, boxes of any class, and each class of boxes that is labelled; ``(N, 2)`` each."""
    found: dict[str, FloatArray | None] = {}
    for kind, title in (("lanes", "lanes, IoU 0.5"), ("signs", "signs, 2 % of the width")):
        having = [s for s in scores if kind in s.pairs]
        if having:
            pairs = np.concatenate([s.pairs[kind] for s in having])
            # the first three columns of lanes are at IoU 0.5, the columns of signs come in threes, one a class
            counts = np.sum(
                [s.rows[kind][:3] if kind == "lanes" else s.rows[kind].reshape(-1, 3).sum(axis=0) for s in having], axis=0
            )
            found[title] = _curve(pairs[:, 0], pairs[:, 1], counts[0] + counts[2])
    with_boxes = [s for s in scores if s.truth_boxes is not None and s.predicted_boxes is not None]
    truth = [s.truth_boxes for s in with_boxes if s.truth_boxes is not None]
    predicted = [s.predicted_boxes for s in with_boxes if s.predicted_boxes is not None]
    for name in (None, *box_classes) if with_boxes else ():
        scored = match_by_confidence(truth, predicted, (0.5,), name, [s.box_limit_px for s in with_boxes])[0]
        found[f"boxes, {name or 'any class'}, IoU 0.5"] = _curve(scored.confidences, scored.hits, float(scored.truth.sum()))
    return {name: curve for name, curve in found.items() if curve is not None}
