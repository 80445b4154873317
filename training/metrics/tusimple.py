"""TuSimple lanes: accuracy, false positive and false negative rates, as the benchmark's ``lane.py`` computes them.

A lane is one x for each of the rows ``h_samples``; a negative x means that the lane is absent there.

Definition. For each ground truth lane g, theta is the angle to the vertical of the straight line fitted (least squares, x over
y) to its present points, and a prediction p *hits* a row if ``|x_p - x_g| < 20 px / cos(theta)``; rows where both are absent
count as hits, too, since the official code puts -100 for absent. The accuracy of (p, g) is the share of rows that are hits; g is
*matched* if its best prediction has at least 0.85. One prediction may match several lanes. Then, for one picture:

- accuracy: sum of the best accuracies over min(4, lanes); with more than 4 ground truth lanes the worst one is left out;
- FP: (predictions - matched) / predictions;  FN: (lanes - matched) / min(4, lanes), one miss forgiven beyond 4 lanes;
- **a picture whose run time exceeds 200 ms, or with more than lanes + 2 predictions, gets accuracy 0, FP 0, FN 1**. `Score.rule`
  says which rule struck, so that a slow machine is not mistaken for a bad model.

The set's numbers are means over pictures. `f1` is the F1 that papers report besides: from mean FP and FN,
2 (1 - FP)(1 - FN) / (2 - FP - FN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.metrics.intervals import ratio

FloatArray = npt.NDArray[np.float64]

HIT_PX = 20.0
MATCH = 0.85
MAX_RUN_TIME_MS = 200.0
ABSENT = -2
_ABSENT = -100.0


def columns_at(points_px: npt.ArrayLike, h_samples: Sequence[float], width_px: float) -> list[float]:
    """A lane's x at each row, to 0.01 px, `ABSENT` outside of its extent or of the picture.

    Where a lane passes a row several times (which none does that the grammar allows), the last passage going up counts.

    Args:
        points_px: polyline ``(N, 2)``.
        h_samples: rows y.
        width_px: of the picture.
    """
    rows = np.asarray(h_samples, dtype=np.float64)
    columns = np.full(len(rows), float(ABSENT))
    for (x0, y0), (x1, y1) in pairwise(np.asarray(points_px, dtype=np.float64).tolist()):
        inside = (rows >= min(y0, y1)) & (rows <= max(y0, y1))
        columns[inside] = x0 if y0 == y1 else x0 + (rows[inside] - y0) * (x1 - x0) / (y1 - y0)
    columns[(columns < 0) | (columns > width_px - 1)] = ABSENT
    return [ABSENT if x == ABSENT else round(float(x), 2) for x in columns]


def lanes_at(lanes_px: Sequence[npt.ArrayLike], h_samples: Sequence[float], width_px: float) -> list[list[float]]:
    """`columns_at` of the lanes that reach one of the rows: what is submitted, and scored."""
    lanes = [columns_at(points, h_samples, width_px) for points in lanes_px]
    return [lane for lane in lanes if any(x != ABSENT for x in lane)]


@dataclass(frozen=True, slots=True)
class Score:
    """One picture's numbers; ``rule`` is why it was zeroed, or empty."""

    accuracy: float
    fp: float
    fn: float
    rule: Literal["", "too_slow", "too_many_lanes"] = ""

    @property
    def row(self) -> FloatArray:
        """``(4,)``: accuracy, FP, FN, 1, to be summed over pictures."""
        return np.array([self.accuracy, self.fp, self.fn, 1.0])


def _hit_px(lanes: FloatArray, rows: FloatArray) -> FloatArray:
    """Hit distance of each of G lanes ``(G, R)``: 20 px over the cosine of its angle."""
    present = (lanes >= 0).astype(np.float64)
    count = present.sum(axis=1)
    y = rows[None] - ratio(present @ rows, count, 0.0)[:, None]
    x = lanes - ratio((present * lanes).sum(axis=1), count, 0.0)[:, None]
    slope = ratio((present * x * y).sum(axis=1), (present * y * y).sum(axis=1), 0.0)
    return np.asarray(HIT_PX / np.cos(np.arctan(slope)))


def score_picture(
    truth: Sequence[Sequence[float]], predicted: Sequence[Sequence[float]], h_samples: Sequence[float], run_time_ms: float = 0.0
) -> Score:
    """Score one picture.

    Args:
        truth: G lanes of R values x, pixels, negative where absent.
        predicted: P lanes, likewise.
        h_samples: the R rows y, pixels.
        run_time_ms: time that the prediction took.

    Raises:
        ValueError: a lane that has not one x for each row.
    """
    rows = np.asarray(h_samples, dtype=np.float64)
    if any(len(lane) != len(rows) for lane in [*truth, *predicted]):
        raise ValueError(f"TuSimple: every lane needs one x for each of the {len(rows)} rows of h_samples")
    if run_time_ms > MAX_RUN_TIME_MS:
        return Score(0.0, 0.0, 1.0, "too_slow")
    if len(predicted) > len(truth) + 2:
        return Score(0.0, 0.0, 1.0, "too_many_lanes")
    gt = np.asarray(truth, dtype=np.float64).reshape(len(truth), len(rows))
    dt = np.asarray(predicted, dtype=np.float64).reshape(len(predicted), len(rows))
    best = np.zeros(len(gt))
    if len(gt) and len(dt):
        distance = np.abs(np.where(gt >= 0, gt, _ABSENT)[:, None] - np.where(dt >= 0, dt, _ABSENT)[None])
        best = (distance < _hit_px(gt, rows)[:, None, None]).mean(axis=2).max(axis=1)
    matched = int((best >= MATCH).sum())
    crowded = len(gt) > 4
    missed = len(gt) - matched
    accuracy = float(best.sum() - (best.min() if crowded else 0.0))
    return Score(
        accuracy / max(min(4, len(gt)), 1),
        (len(dt) - matched) / len(dt) if len(dt) else 0.0,
        (missed - (1 if crowded and missed else 0)) / max(min(4, len(gt)), 1),
    )


def accuracy(rows: FloatArray) -> FloatArray:
    """Mean accuracy from summed `Score.row`, ``(..., 4)``."""
    return ratio(rows[..., 0], rows[..., 3])


def false_positives(rows: FloatArray) -> FloatArray:
    """Mean FP from summed `Score.row`, ``(..., 4)``."""
    return ratio(rows[..., 1], rows[..., 3])


def false_negatives(rows: FloatArray) -> FloatArray:
    """Mean FN from summed `Score.row`, ``(..., 4)``."""
    return ratio(rows[..., 2], rows[..., 3])


def f1(rows: FloatArray) -> FloatArray:
    """F1 from the means of FP and FN, of summed `Score.row`, ``(..., 4)``."""
    precision, recall = 1.0 - false_positives(rows), 1.0 - false_negatives(rows)
    return ratio(2.0 * precision * recall, precision + recall, 0.0)
