"""Woods and banks, one column of the picture at a time."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled
from training.datasets.world.kernels.curves import interp, value
from training.datasets.world.kernels.scenery import curve


@compiled
def outline(noise, first, last, u, x, s, ground, crest, eye, shape, woods):  # type: ignore[no-untyped-def]
    """How woods or a bank stand in the columns ``first`` to ``last``.

    Args:
        noise: periodic curve of 4096 samples.
        u, x, s: ``(M,)``, rising columns of points along it, their forward distance and ``s``.
        ground, crest: ``(2, K)``, forward distance over height of the ground, and over the lowest row that shows.
        eye: row of the horizontal, focal length, height of the camera.
        shape: its height, gap, phase, and texels a metre seen from near.
        woods: or a slope.

    Returns:
        Forward distance, lower edge, height in metres, pixels a metre, texels a metre and column of the texture, ``(N,)`` each.
    """
    level, focal_px, camera_m = eye
    height_m, gap, phase, fine = shape
    columns = np.arange(first, last + 1).astype(np.float64)
    column_x = 1.0 / interp(columns, u, 1.0 / x)
    near_x, near_s = (x, s) if x[0] < x[-1] else (x[::-1].copy(), s[::-1].copy())
    column_s = interp(column_x, near_x, near_s) if (np.diff(near_x) > 0).all() else interp(columns, u, s)
    base, rise, scale = np.empty(len(columns)), np.empty(len(columns)), np.empty(len(columns))
    texels, along = np.empty(len(columns)), np.empty(len(columns))
    on_ground = on_crest = 0
    for i in range(len(columns)):
        distance, at = column_x[i], column_s[i]
        z, on_ground = value(distance, ground[0], ground[1], on_ground)
        row, on_crest = value(distance, crest[0], crest[1], on_crest)
        base[i] = min(level + focal_px * (camera_m - z) / distance, row) + 0.5
        scale[i] = focal_px / distance
        rise[i] = height_m * min(max(0.85 + 0.22 * curve(noise, at * (40.0 / 45.0) + phase), 0.3), 1.5)
        if woods:
            rise[i] *= 1 + 0.1 * curve(noise, at * (40.0 / 6.0) + phase * 3)
            rise[i] *= math.sqrt(min(max(3.0 * (curve(noise, at * (40.0 / 90.0) + phase * 7) - gap), 0.0), 1.0))
        else:
            rise[i] *= min(max(2.0 * (curve(noise, at * (40.0 / 120.0) + phase * 7) - gap), 0.0), 1.0)
        texels[i] = 2.0 ** -math.ceil(math.log2(max(fine / scale[i], 1.0))) * fine
        along[i] = at * texels[i]
    return column_x, base, rise, scale, texels, along


@compiled
def draw(image, owner, atlas, first, base, rise, scale, texels, along, woods, gain, offset, who):  # type: ignore[no-untyped-def]
    """Woods or a bank from column ``first`` on.

    Args:
        image: ``(H, W, 3)`` uint8; owner: ``(H, W)`` uint8; both are drawn on.
        atlas: ``(512, 512)`` uint8 noise.
        base: ``(N,)`` lower edge of each column; rise: its height, metres; scale: pixels a metre; texels: of ``atlas`` a metre.
        along: ``(N,)`` its column of ``atlas``.
        woods: lit from above, with ragged crowns; else a slope.
        gain, offset: of a grey level of 1, BGR; who: owner of its pixels.
    """
    top = base - rise * scale
    last = min(math.floor(base.max()), image.shape[0] - 1)
    for y in range(max(math.ceil(top.min()), 0), last + 1):
        for column in range(len(base)):
            if y < top[column] or y > base[column]:
                continue
            metres, x = (base[column] - y) / scale[column], first + column
            i, up = math.floor(along[column]), metres * texels[column]
            j = int(up)
            p, q = along[column] - i, up - j
            i0, i1, j0, j1 = int(i) & 511, (int(i) + 1) & 511, j & 511, (j + 1) & 511
            grey = (1 - q) * ((1 - p) * atlas[j0, i0] + p * atlas[j0, i1]) + q * ((1 - p) * atlas[j1, i0] + p * atlas[j1, i1])
            if woods:
                if metres >= 0.8 * rise[column] and grey <= 100.5:
                    continue
                grey = min(grey * (0.4 + 0.75 * min(metres / max(rise[column], 0.5), 1.0)), 255.0)
            image[y, x, 0] = int(min(grey * gain[0] + offset[0] + 0.5, 255.0))
            image[y, x, 1] = int(min(grey * gain[1] + offset[1] + 0.5, 255.0))
            image[y, x, 2] = int(min(grey * gain[2] + offset[2] + 0.5, 255.0))
            owner[y, x] = who
