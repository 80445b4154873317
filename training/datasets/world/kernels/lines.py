"""What is seen of a lane line in the photograph."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled


@compiled
def seen(points, owner, road, scenery):  # type: ignore[no-untyped-def]
    """The longest stretch of a line within the image, from the first to the last point that no scenery hides.

    Args:
        points: ``(N, 2)`` pixels of the photograph, bottom to top.
        owner: ``(H, W)`` uint8.
        road, scenery: highest owner of the ground, lowest of scenery; things are between.

    Returns:
        ``(M, 2)``, cut exactly on the image's border; empty when next to nothing is in sight.
    """
    right, bottom = owner.shape[1] - 1.0, owner.shape[0] - 1.0
    first = stop = begun = 0
    for i in range(len(points) + 1):
        if i < len(points) and 0 <= points[i, 0] <= right and 0 <= points[i, 1] <= bottom:
            continue
        if i - begun > stop - first:
            first, stop = begun, i
        begun = i + 1
    if stop == first:
        return points[:0].copy()
    part = np.empty((stop - first + 2, 2))
    count = 0
    if first > 0:
        part[count] = border(points[first], points[first - 1], right, bottom)
        count += 1
    for i in range(first, stop):
        part[count] = points[i]
        count += 1
    if stop < len(points):
        part[count] = border(points[stop - 1], points[stop], right, bottom)
        count += 1
    low, high = count, -1
    for i in range(count):
        if owner[int(np.rint(part[i, 1])), int(np.rint(part[i, 0]))] < scenery:
            low, high = min(low, i), i
    total = free = hidden = 0.0
    for i in range(low, high):
        length = math.sqrt((part[i + 1, 0] - part[i, 0]) ** 2 + (part[i + 1, 1] - part[i, 1]) ** 2)
        who = owner[int(np.rint(part[i, 1])), int(np.rint(part[i, 0]))]
        total += length
        if who <= road:
            free += length
        elif who >= scenery:
            hidden += length
    if high <= low or total <= 0 or free < 0.12 * total or hidden > 0.5 * total:
        return points[:0].copy()
    return part[low : high + 1].copy()


@compiled
def border(inner, outer, right, bottom):  # type: ignore[no-untyped-def]
    """Where the way from ``inner`` to ``outer`` leaves the image."""
    step_x, step_y = outer[0] - inner[0], outer[1] - inner[1]
    share = 1.0
    if abs(step_x) > 1e-9:
        share = min(share, ((right if step_x > 0 else 0.0) - inner[0]) / step_x)
    if abs(step_y) > 1e-9:
        share = min(share, ((bottom if step_y > 0 else 0.0) - inner[1]) / step_y)
    share = max(share, 0.0)
    return inner[0] + step_x * share, inner[1] + step_y * share
