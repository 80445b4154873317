"""Exact plane geometry on the codec's lattice: whole numbers, so two machines never disagree about validity.

Lattice coordinates count finest steps from the image's left and top border: a cell is `cell_steps` wide, its centre lies at
``cell_steps * i + cell_steps / 2`` and the image spans ``0 .. cell_steps * n``. y points down.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import shapely

from getok_drive.tokens.vocab import GRID_SIZE, OFFSET_ROUNDS, TABLE

Lattice = npt.NDArray[np.int64]
Point = tuple[int, int]


def cell_steps(rounds: int = OFFSET_ROUNDS) -> int:
    """Lattice steps per cell after ``rounds`` offset rounds: ``2**rounds`` (at least 2, so that centres are whole numbers)."""
    return 1 << max(rounds, 1)


def snap(points_norm: npt.NDArray[np.float64], rounds: int) -> Lattice:
    """Nearest lattice points ``(N, 2)`` of image fractions, which are clipped to 0..1."""
    return np.rint(np.clip(points_norm, 0.0, 1.0) * (GRID_SIZE * cell_steps(rounds))).astype(np.int64)


def to_norm(points: npt.ArrayLike, rounds: int) -> npt.NDArray[np.float64]:
    """Image fractions of lattice points ``(N, 2)``, exact."""
    return np.asarray(points, dtype=np.float64).reshape(-1, 2) / (GRID_SIZE * cell_steps(rounds))


def center(cell: int, steps: int) -> Point:
    """Lattice point of a cell's centre."""
    row, column = divmod(cell, GRID_SIZE)
    return column * steps + steps // 2, row * steps + steps // 2


def move(offset: int) -> Point:
    """``(du, dv)`` of a local offset id."""
    dv, du = divmod(offset - TABLE.offset_base, 3)
    return du - 1, dv - 1


def orientation(a: Point, b: Point, c: Point) -> int:
    """Twice the signed area of the triangle abc: positive when it runs clockwise on the screen."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def segments_touch(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the closed segments ab and cd share a point."""
    if max(a[0], b[0]) < min(c[0], d[0]) or max(c[0], d[0]) < min(a[0], b[0]):
        return False
    if max(a[1], b[1]) < min(c[1], d[1]) or max(c[1], d[1]) < min(a[1], b[1]):
        return False
    return orientation(a, b, c) * orientation(a, b, d) <= 0 and orientation(c, d, a) * orientation(c, d, b) <= 0


def folds_back(a: Point, b: Point, c: Point) -> bool:
    """Whether bc runs back over ab (or has no length)."""
    return orientation(a, b, c) == 0 and (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1]) <= 0


def can_append(chain: Sequence[Point], point: Point) -> bool:
    """Whether an open simple chain stays simple when a point is appended; touching itself is not simple."""
    if not chain:
        return True
    last = chain[-1]
    if point == last or (len(chain) >= 2 and folds_back(chain[-2], last, point)):
        return False
    return not any(segments_touch(last, point, chain[k], chain[k + 1]) for k in range(len(chain) - 2))


def can_close(chain: Sequence[Point]) -> bool:
    """Whether an open simple chain becomes a simple polygon when its last point is joined to its first."""
    if len(chain) < 3:
        return False
    first, last = chain[0], chain[-1]
    if folds_back(chain[-2], last, first) or folds_back(last, first, chain[1]):
        return False
    return not any(segments_touch(last, first, chain[k], chain[k + 1]) for k in range(1, len(chain) - 2))


def is_simple(polygon: Lattice | Sequence[Point]) -> bool:
    """Whether a polygon of N >= 3 vertices, not closed twice, neither crosses nor touches itself and has an area."""
    points = np.asarray(polygon, dtype=np.float64)
    if len(points) < 3 or (points == np.roll(points, 1, axis=0)).all(axis=1).any():
        return False
    return bool(shapely.is_valid(shapely.polygons(points)))


def twice_area(polygon: Lattice) -> int:
    """Twice the signed area of a polygon ``(N, 2)``: positive when it runs clockwise on the screen."""
    x, y = polygon[:, 0], polygon[:, 1]
    return int(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def canonical_ring(polygon: Lattice) -> Lattice:
    """The same polygon, clockwise on the screen, from its lowest and among those leftmost vertex."""
    if twice_area(polygon) < 0:
        polygon = polygon[::-1]
    start = int(np.lexsort((polygon[:, 0], -polygon[:, 1]))[0])
    return np.roll(polygon, -start, axis=0)


def _corner_areas(polygon: Lattice) -> Lattice:
    """Twice the area ``(N,)`` that a polygon loses or gains when a vertex is left out."""
    before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
    areas: Lattice = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0])
    return areas


def _entangled(polygon: Lattice) -> npt.NDArray[np.intp]:
    """Vertices of the edges that cross, touch or fold back on another edge."""
    points: list[Point] = [(int(x), int(y)) for x, y in polygon]
    count, found = len(points), set[int]()
    for k in range(count):
        if folds_back(points[k - 1], points[k], points[(k + 1) % count]):
            found.add(k)
        for m in range(k + 2, count - (k == 0)):
            if segments_touch(points[k], points[k + 1], points[m], points[(m + 1) % count]):
                found.update((k, k + 1, m, (m + 1) % count))
    return np.array(sorted(found), dtype=np.intp)


def representable_polygon(polygon: Lattice, steps: int, most: int) -> Lattice | None:
    """The nearest polygon that tokens can say: simple on the lattice *and* on the grid, at most ``most`` vertices.

    Vertices that stand in the way (several in one cell, edges of a strip thinner than a cell) are left out one by one, the one
    that changes the area least first (Visvalingam's criterion). A polygon that needs no change comes back as it is.

    Returns:
        ``(N, 2)`` lattice points, or None when nothing of at least three cells remains.
    """
    polygon = polygon[(polygon != np.roll(polygon, 1, axis=0)).any(axis=1)]
    if len(polygon) > 2 * most:  # dense contours: a fast first cut, by at most one finest step
        outline = np.concatenate([polygon, polygon[:1]]).astype(np.float64)
        polygon = shapely.get_coordinates(shapely.simplify(shapely.linestrings(outline), 1.0)).astype(np.int64)[:-1]
    while len(polygon) > most:
        polygon = np.delete(polygon, np.argmin(_corner_areas(polygon)), axis=0)
    while len(polygon) >= 3:
        cells = np.minimum(polygon // steps, GRID_SIZE - 1)
        _, group, counts = np.unique(cells @ np.array([1, GRID_SIZE]), return_inverse=True, return_counts=True)
        crowded = np.flatnonzero(counts[group] > 1)
        if len(crowded) == 0:
            if is_simple(cells) and is_simple(polygon):
                return polygon
            crowded = np.union1d(_entangled(cells), _entangled(polygon))
        worst = crowded[np.argmin(_corner_areas(polygon)[crowded])]
        polygon = np.delete(polygon, worst, axis=0)
    return None


# --- what a decoder may change in a polygon --------------------------------------------------------------------------


def appendable(chain: Sequence[Point], candidates: Lattice) -> npt.NDArray[np.bool_]:
    """`can_append` for many candidate points ``(M, 2)`` at once: an ``(M,)`` mask."""
    if not chain:
        return np.ones(len(candidates), dtype=bool)
    points = np.array(chain, dtype=np.int64)
    last = points[-1]
    good: npt.NDArray[np.bool_] = (candidates != last).any(axis=1)

    def cross(a: Lattice, b: Lattice) -> Lattice:
        product: Lattice = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
        return product

    way = candidates - last
    if len(points) >= 2:
        before = last - points[-2]
        good &= (cross(before, way) != 0) | (way @ before > 0)
    if len(points) >= 3:
        c, d, q = points[None, :-2], points[None, 1:-1], candidates[:, None]
        overlap = (np.maximum(q, last) >= np.minimum(c, d)).all(axis=2) & (np.maximum(c, d) >= np.minimum(q, last)).all(axis=2)
        by_way = cross(way[:, None], c - last) * cross(way[:, None], d - last) <= 0
        by_edge = cross(d - c, last - c) * cross(d - c, q - c) <= 0
        good &= ~(overlap & by_way & by_edge).any(axis=1)
    return good


def can_move(ring: Sequence[Point], index: int, target: Point) -> bool:
    """Whether a simple polygon stays simple when one vertex moves to ``target``."""
    count = len(ring)
    before, after = ring[index - 1], ring[(index + 1) % count]
    if count == 3:
        return orientation(before, target, after) != 0
    if folds_back(before, target, after):
        return False
    if folds_back(ring[index - 2], before, target) or folds_back(target, after, ring[(index + 2) % count]):
        return False
    for step in range(1, count - 1):  # edges from `after` on, round to `before`
        a, b = ring[(index + step) % count], ring[(index + step + 1) % count]
        if step < count - 2 and segments_touch(before, target, a, b):
            return False
        if step > 1 and segments_touch(target, after, a, b):
            return False
    return True


def can_remove(ring: Sequence[Point], index: int) -> bool:
    """Whether a simple polygon of N >= 4 vertices stays simple when one vertex is left out."""
    count = len(ring)
    before, after = ring[index - 1], ring[(index + 1) % count]
    if count == 4:
        return orientation(before, after, ring[(index + 2) % count]) != 0
    if folds_back(ring[index - 2], before, after) or folds_back(before, after, ring[(index + 2) % count]):
        return False
    return not any(
        segments_touch(before, after, ring[(index + step) % count], ring[(index + step + 1) % count])
        for step in range(2, count - 2)
    )
