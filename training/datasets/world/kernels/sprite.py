"""Pastes an upright picture: scaled, lit and blended in one pass."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled


@compiled
def paste(image, owner, tally, picture, left, top, width, height, clip_v, light, who, flip, hard):  # type: ignore[no-untyped-def]
    """Paste ``picture`` into the box at ``left, top`` and count the pixels it gets.

    Args:
        image: ``(H, W, 3)`` uint8; owner: ``(H, W)`` uint8; both are drawn on.
        tally: ``(256, 5)`` int32, see `Canvas.tally`.
        picture: ``(h, w, 4)`` uint8, colour and cover.
        left, top, width, height: the box, canvas pixels; clip_v: last row that shows.
        light: three columns of the matrix from the picture's channels to BGR, and the offset.
        who: owner of its pixels; flip: mirrored; hard: no soft rim.
    """
    rows, columns = picture.shape[0], picture.shape[1]
    x0, y0 = max(math.floor(left), 0), max(math.floor(top), 0)
    x1 = min(math.ceil(left + width) + 1, image.shape[1])
    y1 = min(math.ceil(top + height) + 1, math.ceil(clip_v) + 1, image.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    first, second, third, offset = light
    b0, b1, b2, b3 = np.float32(first[0]), np.float32(second[0]), np.float32(third[0]), np.float32(offset[0])
    g0, g1, g2, g3 = np.float32(first[1]), np.float32(second[1]), np.float32(third[1]), np.float32(offset[1])
    r0, r1, r2, r3 = np.float32(first[2]), np.float32(second[2]), np.float32(third[2]), np.float32(offset[2])
    step_x, step_y = columns / width, rows / height
    start_x = (x0 + 0.5 - left) * step_x - 0.5
    if flip:
        start_x, step_x = columns - 1 - start_x, -step_x
    count = 0
    for y in range(y0, y1):
        v = (y + 0.5 - top) * step_y - 0.5
        if v <= -1 or v >= rows:
            continue
        j = math.floor(v)
        q = np.float32(v - j)
        above, below = np.float32(1) - q, q  # shares of the two rows; what lies beyond the rim is transparent
        ja, jb = max(j, 0), min(j + 1, rows - 1)
        above_cover, below_cover = above * (j >= 0), below * (j + 1 < rows)
        for x in range(x0, x1):
            u = start_x + (x - x0) * step_x
            if u <= -1 or u >= columns:
                continue
            i = math.floor(u)
            p = np.float32(u - i)
            ia, ib = max(i, 0), min(i + 1, columns - 1)
            before, after = np.float32(1) - p, p
            cover = (above_cover * picture[ja, ia, 3] + below_cover * picture[jb, ia, 3]) * (before * (i >= 0)) + (
                above_cover * picture[ja, ib, 3] + below_cover * picture[jb, ib, 3]
            ) * (after * (i + 1 < columns))
            solid = cover >= np.float32(127.5)
            if not solid and (hard or cover < np.float32(0.5)):
                continue
            aa, ab, ba, bb = above * before, above * after, below * before, below * after
            c0 = aa * picture[ja, ia, 0] + ab * picture[ja, ib, 0] + ba * picture[jb, ia, 0] + bb * picture[jb, ib, 0]
            c1 = aa * picture[ja, ia, 1] + ab * picture[ja, ib, 1] + ba * picture[jb, ia, 1] + bb * picture[jb, ib, 1]
            c2 = aa * picture[ja, ia, 2] + ab * picture[ja, ib, 2] + ba * picture[jb, ia, 2] + bb * picture[jb, ib, 2]
            blue = min(max(b0 * c0 + b1 * c1 + b2 * c2 + b3, np.float32(0)), np.float32(255))
            green = min(max(g0 * c0 + g1 * c1 + g2 * c2 + g3, np.float32(0)), np.float32(255))
            red = min(max(r0 * c0 + r1 * c1 + r2 * c2 + r3, np.float32(0)), np.float32(255))
            if not hard:
                share = cover * np.float32(1 / 255)
                blue = image[y, x, 0] + (blue - image[y, x, 0]) * share
                green = image[y, x, 1] + (green - image[y, x, 1]) * share
                red = image[y, x, 2] + (red - image[y, x, 2]) * share
            image[y, x, 0] = np.uint8(blue + np.float32(0.5))
            image[y, x, 1] = np.uint8(green + np.float32(0.5))
            image[y, x, 2] = np.uint8(red + np.float32(0.5))
            if solid:
                owner[y, x] = who
                count += 1
    tally[who, 0] += count
    tally[who, 1], tally[who, 2], tally[who, 3], tally[who, 4] = x0, y0, x1, y1
