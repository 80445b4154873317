"""Where the lens sees each pixel of the photograph."""

from __future__ import annotations

import math

import numpy as np

from training.datasets.world.kernels import compiled


@compiled
def rays_grid(width, height, cell_px, focal_px, center_x, center_y, k1, level_from_camera):  # type: ignore[no-untyped-def]
    """Where the nodes of a coarse grid over the photograph lie on the canvas, ``(rows, columns, 2)`` float32.

    Node ``i`` lies at pixel ``(i - 0.5) cell_px - 0.5``. See `Camera._rays` for the lens. The canvas is laid so that it covers
    the photograph: its principal point and its size ``(width, height)`` come too.
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
    inset = cell_px // 2 - 2
    left, top = math.floor(grid[..., 0].min()) + inset, math.floor(grid[..., 1].min()) + inset
    right, bottom = math.ceil(grid[..., 0].max()) - inset, math.ceil(grid[..., 1].max()) - inset
    moved = np.empty((rows, columns, 2), np.float32)
    for row in range(rows):
        for column in range(columns):
            moved[row, column, 0], moved[row, column, 1] = grid[row, column, 0] - left, grid[row, column, 1] - top
    return moved, -float(left), -float(top), (right - left + 1, bottom - top + 1)


@compiled
def project(u, v, lens, level_from_camera):  # type: ignore[no-untyped-def]
    """Where the photograph shows a canvas pixel; ``lens``: focal length, principal point of canvas and photograph, distortion."""
    focal_px, canvas_x, canvas_y, center_x, center_y, k1 = lens
    m = level_from_camera
    x, y = (u - canvas_x) / focal_px, (v - canvas_y) / focal_px
    z = x * m[0, 2] + y * m[1, 2] + m[2, 2]
    a, b = (x * m[0, 0] + y * m[1, 0] + m[2, 0]) / z, (x * m[0, 1] + y * m[1, 1] + m[2, 1]) / z
    bend = focal_px * (1 + k1 * (a * a + b * b))
    return a * bend + center_x, b * bend + center_y


@compiled
def owners_seen(owner, maps):  # type: ignore[no-untyped-def]
    """The photograph's picture of owners from the canvas's ``(H, W)`` uint8, by the warp ``(h, w, 2)`` float32.

    Places are rounded to 1/32 px and then down, as OpenCV's fixed-point maps are read without their weights.
    """
    height, width = maps.shape[0], maps.shape[1]
    found = np.empty((height, width), np.uint8)
    step = np.float32(32)
    for y in range(height):
        for x in range(width):
            column, row = int(np.rint(maps[y, x, 0] * step)) >> 5, int(np.rint(maps[y, x, 1] * step)) >> 5
            found[y, x] = owner[min(max(row, 0), owner.shape[0] - 1), min(max(column, 0), owner.shape[1] - 1)]
    return found
