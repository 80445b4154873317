"""Bootstrap confidence intervals: how far a number would move on another draw of pictures.

A metric keeps one row of sums a picture (for F1: true positives, false positives, false negatives) and a function from summed
rows to the number. Resampling then needs one matrix product for all replicates. Pictures of one drive resemble one another;
give their sequence as ``groups`` and whole sequences are drawn, which makes the interval honestly wider.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]

REPLICATES = 1000
WEIGHTED_REPLICATES = 200  # a draw costs a pass over all predictions, so fewer than for sums


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval (percentile bootstrap); ``count`` is the number of pictures, or of groups, drawn."""

    value: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes null."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: round(v, 6) if np.isfinite(v) else None for name, v in numbers.items()} | {"count": self.count}

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def group_rows(rows: npt.ArrayLike, groups: Sequence[object] | None) -> FloatArray:
    """Sum ``rows`` ``(N, K)`` over equal ``groups`` (N labels), giving one row a group; without groups, the rows."""
    values = np.asarray(rows, dtype=np.float64)
    if groups is None:
        return values
    if len(groups) != len(values):
        raise ValueError(f"{len(groups)} group labels for {len(values)} rows")
    index: dict[object, int] = {}
    ids = [index.setdefault(group, len(index)) for group in groups]
    summed = np.zeros((len(index), *values.shape[1:]))
    np.add.at(summed, ids, values)
    return summed


def resampling_weights(count: int, replicates: int = REPLICATES, seed: int = 0) -> FloatArray:
    """How often each of ``count`` units is drawn in each replicate: ``(replicates, count)``, rows summing to ``count``."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=replicates).astype(np.float64)


def bootstrap(
    rows: npt.ArrayLike, statistic: Statistic, groups: Sequence[object] | None = None, replicates: int = REPLICATES, seed: int = 0
) -> Estimate:
    """The statistic of the summed rows, with its 95 % percentile interval.

    Args:
        rows: ``(N, K)`` sums, one row a picture.
        statistic: maps ``(B, K)`` summed rows to ``(B,)`` numbers; NaN where undefined (left out of the interval).
        groups: N labels; equal labels are drawn together.
        replicates: number of resamples.
        seed: of the resampling.
    """
    values = group_rows(rows, groups)
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    value = float(statistic(values.sum(axis=0, keepdims=True))[0])
    if len(values) < 2:
        return Estimate(value, float("nan"), float("nan"), len(values))
    drawn = statistic(resampling_weights(len(values), replicates, seed) @ values)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), len(values))


def bootstrap_weighted(
    values: Callable[[FloatArray], npt.ArrayLike], groups: Sequence[object], replicates: int = WEIGHTED_REPLICATES, seed: int = 0
) -> list[Estimate]:
    """Numbers that are no function of summed rows (average precision), each with its 95 % percentile interval.

    Args:
        values: the K numbers, from how often each picture counts ``(N,)``; NaN where undefined (left out of the interval).
        groups: N labels; equal labels are drawn together.
        replicates: number of resamples.
        seed: of the resampling.

    Returns:
        K estimates; one that is not defined where there are no pictures.
    """
    if not len(groups):
        return [Estimate(float("nan"), float("nan"), float("nan"), 0)]
    membership = group_rows(np.eye(len(groups)), groups)  # (groups, pictures)
    whole = np.asarray(values(np.ones(len(groups))), dtype=np.float64)
    count = replicates if len(membership) > 1 else 0
    draws = resampling_weights(len(membership), count, seed) @ membership
    drawn = np.array([values(weights) for weights in draws], dtype=np.float64).reshape(count, len(whole))
    found = []
    for value, column in zip(whole, drawn.T, strict=True):
        sampled = column[np.isfinite(column)]
        low, high = np.percentile(sampled, [2.5, 97.5]) if len(sampled) else (np.nan, np.nan)
        found.append(Estimate(float(value), float(low), float(high), len(membership)))
    return found


def ratio(numerator: FloatArray, denominator: FloatArray, empty: float = float("nan")) -> FloatArray:
    """``numerator / denominator`` with ``empty`` where the denominator is zero."""
    safe = np.where(denominator == 0, 1.0, denominator)
    return np.where(denominator == 0, empty, numerator / safe)


def precision(counts: FloatArray) -> FloatArray:
    """TP / (TP + FP) of rows that begin ``(TP, FP, FN)``; 0 without predictions."""
    return ratio(counts[..., 0], counts[..., 0] + counts[..., 1], 0.0)


def recall(counts: FloatArray) -> FloatArray:
    """TP / (TP + FN) of rows that begin ``(TP, FP, FN)``; 0 without ground truth."""
    return ratio(counts[..., 0], counts[..., 0] + counts[..., 2], 0.0)


def f1(counts: FloatArray) -> FloatArray:
    """2 TP / (2 TP + FP + FN) of rows that begin ``(TP, FP, FN)``; NaN with neither ground truth nor predictions."""
    return ratio(2.0 * counts[..., 0], 2.0 * counts[..., 0] + counts[..., 1] + counts[..., 2])
