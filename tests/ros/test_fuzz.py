"""Random messages end no process and none goes uncounted. ``GETOK_FUZZ=10000`` sends as many over DDS."""

from __future__ import annotations

import itertools
import os
import time

import pytest
from getok_drive_msgs.msg import Scene
from sensor_msgs.msg import CompressedImage, Image

from getok_drive.ros.calibration import Calibration
from getok_drive.ros.camera import CameraIntake
from getok_drive.ros.images import FrameRejected
from getok_drive.ros.params import NodeParams
from tests.ros.fuzzing import messages
from tests.ros.harness import NODE, Client
from tests.ros.test_node import Camera

NOW_NS = 1_700_000_000_000_000_000
COUNT = int(os.environ.get("GETOK_FUZZ", "300"))


@pytest.mark.parametrize("kind", [Image, CompressedImage])
def test_the_intake_takes_or_names_everything(kind: type) -> None:
    intake = CameraIntake("camera", "/camera/image_raw", "/camera/camera_info", kind is CompressedImage, Calibration())
    reasons: dict[str, int] = {}
    for number, data in enumerate(messages(1, kind, 2000 if kind is Image else 500, itertools.count(NOW_NS, 10**7))):
        try:
            capture = intake.unpack(data, NodeParams(), NOW_NS + number * 10**7)
        except FrameRejected as error:
            reasons[error.reason] = reasons.get(error.reason, 0) + 1
        else:
            assert capture.image_bgr.ndim == 3
            reasons["good"] = reasons.get("good", 0) + 1
        intake.take_info(data)
    want = {"good", "stamp_zero", "stamp_future", "malformed_message"}
    want |= {"unknown_encoding", "wrong_size", "wrong_step"} if kind is Image else {"corrupt_image", "empty_image"}
    assert want <= set(reasons), reasons


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [Image, CompressedImage])
def test_the_node_survives_and_counts(ros: Client, kind: type) -> None:
    process = ros.perception(transport="compressed" if kind is CompressedImage else "raw")
    ros.activate()
    scenes = ros.collect(Scene, f"{NODE}/scene")
    camera = Camera(ros, kind=kind, qos=10).connected()
    camera.send_until(lambda: scenes)
    camera.send_until(lambda: ros.value("camera", "publishers") == "1")

    def clock() -> itertools.chain[int]:
        return itertools.chain.from_iterable([ros.node.get_clock().now().nanoseconds] for _ in itertools.count())

    for data in messages(2, kind, COUNT, clock()):
        camera.publisher.publish(data)
        time.sleep(0.015)
    count = len(scenes)
    camera.send_until(lambda: len(scenes) > count + 2)  # a good picture is seen as ever
    assert process.alive

    def counts() -> tuple[int, int, int]:
        values = {v.key: v.value for v in ros.status("camera").values}
        rejected = sum(int(value) for key, value in values.items() if key.startswith("rejected: "))
        parts = int(values["images processed"]) + int(values["images superseded by a newer one"]) + rejected
        return int(values["images received"]), parts, rejected

    ros.wait(lambda: counts()[0] == counts()[1], what="every image that was received is accounted for")
    received, _, rejected = counts()
    assert received >= 0.3 * COUNT and rejected > 0.1 * received, (received, rejected)
    assert "Traceback" not in process.output()
