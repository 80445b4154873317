"""Algorithm 1 of GETok (arXiv 2512.10554, supplement C.2): grid points as a model may propose them, and the right answer to each.

The bands and pools of equations 2-5 are in `training.offset_bands`. Several rounds are this project's extension; one round is the
paper's algorithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError
from getok_drive.tokens.codec import Ids, Points, cell_centers, encode_points
from getok_drive.tokens.vocab import GRID_SIZE, TABLE
from training.offset_bands import BOUNDARY_WIDTH_PX, MOVES, Pool, checked_mask, look_up, pools

STAY = TABLE.offset_base + 4


@dataclass(frozen=True, slots=True)
class OffsetSettings:
    """What the paper leaves open in algorithm 1 has a default here.

    Attributes:
        size_wh: to which masks are resized, pixels; the paper's 840 x 840.
        rounds: offset rounds, 1 (the paper's) or more.
        boundary_px: b of equation 3.
        least_points: smallest K of ``K ~ pi_K``; pi_K is uniform (the paper does not say).
        most_points: largest K.
        shares: of hard, inside, ring and far points among those beyond the first of each pool.
        jitter_cells: a box corner's cell is moved by -jitter..jitter cells per axis.
        tau: least IoU that corrected corners must reach.
    """

    size_wh: tuple[int, int] = (840, 840)
    rounds: int = 1
    boundary_px: int = BOUNDARY_WIDTH_PX
    least_points: int = 4
    most_points: int = 14
    shares: tuple[float, float, float, float] = (0.1, 0.4, 0.4, 0.1)
    jitter_cells: int = 1
    tau: float = 0.7

    def __post_init__(self) -> None:
        if not 1 <= self.least_points <= self.most_points:
            raise ConfigError(f"points: expected 1 <= least <= most, got {self.least_points} and {self.most_points}")
        if self.rounds < 1:
            raise ConfigError(f"rounds: expected 1 or more offset rounds, got {self.rounds}")
        if not 0 < self.tau <= 1:
            raise ConfigError(f"tau: expected an IoU above 0 and up to 1, got {self.tau}")
        if self.jitter_cells < 0 or min(self.shares) < 0 or sum(self.shares) <= 0:
            raise ConfigError("jitter_cells and shares must not be negative, and one share must be positive")


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """Grid points as a model may propose them, and the right answer to each.

    Attributes:
        cells: ``(N,)`` int32 local grid ids.
        answers: ``(N, rounds)`` int32 local offset ids; a row that starts with ``<DELETE>`` is one ``<DELETE>``.
    """

    cells: Ids
    answers: Ids

    @property
    def deleted(self) -> npt.NDArray[np.bool_]:
        """``(N,)``: which points are to be deleted."""
        return np.asarray(self.answers[:, 0] == TABLE.delete)


# --- points in a mask --------------------------------------------------------------------------------------------------


def sample_cells(pool_of: npt.NDArray[np.int8], settings: OffsetSettings, rng: np.random.Generator) -> Ids:
    """K grid points, with preference for Inside and Ring while every pool is represented (supplement C.2, after equation 5).

    The paper gives no numbers. Here: one point of each pool that has any, Inside and Ring first if K is small; every further
    point is of a pool drawn by ``settings.shares`` among those that have points left. No point is drawn twice.

    Args:
        pool_of: ``(n * n,)`` values of `Pool`.

    Returns:
        ``(K,)`` int32 local grid ids in the order drawn, shuffled.
    """
    count = int(rng.integers(settings.least_points, settings.most_points + 1))
    left = [rng.permutation(np.flatnonzero(pool_of == pool)).tolist() for pool in Pool]
    chosen = [left[pool].pop() for pool in (Pool.INSIDE, Pool.RING, Pool.FAR, Pool.HARD_DELETE) if left[pool]][:count]
    while len(chosen) < count:
        weights = np.array([share * bool(rest) for share, rest in zip(settings.shares, left, strict=True)])
        if weights.sum() == 0:
            break
        chosen.append(left[int(rng.choice(len(weights), p=weights / weights.sum()))].pop())
    return rng.permutation(np.array(chosen, dtype=np.int32))


def mask_answers(mask: npt.ArrayLike, cells: npt.ArrayLike, rounds: int = 1) -> Ids:
    """The answers of algorithm 1 to grid points: stay in the mask, step into it, or ``<DELETE>``.

        M_gt(c_k) = 1     <OFF_0_0>
        Hit(k)            <OFF_du_dv> with M_gt(c_k + S delta) = 1     (equation 4)
        otherwise         <DELETE>

    Where several moves hit, the paper says only "pick"; here it is the one that ends deepest in the mask (Euclidean distance to
    its outside), then the shortest, then the first in the table: a label that does not depend on chance.

    Extension: with more rounds a point is deleted only if no sequence of moves hits. Fewer rounds are preferred, the remaining
    ones stay, so that the first round is the paper's wherever the paper's hits.

    Args:
        mask: ``(H, W)``.
        cells: ``(N,)`` local grid ids.
        rounds: 1 (the paper's) or more.

    Returns:
        ``(N, rounds)`` int32 local ids.
    """
    pixels = checked_mask(mask)
    depth_px = cv2.distanceTransform(pixels.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    centers = cell_centers(cells)
    answers = np.full((len(centers), rounds), TABLE.delete, dtype=np.int32)
    answers[look_up(pixels, centers).astype(bool)] = STAY
    for used in range(1, rounds + 1):
        sequences, shifts = _sequences(used)
        for index in np.flatnonzero(answers[:, 0] == TABLE.delete):
            depths = look_up(depth_px, np.clip(centers[index] + shifts, 0.0, 1.0))
            if depths.max() > 0:
                answers[index] = STAY
                answers[index, :used] = sequences[int(depths.argmax())]  # the first of equals: the shortest move
    return answers


def _sequences(rounds: int) -> tuple[Ids, Points]:
    """Every sequence of offsets ``(M, rounds)`` and its whole move ``(M, 2)``, image fractions; shortest moves first."""
    ids = np.zeros((1, 0), dtype=np.int32)
    moves = np.zeros((1, 2))
    for round_number in range(1, rounds + 1):
        step = 1 / (2**round_number * GRID_SIZE)
        tokens = np.tile(TABLE.offset_base + np.arange(9), len(ids))
        ids = np.column_stack([np.repeat(ids, 9, axis=0), tokens]).astype(np.int32)
        moves = np.repeat(moves, 9, axis=0) + np.tile(MOVES, (len(moves), 1)) * step
    order = np.argsort(np.hypot(*moves.T).round(9), kind="stable")
    return ids[order], moves[order]


def mask_anchors(mask: npt.ArrayLike, settings: OffsetSettings, rng: np.random.Generator) -> Anchors:
    """The segmentation part of algorithm 1: pools, K grid points, an answer to each."""
    cells = sample_cells(pools(mask, settings.boundary_px), settings, rng)
    return Anchors(cells, mask_answers(mask, cells, settings.rounds))


# --- box corners -------------------------------------------------------------------------------------------------------


def mask_box_norm(mask: npt.ArrayLike) -> Points:
    """``BBox(M_gt)``: ``(2, 2)`` top-left and bottom-right corner of the foreground's pixels, outer edges, image fractions."""
    pixels = checked_mask(mask)
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    edges = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], dtype=np.float64)
    return edges / [pixels.shape[1], pixels.shape[0]]


def jitter_cells(cells: npt.ArrayLike, most: int, rng: np.random.Generator) -> Ids:
    """Grid cells moved by a random whole number of cells, -most..most per axis, inside the grid."""
    row, column = np.divmod(np.asarray(cells, dtype=np.int64), GRID_SIZE)
    moved = [np.clip(v + rng.integers(-most, most + 1, size=v.shape), 0, GRID_SIZE - 1) for v in (column, row)]
    return (moved[1] * GRID_SIZE + moved[0]).astype(np.int32)


def corner_answers(box_norm: npt.ArrayLike, cells: Sequence[int] | Ids, tau: float, rounds: int = 1) -> tuple[Ids, float]:
    """Corner offsets of algorithm 1: the best of all pairs of moves if its IoU reaches tau, else ``<DELETE>`` for both.

    With one round these are the paper's 81 pairs. With more, every pair of reachable lattice points is tried (225**2 pairs for
    three rounds). Of equally good pairs, the one with the shortest moves.

    Args:
        box_norm: ``B*``, ``(2, 2)`` corners, image fractions.
        cells: the top-left and the bottom-right corner's proposed cells.
        tau: least IoU.
        rounds: 1 (the paper's) or more.

    Returns:
        ``(2, rounds)`` int32 local ids, and ``IoU_max``.
    """
    (x0, y0), (x1, y1) = np.asarray(box_norm, dtype=np.float64)
    sequences, shifts = _sequences(rounds)
    keep = np.unique(shifts.round(9), axis=0, return_index=True)[1]  # moves that several sequences make, once
    keep.sort()
    sequences, shifts = sequences[keep], shifts[keep]
    starts, ends = (np.clip(center + shifts, 0.0, 1.0) for center in cell_centers(cells))
    low = np.maximum(starts, [x0, y0])[:, None]
    high = np.minimum(ends, [x1, y1])[None]
    common = np.prod(np.clip(high - low, 0.0, None), axis=2)
    sides = ends[None] - starts[:, None]
    proposed = np.where((sides > 0).all(axis=2), sides.prod(axis=2), 0.0)
    union = proposed + (x1 - x0) * (y1 - y0) - common
    iou = np.where(proposed > 0, common / union, 0.0)
    best = float(iou.max())
    if best < tau:
        return np.full((2, rounds), TABLE.delete, dtype=np.int32), best
    length = np.hypot(*shifts.T)
    candidates = np.argwhere(iou >= best - 1e-12)
    first, second = candidates[np.argmin((length[candidates[:, 0]] + length[candidates[:, 1]]).round(9))]
    return np.stack([sequences[first], sequences[second]]), best


def box_anchors(mask: npt.ArrayLike, settings: OffsetSettings, rng: np.random.Generator) -> Anchors:
    """The box part of algorithm 1: the mask's box, corners jittered to grid cells, an answer to each corner.

    "Grid corners" of the paper are the grid points, i.e. centres of the cells that hold the corners, as everywhere else.
    """
    corners = mask_box_norm(mask)
    cells = jitter_cells(encode_points(corners, 0)[0], settings.jitter_cells, rng)
    return Anchors(cells, corner_answers(corners, cells, settings.tau, settings.rounds)[0])
