"""Random messages end no process and none goes uncounted. ``GETOK_FUZZ=10000 pytest -s`` sends as many over DDS."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator

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
COUNT = int(os.environ.get("GETOK_FUZZ", "300")) // 2  # of each kind


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


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\1\0", b"\0\1\0\0"])
def test_less_than_a_message(data: bytes) -> None:
    for kind in (Image, CompressedImage):
        intake = CameraIntake("camera", "/camera/image_raw", "/camera/camera_info", kind is CompressedImage, Calibration())
        with pytest.raises(FrameRejected, match="cannot be read") as caught:
            intake.unpack(data, NodeParams(), NOW_NS)
        assert caught.value.reason == "malformed_message"


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", [Image, CompressedImage])
def test_the_node_survives_and_counts(ros: Client, kind: type) -> None:
    """Every message that is sent arrives, and the node says of each what the checks say of it here: the counts are equal.

    One message at a time and camera, reliably, and the next one only when the node has reported: none can be superseded.
    """
    names = ("a", "b", "c", "d", "e", "f")
    compressed = kind is CompressedImage
    process = ros.perception(
        transport="compressed" if compressed else "raw", cameras=f"[{', '.join(names)}]",
        diagnostics_period_s=0.05, max_age_s=60.0, watchdog_s=3600.0, degrade="never",
    )  # fmt: skip
    ros.activate()
    cameras = [Camera(ros, name, kind=kind, qos=1).connected() for name in names]
    params = NodeParams(max_age_s=60.0)
    intakes = [CameraIntake(camera.name, camera.publisher.topic_name, "", compressed, Calibration()) for camera in cameras]
    expected: list[Counter[str]] = [Counter() for _ in names]

    def clock() -> Iterator[int]:
        while True:
            yield ros.node.get_clock().now().nanoseconds

    def counted(name: str) -> Counter[str]:
        status = ros.status(f": {name}")
        values = {v.key: int(v.value) for v in status.values if v.value.isdigit()} if status else {}
        found = {key.removeprefix("rejected: "): count for key, count in values.items() if key.startswith("rejected: ")}
        return Counter({**found, "good": values.get("images processed", 0)})

    for number, data in enumerate(messages(2, kind, COUNT, clock())):
        at = number % len(names)
        try:
            intakes[at].unpack(data, params, ros.node.get_clock().now().nanoseconds)
        except FrameRejected as error:
            expected[at][error.reason] += 1
        else:
            expected[at]["good"] += 1
        cameras[at].publisher.publish(data)
        if at == len(names) - 1 or number == COUNT - 1:
            want = [reasons.total() for reasons in expected]
            ros.wait(lambda want=want: [counted(name).total() for name in names] == want, what=f"{want} messages counted")
            del ros.diagnostics[:-100]
            if number % 600 == 599:
                print(f"{kind.__name__}: {number + 1} messages, all counted", flush=True)
    assert [+counted(name) for name in names] == expected
    total = sum(expected, Counter())
    assert total.total() == COUNT and total["good"] < 0.7 * COUNT and total["good"] > 0, total  # 30 % and more are refused
    scenes = ros.collect(Scene, f"{NODE}/a/scene")
    cameras[0].send_until(lambda: scenes)  # a good picture is seen as ever
    assert process.alive
    assert "Traceback" not in process.output()
    print(f"{kind.__name__}: {total.total()} messages: {dict(total.most_common())}", flush=True)
