"""Where the lens sees each pixel of the photograph."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled


@compiled
def rays_grid(width, height, cell_px, focal_px, center_x, center_y, k1, level_from_camera):  # type: ignore[no-untyped-def]
    """Where the nodes of a coarse grid over the photograph lie on the canvas, ``(rows, columns, 2)`` from its principal point.

    Node ``i`` lies at pixel ``(i - 0.5) cell_px - 0.5``. See `Camera._rays` for the lens.
    """
    columns, rows = -(-width // cell_px) + 2, -(-height // cell_px) + 2
    grid = np.empty((rows, columns, 2))
    m = level_from_camera
    for row in range(rows):
        y = ((row - 0.5) * cell_px - 0.5 - center_y) / focal_px
        for column in range(columns):
            x = ((column - 0.5) * cell_px - 0.5 - center_x) / focal_px
            target = math.sqrt(x * x + y * y)
            radius = target
            for _ in range(3):
                square = k1 * radius * radius
                radius -= (radius * (1 + square) - target) / (1 + 3 * square)
            scale = radius / target if target > 1e-12 else 1.0
            a, b = x * scale, y * scale
            depth = m[2, 0] * a + m[2, 1] * b + m[2, 2]
            grid[row, column, 0] = (m[0, 0] * a + m[0, 1] * b + m[0, 2]) / depth * focal_px
            grid[row, column, 1] = (m[1, 0] * a + m[1, 1] * b + m[1, 2]) / depth * focal_px
    return grid
