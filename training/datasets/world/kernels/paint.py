"""Paint on the road, row by row, with the exact share of each pixel that it covers."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled


@compiled
def stripes(ground, marked, rough, column, width_px, share, colors, wear):  # type: ignore[no-untyped-def]
    """Paint stripes along the road.

    Args:
        ground: ``(R, W, 3)`` uint8, the ground rows of the picture.
        marked: ``(R, W)`` uint8, gets 255 where paint shows; or without rows.
        rough: ``(R / 2, W / 2)`` uint8, noise that eats away worn paint, or without rows for paint that does not wear.
        column, width_px, share: ``(N, R)``: middle of each stripe in each row, its width, and how much of the row it paints.
        colors: ``(N, 3)`` BGR.
        wear: 0..1, how far the traffic has got.
    """
    rows, columns = ground.shape[0], ground.shape[1]
    for stripe in range(column.shape[0]):
        blue, green, red = colors[stripe]
        for row in range(rows):
            part = share[stripe, row]
            if part <= 0.01:
                continue
            u, width = column[stripe, row], width_px[stripe, row]
            first = max(math.ceil(u - width / 2 - 0.5), 0.0)
            last = min(math.floor(u + width / 2 + 0.5), columns - 1.0)
            if last < first:
                continue
            most = min(width, 1.0)
            for x in range(int(first), int(last) + 1):
                cover = min(max(width / 2 + 0.5 - abs(x - u), 0.0), most) * part
                if len(marked) and cover > 0.3:
                    marked[row, x] = 255
                if len(rough):
                    cover *= min(max((rough[row >> 1, x >> 1] - 75 * wear) / 40, 0.25), 1.0)
                mix(ground, row, x, cover, blue, green, red)


@compiled
def painted(s, ds, paint, start, end, dash, period, phase):  # type: ignore[no-untyped-def]
    """Share of each row's stretch ``s +- ds / 2`` that a line paints, 0..1; a line without dashes has ``dash`` 0."""
    share = np.empty(len(s))
    for row in range(len(s)):
        here = min(max((s[row] - start) / ds[row] + 0.5, 0.0), 1.0) * min(max((end - s[row]) / ds[row] + 0.5, 0.0), 1.0) * paint
        if dash > 0:
            before, after = s[row] - ds[row] / 2 - phase, s[row] + ds[row] / 2 - phase
            here *= (length(after, dash, period) - length(before, dash, period)) / ds[row]
        share[row] = here
    return share


@compiled
def length(at, dash, period):  # type: ignore[no-untyped-def]
    """Metres of paint from 0 to ``at`` in a row of dashes."""
    whole = math.floor(at / period)
    return whole * dash + min(at - whole * period, dash)


@compiled
def layer(ground, first, cover, rough, color, wear):  # type: ignore[no-untyped-def]
    """Paint what lies across the road, from its coverage ``(r, W)`` float32 of the ground rows from ``first``; see `stripes`."""
    blue, green, red = color
    for row in range(cover.shape[0]):
        for x in range(cover.shape[1]):
            if cover[row, x] > 0.01:
                kept = min(max((rough[(first + row) >> 1, x >> 1] - 75 * wear) / 40, 0.25), 1.0)
                mix(ground, first + row, x, cover[row, x] * kept, blue, green, red)


@compiled
def mix(picture, row, x, share, blue, green, red):  # type: ignore[no-untyped-def]
    """Mix a colour into one pixel."""
    picture[row, x, 0] = int(picture[row, x, 0] + (blue - picture[row, x, 0]) * share)
    picture[row, x, 1] = int(picture[row, x, 1] + (green - picture[row, x, 1]) * share)
    picture[row, x, 2] = int(picture[row, x, 2] + (red - picture[row, x, 2]) * share)
