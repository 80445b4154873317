"""Pixels on a flat ground: where lines of sight meet the plane ``z = 0`` of the ground frame (x forward, y left, z up)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from getok_drive.errors import CalibrationError
from getok_drive.geometry.camera import SE3, CameraModel, Float64Array

_PIECES = 32  # that the longer side of an image is cut into where a lens bends its lines
_WIDEST = 10.0  # tangent of the angle to the optical axis (84 degrees) up to which a pixel's line of sight is trusted
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

    def polygon(self, polygon_px: npt.ArrayLike, *, exact: bool = False) -> Float64Array:
        """A polygon ``(N, 2)`` in pixels as the polygon ``(M, 3)`` on the ground, cut off at the horizon and at the range.

        Empty ``(0, 3)`` when nothing is left. Vertices where the lens distortion has no inverse are left out first.

        Args:
            polygon_px: the polygon.
            exact: follow edges that the lens bends by more points; else the ground points of the vertices are joined by lines.
        """
        if exact and self.camera.D.any():
            polygon_px = _subdivided(np.asarray(polygon_px, dtype=np.float64), max(self.camera.size_wh) / _PIECES)
        rays = self._rays(polygon_px)
        rays = rays[np.isfinite(rays).all(axis=1)]
        for normal in self._limits():
            rays = _clip(rays, normal)
        return self._meet(rays) if len(rays) >= 3 else np.zeros((0, 3))

    def view(self) -> Float64Array:
        """The ground that the image shows within range, ``(M, 3)``; ``(0, 3)`` when there is none.

        Where the image's border has no line of sight (the corners of a fisheye's), the view ends at the last pixel that has one
        on the way to the border.
        """
        width, height = self.camera.size_wh
        corners = np.array([(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)], dtype=np.float64)
        if not self.camera.D.any():
            return self.polygon(corners)
        border = _subdivided(corners, max(width, height) / _PIECES)
        lost = ~self._sees(border)
        if lost.any():
            centre = self.camera.K[:2, 2]
            shares = np.linspace(1.0, 0.0, _PIECES, endpoint=False)
            inwards = centre + shares[:, None, None] * (border[lost] - centre)
            seen = self._sees(inwards.reshape(-1, 2)).reshape(inwards.shape[:2])
            border[lost] = inwards[seen.argmax(axis=0), np.arange(lost.sum())]
        return self.polygon(border)

    def _sees(self, uv_px: Float64Array) -> npt.NDArray[np.bool_]:
        rays = self.camera.rays(uv_px)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.hypot(rays[:, 0], rays[:, 1]) < _WIDEST)

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


def _subdivided(polygon_px: Float64Array, step_px: float) -> Float64Array:
    """The same polygon with vertices at most ``step_px`` apart."""
    parts = []
    for start, stop in zip(polygon_px, np.roll(polygon_px, -1, axis=0), strict=True):
        count = max(int(np.ceil(np.hypot(*(stop - start)) / step_px)), 1)
        parts.append(start + np.linspace(0.0, 1.0, count, endpoint=False)[:, None] * (stop - start))
    return np.concatenate(parts)


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
