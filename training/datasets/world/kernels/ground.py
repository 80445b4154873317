"""Grain, wear, shadow and light of the ground, at half size."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled

# what `relief` is told of each row
SCALE, MIDDLE, S, TURN, ACROSS, ALONG, SOFT, HARD, CLEAR, JOINT, BEAM, ASIDE = range(12)


@compiled
def relief(rows, center_x, hard, atlases, shifts, slow, tracks, lane, joint_m, masks, shadow, ambient):  # type: ignore[no-untyped-def]
    """Gain of every second pixel of the ground, and the noise that eats away worn paint.

    Args:
        rows: ``(R, 12)`` float32. Metres a pixel, how far left the centre line lies, ``s`` on it and its change per metre to the
            left; texels a metre of the fine noise; contrast of soft ground and of paving; gain by haze; width of a joint between
            slabs, 0 for none; own headlights, 0 for none, and how fast they fade aside, per pixel.
        center_x: column of the principal point.
        hard: ``(R, C)`` uint8, 1 where it is paved.
        atlases: asphalt, terrain and blotches, ``(512, 512)`` uint8 each, gain around 128.
        shifts: ``(4,)`` float32, place in the fine and the slow noise; slow: contrast of the latter.
        tracks: ``(128,)`` float32, gain over the width of a lane; lane: offset and width of one, metres; joint_m: their spacing.
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
            if x & 1 == 0:  # what varies slowly
                wear = smooth(blotches, d * np.float32(1.1) + shifts[2], s * np.float32(0.35) + shifts[3])
                slow_here = np.float32(1) + (wear - np.float32(128)) * slow
                if row[BEAM] > 0:
                    aside = (np.float32(2 * x) - center_x) * row[ASIDE]
                    lit = ambient + row[BEAM] * np.float32(math.exp(-aside * aside))
            if hard[y, x]:
                track = tracks[int((d - first_lane) * per_m + 64) & 127]
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
