"""The two curves that CULane evaluators lay through a lane's points, both parametric cubics over chord length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def drop_repeated(points_px: npt.ArrayLike) -> FloatArray:
    """``points_px`` ``(N, 2)`` without points equal to the one before: chord length must grow from point to point."""
    points = np.asarray(points_px, dtype=np.float64).reshape(-1, 2)
    return points[np.append(True, np.any(points[1:] != points[:-1], axis=1))] if len(points) else points


def natural_spline(points_px: npt.ArrayLike, samples_per_segment: int = 50) -> FloatArray:
    """Natural cubic spline (no curvature at the ends) as CULane's C++ evaluator samples it.

    With chord lengths h_i and second derivatives M_i, M_0 = M_n = 0, the inner M solve
    ``h_{i-1} M_{i-1} + 2 (h_{i-1} + h_i) M_i + h_i M_{i+1} = 6 ((p_{i+1} - p_i) / h_i - (p_i - p_{i-1}) / h_{i-1})``.
    The official tool stores points as 32-bit floats; so does this function, because rounding to pixels afterwards shows it.

    Args:
        points_px: ``(N, 2)``, N >= 2, consecutive points different. Two points stay as they are.
        samples_per_segment: samples from each point up to, not including, the next.

    Returns:
        ``((N - 1) * samples_per_segment + 1, 2)`` points, rounded to 32 bits; for N = 2, the two points.
    """
    points = np.asarray(points_px, dtype=np.float32)
    if len(points) == 2:
        return points.astype(np.float64)
    chord = np.diff(points, axis=0).astype(np.float64)
    h = np.sqrt(chord[:, 0] ** 2 + chord[:, 1] ** 2)
    slope = chord / h[:, None]
    right = 6.0 * (slope[1:] - slope[:-1])
    diagonal = 2.0 * (h[:-1] + h[1:])
    upper = h[1:].copy()
    # forward elimination and back substitution (Thomas)
    upper[0] /= diagonal[0]
    right[0] /= diagonal[0]
    for i in range(1, len(diagonal)):
        pivot = diagonal[i] - h[i] * upper[i - 1]
        upper[i] /= pivot
        right[i] = (right[i] - h[i] * right[i - 1]) / pivot
    second = np.zeros((len(points), 2))
    for i in range(len(diagonal) - 1, -1, -1):
        second[i + 1] = right[i] - upper[i] * second[i + 2] if i + 1 < len(diagonal) else right[i]
    a = points[:-1].astype(np.float64)
    b = slope - (2.0 * h[:, None] * second[:-1] + h[:, None] * second[1:]) / 6.0
    c = second[:-1] / 2.0
    d = (second[1:] - second[:-1]) / (6.0 * h[:, None])
    t = (h / samples_per_segment)[:, None, None] * np.arange(samples_per_segment)[None, :, None]
    curve = a[:, None] + b[:, None] * t + c[:, None] * t**2 + d[:, None] * t**3
    return np.concatenate([curve.reshape(-1, 2), points[-1:]]).astype(np.float32).astype(np.float64)


def not_a_knot_spline(points_px: npt.ArrayLike, samples_per_segment: int = 5) -> FloatArray:
    """The interpolating spline that SciPy's ``splprep(s=0)`` returns and CLRNet's Python port samples.

    Parameter u: chord length over total length. Degree min(3, N - 1); for N >= 5 the third derivative is continuous at the second
    and the last but one point ("not a knot"). Samples are spaced evenly in u, not segment by segment.

    Args:
        points_px: ``(N, 2)``, N >= 2, consecutive points different.
        samples_per_segment: ``(N - 1) * samples_per_segment + 1`` samples in all.

    Returns:
        The samples, ``((N - 1) * samples_per_segment + 1, 2)``.
    """
    points = np.asarray(points_px, dtype=np.float64)
    count = len(points)
    lengths = np.sqrt(np.sum(np.diff(points, axis=0) ** 2, axis=1))
    u = np.append(0.0, np.cumsum(lengths))
    u /= u[-1]
    at = np.linspace(0.0, 1.0, (count - 1) * samples_per_segment + 1)
    if count <= 4:  # one polynomial, in Newton's form
        coefficients = points.copy()
        for order in range(1, count):
            coefficients[order:] = (coefficients[order:] - coefficients[order - 1 : -1]) / (u[order:] - u[:-order])[:, None]
        value = np.repeat(coefficients[-1:], len(at), axis=0)
        for order in range(count - 2, -1, -1):
            value = value * (at - u[order])[:, None] + coefficients[order]
        return value
    h = np.diff(u)
    slope = np.diff(points, axis=0) / h[:, None]
    system = np.zeros((count, count))
    inner = np.arange(1, count - 1)
    system[inner, inner - 1], system[inner, inner], system[inner, inner + 1] = h[:-1], 2.0 * (h[:-1] + h[1:]), h[1:]
    system[0, :3] = -h[1], h[0] + h[1], -h[0]
    system[-1, -3:] = -h[-1], h[-2] + h[-1], -h[-2]
    right = np.zeros((count, 2))
    right[1:-1] = 6.0 * (slope[1:] - slope[:-1])
    second = np.linalg.solve(system, right)
    segment = np.clip(np.searchsorted(u, at, side="right") - 1, 0, count - 2)
    t, hs = (at - u[segment])[:, None], h[segment][:, None]
    m0, m1 = second[segment], second[segment + 1]
    b = slope[segment] - hs * (2.0 * m0 + m1) / 6.0
    return np.asarray(points[segment] + t * (b + t * (m0 / 2.0 + t * (m1 - m0) / (6.0 * hs))))
