"""`Scene` to messages. Pixels come from the scene, metres from a `GroundProjector` where the camera is calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Point32, Vector3
from getok_drive_msgs import msg as gm
from std_msgs.msg import Header

from getok_drive.geometry.ground import GroundProjector
from getok_drive.ros.ground_scene import GroundScene
from getok_drive.types import Scene


@dataclass(slots=True)
class Context:
    """What a scene's messages need beside the scene itself.

    Attributes:
        header: stamp and frame of the image.
        camera: the camera's name.
        ground_frame: frame of the metric points; empty when ``projector`` is None.
        projector: pixels to ground; None when the camera is not calibrated.
        degraded: the scene was made in degraded mode.
    """

    header: Header
    camera: str
    ground_frame: str = ""
    projector: GroundProjector | None = None
    degraded: bool = False
    _grounded: tuple[Scene, GroundScene] | None = field(default=None, init=False, repr=False, compare=False)

    def on_ground(self, scene: Scene) -> GroundScene | None:
        """The scene on the ground, computed at the first call for it; None without a projector."""
        if self.projector is None:
            return None
        if self._grounded is None or self._grounded[0] is not scene:
            self._grounded = scene, GroundScene.of(scene, self.projector)
        return self._grounded[1]


def pixel_points(points_px: npt.NDArray[np.float32]) -> list[gm.PixelPoint]:
    """``(N, 2)`` pixels as messages."""
    return [gm.PixelPoint(x=x, y=y) for x, y in points_px.tolist()]


def ground_points(points_m: npt.NDArray[np.float64]) -> list[Point32]:
    """``(N, 3)`` metres as messages."""
    return [Point32(x=x, y=y, z=z) for x, y, z in points_m.tolist()]


def attributes(values: Mapping[str, str]) -> list[gm.Attribute]:
    """A mapping as messages, sorted by name."""
    return [gm.Attribute(name=name, value=str(value)) for name, value in sorted(values.items())]


def scene_to_msg(scene: Scene, context: Context) -> gm.Scene:
    """The typed message without what is only known at publication (`age_ms`, `dropped_since_last`, more stages)."""
    ground = context.on_ground(scene)
    out = gm.Scene(
        header=context.header,
        camera=context.camera,
        image_width=scene.image_size_wh[0],
        image_height=scene.image_size_wh[1],
        calibrated=ground is not None,
        ground_frame_id=context.ground_frame if ground else "",
        truncated=scene.truncated,
        tokens=scene.report.tokens,
        passes=scene.report.passes,
        mode=gm.Scene.MODE_DEGRADED if context.degraded else gm.Scene.MODE_NORMAL,
        bundle_name=scene.bundle_name,
        bundle_sha256=scene.bundle_sha256,
    )
    out.decode_issues = [gm.DecodeIssue(reason=name, count=count) for name, count in sorted(scene.report.issues.items())]
    for i, lane in enumerate(scene.lanes):
        lane_msg = gm.Lane(type=lane.type, color=lane.color, confidence=lane.confidence, points_px=pixel_points(lane.points_px))
        if ground:
            lane_msg.points_ground_m = ground_points(ground.lanes_m[i])
        out.lanes.append(lane_msg)
    for i, area in enumerate(scene.drivable):
        area_msg = gm.DrivableArea(confidence=area.confidence, polygon_px=pixel_points(area.polygon_px))
        if ground:
            area_msg.polygon_ground_m = ground_points(ground.areas_m[i])
        out.drivable_areas.append(area_msg)
    for i, box in enumerate(scene.boxes):
        corners = pixel_points(box.xyxy_px.reshape(2, 2))
        box_msg = gm.Box(class_name=box.class_name, confidence=box.confidence, attributes=attributes(box.attributes))
        box_msg.top_left_px, box_msg.bottom_right_px = corners
        if ground:
            box_msg.footprint_ground_m = ground_points(ground.feet_m[i])
        out.boxes.append(box_msg)
    for i, sign in enumerate(scene.signs):
        sign_msg = gm.Sign(class_name=sign.class_name, color=sign.color, confidence=sign.confidence)
        sign_msg.attributes = attributes(sign.attributes)
        sign_msg.center_px = pixel_points(sign.point_px[None])[0]
        if ground:
            x, y, z = ground.sign_directions[i].tolist()
            if np.isfinite(x):
                sign_msg.direction = [Vector3(x=x, y=y, z=z)]
        out.signs.append(sign_msg)
    return out


def stages(durations_ms: Mapping[str, float]) -> list[gm.StageDuration]:
    """Named durations as messages, in order."""
    return [gm.StageDuration(stage=name, duration_ms=float(value)) for name, value in durations_ms.items()]


def detections_to_msg(scene: Scene, context: Context) -> Any:
    """Boxes as `vision_msgs/Detection2DArray`; call only where that package is installed."""
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    out = Detection2DArray(header=context.header)
    for box in scene.boxes:
        x0, y0, x1, y1 = box.xyxy_px.tolist()
        item = Detection2D(header=context.header)
        centre = item.bbox.center.position if hasattr(item.bbox.center, "position") else item.bbox.center
        centre.x, centre.y = (x0 + x1) / 2, (y0 + y1) / 2
        item.bbox.size_x, item.bbox.size_y = x1 - x0, y1 - y0
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = box.class_name, box.confidence
        item.results.append(hypothesis)
        out.detections.append(item)
    return out
