"""What each ground row of the canvas shows."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled
from training.datasets.world.kernels.curves import interp


@compiled
def rows(distances, x, y, z, s, bearing, eye, height):  # type: ignore[no-untyped-def]
    """The ground rows of a canvas of ``height`` rows.

    Args:
        distances: ``(K,)`` rising forward distances, at which the ground's profile is taken.
        x, y, z, s, bearing: of points on the centre line, near to far; see `View`.
        eye: row of the horizontal, focal length, height of the camera.

    Returns:
        ``(K,)`` lowest row not hidden by nearer ground, by distance; then of each ground row its number, forward distance, ``s``,
        lateral position and heading of the centre line, and the metres of ``s`` it covers.
    """
    level, focal_px, camera_m = eye
    envelope = level + focal_px * (camera_m - interp(distances, x, z)) / distances
    for i in range(1, len(envelope)):
        envelope[i] = min(envelope[i], envelope[i - 1])
    first = int(min(max(math.ceil(envelope[-1]), 1), height - 2))
    number = np.arange(first, height).astype(np.float64)
    row_x = interp(number, envelope[::-1], distances[::-1])
    row_s = interp(row_x, x, s)
    covered = np.empty(len(number))
    last = len(number) - 1
    for i in range(last + 1):
        before, after = max(i - 1, 0), min(i + 1, last)
        covered[i] = max(abs(row_s[after] - row_s[before]) / (after - before), 0.01)
    return envelope, number, row_x, row_s, interp(row_x, x, y), interp(row_x, x, bearing), covered
