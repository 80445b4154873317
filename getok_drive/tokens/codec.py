"""THE codec between coordinates and spatial tokens; numpy only, vectorised and exact.

A point is a grid token (its cell's centre) and ``rounds`` offset tokens. Round r, counted from 1, moves the point by
``du / (2**r * n)`` and ``dv / (2**r * n)`` of the image, ``du, dv in {-1, 0, 1}``. Every reachable point lies on a lattice of
step ``1 / (2**rounds * n)``, which covers the closed image 0..1; the round trip errs by at most half that step per axis.

Cell index ``cell = j * n + i`` is the local id of ``<grid_i_j>``: i is the column (x), j the row (y).

Source: GETok (arXiv 2512.10554), section 3 (grid, one offset round, m = 2n = 64); several rounds are this project's extension.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.tokens.vocab import GRID_SIZE, OFFSET_ROUNDS, STRUCTURE_TOKENS, TABLE, TOKEN_ID, TOKENS

Points = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int32]

UNKNOWN_ID = -1  # what `from_text` writes for text that is no token; the parser counts it as ``unknown_token``
OFFSET_NONE = TABLE.offset_base + 4  # <OFF_0_0>: stay

_NEW_LINE_BEFORE = frozenset(TOKEN_ID[f"<{kind}>"] for kind in ("lane", "drivable", "box", "sign")) | {
    TOKEN_ID[text] for text in ("</scene>", "<offset>", "<seg>", "<answer>", "<think>")
}
assert {"</scene>", "<offset>", "<seg>", "<answer>", "<think>"} <= set(STRUCTURE_TOKENS)


def _checked_points(points: npt.ArrayLike, what: str) -> Points:
    """``(N, 2)`` float64 view or copy of ``points``; NaN is an `InputError`, infinities are not (they are clipped later)."""
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"{what}: expected an (N, 2) array of (x, y), got shape {array.shape}")
    if np.isnan(array).any():
        raise InputError(f"{what}: point {int(np.isnan(array).any(axis=1).argmax())} is NaN; remove unlabelled points first")
    return array


def _checked_cells(cells: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.asarray(cells, dtype=np.int64).reshape(-1)
    if array.size and (array.min() < 0 or array.max() >= GRID_SIZE**2):
        raise InputError(f"cells: ids must lie in 0..{GRID_SIZE**2 - 1}, got {int(array.min())}..{int(array.max())}")
    return array


def _checked_size(size_wh: tuple[int, int]) -> Points:
    size = np.asarray(size_wh, dtype=np.float64)
    if size.shape != (2,) or not (np.isfinite(size).all() and (size > 0).all()):
        raise InputError(f"size_wh: expected a positive width and height in pixels, got {size_wh!r}")
    return size


# --- pixels <-> 0..1 -------------------------------------------------------------------------------------------------


def px_to_norm(points_px: npt.ArrayLike, size_wh: tuple[int, int]) -> Points:
    """Pixels to image fractions: ``norm = (uv_px + 0.5) / size_wh``.

    Args:
        points_px: ``(N, 2)`` pixels; integers are pixel centres, so the image spans ``-0.5 .. size - 0.5``.
        size_wh: width and height of that image, pixels.

    Returns:
        ``(N, 2)`` float64; 0..1 inside the image, not clipped.

    Raises:
        InputError: on another shape, NaN, or a size that is not positive.
    """
    return (_checked_points(points_px, "points_px") + 0.5) / _checked_size(size_wh)


def norm_to_px(points_norm: npt.ArrayLike, size_wh: tuple[int, int]) -> Points:
    """Image fractions to pixels, the inverse of `px_to_norm`: ``uv_px = norm * size_wh - 0.5``."""
    return _checked_points(points_norm, "points_norm") * _checked_size(size_wh) - 0.5


# --- points <-> tokens -----------------------------------------------------------------------------------------------


def cell_centers(cells: npt.ArrayLike) -> Points:
    """Centres of the cells ``(N,)``: ``((i + 0.5) / n, (j + 0.5) / n)``, an ``(N, 2)`` array of image fractions."""
    row, column = np.divmod(_checked_cells(cells), GRID_SIZE)
    return (np.stack([column, row], axis=1) + 0.5) / GRID_SIZE


def encode_points(points_norm: npt.ArrayLike, rounds: int = OFFSET_ROUNDS) -> tuple[Ids, Ids]:
    """The cell of each point and the offsets that lead from the cell's centre to the point.

    Args:
        points_norm: ``(N, 2)`` image fractions. Points outside 0..1 (infinite ones too) are moved to the nearest point of
            the image's border, axis by axis; a point on the border between two cells belongs to the right and lower one.
        rounds: number of offset rounds, 0 or more.

    Returns:
        ``cells (N,)`` int32 local grid ids and ``offsets (N, rounds)`` int32 local offset ids, coarse to fine.

    Raises:
        InputError: on another shape or NaN.
    """
    points = np.clip(_checked_points(points_norm, "points_norm"), 0.0, 1.0)
    ij = np.minimum((points * GRID_SIZE).astype(np.int32), GRID_SIZE - 1)
    cells = (ij[:, 1] * GRID_SIZE + ij[:, 0]).astype(np.int32)
    return cells, offsets_for(cells, points, rounds)


def offsets_for(cells: npt.ArrayLike, points_norm: npt.ArrayLike, rounds: int = OFFSET_ROUNDS, first: Ids | None = None) -> Ids:
    """The offsets that bring given cells' centres nearest to the points, also from cells that do not hold the point.

    Per axis, each round takes the nearest of {-step, 0, +step} to what is left (a tie stays). Because the steps halve, this
    greedy choice is optimal: with three rounds it reaches every point within 7/8 of a cell of the centre to half a finest
    step, goes as near as possible to points beyond, and never leaves the image on the way.

    Args:
        cells: ``(N,)`` local grid ids.
        points_norm: ``(N, 2)`` image fractions, clipped to 0..1 as in `encode_points`.
        rounds: number of offset rounds, 0 or more.
        first: ``(N,)`` local ids that the first round has answered already, well or badly; the others go on from there.

    Returns:
        ``(N, rounds)`` int32 local ids of ``<OFF_du_dv>``, coarse to fine.
    """
    if rounds < 0:
        raise InputError(f"rounds: expected 0 or more offset rounds, got {rounds}")
    centers = cell_centers(cells)
    points = np.clip(_checked_points(points_norm, "points_norm"), 0.0, 1.0)
    if len(points) != len(centers):
        raise InputError(f"offsets_for: {len(centers)} cells but {len(points)} points")
    left = (points - centers) * GRID_SIZE  # in cells
    offsets = np.empty((len(points), rounds), dtype=np.int32)
    for index in range(rounds):
        step = 0.5 ** (index + 1)
        move = np.sign(left) * (np.abs(left) > step / 2)
        if index == 0 and first is not None:
            move = np.stack([(first - TABLE.offset_base) % 3 - 1, (first - TABLE.offset_base) // 3 - 1], axis=-1)
        left -= move * step
        offsets[:, index] = OFFSET_NONE + 3 * move[:, 1] + move[:, 0]
    return offsets


def decode_points(cells: npt.ArrayLike, offsets: npt.ArrayLike | None = None) -> Points:
    """Image fractions of the points, the inverse of `encode_points`.

    Args:
        cells: ``(N,)`` local grid ids.
        offsets: ``(N, rounds)`` local offset ids, or None for the cells' centres.

    Returns:
        ``(N, 2)`` float64 in 0..1: a point that its offsets push out of the image stays on the border.

    Raises:
        InputError: on ids outside the grid or the nine offsets (``<DELETE>`` has no place: remove deleted points first).
    """
    points = cell_centers(cells)
    if offsets is None:
        return points
    moves = np.asarray(offsets, dtype=np.int64) - TABLE.offset_base
    if moves.ndim != 2 or len(moves) != len(points):
        raise InputError(f"offsets: expected shape ({len(points)}, rounds), got {moves.shape}")
    if moves.size and (moves.min() < 0 or moves.max() > 8):
        raise InputError("offsets: an id is not one of the nine <OFF_du_dv> tokens")
    steps = 0.5 ** np.arange(1, moves.shape[1] + 1) / GRID_SIZE
    points += np.stack([(moves % 3 - 1) @ steps, (moves // 3 - 1) @ steps], axis=1)
    return np.clip(points, 0.0, 1.0)


# --- masks <-> tokens ------------------------------------------------------------------------------------------------


def _center_pixels(length_px: int) -> npt.NDArray[np.intp]:
    """``(n,)`` index of the pixel that holds each cell centre along an axis of ``length_px`` pixels."""
    return np.minimum((np.arange(GRID_SIZE) + 0.5) / GRID_SIZE * length_px, length_px - 1).astype(np.intp)


def mask_to_cells(mask: npt.ArrayLike) -> Ids:
    """Cells whose centre lies inside a mask ``(H, W)`` bool, as int32 local grid ids row by row.

    Empty for a mask that misses every cell centre: encode such a small region as a box or a point.
    """
    array = np.asarray(mask)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"mask: expected a non-empty (H, W) array, got shape {array.shape}")
    inside = array[np.ix_(_center_pixels(array.shape[0]), _center_pixels(array.shape[1]))].astype(bool)
    return np.flatnonzero(inside).astype(np.int32)


def cells_to_mask(cells: npt.ArrayLike, size_wh: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """``(H, W)`` mask of the pixels whose centre lies in one of the cells."""
    width, height = (int(value) for value in _checked_size(size_wh))
    grid = np.zeros((GRID_SIZE, GRID_SIZE), dtype=bool)
    grid.reshape(-1)[_checked_cells(cells)] = True
    rows = ((np.arange(height) + 0.5) / height * GRID_SIZE).astype(np.intp)
    columns = ((np.arange(width) + 0.5) / width * GRID_SIZE).astype(np.intp)
    return grid[np.ix_(rows, columns)]


def cells_to_points_px(cells: npt.ArrayLike, size_wh: tuple[int, int]) -> Points:
    """``(N, 2)`` pixels of the cells' centres, e.g. as point prompts for a segmentation model."""
    return norm_to_px(cell_centers(cells), size_wh)


# --- text for people -------------------------------------------------------------------------------------------------


def to_text(ids: Iterable[int]) -> str:
    """The tokens' text, a line per element; an id outside the table appears as ``<unknown:id>``."""
    parts: list[str] = []
    for token in ids:
        if token in _NEW_LINE_BEFORE and parts:
            parts.append("\n")
        parts.append(TOKENS[token] if 0 <= token < len(TOKENS) else f"<unknown:{token}>")
    return "".join(parts)


def from_text(text: str) -> list[int]:
    """Local ids of a text of tokens; white space between tokens has no meaning.

    Never raises: each piece that is no token becomes `UNKNOWN_ID`, which the parser counts and reports.
    """
    return [TOKEN_ID.get(piece, UNKNOWN_ID) for piece in re.findall(r"<[^<>\s]*>?|[^<\s]+", text)]
