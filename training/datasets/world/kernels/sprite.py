"""Upright pictures: pasting one, scaled, lit and blended in one pass, and making one ready for that."""

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
        picture: ``(h, w)`` uint32, see `level`.
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
        ja, jb, down = np.uintp(max(j, 0)), np.uintp(min(j + 1, rows - 1)), int(q * np.float32(256))
        above_cover, below_cover = above * (j >= 0), below * (j + 1 < rows)
        for x in range(x0, x1):
            u = start_x + (x - x0) * step_x
            if u <= -1 or u >= columns:
                continue
            i = math.floor(u)
            p = np.float32(u - i)
            ia, ib = max(i, 0), min(i + 1, columns - 1)
            before, after = np.float32(1) - p, p
            aa, ab = np.int64(picture[ja, np.uintp(ia)]), np.int64(picture[ja, np.uintp(ib)])
            ba, bb = np.int64(picture[jb, np.uintp(ia)]), np.int64(picture[jb, np.uintp(ib)])
            cover = (above_cover * np.float32(aa >> 24) + below_cover * np.float32(ba >> 24)) * (before * (i >= 0)) + (
                above_cover * np.float32(ab >> 24) + below_cover * np.float32(bb >> 24)
            ) * (after * (i + 1 < columns))
            solid = cover >= np.float32(127.5)
            if not solid and (hard or cover < np.float32(0.5)):
                continue
            c0, c1, c2 = blended(aa, ab, ba, bb, int(p * np.float32(256)), down)
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


@compiled
def blended(aa, ab, ba, bb, right, down):  # type: ignore[no-untyped-def]
    """Mix of four packed pixels, the upper two and the lower two, by shares of 256: three channels, 0..255."""
    low = right * down >> 8
    w11, w10, w01 = low, down - low, right - low
    w00 = 256 - w11 - w10 - w01
    outer = (aa & 0xFF00FF) * w00 + (ab & 0xFF00FF) * w01 + (ba & 0xFF00FF) * w10 + (bb & 0xFF00FF) * w11  # two at once
    inner = (aa >> 8 & 255) * w00 + (ab >> 8 & 255) * w01 + (ba >> 8 & 255) * w10 + (bb >> 8 & 255) * w11
    unit = np.float32(1 / 256)
    return np.float32(outer & 0xFFFF) * unit, np.float32(inner) * unit, np.float32(outer >> 16) * unit


@compiled
def level(color, cover):  # type: ignore[no-untyped-def]
    """A picture ``(h, w)`` uint32, ``blue | green << 8 | red << 16 | cover << 24``.

    Args:
        color: ``(h, w, 3)`` float32, 0..255 times the cover; cover: ``(h, w)`` float32, 0..1. What is transparent takes the mean
            colour, so that edges do not darken.
    """
    height, width = cover.shape
    total, blue, green, red = 1e-3, 0.0, 0.0, 0.0
    for y in range(height):
        for x in range(width):
            total += cover[y, x]
            blue, green, red = blue + color[y, x, 0], green + color[y, x, 1], red + color[y, x, 2]
    clear = int(blue / total) | int(green / total) << 8 | int(red / total) << 16
    packed = np.empty((height, width), np.uint32)
    for y in range(height):
        for x in range(width):
            share, word = cover[y, x], clear
            if share > np.float32(0.02):
                b, g, r = color[y, x, 0] / share, color[y, x, 1] / share, color[y, x, 2] / share
                most = np.float32(255)
                word = int(min(b, most)) | int(min(g, most)) << 8 | int(min(r, most)) << 16
            packed[y, x] = word | int(min(share * np.float32(255), np.float32(255))) << 24
    return packed


@compiled
def weighted(picture):  # type: ignore[no-untyped-def]
    """Colour times cover, and cover, of a BGRA picture ``(h, w, 4)`` uint8, as `level` takes them."""
    height, width = picture.shape[0], picture.shape[1]
    color, cover = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            share = np.float32(picture[y, x, 3]) / np.float32(255)
            cover[y, x] = share
            for channel in range(3):
                color[y, x, channel] = np.float32(picture[y, x, channel]) * share
    return color, cover
