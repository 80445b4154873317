"""The camera: a level pinhole canvas to draw on, and its warp into the real (rolled, pitched, distorted) image.

Everything is drawn in a *level* camera with the same focal length, whose optical axis is horizontal: there every ground row has
one forward distance and every upright thing is upright. One remap then turns the canvas into the photograph, and
`Camera.to_image` takes label points the same way. Distortion is the radial part of OpenCV's (``cv2.projectPoints``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.dice import Dice, clamp
from training.datasets.world.kernels import lens as kernel

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

CAMERA_FORWARD_M = 1.6  # camera ahead of the ego frame's origin
GRID_PX = 12


@dataclass(frozen=True, slots=True)
class Rig:
    """How a camera is mounted: independent of the image size.

    Attributes:
        height_m: above the road.
        pitch_rad: positive looks down.
        roll_rad: positive turns the camera clockwise about its axis.
        yaw_rad: positive looks left of the vehicle's heading.
        fov_rad: horizontal field of view of the undistorted pinhole.
        barrel: radial distortion as the relative shift of the image's left and right edge; negative is barrel.
    """

    height_m: float
    pitch_rad: float
    roll_rad: float
    yaw_rad: float
    fov_rad: float
    barrel: float

    @staticmethod
    def sample(rng: Dice) -> Rig:
        """A random mounting: mostly a windscreen camera, sometimes a van's or a bus's."""
        return Rig(
            height_m=clamp(rng.normal(1.4, 0.18), 1.1, 2.2) if rng.random() < 0.85 else rng.uniform(1.6, 2.2),
            pitch_rad=math.radians(clamp(rng.normal(1.5, 2.6), -5.0, 8.0)),
            roll_rad=math.radians(clamp(rng.normal(0.0, 0.9), -3.0, 3.0)),
            yaw_rad=math.radians(clamp(rng.normal(0.0, 2.0), -6.0, 6.0)),
            fov_rad=math.radians(clamp(rng.normal(62.0, 12.0), 45.0, 100.0)),
            barrel=clamp(rng.normal(-0.015, 0.022), -0.05, 0.015),
        )


class Camera:
    """One rig at one image size.

    Attributes:
        size_wh: the photograph's size, pixels.
        focal_px: focal length of both the photograph and the canvas.
        k: ``(3, 3)`` camera matrix, OpenCV convention.
        d: ``(5,)`` OpenCV distortion ``k1 k2 p1 p2 k3``.
        grid: where the nodes of a grid over the photograph, `GRID_PX` apart, lie on the canvas: ``(rows, columns, 2)`` float32.
        canvas_wh: size of the level canvas; ``cx``, ``cy`` its principal point.
        lens: what `kernels.lens.project` is told.
    """

    def __init__(self, rig: Rig, size_wh: tuple[int, int]) -> None:
        width, height = size_wh
        if width < 64 or height < 36:
            raise ValueError(f"world: the image must be at least 64x36 px, got {width}x{height}")
        self.rig, self.size_wh = rig, (width, height)
        self.focal_px = float(width / 2 / np.tan(rig.fov_rad / 2))
        self.k = np.array([[self.focal_px, 0, (width - 1) / 2], [0, self.focal_px, (height - 1) / 2], [0, 0, 1]])
        edge = np.tan(rig.fov_rad / 2)
        self.d = np.array([rig.barrel / edge**2, 0.0, 0.0, 0.0, 0.0])
        pitch, roll = -rig.pitch_rad, rig.roll_rad
        tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        self.level_R_cam = tilt @ turn
        self._place_canvas()

    def _place_canvas(self) -> None:
        """Choose the canvas so that it covers the photograph, and keep the coarse grid of the warp."""
        width, height = self.size_wh
        self.grid, self.cx, self.cy, self.canvas_wh = kernel.rays_grid(
            width, height, GRID_PX, self.focal_px, self.k[0, 2], self.k[1, 2], self.d[0], self.level_R_cam
        )
        self.lens = (self.focal_px, self.cx, self.cy, float(self.k[0, 2]), float(self.k[1, 2]), float(self.d[0]))

    def _rays(self, image_uv: F64) -> F64:
        """Viewing rays ``(N, 3)`` of photograph pixels, camera axes.

        Newton's method on the radius: OpenCV's own iteration stops too early for strong lenses.
        """
        bent = (image_uv - self.k[:2, 2]) / self.focal_px
        target = np.hypot(bent[:, 0], bent[:, 1])
        k1, radius = self.d[0], target
        for _ in range(3):
            square = k1 * radius * radius
            radius = radius - (radius * (1 + square) - target) / (1 + 3 * square)
        scale = radius / np.maximum(target, 1e-12)
        return np.column_stack([bent * np.where(target > 1e-12, scale, 1.0)[:, None], np.ones(len(bent))])

    def maps(self) -> F32:
        """Where each pixel of the photograph lies on the canvas, ``(H, W, 2)``, for `cv2.remap`."""
        width, height = self.size_wh
        full_wh = (self.grid.shape[1] * GRID_PX, self.grid.shape[0] * GRID_PX)
        full = cv2.resize(self.grid, full_wh, interpolation=cv2.INTER_LINEAR)
        return full[GRID_PX : GRID_PX + height, GRID_PX : GRID_PX + width]  # type: ignore[return-value]

    def to_image(self, canvas_uv: npt.ArrayLike) -> F64:
        """Canvas pixels ``(N, 2)`` to photograph pixels ``(N, 2)``."""
        uv = np.asarray(canvas_uv, dtype=np.float64).reshape(-1, 2)
        return np.column_stack(kernel.project(uv[:, 0].copy(), uv[:, 1].copy(), self.lens, self.level_R_cam))

    def to_canvas(self, image_uv: npt.ArrayLike) -> F64:
        """Photograph pixels ``(N, 2)`` to canvas pixels ``(N, 2)``; inverse of `to_image`."""
        level = self._rays(np.asarray(image_uv, dtype=np.float64).reshape(-1, 2)) @ self.level_R_cam.T
        return np.asarray(level[:, :2] / level[:, 2:] * self.focal_px + (self.cx, self.cy), dtype=np.float64)

    @property
    def ego_SE3_cam(self) -> F64:
        """``(4, 4)`` pose of the camera (OpenCV axes) in the ego frame (x forward, y left, z up, origin on the road)."""
        yaw = self.rig.yaw_rad
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        pose = np.eye(4)
        pose[:3, :3] = turn @ np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]) @ self.level_R_cam
        pose[:3, 3] = (CAMERA_FORWARD_M, 0.0, self.rig.height_m)
        return pose
