"""How sure the model is of an element, from the probabilities of its tokens; calibration and reliability.

The confidence of an element with head tokens h (kind and words) and points k = 1..N is

    c = prod_h P(h) * (prod_k m_k * (1 - d_k)) ** (1 / N)

    P(h)   probability of the head token: the kind token's says that there is an element at all, the words' which one it is;
    m_k    `neighbourhood_mass`: probability of the 3 x 3 cells around the chosen grid token (a model that wavers between
           neighbours is not unsure of the element);
    d_k    probability of ``<DELETE>`` as the first answer to the point in the refinement; 0 without refinement.

All probabilities are the softmax over the token table *before* the grammar's mask. Calibration maps c to
``sigmoid(logit(c) / T + b)`` (Platt 1999; Guo et al. 2017, eq. 9, with a bias), fitted on validation data by `fit_temperature`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.tokens.vocab import GRID_SIZE, TABLE

FloatArray = npt.NDArray[np.float64]

_EPSILON = 1e-6  # confidences stay this far from 0 and 1 inside the logit


@dataclass(frozen=True, slots=True)
class TokenProbs:
    """One probability per token, recorded while decoding; each field is as long as the ids it belongs to.

    Attributes:
        propose: `token_probability` of each proposed token.
        refine: `delete_probability` where a point's first answer was chosen; other entries are ignored. Empty without refinement.
    """

    propose: Sequence[float]
    refine: Sequence[float] = field(default_factory=tuple)


def neighbourhood_mass(probs: npt.ArrayLike, cell: int | npt.ArrayLike) -> float | FloatArray:
    """Probability mass of the 3 x 3 cells around ``cell`` (fewer at the border).

    Args:
        probs: ``(V,)`` probabilities over the table, or ``(N, V)``.
        cell: a local grid id, or ``(N,)`` of them.

    Returns:
        A float for one cell, ``(N,)`` float64 for several.
    """
    array: npt.NDArray[np.floating] = np.asarray(probs)
    if array.ndim == 1 and np.ndim(cell) == 0:
        row, column = divmod(int(cell), GRID_SIZE)  # type: ignore[arg-type]
        grid = array[: GRID_SIZE**2].reshape(GRID_SIZE, GRID_SIZE)
        return float(grid[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].sum(dtype=np.float64))
    cells = np.atleast_1d(np.asarray(cell, dtype=np.int64))
    grids = np.broadcast_to(array, (len(cells), array.shape[-1]))[:, : GRID_SIZE**2].reshape(-1, GRID_SIZE, GRID_SIZE)
    around = np.arange(-1, 2)
    rows = (cells // GRID_SIZE)[:, None, None] + around[None, :, None]
    columns = (cells % GRID_SIZE)[:, None, None] + around[None, None, :]
    inside = (rows >= 0) & (rows < GRID_SIZE) & (columns >= 0) & (columns < GRID_SIZE)
    last = GRID_SIZE - 1
    values = grids[np.arange(len(cells))[:, None, None], rows.clip(0, last), columns.clip(0, last)]
    mass: FloatArray = np.where(inside, values, 0.0).sum(axis=(1, 2), dtype=np.float64)
    return mass


def token_probability(probs: npt.NDArray[np.floating], token: int) -> float:
    """What `TokenProbs.propose` records: the neighbourhood's mass for a grid token, the token's own probability otherwise."""
    if 0 <= token < GRID_SIZE**2:
        return float(neighbourhood_mass(probs, token))
    return float(probs[token])


def delete_probability(probs: npt.NDArray[np.floating]) -> float:
    """What `TokenProbs.refine` records at a point's first answer."""
    return float(probs[TABLE.delete])


def _unit(value: float) -> float:
    """``value`` within 0..1; NaN counts as 0."""
    return min(max(value, 0.0), 1.0) if value == value else 0.0


def element_confidence(head: Sequence[float], masses: Sequence[float], deletes: Sequence[float] = ()) -> float:
    """The confidence defined above.

    Args:
        head: probabilities of the head tokens.
        masses: neighbourhood mass of each of the N >= 1 points.
        deletes: probability of ``<DELETE>`` for each point; empty without refinement.
    """
    confidence = math.prod(map(_unit, head))
    points = math.prod(map(_unit, masses)) * math.prod(1.0 - _unit(value) for value in deletes)
    return float(confidence * points ** (1.0 / max(len(masses), 1)))


# --- calibration -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calibration:
    """``sigmoid(logit(c) / temperature + bias)``; the defaults change nothing. temperature: > 0; bias: logits."""

    temperature: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0 and math.isfinite(self.bias)):
            raise InputError(
                f"calibration: expected a temperature above 0 and a finite bias, got {self.temperature}, {self.bias}"
            )

    def __call__(self, confidence: float) -> float:
        """The calibrated confidence of one element, 0..1."""
        if self.temperature == 1.0 and self.bias == 0.0:
            return confidence
        return float(calibrate(np.array([confidence]), self.temperature, self.bias)[0])


def _logit(confidence: npt.ArrayLike) -> FloatArray:
    clipped = np.clip(np.asarray(confidence, dtype=np.float64), _EPSILON, 1.0 - _EPSILON)
    return np.log(clipped) - np.log1p(-clipped)


def _sigmoid(logits: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def calibrate(confidence: npt.ArrayLike, temperature: float, bias: float = 0.0) -> FloatArray:
    """Calibrated confidences ``(N,)``: ``sigmoid(logit(c) / temperature + bias)``; keeps their order."""
    return _sigmoid(_logit(confidence) / temperature + bias)


def _checked_pairs(confidence: npt.ArrayLike, hit: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    c, h = np.asarray(confidence, dtype=np.float64).reshape(-1), np.asarray(hit, dtype=np.float64).reshape(-1)
    if len(c) != len(h) or len(c) == 0:
        raise InputError(f"calibration: expected as many hits as confidences and at least one, got {len(h)} and {len(c)}")
    if not (np.isfinite(c).all() and ((c >= 0) & (c <= 1)).all() and ((h == 0) | (h == 1)).all()):
        raise InputError("calibration: confidences must lie in 0..1 and hits must be 0 or 1")
    return c, h


def fit_temperature(confidence: npt.ArrayLike, hit: npt.ArrayLike, iterations: int = 50) -> tuple[float, float]:
    """Temperature and bias of least cross-entropy between ``calibrate(confidence)`` and ``hit``, by Newton's method.

    Two pseudo-observations (a hit at c = 0.9 and a miss at c = 0.1, each of weight 1) keep the fit finite when the data are few,
    all hits or all misses, or separable. A fit that would turn the order of confidences around is held at a temperature of 100.

    Args:
        confidence: ``(N,)`` raw confidences, 0..1.
        hit: ``(N,)`` 1 where the element was right, else 0.
        iterations: most Newton steps.

    Returns:
        ``(temperature, bias)``.
    """
    c, h = _checked_pairs(confidence, hit)
    x = np.append(_logit(c), _logit([0.9, 0.1]))
    y = np.append(h, [1.0, 0.0])
    design = np.stack([x, np.ones_like(x)], axis=1)

    def loss(weights: FloatArray) -> float:
        logits = design @ weights
        return float(np.sum(np.logaddexp(0.0, logits) - y * logits))

    weights = np.array([1.0, 0.0])  # slope 1 / T, bias
    for _ in range(iterations):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (p - y)
        hessian = (design * (p * (1.0 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        scale, before = 1.0, loss(weights)
        while scale > 1e-8 and loss(weights - scale * step) > before - 1e-4 * scale * float(gradient @ step):
            scale /= 2.0
        weights = weights - scale * step
        if float(np.abs(scale * step).max()) < 1e-10:
            break
    slope, bias = float(weights[0]), float(weights[1])
    if slope < 0.01:
        mean = float(np.clip(y.mean(), _EPSILON, 1.0 - _EPSILON))
        return 100.0, math.log(mean / (1.0 - mean))
    return 1.0 / slope, bias


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """The reliability curve; all arrays ``(bins,)``, NaN in empty bins.

    Attributes:
        edges: ``(bins + 1,)`` bin borders over 0..1.
        count: elements per bin.
        confidence: mean confidence per bin.
        precision: share of hits per bin.
        ece: expected calibration error: sum over bins of ``count / N * |precision - confidence|`` (Naeini et al. 2015).
        brier: mean of ``(confidence - hit)**2``.
    """

    edges: FloatArray
    count: npt.NDArray[np.int64]
    confidence: FloatArray
    precision: FloatArray
    ece: float
    brier: float


def reliability(confidence: npt.ArrayLike, hit: npt.ArrayLike, bins: int = 10) -> Reliability:
    """Reliability curve over ``bins`` bins of equal width.

    Args:
        confidence: ``(N,)`` confidences, 0..1.
        hit: ``(N,)`` 1 where the element was right, else 0.
        bins: number of bins, 1 or more.
    """
    c, h = _checked_pairs(confidence, hit)
    if bins < 1:
        raise InputError(f"reliability: expected at least one bin, got {bins}")
    index = np.minimum((c * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, weights=c, minlength=bins) / count
        precision = np.bincount(index, weights=h, minlength=bins) / count
    gap = np.where(count > 0, np.abs(precision - mean), 0.0)
    return Reliability(
        edges=np.linspace(0.0, 1.0, bins + 1),
        count=count.astype(np.int64),
        confidence=mean,
        precision=precision,
        ece=float((count * gap).sum() / len(c)),
        brier=float(np.mean((c - h) ** 2)),
    )
