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
_FARTHEST = 32_000  # cells from the origin; OpenCV counts in 32 bits, 16 of them below the cell
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
        cv2.fillPoly(cells, [np.round(np.clip(xy, -_FARTHEST, _FARTHEST) * 16).astype(np.int32)], value, shift=4)

    fill(context.projector.view(), OCCUPIED)
    for area in scene.drivable:
        fill(context.projector.polygon(area.polygon_px, exact=True), FREE)
    camera_xy = context.projector.ground_SE3_cam.translation_m[:2]
    for feet in ground.feet_m:
        if len(feet) == 2:
            away = feet[:, :2] - camera_xy
            behind = feet.copy()
            behind[:, :2] += away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6) * _OBSTACLE_DEPTH_M
            fill(np.concatenate([feet, behind[::-1]]), OCCUPIED)
    return cells.astype(np.int8)
