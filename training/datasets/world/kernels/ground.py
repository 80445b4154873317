"""Outlines of the ground's bands; its grain, wear, shadow and light at half size."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled
from training.datasets.world.kernels.curves import value

# what `relief` is told of each row
SCALE, MIDDLE, S, TURN, ACROSS, ALONG, SOFT, HARD, CLEAR, JOINT, BEAM, ASIDE = range(12)
SOFTENED = 1.25  # contrast that enlarging takes from the texture


@compiled
def strip(rows, row_s, row_x, row_y, row_cos, left, right, center_x, focal_px):  # type: ignore[no-untyped-def]
    """Outline ``(N, 2)`` int32, in sixteenths of a pixel, of the ground between two edges: every row near the horizon, then
    every sixth.

    Args:
        rows, row_s, row_x, row_y, row_cos: of each ground row, see `View`.
        left, right: ``(2, K)``, ``s`` and offset of each edge's knots.
        center_x, focal_px: of the canvas.
    """
    count = len(rows)
    near = min(24, count - 1)
    picked = near + max(count - 1 - 24 + 5, 0) // 6 + 1
    outline = np.empty((2 * picked, 2), np.int32)
    for n in range(picked):
        row = n if n < near else min(24 + 6 * (n - near), count - 1)
        v = rows[row] + (2 if n == picked - 1 else 0)
        for side in range(2):
            edge, at = (left, n) if side == 0 else (right, 2 * picked - 1 - n)
            d, _ = value(row_s[row], edge[0], edge[1], 0)
            u = center_x - focal_px * (row_y[row] + d / row_cos[row]) / row_x[row]
            outline[at, 0], outline[at, 1] = int(min(max(u, -20000.0), 20000.0) * 16), int(v * 16)
    return outline


@compiled
def describe(row_x, row_y, row_s, row_cos, row_tan, row_ds, focal_px, hard, visibility_m, joints_m, beam):  # type: ignore[no-untyped-def]
    """What `relief` is told of every second ground row.

    Args:
        row_x, row_y, row_s, row_cos, row_tan, row_ds: of each ground row, see `View`; focal_px: of the canvas.
        hard: contrast of paving; visibility_m: see `Look`.
        joints_m: how far joints between slabs are seen; beam: strength of the own headlights.
    """
    table = np.zeros(((len(row_x) + 1) // 2, 12), np.float32)
    for i in range(len(table)):
        row, x = table[i], row_x[2 * i]
        ds, wide = row_ds[2 * i], x / focal_px
        fade = 1.0 / (1.0 + (x / 55.0) ** 2)
        row[SCALE], row[MIDDLE] = wide * row_cos[2 * i], row_y[2 * i] * row_cos[2 * i]
        row[S], row[TURN] = row_s[2 * i], row_tan[2 * i]
        row[ACROSS], row[ALONG] = mip(wide), mip(max(ds, wide * 1.5))
        row[SOFT], row[HARD] = (0.4 + 0.9 * fade) * (SOFTENED / 128), hard * fade * (SOFTENED / 128)
        row[CLEAR] = math.exp(-x / visibility_m) * 128
        if x <= joints_m:
            row[JOINT] = max(2 * ds, 0.05)
        if beam > 0:
            row[BEAM] = beam * (1 - math.exp(-((x / 4.5) ** 2))) * math.exp(-x / 28.0)
            row[ASIDE] = x / (focal_px * (2.5 + 0.22 * x))
    return table


@compiled
def mip(metres):  # type: ignore[no-untyped-def]
    """Texels a metre: 3 cm each, doubled until as wide as ``metres``; fractal noise allows it."""
    return 2.0 ** -math.ceil(math.log2(max(metres / 0.03, 1.0))) / 0.03


@compiled
def tracks(width, strength, oil):  # type: ignore[no-untyped-def]
    """Gain of tyre tracks and the oil stripe over the width of a lane, ``(128,)`` float32."""
    profile = np.empty(128, np.float32)
    for i in range(128):
        off = (i / 127 - 0.5) * width
        profile[i] = 1 + strength * math.exp(-(((abs(off) - 0.8) / 0.3) ** 2)) - oil * math.exp(-((off / 0.35) ** 2))
    return profile


@compiled
def relief(rows, center_x, hard, atlases, shifts, slow, worn, lane, joint_m, masks, shadow, ambient):  # type: ignore[no-untyped-def]
    """Gain of every second pixel of the ground, and the noise that eats away worn paint.

    Args:
        rows: ``(R, 12)`` float32, from `describe`. Metres a pixel, how far left the centre line lies, ``s`` on it and its change
            per metre to the left; texels a metre of the fine noise, across and along; contrast of soft ground and of paving;
            gain by haze; width of a joint between slabs, 0 for none; own headlights, 0 for none, and how fast they fade aside,
            per pixel.
        center_x: column of the principal point.
        hard: ``(R, C)`` uint8, 1 where it is paved.
        atlases: asphalt, terrain and blotches, ``(512, 512)`` uint8 each, gain around 128.
        shifts: ``(4,)`` float32, place in the fine and the slow noise; slow: contrast of the latter.
        worn: see `tracks`; lane: offset and width of one, metres; joint_m: their spacing.
        masks: cast shadows, closed ones and those of leaves, ``(R, C)`` uint8 each or without rows; shadow: how dark.
        ambient: light without headlights.

    Returns:
        Gain (128 is 1) and noise, ``(R, C)`` uint8 each.
    """
    asphalt, terrain, blotches = atlases
    closed, leafy = masks
    height, width = hard.shape
    gain, rough = np.empty((height, width), np.uint8), np.empty((height, width), np.uint8)
    per_m, first_lane = np.float32(128 / lane[1]), np.float32(lane[0])
    for y in range(height):
        row = rows[y]
        slow_here = lit = np.float32(1)
        for x in range(width):
            d = (center_x - np.float32(2 * x)) * row[SCALE] - row[MIDDLE]
            s = row[S] + d * row[TURN]
            i, j = nearest(d * row[ACROSS] + shifts[0]), nearest(s * row[ALONG] + shifts[1])
            rough[y, x] = terrain[j, i]
            if x & 3 == 0:  # what varies slowly
                wear = smooth(blotches, d * np.float32(1.1) + shifts[2], s * np.float32(0.35) + shifts[3])
                slow_here = np.float32(1) + (wear - np.float32(128)) * slow
                if row[BEAM] > 0:
                    aside = (np.float32(2 * x) - center_x) * row[ASIDE]
                    lit = ambient + row[BEAM] * np.float32(math.exp(-aside * aside))
            if hard[y, x]:
                track = worn[int((d - first_lane) * per_m + 64) & 127]
                total = (np.float32(asphalt[j, i]) - np.float32(128)) * row[HARD] + slow_here * track
            else:
                total = (np.float32(rough[y, x]) - np.float32(128)) * row[SOFT] + slow_here
            wide = row[JOINT]
            if wide > 0:
                off = abs(s - math.floor(s / joint_m) * joint_m - joint_m / 2)
                total *= np.float32(1 - 0.22 * min(max((0.03 + wide / 2 - off) / wide, 0.0), min(1.0, 0.06 / wide)))
            if len(closed):
                dark = np.float32(closed[y, x])
                if len(leafy) and leafy[y, x]:
                    fleck = blotches[nearest(s * np.float32(3.5)), nearest(d * np.float32(5))]
                    dark = max(dark, min(fleck * np.float32(1.6), np.float32(255)) * leafy[y, x] * np.float32(1 / 255))
                total *= np.float32(1) - shadow * dark
            gain[y, x] = int(min(abs(total * row[CLEAR] * lit) + np.float32(0.5), np.float32(255)))
    return gain, rough


@compiled
def nearest(at):  # type: ignore[no-untyped-def]
    """Nearest texel of an atlas of 512."""
    return math.floor(at + np.float32(0.5)) & 511


@compiled
def smooth(atlas, u, v):  # type: ignore[no-untyped-def]
    """Bilinear sample of an atlas of 512."""
    i, j = math.floor(u), math.floor(v)
    p, q = u - np.float32(i), v - np.float32(j)
    i0, i1, j0, j1 = i & 511, (i + 1) & 511, j & 511, (j + 1) & 511
    above = np.float32(atlas[j0, i0]) + (np.float32(atlas[j0, i1]) - np.float32(atlas[j0, i0])) * p
    below = np.float32(atlas[j1, i0]) + (np.float32(atlas[j1, i1]) - np.float32(atlas[j1, i0])) * p
    return above + (below - above) * q
