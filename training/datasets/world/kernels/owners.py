"""Counts of who owns which pixels."""

from __future__ import annotations

import numpy as np

from training.datasets.world.kernels import compiled
from training.datasets.world.kernels.lens import project


@compiled
def census(owner, numbers, windows):  # type: ignore[no-untyped-def]
    """Pixels of some owners, each within its window, and the boxes around them.

    Args:
        owner: ``(H, W)`` uint8.
        numbers: ``(N,)`` int64, the owners.
        windows: ``(N, 4)`` int64, ``x0, y0, x1, y1`` inside the picture, the last column and row not included.

    Returns:
        ``(N, 5)`` int64: count, first column, first row, last column, last row.
    """
    found = np.zeros((len(numbers), 5), np.int64)
    for i in range(len(numbers)):
        who = np.uint8(numbers[i])
        x0, y0, x1, y1 = windows[i]
        count, left, right, top, bottom = 0, x1, -1, -1, -1
        for y in range(y0, y1):
            here = count
            for x in range(x0, x1):
                if owner[y, x] == who:
                    count += 1
                    left, right = min(left, x), max(right, x)
            if count > here:
                top, bottom = y if top < 0 else top, y
        found[i] = count, left, top, right, bottom
    return found


@compiled
def survey(canvas_owner, owner, tally, numbers, lens, level_from_camera):  # type: ignore[no-untyped-def]
    """What is left of some owners on the canvas, and where they are in the photograph.

    Args:
        canvas_owner, owner: owners of the pixels of canvas and photograph.
        tally: see `Canvas.tally`.
        numbers: ``(N,)`` int64, the owners.
        lens, level_from_camera: see `project`.

    Returns:
        ``(N,)`` share of the pixels each was given that is still its own, and its `census` of the photograph.
    """
    height, width = owner.shape
    boxes, windows = np.empty((len(numbers), 4), np.int64), np.empty((len(numbers), 4), np.int64)
    margin = 6 + 0.02 * width  # room for distortion
    for i in range(len(numbers)):
        boxes[i] = tally[numbers[i], 1:]
        left, top, right, bottom = np.inf, np.inf, -np.inf, -np.inf
        for corner in range(4):
            u, v = project(float(boxes[i, 2 * (corner & 1)]), float(boxes[i, 1 + (corner & 2)]), lens, level_from_camera)
            left, top, right, bottom = min(left, u), min(top, v), max(right, u), max(bottom, v)
        windows[i, 0], windows[i, 1] = int(min(max(left - margin, 0.0), width)), int(min(max(top - margin, 0.0), height))
        windows[i, 2], windows[i, 3] = int(min(max(right + margin, 0.0), width)), int(min(max(bottom + margin, 0.0), height))
    left_over = census(canvas_owner, numbers, boxes)
    shares = np.empty(len(numbers))
    for i in range(len(numbers)):
        shares[i] = left_over[i, 0] / max(tally[numbers[i], 0], 1)
    return shares, census(owner, numbers, windows)
