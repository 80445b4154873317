"""Pixels on a flat ground: where lines of sight meet the plane ``z = 0`` of the ground frame (x forward, y left, z up)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from getok_drive.errors import CalibrationError
from getok_drive.geometry.camera import SE3, CameraModel, Float64Array

_LEAST_SLOPE = 1e-4  # rays flatter than this (rad, about) never count as meeting the ground


@dataclass(frozen=True, slots=True)
class GroundProjector:
    """Projects pixels of one camera to the ground plane.

    Attributes:
        camera: intrinsics for the image size in use.
        ground_SE3_cam: pose of the optical frame in the ground frame; the camera must be above the ground.
        max_range_m: points further ahead than this, along the camera's horizontal viewing direction, have no ground point:
            there a pixel covers too much road and the flat-ground assumption fails.
    """

    camera: CameraModel
    ground_SE3_cam: SE3
    max_range_m: float = 80.0

    def __post_init__(self) -> None:
        height_m = float(self.ground_SE3_cam.translation_m[2])
        if height_m <= 0.05:
            raise CalibrationError(f"camera is {height_m:.2f} m above the ground plane; z of the ground frame points up")
        if not self.max_range_m > 0:
            raise CalibrationError(f"max_range_m must be positive, got {self.max_range_m}")
        if np.linalg.norm(self.ground_SE3_cam.rotation[:2, 2]) < 1e-3:
            raise CalibrationError("camera looks straight up or down; a viewing direction along the ground is needed")

    def points(self, uv_px: npt.ArrayLike) -> Float64Array:
        """``(N, 2)`` pixels as ``(N, 3)`` ground points in metres (z = 0); NaN rows where the ground is not met within range."""
        rays = self._rays(uv_px)
        limits = self._limits()
        with np.errstate(invalid="ignore"):
            hits = np.all(rays @ limits.T <= 0, axis=1)
        out = np.full((len(rays), 3), np.nan)
        out[hits] = self._meet(rays[hits])
        return out

    def polygon(self, polygon_px: npt.ArrayLike) -> Float64Array:
        """A polygon ``(N, 2)`` in pixels as the polygon ``(M, 3)`` on the ground, cut off at the horizon and at the range.

        Empty ``(0, 3)`` when nothing is left. Vertices where the lens distortion has no inverse are left out first.
        """
        rays = self._rays(polygon_px)
        rays = rays[np.isfinite(rays).all(axis=1)]
        for normal in self._limits():
            rays = _clip(rays, normal)
        return self._meet(rays) if len(rays) >= 3 else np.zeros((0, 3))

    def directions(self, uv_px: npt.ArrayLike) -> Float64Array:
        """``(N, 2)`` pixels as ``(N, 3)`` unit vectors of the optical frame; NaN where the distortion has no inverse."""
        rays = self.camera.rays(uv_px)
        return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True), dtype=np.float64)

    def _rays(self, uv_px: npt.ArrayLike) -> Float64Array:
        return np.asarray(self.camera.rays(uv_px) @ self.ground_SE3_cam.rotation.T, dtype=np.float64)

    def _limits(self) -> Float64Array:
        """Normals ``(2, 3)`` of half-spaces of directions: a ray d with ``d @ normal <= 0`` for both meets the ground in range.

        Forward distance of the hit is ``h * (d . f) / -d_z``, so within ``R`` means ``d . (h f + R z) <= 0``: linear in d, which
        is why clipping directions by these planes cuts a projected polygon exactly.
        """
        height_m = self.ground_SE3_cam.translation_m[2]
        forward = self.ground_SE3_cam.rotation[:2, 2]
        forward = forward / np.linalg.norm(forward)
        far = np.array([height_m * forward[0], height_m * forward[1], self.max_range_m])
        down = np.array([_LEAST_SLOPE * forward[0], _LEAST_SLOPE * forward[1], 1.0])
        return np.stack([far, down])

    def _meet(self, rays: Float64Array) -> Float64Array:
        """Where rays that point below the horizon meet ``z = 0``."""
        origin = self.ground_SE3_cam.translation_m
        points = origin + rays * (-origin[2] / rays[:, 2])[:, None]
        points[:, 2] = 0.0
        return np.asarray(points, dtype=np.float64)


def _clip(rays: Float64Array, normal: Float64Array) -> Float64Array:
    """Sutherland-Hodgman on a cone of directions: keeps the part with ``ray @ normal <= 0``."""
    kept: list[Float64Array] = []
    side = rays @ normal
    for i in range(len(rays)):
        j = (i + 1) % len(rays)
        if side[i] <= 0:
            kept.append(rays[i])
        if (side[i] <= 0) != (side[j] <= 0):
            t = side[i] / (side[i] - side[j])
            kept.append(rays[i] + t * (rays[j] - rays[i]))
    return np.array(kept).reshape(-1, 3)
