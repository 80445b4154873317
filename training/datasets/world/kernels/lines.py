"""What is seen of the lane lines in the photograph."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled
from training.datasets.world.kernels.lens import project


@compiled
def traces(columns, there, rows, row_x, limits, lens, level_from_camera, owner, road, scenery):  # type: ignore[no-untyped-def]
    """What is labelled of each line: its first stretch from below, up to where lines come too close, as far as it is seen.

    Args:
        columns: ``(N, R)``, canvas column of each line in each ground row, which run from top to bottom.
        there: ``(N, R)`` bool, where the line exists.
        rows, row_x: ``(R,)``: canvas row, and its forward distance.
        limits: farthest distance that can be made out, least spacing, least and greatest column, least length in the photograph.
        lens, level_from_camera: see `project`.
        owner, road, scenery: see `seen`.

    Returns:
        Points ``(M, 2)`` float32 of the photograph of all lines, bottom to top, and ``(N,)`` where those of each line end.
    """
    visible_m, spacing, low, high, least = limits
    count, height = columns.shape
    top = 0
    for row in range(height - 1, 0, -1):
        if row_x[row - 1] - row_x[row] > 12 + 0.3 * row_x[row]:  # beyond a crest the ground has dropped out of sight
            top = row
            break
    found, ends = np.empty((count * (height + 2), 2), np.float32), np.empty(count, np.int64)
    path = np.empty((height, 2))
    total = 0
    for line in range(count):
        length = begun = 0
        for row in range(height - 1, top - 1, -1):
            u = columns[line, row]
            here = there[line, row] and row_x[row] < visible_m
            for other in range(count):
                near = other != line and there[other, row] and abs(u - columns[other, row]) < spacing
                if here and near:
                    begun, here = 1, False
            if here and low < u < high:
                path[length] = project(u, rows[row], lens, level_from_camera)
                length += 1
            if here:
                begun = 1
            elif begun:
                break
        if length > 1:
            total = thinned(seen(path[:length], owner, road, scenery), least, found, total)
        ends[line] = total
    return found[:total], ends


@compiled
def thinned(part, least, found, start):  # type: ignore[no-untyped-def]
    """Write every second point of a line and its last one to ``found``, unless it is too short; where the next one goes."""
    last = len(part) - 1
    if last < 0 or math.sqrt((part[0, 0] - part[last, 0]) ** 2 + (part[0, 1] - part[last, 1]) ** 2) < least:
        return start
    highest = part[0, 1]
    for i in range(last + 1):
        if i % 2 == 0 or i == last:
            highest = min(highest, part[i, 1])  # rows never go down
            found[start, 0], found[start, 1] = part[i, 0], highest
            start += 1
    return start


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
