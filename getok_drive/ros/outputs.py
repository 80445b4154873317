"""The publishers of one camera. What nobody subscribes to is not made."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

from getok_drive_msgs import msg as gm
from nav_msgs.msg import OccupancyGrid
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage
from visualization_msgs.msg import MarkerArray

from getok_drive.ros.convert import Context, detections_to_msg, scene_to_msg, stages
from getok_drive.ros.drawing import Drawer, Drawing
from getok_drive.ros.grid import scene_to_grid
from getok_drive.ros.markers import scene_to_markers
from getok_drive.ros.params import NodeParams
from getok_drive.types import ImageBgr, Scene


class CameraOutputs:
    """``~/scene`` and its companions; with several cameras ``~/NAME/scene`` and so on."""

    def __init__(self, node: Node, camera: str, alone: bool) -> None:
        prefix = "~/" if alone else f"~/{camera}/"
        qos = QoSProfile(depth=5)  # reliable; small messages
        self._node = node
        self._scene = node.create_publisher(gm.Scene, prefix + "scene", qos)
        self._markers = node.create_publisher(MarkerArray, prefix + "markers", qos)
        self._grid = node.create_publisher(OccupancyGrid, prefix + "drivable_grid", qos)
        self._overlay = node.create_publisher(CompressedImage, prefix + "overlay/compressed", QoSProfile(depth=1))
        self._detections: Publisher | None = None
        if importlib.util.find_spec("vision_msgs") is not None:
            from vision_msgs.msg import Detection2DArray

            self._detections = node.create_publisher(Detection2DArray, prefix + "detections", qos)
        self._publish_ms = 0.0
        self._drawer = Drawer(node, self._overlay)

    def publish(
        self,
        scene: Scene,
        image_bgr: ImageBgr,
        context: Context,
        params: NodeParams,
        convert_ms: float,
        dropped: int,
        age_ms: Callable[[], float],
    ) -> float:
        """Publishes everything that is wanted, the typed scene first.

        Args:
            scene: what was seen.
            image_bgr: the image it was seen in, for the overlay.
            context: header, calibration and mode.
            params: sizes and qualities.
            convert_ms: time spent on making ``image_bgr`` from the message.
            dropped: frames dropped since the last scene.
            age_ms: age of the image now; asked right before publication.

        Returns:
            The age that was published, milliseconds.
        """
        started = time.perf_counter()
        msg = scene_to_msg(scene, context)
        times = scene.timings
        msg.stages = stages(
            {
                "convert": convert_ms,
                "preprocess": times.preprocess_ms,
                "vision": times.vision_ms,
                "prefill": times.prefill_ms,
                "decode": times.decode_ms,
                "parse": times.parse_ms,
                "perceive": times.total_ms,
                "publish": self._publish_ms,
            }
        )
        msg.dropped_since_last = dropped
        msg.age_ms = age_ms()
        self._scene.publish(msg)
        self._on_demand(self._markers, lambda: scene_to_markers(scene, context, params.watchdog_s))
        self._on_demand(self._grid, lambda: scene_to_grid(scene, context, params))
        if self._overlay.get_subscription_count() > 0:
            self._drawer.draw(Drawing(scene, image_bgr, context.header, params.overlay_width_px, params.overlay_quality))
        self._on_demand(self._detections, lambda: detections_to_msg(scene, context))
        self._publish_ms = (time.perf_counter() - started) * 1e3
        return float(msg.age_ms)

    def destroy(self) -> None:
        """Ends drawing and frees the publishers."""
        self._drawer.close()
        for publisher in (self._scene, self._markers, self._grid, self._overlay, self._detections):
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    @staticmethod
    def _on_demand(publisher: Publisher | None, make: Callable[[], Any]) -> None:
        if publisher is not None and publisher.get_subscription_count() > 0:
            msg = make()
            if msg is not None:
                publisher.publish(msg)
