"""Metres to pixels without lies: a flat map and 3D boxes as one camera sees them.

Flat maps (nuScenes' map expansion) have no heights. Three things go wrong when they are drawn into pictures, and are prevented:

- **Behind the camera.** Polygons and lines are *cut* at the near plane, in metres, before they are projected: points behind the
  camera are neither dropped nor mirrored. What is in front of the camera maps by a homography, which keeps edges straight and
  holes where they are.
- **Hills.** The ground is a plane, fitted to the lower faces of labelled 3D boxes around the car's own plane (`fit_ground`). It
  is believed only as far as those boxes agree with it, and never further than `MAX_RANGE_M`; nothing beyond is projected.
- **Things in the way.** What a box hides is taken away (`hull`); buildings and poles, which are not labelled, hide nothing.

Frames: ego is x forward, y left, z up, metres; the camera is OpenCV's optical frame, z forward. Pixels: integers at centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

F64 = npt.NDArray[np.float64]

NEAR_M = 0.5  # nothing nearer to the image plane is projected
MAX_RANGE_M = 50.0  # from the car, on the ground
GROUND_TOLERANCE_M = 0.3  # of a box's lower edge from the plane
SLOPE_SIGMA, OFFSET_SIGMA_M, BOX_SIGMA_M = 0.02, 0.1, 0.15  # of the fit: how far each is believed to be off
BOX_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))


@dataclass(frozen=True, slots=True)
class Ground:
    """The road as a plane of the ego frame, ``z = slope_x * x + slope_y * y + offset_m``, and how far it holds.

    Attributes:
        slope_x: rise per metre forward.
        slope_y: rise per metre to the left.
        offset_m: height at the ego origin.
        range_m: greatest distance from the ego origin at which it may be used.
    """

    slope_x: float = 0.0
    slope_y: float = 0.0
    offset_m: float = 0.0
    range_m: float = MAX_RANGE_M

    def height_m(self, xy_m: npt.ArrayLike) -> F64:
        """``(N,)`` heights at ``(N, 2)``."""
        xy = np.asarray(xy_m, np.float64).reshape(-1, 2)
        return np.asarray(self.slope_x * xy[:, 0] + self.slope_y * xy[:, 1] + self.offset_m, np.float64)


def fit_ground(feet_m: npt.ArrayLike, prior: Ground | None = None) -> Ground:
    """The plane of the road from points that stand on it, and the range in which they agree.

    Least squares around the prior: minimise ``sum rho((z_i - h(x_i, y_i)) / BOX_SIGMA_M)`` plus the squared differences of
    slopes and offset from the prior over their variances; ``rho(r) = r^2 / (1 + r^2)`` (Geman and McClure) ignores what is far
    off. It is solved by reweighting twice, from the prior and from the fit with Huber's ``rho``, which follows a slope that many
    boxes share; the plane that more points agree with is taken, the first where they are equal. Few or no points leave the prior
    as it is.

    Args:
        feet_m: ``(N, 3)`` points on the ground, ego frame, e.g. the middles of the lower faces of labelled boxes.
        prior: the plane that the car stands on; its ``range_m`` is the greatest that can come out.

    Returns:
        The plane; ``range_m`` is the distance of the nearest point that is more than `GROUND_TOLERANCE_M` off it.
    """
    prior = prior or Ground()
    feet = np.asarray(feet_m, np.float64).reshape(-1, 3)
    distance = np.hypot(feet[:, 0], feet[:, 1])
    feet, distance = feet[distance <= prior.range_m], distance[distance <= prior.range_m]
    design = np.column_stack([feet[:, :2], np.ones(len(feet))])
    first = np.array([prior.slope_x, prior.slope_y, prior.offset_m])
    precision = np.diag([SLOPE_SIGMA**-2, SLOPE_SIGMA**-2, OFFSET_SIGMA_M**-2])

    def refined(plane: F64, huber: bool) -> F64:
        for _ in range(12):
            off = np.abs(feet[:, 2] - design @ plane) / BOX_SIGMA_M
            weight = (1 / np.maximum(off, 1.0) if huber else 1 / (1 + off**2) ** 2) / BOX_SIGMA_M**2
            normal = precision + (design * weight[:, None]).T @ design
            plane = first + np.linalg.solve(normal, (design * weight[:, None]).T @ (feet[:, 2] - design @ first))
        return plane

    planes = [refined(first, huber=False), refined(refined(first, huber=True), huber=False)]
    agree = [np.abs(feet[:, 2] - design @ plane) <= GROUND_TOLERANCE_M for plane in planes]
    best = int(agree[1].sum() > agree[0].sum())
    reach = float(min(distance[~agree[best]], default=prior.range_m))
    return Ground(float(planes[best][0]), float(planes[best][1]), float(planes[best][2]), reach)


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera without distortion on a car.

    Attributes:
        K: ``(3, 3)``, pixels.
        ego_SE3_cam: ``(4, 4)``, camera points to ego points.
        size_wh: of the picture, pixels.
    """

    K: F64
    ego_SE3_cam: F64
    size_wh: tuple[int, int]

    @property
    def picture(self) -> shapely.Polygon:
        """The picture's area, pixels."""
        return shapely.box(-0.5, -0.5, self.size_wh[0] - 0.5, self.size_wh[1] - 0.5)

    def to_camera(self, points_ego_m: npt.ArrayLike) -> F64:
        """``(N, 3)`` ego points in the camera's frame."""
        rotation, translation = self.ego_SE3_cam[:3, :3], self.ego_SE3_cam[:3, 3]
        return np.asarray((np.asarray(points_ego_m, np.float64).reshape(-1, 3) - translation) @ rotation, np.float64)

    def project(self, points_cam_m: npt.ArrayLike) -> F64:
        """``(N, 2)`` pixels of ``(N, 3)`` camera points, all of which must be in front of the near plane."""
        points = np.asarray(points_cam_m, np.float64).reshape(-1, 3)
        if (points[:, 2] < NEAR_M * 0.999).any():
            raise ValueError("points behind the near plane cannot be projected; cut them first")
        uvw = points @ self.K.T
        return np.asarray(uvw[:, :2] / uvw[:, 2:], np.float64)


class GroundView:
    """The ground as a camera sees it: shapes of the ego frame's x-y plane, lifted onto the road, to pixels."""

    def __init__(self, camera: Camera, ground: Ground) -> None:
        self.camera, self.ground = camera, ground
        forward, origin = camera.ego_SE3_cam[:3, 2], camera.ego_SE3_cam[:3, 3]
        self._depth = np.array([
            forward[0] + forward[2] * ground.slope_x, forward[1] + forward[2] * ground.slope_y,
            forward[2] * ground.offset_m - forward @ origin,
        ])  # fmt: skip
        self.seen = self._seen()

    def _seen(self) -> Any:
        """What of the ground is in front of the near plane and within range: a piece of the disc, metres."""
        radius = self.ground.range_m
        disc = shapely.Point(0, 0).buffer(radius, quad_segs=32)
        slope = float(np.hypot(*self._depth[:2]))
        if slope < 1e-9:  # looks straight down or up
            return disc if self._depth[2] >= NEAR_M else shapely.Polygon()
        across = self._depth[:2] / slope
        start = across * (NEAR_M - self._depth[2]) / slope  # the point of the near line that is nearest to the origin
        along = np.array([-across[1], across[0]]) * 4 * radius
        deep = across * 4 * (radius + np.hypot(*start))
        return disc.intersection(shapely.Polygon([start - along, start + along, start + along + deep, start - along + deep]))

    def polygon(self, shape_m: Any) -> Any:
        """A polygon or several, holes and all, as shapely geometry in pixels, cut to what is in range and to the picture."""
        pieces = shapely.make_valid(shape_m).intersection(self.seen)
        polygons = [p for p in shapely.get_parts(pieces) if p.geom_type == "Polygon" and p.area > 1e-6]
        drawn = [
            shapely.Polygon(self._pixels(polygon.exterior.coords), [self._pixels(ring.coords) for ring in polygon.interiors])
            for polygon in polygons
        ]
        return shapely.union_all([shapely.make_valid(polygon) for polygon in drawn]).intersection(self.camera.picture)

    def lines(self, line_m: Any) -> list[F64]:
        """The parts of a line that are in range, in front of the camera and in the picture: ``(N, 2)`` pixels, nearest first."""
        parts: list[F64] = []
        for piece in shapely.get_parts(line_m.intersection(self.seen)):
            if piece.geom_type != "LineString" or piece.length < 1e-3:
                continue
            xy = np.asarray(piece.segmentize(1.0).coords)[:, :2]
            uv = shapely.LineString(self._pixels(xy))
            for part in shapely.get_parts(uv.intersection(self.camera.picture)):
                if part.geom_type == "LineString" and part.length > 1e-3:
                    points = np.asarray(part.coords, np.float64)
                    parts.append(points if points[0, 1] >= points[-1, 1] else points[::-1])
        return parts

    def _pixels(self, xy_m: npt.ArrayLike) -> F64:
        xy = np.asarray(xy_m, np.float64)[:, :2]
        points = self.camera.to_camera(np.column_stack([xy, self.ground.height_m(xy)]))
        points[:, 2] = np.maximum(points[:, 2], NEAR_M)  # cut points lie on the near plane but for rounding
        return self.camera.project(points)


def hull(corners_cam_m: npt.ArrayLike, camera: Camera) -> tuple[Any, float] | None:
    """The outline of a 3D box in the picture, cut at the near plane, and its least depth.

    Args:
        corners_cam_m: ``(8, 3)`` in the camera's frame: four corners around one face, then the four opposite ones.
        camera: whose picture.

    Returns:
        ``(convex polygon in pixels, not cut to the picture; depth in metres)``; None when it is all behind the near plane.
    """
    corners = np.asarray(corners_cam_m, np.float64).reshape(8, 3)
    points = [corners[corners[:, 2] >= NEAR_M]]
    for i, j in BOX_EDGES:
        a, b = corners[i], corners[j]
        if (a[2] - NEAR_M) * (b[2] - NEAR_M) < 0:
            cut = a + (b - a) * (NEAR_M - a[2]) / (b[2] - a[2])
            cut[2] = NEAR_M
            points.append(cut[None])
    seen = np.concatenate(points)
    if not len(seen):
        return None
    outline = shapely.MultiPoint(camera.project(seen)).convex_hull
    return (outline, float(seen[:, 2].min())) if outline.geom_type == "Polygon" else None
