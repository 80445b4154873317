"""Counts of who owns which pixels."""

from __future__ import annotations

import numpy as np

from training.datasets.world.kernels import compiled


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
