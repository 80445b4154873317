"""The demo's third process: drives the lifecycle and records the node's outputs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from getok_drive_msgs.msg import Scene
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import OccupancyGrid
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage
from visualization_msgs.msg import MarkerArray

from getok_drive.ros.bag import BagWriter, type_name


class Recorder:
    """Subscribes to the outputs as raw bytes, writes them to a bag, keeps scenes and overlays."""

    def __init__(self, bag: Path, node: str) -> None:
        self.scenes: list[Scene] = []
        self.overlays: list[tuple[int, bytes]] = []  # received at (ns), JPEG
        self._writer = BagWriter(bag)
        self._writer.__enter__()
        self._lock = threading.Lock()
        rclpy.init()
        self._node = rclpy.create_node("demo_recorder")
        self._change_state = self._node.create_client(ChangeState, f"{node}/change_state")
        for topic, kind in (
            (f"{node}/scene", Scene),
            (f"{node}/markers", MarkerArray),
            (f"{node}/drivable_grid", OccupancyGrid),
            (f"{node}/overlay/compressed", CompressedImage),
            ("/diagnostics", DiagnosticArray),
        ):
            self._node.create_subscription(
                kind, topic, lambda data, topic=topic, kind=kind: self._take(topic, kind, data), QoSProfile(depth=50), raw=True
            )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def transition(self, label: str) -> Any:
        """Asks for a lifecycle transition; the future of its answer."""
        self._change_state.wait_for_service(60)
        return self._change_state.call_async(ChangeState.Request(transition=Transition(label=label)))

    def restart(self) -> None:
        """Forgets the scenes and overlays so far (start-up); the bag keeps everything."""
        with self._lock:
            self.scenes.clear()
            self.overlays.clear()

    def close(self) -> None:
        """Ends recording and completes the bag."""
        self._stop.set()
        self._thread.join(5)
        self._writer.__exit__(None, None, None)
        self._node.destroy_node()
        rclpy.try_shutdown()

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def _take(self, topic: str, kind: Any, data: bytes) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        with self._lock:
            self._writer.write(topic, type_name(kind), now_ns, data)
            if kind is Scene:
                self.scenes.append(deserialize_message(data, Scene))
            elif kind is CompressedImage:
                self.overlays.append((now_ns, bytes(deserialize_message(data, CompressedImage).data)))
