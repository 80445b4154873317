"""The thread that draws the overlay, so that it holds up no scene."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import cv2
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from getok_drive.ros.slot import LatestSlots
from getok_drive.types import ImageBgr, Scene

_WAIT_S = 60.0  # for a picture that is asked for; then the thread looks whether it is closed, and waits on


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """One picture to draw: what was seen in which image, the image's header, and size and quality of the result."""

    scene: Scene
    image_bgr: ImageBgr
    header: Header
    width_px: int
    quality: int

    def to_msg(self) -> CompressedImage:
        """Draws; the picture is made small first, because drawing and encoding cost by the pixel."""
        from getok_drive.views.overlay import LEAST_WIDTH_PX, draw  # only where somebody looks

        picture = draw(self.image_bgr, self.scene, width_px=min(self.width_px, max(self.image_bgr.shape[1], LEAST_WIDTH_PX)))
        out = CompressedImage(header=self.header, format="jpeg")
        out.data.frombytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1].data)
        return out


class Drawer:
    """Draws and publishes the latest picture that was asked for; one that comes while another waits replaces it."""

    def __init__(self, node: Node, publisher: Publisher) -> None:
        self._node, self._publisher = node, publisher
        self._slot: LatestSlots[Drawing] = LatestSlots(1)
        self._publishing = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None

    def draw(self, drawing: Drawing) -> None:
        """Asks for a picture; returns at once. Ask from one thread only."""
        self._slot.put(0, drawing)
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="overlay", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread; once this returns, nothing is published any more."""
        with self._publishing:
            self._closed = True
        self._slot.close()

    def _loop(self) -> None:
        while not self._closed:
            taken = self._slot.take(_WAIT_S)
            if taken is None:
                continue
            try:
                msg: Any = taken.item.to_msg()
                with self._publishing:
                    if not self._closed:
                        self._publisher.publish(msg)
            except Exception as error:  # a picture less is no reason to stop seeing
                self._node.get_logger().error(f"overlay: {type(error).__name__}: {error}", throttle_duration_sec=5.0)
