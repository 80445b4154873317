"""The overlay's thread: it draws what was asked for last, however long nobody asked, and nothing once it is closed."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from std_msgs.msg import Header

from getok_drive.ros import drawing
from getok_drive.types import Scene


class Publisher:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.published = threading.Event()

    def publish(self, msg: Any) -> None:
        self.messages.append(msg)
        self.published.set()


def picture(stamp_s: int) -> drawing.Drawing:
    header = Header(frame_id="optical")
    header.stamp.sec = stamp_s
    return drawing.Drawing(Scene((64, 36)), np.zeros((36, 64, 3), np.uint8), header, width_px=960, quality=80)


def test_the_overlay_comes_back_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_WAIT_S", 0.01)
    errors: list[str] = []
    node: Any = SimpleNamespace(get_logger=lambda: SimpleNamespace(error=lambda text, **how: errors.append(text)))
    publisher = Publisher()
    drawer = drawing.Drawer(node, publisher)
    for stamp_s in (1, 2):
        publisher.published.clear()
        drawer.draw(picture(stamp_s))
        assert publisher.published.wait(60.0), errors
        time.sleep(0.1)  # nobody looks for many times as long as the thread waits
    assert [msg.header.stamp.sec for msg in publisher.messages] == [1, 2] and not errors
    assert cv2.imdecode(np.frombuffer(publisher.messages[1].data, np.uint8), cv2.IMREAD_COLOR).shape == (540, 960, 3)
    drawer.close()
    drawer.draw(picture(3))
    drawer._thread.join(60.0)  # type: ignore[union-attr]
    assert not drawer._thread.is_alive() and len(publisher.messages) == 2  # type: ignore[union-attr]
