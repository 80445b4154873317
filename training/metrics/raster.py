"""Drawing for metrics, in numpy alone: thick polylines pixel for pixel as OpenCV draws them, and filled polygons.

CULane's evaluator compares lanes as pictures drawn by ``cv::line`` with thickness 30, so its score depends on how OpenCV
rounds. `draw_polyline` gives the same picture without OpenCV (tests compare the two, pixel by pixel). It rests on one fact:
``cv::line`` rounds its end points to whole pixels, so what it draws depends only on the whole-pixel step between them. The
picture of a step is worked out once, as one run of pixels a row, and stamped wherever the step occurs.

`fill_polygons` is this project's own rule for areas (not ``cv::fillPoly``, which also paints every pixel that the outline
touches and so inflates small areas): a pixel belongs to a polygon if its centre does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_ONE = 1 << 16  # OpenCV's drawing works in fixed point with 16 fractional bits
_HALF = _ONE >> 1
_LIMIT_PX = 16_384  # coordinates are clamped to this: far outside any image, and safe in fixed point
_COUNTING = np.arange(4 * _LIMIT_PX, dtype=np.int64)


Runs = tuple[IntArray, IntArray, IntArray]  # rows, first and last column of each run of pixels (inclusive)


def _merge(runs: list[Runs]) -> Runs:
    """The fewest runs that cover the same pixels: overlapping and touching ones of a row become one."""
    rows, left, right = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    base = rows * (8 * _LIMIT_PX)  # rows laid end to end, so that one sorted axis holds them all
    first, last = base + left, base + right
    order = np.argsort(first)
    first, last, rows, base = first[order], np.maximum.accumulate(last[order]), rows[order], base[order]
    opens = np.ones(len(first), dtype=bool)
    np.greater(first[1:], last[:-1] + 1, out=opens[1:])
    at = np.flatnonzero(opens)
    closes = np.append(at[1:] - 1, len(first) - 1)
    return rows[at], (first - base)[at], last[closes] - base[at]


@lru_cache(maxsize=64)
def _disc(radius_px: int) -> tuple[IntArray, IntArray]:
    """Rows ``-r..r`` of OpenCV's filled circle and the half width of each: the midpoint circle algorithm."""
    half_width = np.zeros(2 * radius_px + 1, dtype=np.int64)
    error, across, up, grow, shrink = 0, radius_px, 0, 1, 2 * radius_px - 1
    while across >= up:
        for row, width in ((up, across), (across, up)):
            for signed in (radius_px - row, radius_px + row):
                half_width[signed] = max(half_width[signed], width)
        up += 1
        error += grow
        grow += 2
        if error > 0:
            error -= shrink
            across -= 1
            shrink -= 2
    return np.arange(-radius_px, radius_px + 1), half_width


def _quotient(a: int, b: int) -> int:
    """Integer division as C does it: towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


Bounds = tuple[int, int, int, int]  # first and last column, first and last row of the picture, relative to a step's start


def _clip(a: tuple[int, int], b: tuple[int, int], bounds: Bounds) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The part of a fixed-point segment inside the picture, rounded as OpenCV rounds it (rows first, then columns)."""
    walls = [(low * _ONE, (high + 1) * _ONE - 1) for low, high in (bounds[:2], bounds[2:])]

    def inside(point: Sequence[int]) -> bool:
        return all(low <= value <= high for value, (low, high) in zip(point, walls, strict=True))

    def apart() -> bool:  # both ends beyond the same wall
        return any(max(e[k] for e in ends) < walls[k][0] or min(e[k] for e in ends) > walls[k][1] for k in (0, 1))

    if inside(a) and inside(b):
        return a, b
    ends = [list(a), list(b)]
    for axis in (1, 0):
        if apart():
            return None
        for end in ends:
            wall = min(max(end[axis], walls[axis][0]), walls[axis][1])
            if wall != end[axis]:
                run, rise = ends[1][axis] - ends[0][axis], ends[1][1 - axis] - ends[0][1 - axis]
                end[1 - axis] += _quotient((wall - end[axis]) * rise, run)
                end[axis] = wall
    (x0, y0), (x1, y1) = ends
    return ((x0, y0), (x1, y1)) if inside(ends[0]) and inside(ends[1]) else None


def _edge_pixels(a: tuple[int, int], b: tuple[int, int]) -> tuple[IntArray, IntArray]:
    """Pixels ``(x, y)`` of a one-pixel line between two fixed-point vertices: one a step along the longer axis, plus the end."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    along = 0 if abs(dx) > abs(dy) else 1
    start, end = (a, b) if (dx, dy)[along] >= 0 else (b, a)
    length, rise = end[along] - start[along], end[1 - along] - start[1 - along]
    slope = _quotient(rise << 16, length | 1)
    count = (length >> 16) + 1
    main, cross = np.empty(count + 1, dtype=np.int64), np.empty(count + 1, dtype=np.int64)
    step = _COUNTING[:count]
    main[:count] = ((start[along] + _HALF) >> 16) + step
    cross[:count] = (start[1 - along] + _HALF + step * slope) >> 16
    main[count], cross[count] = (end[along] + _HALF) >> 16, (end[1 - along] + _HALF) >> 16
    return (main, cross) if along == 0 else (cross, main)


def _convex_runs(vertices: list[tuple[int, int]]) -> Runs:
    """Rows and runs of a filled convex polygon given in fixed point; its last row is left to its outline, as in OpenCV."""
    count = len(vertices)
    rows = [(y + _HALF) >> 16 for _, y in vertices]
    top = min(range(count), key=lambda i: vertices[i][1])
    bottom = max(rows)
    sides = []
    for direction in (1, -1):
        x = np.zeros(bottom - rows[top], dtype=np.int64)
        here, row = top, rows[top]
        while row < bottom:
            there = (here + direction) % count
            if rows[there] > row:
                height = rows[there] - row
                slope = _quotient(2 * (vertices[there][0] - vertices[here][0]) + height, 2 * height)
                x[row - rows[top] : rows[there] - rows[top]] = vertices[here][0] + slope * np.arange(height)
                row = rows[there]
            here = there
        sides.append(x)
    left, right = np.minimum(*sides), np.maximum(*sides)
    return np.arange(rows[top], bottom), (left + _HALF) >> 16, (right + _HALF) >> 16


@lru_cache(maxsize=1 << 14)
def step_runs(dx_px: int, dy_px: int, thickness_px: int, bounds: Bounds) -> Runs:
    """What a thick line from ``(0, 0)`` to ``(dx, dy)`` covers: rows, and first and last column of each run (inclusive).

    The figure is a rectangle of the line's length and thickness, its outline one pixel wide, and a disc at either end. Only
    the outline feels the picture's border: it is clipped before it is rounded.
    """
    disc_rows, disc_half = _disc((thickness_px * _HALF + _HALF) >> 16)
    runs = [(disc_rows + y, x - disc_half, x + disc_half) for x, y in ((0, 0), (dx_px, dy_px))]
    length_px = float(np.sqrt(float(dx_px) ** 2 + float(dy_px) ** 2))
    if length_px > 0.0:
        scale = (thickness_px * _HALF + (thickness_px & 1) * _HALF) / length_px
        # the half-thickness vector, at right angles to the line; rint rounds halves to even, as cvRound does
        nx, ny = int(np.rint(dy_px * scale)), int(np.rint(-dx_px * scale))
        x1, y1 = dx_px << 16, dy_px << 16
        corners = [(nx, ny), (-nx, -ny), (x1 - nx, y1 - ny), (x1 + nx, y1 + ny)]
        for first, second in zip([corners[-1], *corners[:-1]], corners, strict=True):
            edge = _clip(first, second, bounds)
            if edge is not None:
                x, y = _edge_pixels(*edge)
                runs.append((y, x, x))
        runs.append(_convex_runs(corners))
    return _merge(runs)


def _near_bounds(start: IntArray, end: IntArray, size_wh: tuple[int, int], reach_px: int) -> list[Bounds]:
    """The picture's borders relative to each step's start; a border that the step cannot reach is put far away.

    So all steps away from the borders share one entry of `step_runs`'s cache.
    """
    bounds = np.empty((len(start), 4), dtype=np.int64)
    for axis, size in enumerate(size_wh):
        low, high = -start[:, axis], size - 1 - start[:, axis]
        far = 4 * _LIMIT_PX
        bounds[:, 2 * axis] = np.where(np.minimum(start, end)[:, axis] >= reach_px, -far, low)
        bounds[:, 2 * axis + 1] = np.where(np.maximum(start, end)[:, axis] < size - reach_px, far, high)
    return [(row[0], row[1], row[2], row[3]) for row in bounds.tolist()]


def polyline_runs(points_px: npt.ArrayLike, size_wh: tuple[int, int], thickness_px: int = 30) -> Runs:
    """The pixels that ``cv2.line(..., thickness)`` paints for a polyline, segment after segment, as disjoint runs.

    Args:
        points_px: ``(N, 2)`` *whole-pixel* points; the caller rounds, because evaluators differ in how. Fewer than two points
            draw nothing; points that all coincide draw a disc. Coordinates are clamped to +-16384 px.
        size_wh: width and height of the picture, pixels.
        thickness_px: line thickness, at least 2.

    Returns:
        Rows, and first and last column (inclusive) of each run, sorted; runs of a row neither overlap nor touch.
    """
    width, height = size_wh
    nothing = np.zeros(0, dtype=np.int64)
    points = np.clip(np.asarray(points_px, dtype=np.int64).reshape(-1, 2), -_LIMIT_PX, _LIMIT_PX)
    if len(points) < 2:
        return nothing, nothing, nothing
    start, end = points[:-1], points[1:]
    moving = np.any(start != end, axis=1)
    if moving.any():  # a segment of length zero adds nothing to its neighbours' discs
        start, end = start[moving], end[moving]
    reach = thickness_px // 2 + 3
    visible = np.all((np.maximum(start, end) >= -reach) & (np.minimum(start, end) < np.array(size_wh) + reach), axis=1)
    start, end = start[visible], end[visible]
    if not len(start):
        return nothing, nothing, nothing
    bounds = _near_bounds(start, end, size_wh, reach)
    pieces = [step_runs(dx, dy, thickness_px, near) for (dx, dy), near in zip((end - start).tolist(), bounds, strict=True)]
    counts = np.array([len(piece[0]) for piece in pieces])
    x0, y0 = np.repeat(start[:, 0], counts), np.repeat(start[:, 1], counts)
    rows = np.concatenate([piece[0] for piece in pieces]) + y0
    left = np.maximum(np.concatenate([piece[1] for piece in pieces]) + x0, 0)
    right = np.minimum(np.concatenate([piece[2] for piece in pieces]) + x0, width - 1)
    keep = (rows >= 0) & (rows < height) & (left <= right)
    return _merge([(rows[keep], left[keep], right[keep])]) if keep.any() else (nothing, nothing, nothing)


def draw_polyline(points_px: npt.ArrayLike, size_wh: tuple[int, int], thickness_px: int = 30) -> BoolArray:
    """`polyline_runs` as an ``(H, W)`` bool mask."""
    width, height = size_wh
    rows, left, right = polyline_runs(points_px, size_wh, thickness_px)
    change = np.zeros(height * (width + 1) + 1, dtype=np.int8)
    change[rows * (width + 1) + left] = 1
    change[rows * (width + 1) + right + 1] = -1
    return np.cumsum(change[:-1], dtype=np.int8).reshape(height, width + 1)[:, :width].astype(bool)


def common_pixels(a: Runs, b: Runs, width_px: int) -> int:
    """Number of pixels that two figures, given as disjoint sorted runs in a picture of ``width_px``, have in common."""
    if not len(a[0]) or not len(b[0]):
        return 0
    first, end = a[0] * width_px + a[1], a[0] * width_px + a[2] + 1
    covered = np.append(0, np.cumsum(end - first))  # pixels of a before each of its runs

    def pixels_before(position: IntArray) -> IntArray:
        run = np.searchsorted(first, position, side="right") - 1
        return np.where(run < 0, 0, covered[run] + np.minimum(position, end[run]) - first[run])

    return int(np.sum(pixels_before(b[0] * width_px + b[2] + 1) - pixels_before(b[0] * width_px + b[1])))


def fill_polygons(polygons_px: Sequence[npt.ArrayLike], size_wh: tuple[int, int]) -> BoolArray:
    """Mask of the union of polygons: a pixel is in if its centre (its integer coordinates) is inside, by the even-odd rule.

    A centre exactly on an outline counts for the area to its right or below, so that two areas sharing an edge neither
    overlap nor leave a gap.

    Args:
        polygons_px: polygons of shape ``(N, 2)``; fewer than three points fill nothing.
        size_wh: width and height of the picture, pixels.

    Returns:
        ``(H, W)`` bool.
    """
    width, height = size_wh
    mask = np.zeros((height, width), dtype=bool)
    for polygon in polygons_px:
        points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        if len(points) >= 3:
            mask |= _fill_polygon(points, width, height)
    return mask


def _fill_polygon(points: npt.NDArray[np.float64], width: int, height: int) -> BoolArray:
    """One polygon of `fill_polygons`: every crossing of a row by an edge flips all pixels to the right of it."""
    start, end = points, np.roll(points, -1, axis=0)
    upper = np.where((start[:, 1] <= end[:, 1])[:, None], start, end)
    lower = np.where((start[:, 1] <= end[:, 1])[:, None], end, start)
    first = np.clip(np.ceil(upper[:, 1]), 0, height).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 1]), 0, height).astype(np.int64)  # rows first..last-1: an edge owns its upper end only
    counts = last - first
    total = int(counts.sum())
    if total == 0:
        return np.zeros((height, width), dtype=bool)
    edge = np.repeat(np.arange(len(points)), counts)
    rows = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
    crossing = upper[edge, 0] + (rows - upper[edge, 1]) * slope
    columns = np.clip(np.ceil(crossing), 0, width).astype(np.int64)
    flips = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).reshape(height, width + 1)
    return (np.cumsum(flips, axis=1)[:, :width] & 1).astype(bool)
