"""Offset-aware data for polylines and polygons: vertices pulled off along the normal, and the way back.

An extension by this project: algorithm 1 of GETok (arXiv 2512.10554, supplement C.2) knows masks and boxes only. The roles are
the same: an anchor that is right stays, one within reach is moved, one beyond reach is deleted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.tokens.codec import Points, cell_centers, decode_points, encode_points, offsets_for
from getok_drive.tokens.vocab import GRID_SIZE, TABLE
from training.offset_answers import Anchors

PULL_CELLS = 1.25  # vertices are pulled by up to so many cells: some go beyond the reach of the offsets


def normals(points_norm: npt.ArrayLike, closed: bool) -> Points:
    """Unit normals at the vertices: across the chord from the vertex before to the vertex after, (x, y) -> (-y, x).

    At the ends of an open line the chord is its first or last piece. Where the chord has no length the normal is zero, so that
    the vertex stays.

    Args:
        points_norm: ``(N, 2)``, N >= 2, in units in which both axes count alike (cells, for instance).
        closed: whether the last vertex is joined to the first.

    Returns:
        ``(N, 2)`` float64.
    """
    points = np.asarray(points_norm, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < (3 if closed else 2):
        raise InputError(f"normals: expected (N, 2) points, N at least {3 if closed else 2}, got shape {points.shape}")
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    if not closed:
        before[0], after[-1] = points[0], points[-1]
    chord = after - before
    length = np.hypot(chord[:, 0], chord[:, 1])[:, None]
    return np.divide(np.stack([-chord[:, 1], chord[:, 0]], axis=1), length, out=np.zeros_like(points), where=length > 0)


def feet(anchors_norm: npt.ArrayLike, points_norm: npt.ArrayLike) -> Points:
    """For each inner anchor the nearest point on the two pieces of the polyline beside its own vertex; the ends themselves.

    A point along a lane is as good as its neighbour: only the error across the line is corrected, but at the ends, whose
    place is meant.

    Args:
        anchors_norm: ``(N, 2)``, one anchor a vertex.
        points_norm: ``(N, 2)`` the polyline.

    Returns:
        ``(N, 2)`` targets.
    """
    anchors, points = np.asarray(anchors_norm, dtype=np.float64), np.asarray(points_norm, dtype=np.float64)
    targets = points.copy()
    for index in range(1, len(points) - 1):
        starts, ends = points[index - 1 : index + 1], points[index : index + 2]
        pieces = ends - starts
        squared = (pieces**2).sum(axis=1)
        along = ((anchors[index] - starts) * pieces).sum(axis=1) / np.where(squared > 0, squared, 1.0)
        found = starts + np.clip(along, 0.0, 1.0)[:, None] * pieces
        targets[index] = found[((found - anchors[index]) ** 2).sum(axis=1).argmin()]
    return targets


def answers_to(cells: npt.ArrayLike, targets_norm: npt.ArrayLike, rounds: int, least: int) -> Anchors:
    """Offsets that bring anchors to their targets; ``<DELETE>`` beyond reach, and for all if fewer than ``least`` remain.

    Within reach means that, per axis, the offsets end no further from the target than half the finest step: the codec's own
    precision.

    Args:
        cells: ``(N,)`` proposed cells.
        targets_norm: ``(N, 2)`` image fractions.
        rounds: offset rounds, 1 or more.
        least: points that the element needs (2 for a lane, 3 for a polygon).
    """
    grid = np.asarray(cells, dtype=np.int32)
    targets = np.clip(np.asarray(targets_norm, dtype=np.float64), 0.0, 1.0)
    answers = offsets_for(grid, targets, rounds)
    error = np.abs(decode_points(grid, answers) - targets).max(axis=1)
    answers[error > 0.5 / (2**rounds * GRID_SIZE) + 1e-9] = TABLE.delete
    if (answers[:, 0] != TABLE.delete).sum() < least:
        answers[:] = TABLE.delete
    return Anchors(grid, answers)


def _pulled(points: Points, closed: bool, pull_cells: float, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Cells of the vertices after a random pull along their normals, uniform in -pull..pull cells."""
    distance = rng.uniform(-pull_cells, pull_cells, size=(len(points), 1)) / GRID_SIZE
    return encode_points(points + distance * normals(points, closed), 0)[0]


def polyline_anchors(
    points_norm: npt.ArrayLike, rounds: int, rng: np.random.Generator, pull_cells: float = PULL_CELLS, most: int = 12
) -> Anchors:
    """A polyline with its vertices pulled along the normal; the answers lead back to the line (see `feet`).

    Args:
        points_norm: ``(N, 2)`` image fractions, N >= 2; more than ``most`` vertices are thinned evenly by length.
        rounds: offset rounds, 1 or more.
        pull_cells: greatest pull, cells.
        most: most vertices.

    Raises:
        InputError: fewer than two points.
    """
    points = np.asarray(points_norm, dtype=np.float64)
    if len(points) > most:
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
        wanted = np.linspace(0.0, along[-1], most)
        points = np.stack([np.interp(wanted, along, points[:, axis]) for axis in (0, 1)], axis=1)
    cells = _pulled(points, False, pull_cells, rng)
    return answers_to(cells, feet(cell_centers(cells), points), rounds, least=2)


def polygon_anchors(points_norm: npt.ArrayLike, rounds: int, rng: np.random.Generator, pull_cells: float = PULL_CELLS) -> Anchors:
    """A polygon with its vertices pulled along the normal; the answers lead back to the vertices, which are corners.

    Args: as for `polyline_anchors`; N >= 3, the last vertex is joined to the first.
    """
    points = np.asarray(points_norm, dtype=np.float64)
    return answers_to(_pulled(points, True, pull_cells, rng), points, rounds, least=3)
