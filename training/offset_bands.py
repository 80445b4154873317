"""The bands and pools of the offset-aware data: which grid points lie well inside a mask, just outside, far off, or beyond help.

Source: GETok (arXiv 2512.10554), supplement C.2, equations 2-5. Symbols: ``M_gt`` mask; ``n`` grid size; ``m = 2n`` offset size;
``S = diag(s_x, s_y) = diag(W/m, H/m)`` the move of one offset, pixels; ``c_ij`` centre of cell (i, j); ``K_k`` a k x k square.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from getok_drive.tokens.codec import Points, cell_centers
from getok_drive.tokens.vocab import GRID_SIZE

Mask = npt.NDArray[np.bool_]
U8 = npt.NDArray[np.uint8]

MOVES = np.array([(du, dv) for dv in (-1, 0, 1) for du in (-1, 0, 1)])
"""``(9, 2)`` the moves ``(du, dv)``, in the order of the ``<OFF_du_dv>`` tokens."""

BOUNDARY_WIDTH_PX = 3


class Pool(IntEnum):
    """What a grid point is to a mask (equation 5), in the rule's order of precedence."""

    HARD_DELETE = 0
    INSIDE = 1
    RING = 2
    FAR = 3


@dataclass(frozen=True, slots=True)
class Bands:
    """The three bands of a mask, each ``(H, W)`` bool.

    Attributes:
        interior: E, what is left after erosion (equation 2).
        halo: D, the mask dilated (equation 2); its part outside the mask is the ring.
        boundary: B, a thin ribbon along the outline (equation 3).
    """

    interior: Mask
    halo: Mask
    boundary: Mask


def checked_mask(mask: npt.ArrayLike) -> Mask:
    """``mask`` as an ``(H, W)`` bool array.

    Raises:
        InputError: another shape, or nothing in it.
    """
    array = np.asarray(mask)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"mask: expected a non-empty (H, W) array, got shape {array.shape}")
    array = array.astype(bool)
    if not array.any():
        raise InputError("mask: it has no foreground pixel; leave objects without pixels out")
    return array


def step_px(size_wh: tuple[int, int]) -> tuple[float, float]:
    """``(s_x, s_y)``: pixels that one offset moves, ``(W/m, H/m)`` with ``m = 2n``."""
    return size_wh[0] / (2 * GRID_SIZE), size_wh[1] / (2 * GRID_SIZE)


def _square(side_px: int) -> U8:
    return np.ones((side_px, side_px), np.uint8)


def bands(mask: npt.ArrayLike, boundary_px: int = BOUNDARY_WIDTH_PX) -> Bands:
    """E, D and B of equations 2 and 3.

        k_e = floor(s_y) + 1     E = M_gt eroded by K_ke
        k_d = 2 floor(s_y) + 1   D = M_gt dilated by K_kd
                                 B = grad(M_gt) dilated by K_b

    The paper leaves open, and here is: the gradient is that of a 3 x 3 square (dilation minus erosion); the anchor of an even
    square is the pixel right of and below its middle; what is outside the image neither erodes nor dilates. Both sizes follow
    ``s_y`` alone, as printed: resize to a square image first (`training.offset_data` does) where ``s_x`` differs. Note that
    ``k_e`` takes away half a step on each side, not a whole one.

    Args:
        mask: ``(H, W)``, true on the object.
        boundary_px: b, side of the square that widens the outline; 1 or more.

    Raises:
        InputError: an empty mask.
        ConfigError: ``boundary_px`` below 1.
    """
    if boundary_px < 1:
        raise ConfigError(f"boundary_px: expected 1 or more, got {boundary_px}")
    pixels = checked_mask(mask).astype(np.uint8)
    step = int(step_px((pixels.shape[1], pixels.shape[0]))[1])
    gradient = cv2.morphologyEx(pixels, cv2.MORPH_GRADIENT, _square(3))
    return Bands(
        cv2.erode(pixels, _square(step + 1)).astype(bool),
        cv2.dilate(pixels, _square(2 * step + 1)).astype(bool),
        cv2.dilate(gradient, _square(boundary_px)).astype(bool),
    )


def look_up(picture: npt.NDArray[np.generic], points_norm: npt.NDArray[np.float64]) -> npt.NDArray[np.generic]:
    """Values of ``(H, W)`` at points ``(..., 2)``, image fractions; points beyond the image take the nearest pixel's value."""
    height, width = picture.shape
    column = np.clip(points_norm[..., 0] * width, 0, width - 1).astype(np.intp)
    row = np.clip(points_norm[..., 1] * height, 0, height - 1).astype(np.intp)
    return picture[row, column]


def reached(mask: npt.ArrayLike, points_norm: Points, round_number: int = 1) -> Mask:
    """Which of the nine moves of one round bring each point into the mask: the inside of equation 4.

    Args:
        mask: ``(H, W)``.
        points_norm: ``(N, 2)`` image fractions.
        round_number: r; the move is ``S / 2**(r - 1)``. 1 is the paper's.

    Returns:
        ``(N, 9)`` bool in the order of `MOVES`. A move that would leave the image ends on its border, as in the codec.
    """
    moves = MOVES / (2**round_number * GRID_SIZE)
    return look_up(checked_mask(mask), np.clip(points_norm[:, None] + moves[None], 0.0, 1.0)).astype(bool)


def hits(mask: npt.ArrayLike) -> Mask:
    """Equation 4 for every cell: is the mask one step or less away?

        Hit(i, j) = exists delta in {-1, 0, 1}^2 with M_gt(c_ij + S delta) = 1

    Returns:
        ``(n * n,)`` bool, by local grid id.
    """
    return np.asarray(reached(mask, cell_centers(np.arange(GRID_SIZE**2))).any(axis=1))


def pools(mask: npt.ArrayLike, boundary_px: int = BOUNDARY_WIDTH_PX) -> npt.NDArray[np.int8]:
    """Equation 5: the `Pool` of every cell, by the first rule that fits its centre.

        Hard-Delete   B = 1 and M_gt = 0 and not Hit
        Inside        E = 1
        Ring          D = 1 and M_gt = 0
        Far           otherwise (also the rim of the mask between E and M_gt, as printed)

    Returns:
        ``(n * n,)`` int8 values of `Pool`, by local grid id.
    """
    pixels = checked_mask(mask)
    found = bands(pixels, boundary_px)
    centers = cell_centers(np.arange(GRID_SIZE**2))
    in_mask, interior, halo, boundary = (
        look_up(picture, centers).astype(bool) for picture in (pixels, found.interior, found.halo, found.boundary)
    )
    conditions = [boundary & ~in_mask & ~hits(pixels), interior, halo & ~in_mask]
    return np.select(conditions, [Pool.HARD_DELETE, Pool.INSIDE, Pool.RING], Pool.FAR).astype(np.int8)


def draw_bands(image_bgr: U8, mask: npt.ArrayLike, boundary_px: int = BOUNDARY_WIDTH_PX) -> U8:
    """A picture of the bands and of every grid point's pool, for documentation and for checking data by eye.

    Args:
        image_bgr: ``(H, W, 3)``.
        mask: ``(H, W)`` of the same size.

    Returns:
        ``(H, W, 3)`` BGR: E green, the ring of D blue, B white; points: Inside green, Ring blue, Hard-Delete red, Far grey.
    """
    pixels = checked_mask(mask)
    if image_bgr.shape[:2] != pixels.shape:
        raise InputError(f"mask: {pixels.shape} does not fit an image of {image_bgr.shape[:2]}")
    found = bands(pixels, boundary_px)
    colors = {Pool.HARD_DELETE: (40, 40, 255), Pool.INSIDE: (60, 220, 60), Pool.RING: (255, 140, 30), Pool.FAR: (150, 150, 150)}
    picture = image_bgr.astype(np.float32) * 0.6
    layers = ((found.halo & ~pixels, colors[Pool.RING], 0.45), (found.interior, colors[Pool.INSIDE], 0.45))
    for area, color, weight in (*layers, (found.boundary, (255, 255, 255), 0.7)):
        picture[area] = picture[area] * (1 - weight) + np.array(color) * weight
    drawn = picture.astype(np.uint8)
    height, width = pixels.shape
    radius = max(1, round(min(height, width) / 210))
    points = cell_centers(np.arange(GRID_SIZE**2)) * [width, height] - 0.5
    for pool, (x, y) in zip(pools(pixels, boundary_px), points, strict=True):
        if pool != Pool.FAR:
            cv2.circle(drawn, (round(x), round(y)), radius + 1, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(
            drawn, (round(x), round(y)), radius if pool != Pool.FAR else max(1, radius - 1), colors[Pool(pool)], -1, cv2.LINE_AA
        )
    return drawn
