"""Walls of houses, hills and tree lines along the horizon: what is upright and textured."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled
from training.datasets.world.kernels.sprite import blended


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
        texture: ``(h, w)`` uint32, see `sprite.level`, repeated ``wide`` times along the wall and ``high`` times up.
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
    share, upper, step = np.empty(span, np.int32), np.empty(span, np.float32), np.empty(span, np.float32)
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
        texel[k, 0], texel[k, 1], share[k] = i % columns, (i + 1) % columns, int((along - i) * 256)
        upper[k], step[k] = top, rows * high / max(low - top, 0.05)
    if not span:
        return
    for y in range(max(first.min(), 0), min(last.max(), image.shape[0] - 1) + 1):
        for k in range(span):
            if y < first[k] or y > last[k]:
                continue
            down = max((np.float32(y) - upper[k]) * step[k], np.float32(0))
            j0 = int(down)
            q = int((down - np.float32(j0)) * np.float32(256))
            while j0 >= rows:
                j0 -= rows
            j1 = j0 + 1 if j0 + 1 < rows else 0
            i0, i1, upper_row, lower_row = np.uintp(texel[k, 0]), np.uintp(texel[k, 1]), np.uintp(j0), np.uintp(j1)
            aa, ab = np.int64(texture[upper_row, i0]), np.int64(texture[upper_row, i1])
            ba, bb = np.int64(texture[lower_row, i0]), np.int64(texture[lower_row, i1])
            b, g, r = blended(aa, ab, ba, bb, np.int64(share[k]), q)
            x = start + k
            image[y, x, 0] = int(min(b * gb + ob, np.float32(255)))
            image[y, x, 1] = int(min(g * gg + og, np.float32(255)))
            image[y, x, 2] = int(min(r * gr + orr, np.float32(255)))
            owner[y, x] = who


@compiled
def horizon(image, owner, atlas, top, bottom, start, gain, offset, who):  # type: ignore[no-untyped-def]
    """Hills or trees from row ``top`` of each column down to ``bottom``; see `flanks.draw` for the rest."""
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
