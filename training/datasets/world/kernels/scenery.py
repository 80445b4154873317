"""Walls of houses, woods and banks, hills: what is upright and textured, one column of the picture at a time."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled


@compiled
def periodic(noise, at):  # type: ignore[no-untyped-def]
    """A periodic curve's samples ``(4096,)`` at the positions ``at``, any shape of one dimension."""
    found = np.empty(len(at))
    for i in range(len(at)):
        found[i] = curve(noise, at[i])
    return found


@compiled
def curve(noise, at):  # type: ignore[no-untyped-def]
    """A periodic curve of 4096 samples at one position."""
    whole = math.floor(at)
    first = int(whole) & 4095
    return noise[first] + (noise[(first + 1) & 4095] - noise[first]) * (at - whole)


@compiled
def facade(image, owner, texture, u0, u1, top0, top1, low0, low1, wide, high, gain, offset, who):  # type: ignore[no-untyped-def]
    """A wall between two upright edges at columns ``u0`` and ``u1``, from ``top`` to ``low``.

    Args:
        image: ``(H, W, 3)`` uint8; owner: ``(H, W)`` uint8; both are drawn on.
        texture: ``(h, w, 3)`` uint8, repeated ``wide`` times along the wall and ``high`` times up.
        gain, offset: light, BGR; who: owner of its pixels.
    """
    rows, columns = texture.shape[0], texture.shape[1]
    deep0, deep1 = 1 / max(low0 - top0, 0.05), 1 / max(low1 - top1, 0.05)  # proportional to the edges' distances
    left, right = min(u0, u1), max(u0, u1)
    rise_top, rise_low = (top1 - top0) / (u1 - u0), (low1 - low0) / (u1 - u0)
    gb, gg, gr = np.float32(gain[0]), np.float32(gain[1]), np.float32(gain[2])
    ob, og, orr = np.float32(offset[0] + 0.5), np.float32(offset[1] + 0.5), np.float32(offset[2] + 0.5)
    start, stop = max(math.floor(left + 0.5), 0), min(math.floor(right + 0.5), image.shape[1] - 1) + 1
    span = max(stop - start, 0)
    first, last, texel = np.empty(span, np.int32), np.empty(span, np.int32), np.empty((span, 2), np.int32)
    share, upper, step = np.empty(span, np.float32), np.empty(span, np.float32), np.empty(span, np.float32)
    for k in range(span):
        at = min(max(float(start + k), left), right)
        top, low = top0 + rise_top * (at - u0), low0 + rise_low * (at - u0)
        before, after = max(at - 0.5, left) - at, min(at + 0.5, right) - at
        first[k], last[k] = math.floor(top + 0.5), math.floor(low + 0.5)
        if abs(rise_top) > 1:
            first[k] = math.ceil(top + min(rise_top * before, rise_top * after))
        if abs(rise_low) > 1:
            last[k] = math.floor(low + max(rise_low * before, rise_low * after))
        along = (at - u0) * deep0 / ((at - u0) * deep0 + (u1 - at) * deep1) * columns * wide
        i = int(along)
        texel[k, 0], texel[k, 1], share[k] = i % columns, (i + 1) % columns, along - i
        upper[k], step[k] = top, rows * high / max(low - top, 0.05)
    if not span:
        return
    for y in range(max(first.min(), 0), min(last.max(), image.shape[0] - 1) + 1):
        for k in range(span):
            if y < first[k] or y > last[k]:
                continue
            down = max((np.float32(y) - upper[k]) * step[k], np.float32(0))
            j0 = int(down)
            q = down - np.float32(j0)
            while j0 >= rows:
                j0 -= rows
            j1 = j0 + 1 if j0 + 1 < rows else 0
            i0, i1, p = texel[k, 0], texel[k, 1], share[k]
            aa, ab = (np.float32(1) - q) * (np.float32(1) - p), (np.float32(1) - q) * p
            ba, bb = q * (np.float32(1) - p), q * p
            b = aa * texture[j0, i0, 0] + ab * texture[j0, i1, 0] + ba * texture[j1, i0, 0] + bb * texture[j1, i1, 0]
            g = aa * texture[j0, i0, 1] + ab * texture[j0, i1, 1] + ba * texture[j1, i0, 1] + bb * texture[j1, i1, 1]
            r = aa * texture[j0, i0, 2] + ab * texture[j0, i1, 2] + ba * texture[j1, i0, 2] + bb * texture[j1, i1, 2]
            x = start + k
            image[y, x, 0] = int(min(b * gb + ob, np.float32(255)))
            image[y, x, 1] = int(min(g * gg + og, np.float32(255)))
            image[y, x, 2] = int(min(r * gr + orr, np.float32(255)))
            owner[y, x] = who


@compiled
def flank(image, owner, atlas, first, base, rise, scale, texels, along, woods, gain, offset, who):  # type: ignore[no-untyped-def]
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


@compiled
def horizon(image, owner, atlas, top, bottom, start, gain, offset, who):  # type: ignore[no-untyped-def]
    """Hills or trees from row ``top`` of each column down to ``bottom``; see `flank` for the rest."""
    highest = image.shape[0]
    for x in range(len(top)):
        highest = min(highest, max(math.floor(top[x]) - 1, 0))
    for x in range(len(top)):
        column = (start + x) & 511
        for y in range(max(math.ceil(top[x] - 1.4), 0), bottom):
            grey = float(atlas[(y - highest) & 511, column])
            for c in range(3):
                image[y, x, c] = int(min(grey * gain[c] + offset[c] + 0.5, 255.0))
            owner[y, x] = who
