"""Polylines in pixels: ``(N, 2)`` arrays of ``(x, y)``, x right, y down, integers at pixel centres.

All functions take array-likes and return float64 arrays; none changes its argument. Bad shapes and NaN are an `InputError`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

from getok_drive.errors import InputError

Points = npt.NDArray[np.float64]


def _checked(points_px: npt.ArrayLike, least: int, what: str) -> Points:
    points = np.asarray(points_px, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < least:
        raise InputError(f"{what}: expected at least {least} (x, y) points, got an array of shape {points.shape}")
    if not np.isfinite(points).all():
        raise InputError(f"{what}: a coordinate is NaN or infinite")
    return points


def arc_lengths(polyline_px: npt.ArrayLike) -> Points:
    """Distance along the polyline from its start to each point: ``(N,)`` pixels, rising from 0."""
    points = _checked(polyline_px, 1, "polyline")
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])


def length(polyline_px: npt.ArrayLike) -> float:
    """Length of the polyline, pixels."""
    return float(arc_lengths(polyline_px)[-1])


def resample(polyline_px: npt.ArrayLike, *, count: int | None = None, step_px: float | None = None) -> Points:
    """Points at equal distances along the polyline, its two ends included.

    Args:
        polyline_px: ``(N >= 2, 2)``; points that stand still are no harm.
        count: number of points, 2 or more; or
        step_px: greatest distance between neighbours, above 0. Exactly one of the two.

    Returns:
        ``(count, 2)``.
    """
    points = _checked(polyline_px, 2, "polyline")
    along = arc_lengths(points)
    if (count is None) == (step_px is None):
        raise InputError("resample: give either count or step_px")
    if step_px is not None:
        if not step_px > 0:
            raise InputError(f"resample: step_px must be above 0, got {step_px}")
        count = max(int(np.ceil(along[-1] / step_px - 1e-9)) + 1, 2)
    if count is None or count < 2:
        raise InputError(f"resample: count must be 2 or more, got {count}")
    at = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(at, along, points[:, 0]), np.interp(at, along, points[:, 1])], axis=1)


def points_at_rows(polyline_px: npt.ArrayLike, rows_px: npt.ArrayLike) -> Points:
    """Where the polyline crosses image rows.

    Args:
        polyline_px: ``(N >= 2, 2)``, any direction.
        rows_px: ``(R,)`` y coordinates.

    Returns:
        ``(R,)`` x coordinate of the first crossing, counted from the polyline's start; NaN where it does not reach the row. A
        level stretch that lies on the row counts with its first point.
    """
    points = _checked(polyline_px, 2, "polyline")
    rows = np.asarray(rows_px, dtype=np.float64).reshape(-1)
    above = points[:, 1, None] - rows[None, :]
    crosses = above[:-1] * above[1:] <= 0.0  # (N - 1, R)
    first = crosses.argmax(axis=0)
    column = np.arange(len(rows))
    start, stop = above[first, column], above[first + 1, column]
    rise = start - stop
    share = np.divide(start, rise, out=np.zeros_like(rise), where=rise != 0.0)
    x = points[first, 0] + share * (points[first + 1, 0] - points[first, 0])
    return np.where(crosses[first, column], x, np.nan)


def _image(size_wh: tuple[int, int]) -> shapely.Polygon:
    width, height = size_wh
    if not (width > 0 and height > 0):
        raise InputError(f"size_wh: expected a positive width and height in pixels, got {size_wh!r}")
    return shapely.box(-0.5, -0.5, width - 0.5, height - 0.5)


def clip_polyline(polyline_px: npt.ArrayLike, size_wh: tuple[int, int]) -> list[Points]:
    """The parts of a polyline inside the image (``-0.5 .. size - 0.5``), in its order and direction; empty if there are none."""
    points = _checked(polyline_px, 2, "polyline")
    line, image = shapely.linestrings(points), _image(size_wh)
    if shapely.covers(image, line):
        return [points.copy()]
    parts = [shapely.get_coordinates(p) for p in shapely.get_parts(shapely.intersection(line, image)) if p.length > 0]
    oriented = []
    for part in parts:
        ends = shapely.line_locate_point(line, shapely.points(part[[0, -1]]))
        oriented.append((float(ends.min()), part if ends[0] <= ends[1] else part[::-1]))
    return [part for _, part in sorted(oriented, key=lambda item: item[0])]
