"""The worker's promise at its end: once `stop` returns, nothing is published, whatever the worker was doing."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import serialize_message

from getok_drive.ros.calibration import Calibration
from getok_drive.ros.camera import CameraIntake
from getok_drive.ros.params import NodeParams
from getok_drive.ros.slot import LatestSlots
from getok_drive.ros.source import image_msg
from getok_drive.ros.worker import Worker
from getok_drive.types import Scene


class Held:
    """Something that the test lets go on when it likes."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.times = 0

    def __call__(self, *arguments: Any) -> None:
        self.times += 1
        self.entered.set()
        assert self.go.wait(60.0)


class Bench:
    """A worker with the real intake and slots; model and publishers are held by the test."""

    def __init__(self) -> None:
        self.model, self.publish = Held(), Held()
        self.errors: list[str] = []
        node: Any = SimpleNamespace(
            get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=time.time_ns())),
            get_logger=lambda: SimpleNamespace(error=lambda text, **how: self.errors.append(text)),
        )
        engine: Any = SimpleNamespace(run=lambda frame, limits: self.model() or Scene(frame.size_wh))
        outputs: Any = SimpleNamespace(publish=lambda *arguments: self.publish() or 1.0)
        camera: Any = CameraIntake("camera", "/image", "/info", False, Calibration())
        self.slots: LatestSlots[bytes] = LatestSlots(1)
        self.worker = Worker(node, engine, [camera], [outputs], self.slots, lambda: (NodeParams(max_age_s=60.0), False, True))
        self.worker.start()
        self.send()

    def send(self) -> None:
        msg = image_msg(np.zeros((8, 8, 3), np.uint8))
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
        self.slots.put(0, bytes(serialize_message(msg)))


@pytest.fixture
def bench() -> Any:
    made = Bench()
    yield made
    made.model.go.set()
    made.publish.go.set()
    assert made.worker.stop(60.0)
    assert not made.errors


def test_stop_waits_for_a_publication_that_has_begun(bench: Bench) -> None:
    bench.model.go.set()
    assert bench.publish.entered.wait(60.0)
    ended: list[bool] = []
    stopping = threading.Thread(target=lambda: ended.append(bench.worker.stop(0.0)))  # no time for work, all for this
    stopping.start()
    stopping.join(0.1)
    assert stopping.is_alive()  # its publishers must not be destroyed yet
    bench.send()
    bench.publish.go.set()
    stopping.join(60.0)
    assert len(ended) == 1 and bench.publish.times == 1


def test_a_frame_in_work_is_not_published_after_stop(bench: Bench) -> None:
    assert bench.model.entered.wait(60.0)
    assert bench.worker.stop(0.05) is False  # the model still computes
    bench.model.go.set()
    assert bench.worker.stop(60.0)
    assert bench.publish.times == 0
