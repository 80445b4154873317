"""The drivable ground as a `nav_msgs/OccupancyGrid`, ready for a Nav2 costmap."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from nav_msgs.msg import OccupancyGrid

from getok_drive.ros.convert import Context
from getok_drive.ros.params import NodeParams
from getok_drive.types import Scene

UNKNOWN, FREE, OCCUPIED = -1, 0, 100
_OBSTACLE_DEPTH_M = 1.0  # one image shows only the near side of an obstacle; this much behind it is marked as well


def scene_to_grid(scene: Scene, context: Context, params: NodeParams) -> OccupancyGrid | None:
    """The grid in the ground frame: x from 0 to ``grid_length_m``, y to both sides; None without calibration.

    Free: drivable. Occupied: seen by the camera within range but not drivable, or at the foot of a box. Unknown: not seen.
    """
    if context.projector is None:
        return None
    cells = grid_cells(scene, context, params)
    out = OccupancyGrid()
    out.header.stamp, out.header.frame_id = context.header.stamp, context.ground_frame
    out.info.map_load_time = context.header.stamp
    out.info.resolution = params.grid_resolution_m
    out.info.height, out.info.width = cells.shape
    out.info.origin.position.y = -cells.shape[0] * params.grid_resolution_m / 2
    out.info.origin.orientation.w = 1.0
    out.data.frombytes(cells.tobytes())
    return out


def grid_cells(scene: Scene, context: Context, params: NodeParams) -> npt.NDArray[np.int8]:
    """``(rows along y, columns along x)`` int8 with the values of an OccupancyGrid."""
    ground = context.on_ground(scene)
    assert context.projector is not None and ground is not None
    columns = round(params.grid_length_m / params.grid_resolution_m)
    rows = round(params.grid_width_m / params.grid_resolution_m)
    cells = np.full((rows, columns), UNKNOWN, dtype=np.int16)

    def fill(points_m: npt.NDArray[np.float64], value: int) -> None:
        if len(points_m) < 3:
            return
        # Cell centres lie half a cell from the origin; cv2 takes fixed-point coordinates with 4 fractional bits.
        xy = (points_m[:, :2] + (0.0, rows * params.grid_resolution_m / 2)) / params.grid_resolution_m - 0.5
        cv2.fillPoly(cells, [np.round(np.clip(xy, -1e4, 1e4) * 16).astype(np.int32)], value, shift=4)

    width, height = scene.image_size_wh
    border = [(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)]
    fill(context.projector.polygon(border), OCCUPIED)
    for area_m in ground.areas_m:
        fill(area_m, FREE)
    camera_xy = context.projector.ground_SE3_cam.translation_m[:2]
    for feet in ground.feet_m:
        if len(feet) == 2:
            away = feet[:, :2] - camera_xy
            behind = feet.copy()
            behind[:, :2] += away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6) * _OBSTACLE_DEPTH_M
            fill(np.concatenate([feet, behind[::-1]]), OCCUPIED)
    return cells.astype(np.int8)
