"""What the camera sees of the road: road coordinates ``(s, d)`` to canvas pixels, and the ground row by row.

In the camera's level frame (x forward, y left) the centre line is a function of x, and so is the ground's height; hence every
canvas row that shows ground has one forward distance, crests hide whole rows, and all of it is one-dimensional.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from training.datasets.world.camera import Camera
from training.datasets.world.kernels import view as kernel
from training.datasets.world.road import Road

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
REACH_M = 320.0
_NEAR_M = 1.2
_STEPS = np.arange(240.0)


class View:
    """The road as seen from one pose of the ego camera.

    Attributes:
        rows: canvas rows showing ground, top to bottom; row_x, row_s, row_y, row_cos, row_tan: forward distance, ``s`` on the
            centre line, lateral position of the centre line, cosine and tangent of its heading at those rows.
        row_ds: metres of ``s`` that a row covers.
        horizon: first canvas row of ground.
        ground, crest: ``(2, N)``, forward distances, and the ground's height or the lowest row that nearer ground does not hide.
        eye: row of the horizontal, focal length, height of the camera; pose: of the camera's foot, see `Road.pose`.
        s_m, d_m: where the camera is.
        heading: of the camera's level frame in the world, radians.
    """

    def __init__(self, road: Road, camera: Camera, s_m: float, d_m: float, dyaw_rad: float) -> None:
        self.road, self.camera = road, camera
        self.f, self.cx, self.cy, self.height_m = float(camera.focal_px), camera.cx, camera.cy, camera.rig.height_m
        self.pose = px, py, pz, theta, slope = road.pose(s_m, d_m)
        self.s_m, self.d_m, self.heading, self.slope = s_m, d_m, theta + dyaw_rad + camera.rig.yaw_rad, slope
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        near = (road.s > s_m - 30) & (road.s < s_m + REACH_M)
        dx, dy = road.x[near] - px, road.y[near] - py
        x, y, s, bearing = cos * dx + sin * dy, cos * dy - sin * dx, road.s[near], road.theta[near] - self.heading
        turned = np.flatnonzero((np.cos(bearing) < 0.5) & (s > s_m))
        stop = int(turned[0]) if len(turned) else len(s)
        back = np.flatnonzero((np.cos(bearing) < 0.5) & (s < s_m))
        start = int(back[-1]) + 1 if len(back) else 0
        self._s, self._x, self._y, self._bearing = s[start:stop], x[start:stop], y[start:stop], bearing[start:stop]
        self._z = road.z[near][start:stop] - pz - slope * self._x
        self._z -= np.interp(0.0, self._x, self._z)
        self._rows()

    def _rows(self) -> None:
        far = max(float(self._x[-1]), 10.0)
        first = math.log10(_NEAR_M)
        distances = np.power(10.0, _STEPS * ((math.log10(far) - first) / _STEPS[-1]) + first)  # a geometric row
        distances[0], distances[-1] = _NEAR_M, far
        self.eye = (self.cy, self.f, self.height_m)
        envelope, self.rows, self.row_x, self.row_s, self.row_y, bearing, self.row_ds = kernel.rows(
            distances, self._x, self._y, self._z, self._s, self._bearing, self.eye, self.camera.canvas_wh[1]
        )
        self.ground, self.crest = np.array((self._x, self._z)), np.array((distances, envelope))
        self.horizon = int(self.rows[0])
        self.row_cos, self.row_tan = np.cos(bearing), np.tan(bearing)

    def clip_row(self, x: F64) -> F64:
        """Lowest canvas row that is not hidden by nearer ground at forward distance ``x``."""
        return np.asarray(np.interp(x, *self.crest), dtype=np.float64)

    def ground_z(self, x: F64) -> F64:
        """Height of the ground at forward distance ``x``, metres, 0 under the camera."""
        return np.asarray(np.interp(x, self._x, self._z), dtype=np.float64)

    def place(self, s: F64, d: F64) -> tuple[F64, F64, F64]:
        """Level-frame ``x``, ``y`` and heading of the road at ``(s, d)``."""
        bearing = np.interp(s, self._s, self._bearing)
        x = np.interp(s, self._s, self._x) - d * np.sin(bearing)
        y = np.interp(s, self._s, self._y) + d * np.cos(bearing)
        return np.asarray(x), np.asarray(y), np.asarray(bearing)

    @property
    def s_range(self) -> tuple[float, float]:
        """First and last ``s`` that can be placed."""
        return float(self._s[0]), float(self._s[-1])

    def project(self, xyz: npt.ArrayLike) -> F64:
        """Level-frame points ``(N, 3)`` (x forward, y left, z up from the road under the camera) to canvas pixels ``(N, 2)``."""
        points = np.asarray(xyz, dtype=np.float64)
        x = np.maximum(points[:, 0], 0.5)
        return np.column_stack([self.cx - self.f * points[:, 1] / x, self.cy + self.f * (self.height_m - points[:, 2]) / x])

    def uv(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Canvas pixel of one level-frame point in front of the camera (``x`` > 0)."""
        scale = self.f / x
        return self.cx - y * scale, self.cy + (self.height_m - z) * scale

    def ground_uv(self, s: F64, d: F64) -> F64:
        """Canvas pixels ``(N, 2)`` of points on the ground at ``(s, d)``."""
        x, y, _ = self.place(s, d)
        return self.project(np.column_stack([x, y, self.ground_z(x)]))

    def row_u(self, d: npt.ArrayLike) -> F64:
        """Canvas column of offset ``d`` (one value or one per row) in every ground row."""
        return self.cx - self.f * (self.row_y + np.asarray(d) / self.row_cos) / self.row_x

    def surface(self, rows: slice = slice(None), step: int = 1) -> tuple[F32, F32]:
        """``s`` and ``d`` of the ground pixels in ``rows``, every ``step``-th column, each ``(rows, columns)`` float32."""
        u = np.arange(0, self.camera.canvas_wh[0], step, dtype=np.float32)
        scale = (self.row_x[rows] * self.row_cos[rows] / self.f).astype(np.float32)[:, None]
        d = (np.float32(self.cx) - u)[None] * scale - (self.row_y[rows] * self.row_cos[rows]).astype(np.float32)[:, None]
        s = self.row_s[rows].astype(np.float32)[:, None] + d * self.row_tan[rows].astype(np.float32)[:, None]
        return s, d
