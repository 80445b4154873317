"""A scene on the ground as a `MarkerArray`: lanes as line strips, areas as filled polygons, boxes, signs with text."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from getok_drive.geometry.camera import SE3
from getok_drive.ros.convert import Context
from getok_drive.types import Box, Scene, Sign

_RGB = {
    "white": (1.0, 1.0, 1.0), "yellow": (1.0, 0.85, 0.1), "red": (0.9, 0.15, 0.1), "green": (0.1, 0.8, 0.3),
    "blue": (0.15, 0.4, 0.95), "orange": (1.0, 0.55, 0.0), "black": (0.1, 0.1, 0.1),
}  # fmt: skip
_LINE_WIDTH_M = 0.12
_BOX_DEPTH_M = 0.3  # one image does not show how deep a box is; drawn as a thin wall at its near side
_SIGN_DISTANCE_M = 20.0  # one image does not show how far a sign is; drawn at this distance on its line of sight


def scene_to_markers(scene: Scene, context: Context, lifetime_s: float) -> MarkerArray:
    """All markers of one scene in the ground frame, led by one that deletes those of the scene before.

    Without calibration there is nothing to place on the ground: then only the deletion is in it. Markers vanish by
    themselves after ``lifetime_s``, so that a viewer never shows old geometry as current.
    """
    out = MarkerArray()
    projector, ground = context.projector, context.on_ground(scene)
    frame = context.ground_frame if projector else context.header.frame_id
    out.markers.append(_marker(context, frame, "", 0, Marker.ARROW, (0.0, 0.0, 0.0), 0.0))
    out.markers[0].action = Marker.DELETEALL
    if projector is None or ground is None:
        return out
    for lane, points in zip(scene.lanes, ground.lanes_m, strict=True):
        for run in _finite_runs(points):
            marker = _marker(
                context, frame, "lanes", len(out.markers), Marker.LINE_STRIP, _RGB.get(lane.color, _RGB["white"]), 1.0
            )
            marker.scale.x = _LINE_WIDTH_M
            marker.points = _points(run)
            out.markers.append(marker)
    for polygon in ground.areas_m:
        triangles = triangulate(polygon[:, :2])
        if triangles:
            marker = _marker(context, frame, "drivable", len(out.markers), Marker.TRIANGLE_LIST, _RGB["green"], 0.35)
            marker.scale.x = marker.scale.y = marker.scale.z = 1.0
            marker.points = _points(polygon[np.array(triangles).reshape(-1)])
            out.markers.append(marker)
    cam_SE3_ground = projector.ground_SE3_cam.inverse()
    focal_px = float(projector.camera.K[1, 1])
    for box, feet in zip(scene.boxes, ground.feet_m, strict=True):
        if len(feet):
            out.markers += _box_markers(box, context, feet, cam_SE3_ground, focal_px, len(out.markers))
    signs_m = projector.ground_SE3_cam.apply(ground.sign_directions * _SIGN_DISTANCE_M)
    for sign, at_m in zip(scene.signs, signs_m.tolist(), strict=True):
        if math.isfinite(at_m[0]):
            out.markers += _sign_markers(sign, context, at_m, len(out.markers))
    seconds = int(lifetime_s)
    lifetime = Duration(sec=seconds, nanosec=int((lifetime_s - seconds) * 1e9))
    for marker in out.markers[1:]:
        marker.lifetime = lifetime
    return out


def _box_markers(
    box: Box, context: Context, feet: npt.NDArray[np.float64], cam_SE3_ground: SE3, focal_px: float, index: int
) -> list[Marker]:
    left, right = feet
    centre, across = (left + right) / 2, left - right
    # Height from the pixel height at the distance of the feet (exact for an upright box seen by a level camera).
    _, y0, _, y1 = box.xyxy_px.tolist()
    depth_m = float(cam_SE3_ground.apply(centre[None])[0, 2])
    height_m = max((y1 - y0) * depth_m / focal_px, 0.1)
    yaw = float(np.arctan2(across[1], across[0]))
    wall = _marker(context, context.ground_frame, "boxes", index, Marker.CUBE, _RGB["orange"], 0.6)
    wall.pose.position = Point(x=float(centre[0]), y=float(centre[1]), z=height_m / 2)
    wall.pose.orientation.z, wall.pose.orientation.w = float(np.sin(yaw / 2)), float(np.cos(yaw / 2))
    wall.scale.x, wall.scale.y, wall.scale.z = max(float(np.linalg.norm(across)), 0.05), _BOX_DEPTH_M, height_m
    return [wall, _text(context, "box_names", index + 1, (centre[0], centre[1], height_m + 0.4), box.class_name)]


def _sign_markers(sign: Sign, context: Context, at: list[float], index: int) -> list[Marker]:
    ball = _marker(context, context.ground_frame, "signs", index, Marker.SPHERE, _RGB.get(sign.color, _RGB["white"]), 0.9)
    ball.pose.position = Point(x=at[0], y=at[1], z=at[2])
    ball.scale.x = ball.scale.y = ball.scale.z = 0.6
    return [ball, _text(context, "sign_names", index + 1, (at[0], at[1], at[2] + 0.7), sign.class_name)]


def _text(context: Context, namespace: str, index: int, xyz: tuple[float, float, float], text: str) -> Marker:
    marker = _marker(context, context.ground_frame, namespace, index, Marker.TEXT_VIEW_FACING, _RGB["white"], 1.0)
    marker.pose.position = Point(x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))
    marker.scale.z = 0.5
    marker.text = text
    return marker


def _marker(
    context: Context, frame: str, namespace: str, index: int, kind: int, rgb: tuple[float, float, float], alpha: float
) -> Marker:
    marker = Marker(ns=namespace, id=index, type=kind, action=Marker.ADD)
    marker.header.stamp, marker.header.frame_id = context.header.stamp, frame
    marker.pose.orientation.w = 1.0
    marker.color = ColorRGBA(r=rgb[0], g=rgb[1], b=rgb[2], a=alpha)
    return marker


def _points(points_m: npt.NDArray[np.float64]) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y, z in points_m.tolist()]


def _finite_runs(points: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Stretches of two points or more without NaN."""
    breaks = np.flatnonzero(~np.isfinite(points).all(axis=1))
    return [run[np.isfinite(run).all(axis=1)] for run in np.split(points, breaks) if np.isfinite(run).all(axis=1).sum() >= 2]


def triangulate(polygon: npt.NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """Triangles (vertex indices) that fill a simple polygon ``(N, 2)``, by ear clipping; empty for a degenerate one."""
    x, y = polygon[:, 0], polygon[:, 1]
    area = float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) if len(polygon) >= 3 else 0.0
    if abs(area) < 1e-9:
        return []
    rest = list(range(len(polygon))) if area > 0 else list(range(len(polygon)))[::-1]

    def cross(a: int, b: int, c: int) -> float:
        return float((x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]))

    triangles: list[tuple[int, int, int]] = []
    while len(rest) > 3:
        for at in range(len(rest)):
            a, b, c = rest[at - 1], rest[at], rest[(at + 1) % len(rest)]
            inside = (p for p in rest if p not in (a, b, c) and min(cross(a, b, p), cross(b, c, p), cross(c, a, p)) >= 0)
            if cross(a, b, c) > 0 and next(inside, None) is None:
                triangles.append((a, b, c))
                del rest[at]
                break
        else:  # no ear left: the polygon touches itself; drop the flattest corner and go on
            flattest = min(range(len(rest)), key=lambda i: abs(cross(rest[i - 1], rest[i], rest[(i + 1) % len(rest)])))
            del rest[flattest]
    triangles.append((rest[0], rest[1], rest[2]))
    return triangles
