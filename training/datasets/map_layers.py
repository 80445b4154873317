"""The layers of a nuScenes map as shapes, and what one camera sees of them; see `training.datasets.nuscenes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from getok_drive.geometry.polyline import length, resample
from getok_drive.types import ImageBgr, Lane, Sign
from training.datasets.boxes import clipped
from training.datasets.lamps import lamp_color
from training.datasets.masks import drivable_areas
from training.datasets.paint import lane_look
from training.datasets.projection import MAX_RANGE_M, NEAR_M, Camera, Ground, GroundView
from training.metrics.raster import fill_polygons

F64 = npt.NDArray[np.float64]

SEGMENTS = {  # type of a divider's segment -> type and colour
    "DOUBLE_DASHED_WHITE": ("dashed", "white"),  # the only dashed type: the ordinary broken line
    "SINGLE_SOLID_WHITE": ("solid", "white"),
    "SINGLE_ZIGZAG_WHITE": ("solid", "white"),
    "DOUBLE_SOLID_WHITE": ("double", "white"),
    "SINGLE_SOLID_YELLOW": ("solid", "yellow"),
    "DOUBLE_SOLID_YELLOW": ("double", "yellow"),
}
NO_PAINT = "NIL"
MIN_LENGTH_SHARE = 0.03  # of the picture's height; shorter lines are left out
LEAST_SEEN = 0.3  # of a line; what boxes hide more of is left out
LEAST_FACING = 0.35  # cosine of the angle between a light's direction and the camera
LAMP_HALF_M = 0.15  # around the lamps of a light
Hulls = Sequence[tuple[Any, float]]


class MapLayers:
    """Shapes of one place in metres, found quickly by position.

    Args:
        devkit_map: the devkit's ``NuScenesMap``.
    """

    def __init__(self, devkit_map: Any) -> None:
        self._map = devkit_map
        areas = [devkit_map.extract_polygon(token) for record in devkit_map.drivable_area for token in record["polygon_tokens"]]
        self._areas = shapely.STRtree([shapely.make_valid(area) for area in areas])
        self._stops = [
            (record["stop_line_type"], devkit_map.extract_polygon(record["polygon_token"])) for record in devkit_map.stop_line
        ]
        self._stop_tree = shapely.STRtree([shape for _, shape in self._stops])
        self._lines = [line for record in devkit_map.lane_divider for line in self._painted(record)]
        for record in devkit_map.road_divider:
            shape = devkit_map.extract_line(record["line_token"])
            self._lines += [("", "", shape)] if not shape.is_empty else []
        self._line_tree = shapely.STRtree([shape for *_, shape in self._lines])
        self._lights = devkit_map.traffic_light
        places = [(light["pose"]["tx"], light["pose"]["ty"]) for light in self._lights]
        self._light_tree = shapely.STRtree([shapely.Point(place) for place in places])

    def _painted(self, record: Any) -> list[tuple[str, str, Any]]:
        """A divider as lines of one type each; segment k runs from node k to node k + 1."""
        types = [segment["segment_type"] for segment in record["lane_divider_segments"]]
        nodes = [self._map.get("node", segment["node_token"]) for segment in record["lane_divider_segments"]]
        points = [(node["x"], node["y"]) for node in nodes]
        lines, start = [], 0
        for at in range(1, len(points)):
            if at == len(points) - 1 or types[at] != types[start]:
                line = shapely.LineString(points[start : at + 1])
                if types[start] != NO_PAINT and line.length > 0:
                    lines.append((*SEGMENTS.get(types[start], ("", "")), line))
                start = at
        return lines

    def areas_near(self, xy_m: F64, radius_m: float) -> list[Any]:
        """Drivable polygons within reach."""
        return [self._areas.geometries[k] for k in self._areas.query(shapely.Point(xy_m).buffer(radius_m))]

    def lines_near(self, xy_m: F64, radius_m: float) -> list[tuple[str, str, Any]]:
        """``(type, colour, line)``; both empty where the map does not say."""
        return [self._lines[k] for k in sorted(self._line_tree.query(shapely.Point(xy_m).buffer(radius_m)))]

    def stops_near(self, xy_m: F64, radius_m: float) -> list[tuple[str, Any]]:
        """``(type, polygon)`` of stop lines."""
        return [self._stops[k] for k in sorted(self._stop_tree.query(shapely.Point(xy_m).buffer(radius_m)))]

    def lights_near(self, xy_m: F64, radius_m: float) -> list[tuple[F64, F64]]:
        """Traffic lights: ``(N, 3)`` lamps, x and y on the map and z above the road, and the ``(2,)`` direction they face."""
        found = []
        for k in sorted(self._light_tree.query(shapely.Point(xy_m).buffer(radius_m))):
            pose, items = self._lights[k]["pose"], self._lights[k]["items"]
            offsets = [(i["rel_pos"]["tx"], i["rel_pos"]["ty"], i["rel_pos"]["tz"]) for i in items] or [(0.0, 0.0, 0.0)]
            cos, sin = np.cos(pose["rz"]), np.sin(pose["rz"])
            turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
            lamps = np.asarray(offsets, np.float64) @ turn.T + [pose["tx"], pose["ty"], pose["tz"]]
            ends = np.asarray(self._map.extract_line(self._lights[k]["line_token"]).coords)
            facing = ends[-1, :2] - ends[0, :2] if len(ends) > 1 else np.array([cos, sin])
            found.append((lamps, facing / max(float(np.hypot(*facing)), 1e-9)))
        return found


def map_labels(
    layers: MapLayers, global_from_ego: F64, camera: Camera, ground: Ground, hulls: Hulls, image: ImageBgr
) -> dict[str, Any]:
    """What a camera sees of a map: ``lanes``, ``drivable``, ``signs`` and ``stop_lines``.

    Args:
        layers: the map.
        global_from_ego: ``(4, 4)`` pose of the car.
        camera: on the car.
        ground: the road, ego frame.
        hulls: ``(outline in pixels, depth in metres)`` of what stands in the way.
        image: the picture.
    """
    here = global_from_ego[:2, 3]
    view = GroundView(camera, ground)
    in_the_way = shapely.union_all([outline for outline, _ in hulls])

    def local(shape: Any) -> Any:
        return shapely.transform(shape, lambda xy: _to_ego(xy, global_from_ego))

    road = view.polygon(shapely.union_all([local(area) for area in layers.areas_near(here, ground.range_m)]))
    lanes = [
        lane
        for kind, color, line in layers.lines_near(here, ground.range_m)
        for points in view.lines(local(line))
        if (lane := _lane(points, kind, color, in_the_way, image)) is not None
    ]
    stops = []
    for kind, area in layers.stops_near(here, ground.range_m):
        for part in shapely.get_parts(view.polygon(local(area)).difference(in_the_way)):
            if part.geom_type == "Polygon" and part.area >= 16:
                stops.append({"type": kind, "polygon_px": np.asarray(part.exterior.coords)[:-1].round(2).tolist()})
    return {
        "lanes": tuple(sorted(lanes, key=lambda lane: float(lane.points_px[0, 0]))),
        "drivable": drivable_areas(_raster(road.difference(in_the_way), camera.size_wh)),
        "signs": _signs(layers, here, global_from_ego, camera, ground, hulls, image),
        "stop_lines": stops,
    }


def _to_ego(xy_m: F64, global_from_ego: F64) -> F64:
    """Map coordinates ``(N, 2)``, at the car's height, in the ego frame."""
    away = np.column_stack([xy_m[:, :2] - global_from_ego[:2, 3], np.zeros(len(xy_m))])
    return np.asarray((away @ global_from_ego[:3, :3])[:, :2])


def _raster(shape: Any, size_wh: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """``(H, W)``: 1 inside polygons, 0 outside and in their holes."""
    mask = np.zeros((size_wh[1], size_wh[0]), np.uint8)
    for part in shapely.get_parts(shape):
        if part.geom_type == "Polygon":
            filled = fill_polygons([np.asarray(part.exterior.coords)[:-1]], size_wh)
            for ring in part.interiors:
                filled &= ~fill_polygons([np.asarray(ring.coords)[:-1]], size_wh)
            mask |= filled
    return mask


def _lane(points_px: F64, kind: str, color: str, in_the_way: Any, image: ImageBgr) -> Lane | None:
    """A lane line from its projection: ends hidden by boxes cut; None when it is short or mostly hidden."""
    height = image.shape[0]
    if length(points_px) < MIN_LENGTH_SHARE * height:
        return None
    dense = resample(points_px, step_px=max(height / 200, 1.0))
    seen = ~shapely.contains_xy(in_the_way, dense[:, 0], dense[:, 1]) if not in_the_way.is_empty else np.ones(len(dense), bool)
    if seen.mean() < LEAST_SEEN:
        return None
    kept = dense[np.flatnonzero(seen)[0] : np.flatnonzero(seen)[-1] + 1]
    if len(kept) < 2 or length(kept) < MIN_LENGTH_SHARE * height:
        return None
    kept = kept if kept[0, 1] >= kept[-1, 1] else kept[::-1]
    look = (kind, color) if kind else lane_look(image, kept)
    return Lane(resample(kept, step_px=max(height / 100, 1.0)).astype(np.float32), *look)


def _signs(
    layers: MapLayers, here: F64, global_from_ego: F64, camera: Camera, ground: Ground, hulls: Hulls, image: ImageBgr
) -> tuple[Sign, ...]:
    """Traffic lights that face the camera, one sign for each housing."""
    eye = camera.ego_SE3_cam[:2, 3]
    signs = []
    for lamps, facing in layers.lights_near(here, min(ground.range_m, MAX_RANGE_M)):
        xy = _to_ego(lamps[:, :2], global_from_ego)
        towards = eye - xy.mean(axis=0)
        direction = (np.append(facing, 0.0) @ global_from_ego[:3, :3])[:2]
        if direction @ towards < LEAST_FACING * np.hypot(*towards):
            continue
        points = camera.to_camera(np.column_stack([xy, ground.height_m(xy) + lamps[:, 2]]))
        if points[:, 2].min() < NEAR_M:
            continue
        uv, depth = camera.project(points), float(points[:, 2].min())
        center = uv.mean(axis=0)
        margin = camera.K[0, 0] * LAMP_HALF_M / depth
        box = clipped(np.concatenate([uv.min(axis=0) - margin, uv.max(axis=0) + margin]), camera.size_wh)
        inside = (center >= 0).all() and (center <= np.array(camera.size_wh) - 1).all()
        hidden = any(far < depth and outline.contains(shapely.Point(center)) for outline, far in hulls)
        if inside and box is not None and not hidden:
            signs.append(Sign(center.astype(np.float32), "traffic_light", lamp_color(image, box)))
    return tuple(signs)
