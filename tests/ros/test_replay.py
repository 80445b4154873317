"""Replay of bags in both storages and both paces: what goes in must come out, drops and ages must add up."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message

from getok_drive.errors import InputError
from getok_drive.ros import replay
from getok_drive.ros.bag import typestore
from getok_drive.ros.camera import stamp_ns
from getok_drive.ros.feed import Calibrated
from getok_drive.ros.source import compressed_msg, image_msg, info_msg
from tests.ros import scripted

rosbags = pytest.importorskip("rosbags.rosbag2", reason="bags need the package rosbags")

PERIOD_NS, FRAMES = 50_000_000, 12
PICTURE = np.full((90, 160, 3), 90, np.uint8)


def write_bag(path: Path, storage: str) -> Path:
    """Two cameras at 20 Hz: one raw with camera_info, one compressed; one frame of each is broken."""
    types = typestore()
    with rosbags.Writer(path, version=9, storage_plugin=getattr(rosbags.StoragePlugin, storage)) as writer:
        raw = writer.add_connection("/front/image_raw", "sensor_msgs/msg/Image", typestore=types)
        info = writer.add_connection("/front/camera_info", "sensor_msgs/msg/CameraInfo", typestore=types)
        jpeg = writer.add_connection("/rear/image_raw/compressed", "sensor_msgs/msg/CompressedImage", typestore=types)
        for number in range(FRAMES):
            now = 1_700_000_000_000_000_000 + number * PERIOD_NS
            front, rear = image_msg(PICTURE), compressed_msg(PICTURE)
            calibration = info_msg(Calibrated.guess((160, 90), 60.0, 1.5, 0.02))
            for msg in (front, rear, calibration):
                msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(now, 1_000_000_000)
            if number == 5:
                front.step, rear.data = 1, rear.data[:30]
            for connection, msg in ((info, calibration), (raw, front), (jpeg, rear)):
                writer.write(connection, now + 1_000_000, serialize_message(msg))
    return path


@pytest.fixture(autouse=True)
def fake_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted.register()


def run(bag: Path, out: Path, *more: str) -> dict:
    bundle = scripted.write_bundle(out.parent / "bundle")
    calibration = out.parent / "calibration.yaml"
    calibration.write_text("cameras: {front: {mount: {height_m: 1.5}}}\n")
    arguments = [
        str(bag),
        "--out",
        str(out),
        "--bundle",
        str(bundle),
        "--backend",
        "fake",
        "--calibration",
        str(calibration),
        *more,
    ]
    assert replay.main(arguments) == 0
    return json.loads((out / "report.json").read_text())


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
def test_every_frame_comes_out(tmp_path: Path, storage: str) -> None:
    from getok_drive_msgs.msg import Scene

    report = run(write_bag(tmp_path / "bag", storage), tmp_path / "out")
    for name, reason in (("front", "wrong_step"), ("rear", "corrupt_image")):
        camera = report["cameras"][name]
        assert (camera["received"], camera["processed"], camera["superseded"]) == (FRAMES, FRAMES - 1, 0)
        assert camera["rejected"] == {reason: 1}
        assert 0 < camera["processing_ms"]["p50"] <= camera["processing_ms"]["p99"] <= camera["processing_ms"]["max"]
        assert cv2.VideoCapture(str(tmp_path / f"out/overlay_{name}.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES - 1
    assert report["cameras"]["front"]["calibration"].startswith("calibrated")
    assert len((tmp_path / "out/scenes.jsonl").read_text().splitlines()) == 2 * (FRAMES - 1)
    with rosbags.Reader(tmp_path / "out/scenes") as reader:
        topics = {c.topic: c.msgcount for c in reader.connections}
        assert topics["/perception_node/front/scene"] == topics["/perception_node/rear/scene"] == FRAMES - 1
        data = [bytes(d) for c, _, d in reader.messages() if c.topic == "/perception_node/front/scene"]
    scenes = [deserialize_message(d, Scene) for d in data]
    assert all(s.calibrated and len(s.lanes) == 2 for s in scenes)
    assert {(stamp_ns(s.header.stamp) - 1_700_000_000_000_000_000) // PERIOD_NS for s in scenes} == set(range(FRAMES)) - {5}


def test_real_time_drops_what_comes_too_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_RUN_S", "0.12")
    report = run(
        write_bag(tmp_path / "bag", "MCAP"), tmp_path / "out", "--realtime", "--topics", "/front/image_raw", "--no-video"
    )
    camera = report["cameras"]["front"]
    assert camera["superseded"] > 0
    assert camera["processed"] + camera["superseded"] + sum(camera["rejected"].values()) == camera["received"] == FRAMES
    # an image waits at most one period for the worker, never for the images before it
    assert camera["age_ms"]["p50"] < camera["processing_ms"]["p50"] + 1 + PERIOD_NS / 1e6 * 1.2


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 2
    assert "no such bag" in capsys.readouterr().err
    (tmp_path / "broken.mcap").write_bytes(b"not a bag")
    assert replay.main([str(tmp_path / "broken.mcap"), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be read as a bag" in capsys.readouterr().err
    bag = write_bag(tmp_path / "bag", "MCAP")
    assert replay.main([str(bag), "--out", str(tmp_path / "out2"), "--topics", "/nothing"]) == 2
    assert "/front/image_raw" in capsys.readouterr().err
    with pytest.raises(InputError, match="not empty"):
        replay.run(replay.parser().parse_args([str(bag), "--out", str(bag)]))
