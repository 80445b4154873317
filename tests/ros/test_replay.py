"""Replay of bags in both storages and both paces: what goes in must come out, drops, ages and accuracy must add up."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped, Vector3
from getok_drive_msgs import msg as gm
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from getok_drive.errors import InputError
from getok_drive.geometry.camera import SE3
from getok_drive.geometry.ground import GroundProjector
from getok_drive.ros import replay
from getok_drive.ros.bag import BagWriter, type_name, typestore
from getok_drive.ros.camera import stamp_ns
from getok_drive.ros.convert import Context, scene_to_msg
from getok_drive.ros.feed import Calibrated
from getok_drive.ros.source import compressed_msg, image_msg, info_msg
from getok_drive.types import Scene
from tests.ros import scripted
from tests.ros.harness import Client

rosbags = pytest.importorskip("rosbags.rosbag2", reason="bags need the package rosbags")

PERIOD_NS, FRAMES = 50_000_000, 12
PICTURE = np.full((90, 160, 3), 90, np.uint8)


def label_msg(stamp: object, size_wh: tuple[int, int] = (160, 90)) -> object:
    """What the scripted model sees, as a label."""
    header = Header(frame_id="front", stamp=stamp)
    return scene_to_msg(Scene(size_wh, *map(tuple, scripted.scene_elements(size_wh))), Context(header, "front"))


def write_bag(path: Path, storage: str, labelled: bool = False) -> Path:
    """Two cameras at 20 Hz: one raw with camera_info, one compressed; one frame of each is broken.

    ``labelled``: the raw one has labels, recorded after the images; that of frame 7 is for another image size.
    """
    types = typestore()
    with rosbags.Writer(path, version=9, storage_plugin=getattr(rosbags.StoragePlugin, storage)) as writer:
        raw = writer.add_connection("/front/image_raw", "sensor_msgs/msg/Image", typestore=types)
        info = writer.add_connection("/front/camera_info", "sensor_msgs/msg/CameraInfo", typestore=types)
        jpeg = writer.add_connection("/rear/image_raw/compressed", "sensor_msgs/msg/CompressedImage", typestore=types)
        if labelled:
            labels = writer.add_connection("/front/ground_truth", "getok_drive_msgs/msg/Scene", typestore=types)
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
            if labelled:
                label = label_msg(front.header.stamp, (320, 180) if number == 7 else (160, 90))
                writer.write(labels, now + 30_000_000, serialize_message(label))
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
    scenes = [deserialize_message(d, gm.Scene) for d in data]
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
    # an image waits at most one period for the worker, never for the images before it (unless one outlasts the whole bag)
    camera_ms, period_ms = camera["processing_ms"]["p50"], PERIOD_NS / 1e6
    assert camera["age_ms"]["p50"] < camera_ms + 1 + period_ms * 1.2 or camera_ms > FRAMES * period_ms


def test_a_bag_from_another_clock_and_cameras_called_by_number(tmp_path: Path) -> None:
    """Stamps count from the sensor's start, and the camera is /0: all images count, and ages are of this machine."""
    types = typestore()
    with rosbags.Writer(tmp_path / "bag", version=9, storage_plugin=rosbags.StoragePlugin.MCAP) as writer:
        raw = writer.add_connection("/0/image_raw", "sensor_msgs/msg/Image", typestore=types)
        for number in range(3):
            msg = image_msg(PICTURE)
            msg.header.stamp.sec = 5 + number
            writer.write(raw, 1_700_000_000_000_000_000 + number * PERIOD_NS, serialize_message(msg))
    bundle = scripted.write_bundle(tmp_path / "bundle")
    words = [str(tmp_path / "bag"), "--out", str(tmp_path / "out"), "--bundle", str(bundle), "--backend", "fake"]
    assert replay.main(words) == 0
    camera = json.loads((tmp_path / "out/report.json").read_text())["cameras"]["camera_0"]
    assert (camera["processed"], camera["rejected"], camera["stamped_by_another_clock"]) == (3, {}, 3)
    assert 0 < camera["age_ms"]["p50"] < 60_000
    assert "3 images are stamped by another clock" in (tmp_path / "out/report.md").read_text()


def test_poses_from_the_transforms_of_the_bag(tmp_path: Path) -> None:
    """/tf_static is recorded after the first image, as happens; every scene is in metres all the same."""
    types, pose = typestore(), SE3.from_mount(height_m=1.5, x_m=0.5)
    calibrated = Calibrated.guess((160, 90), 60.0, 1.5, 0.0)
    with rosbags.Writer(tmp_path / "bag", version=9, storage_plugin=rosbags.StoragePlugin.MCAP) as writer:
        raw = writer.add_connection("/front/image_raw", "sensor_msgs/msg/Image", typestore=types)
        info = writer.add_connection("/front/camera_info", "sensor_msgs/msg/CameraInfo", typestore=types)
        tf = writer.add_connection("/tf_static", "tf2_msgs/msg/TFMessage", typestore=types)
        for number in range(2):
            msg = image_msg(PICTURE)
            msg.header = Header(frame_id="front_optical")
            msg.header.stamp.sec = 1_700_000_000 + number
            now = stamp_ns(msg.header.stamp)
            writer.write(info, now, serialize_message(info_msg(calibrated)))
            writer.write(raw, now + 1, serialize_message(msg))
        transform = TransformStamped(header=Header(frame_id="base_footprint"), child_frame_id="front_optical")
        x_m, y_m, z_m = pose.translation_m.tolist()
        transform.transform.translation = Vector3(x=x_m, y=y_m, z=z_m)
        q = transform.transform.rotation
        q.x, q.y, q.z, q.w = Calibrated(calibrated.camera, pose).quaternion_xyzw()
        make = types.types["tf2_msgs/msg/TFMessage"]
        one = types.deserialize_cdr(serialize_message(transform), "geometry_msgs/msg/TransformStamped")
        writer.write(tf, now + 2, types.serialize_cdr(make([one]), "tf2_msgs/msg/TFMessage"))
    words = [
        str(tmp_path / "bag"),
        "--bundle",
        str(scripted.write_bundle(tmp_path / "bundle")),
        "--backend",
        "fake",
        "--no-video",
    ]
    assert replay.main([*words, "--out", str(tmp_path / "out"), "--ground-frame", "base_footprint"]) == 0
    with rosbags.Reader(tmp_path / "out/scenes") as reader:
        data = [bytes(d) for c, _, d in reader.messages() if c.topic == "/perception_node/scene"]
    scenes = [deserialize_message(d, gm.Scene) for d in data]
    assert len(scenes) == 2 and all(scene.ground_frame_id == "base_footprint" for scene in scenes)
    near = scenes[0].lanes[0]
    want = GroundProjector(calibrated.camera, pose).points([[near.points_px[0].x, near.points_px[0].y]])[0]
    assert (near.points_ground_m[0].x, near.points_ground_m[0].y) == pytest.approx(want[:2], abs=1e-4)


def test_a_damaged_bag_gives_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "bag", "SQLITE3")
    (path,) = bag.glob("*.db3")
    data = bytearray(path.read_bytes())
    start, stop = (len(data) * 30 // 100, len(data) * 35 // 100)
    data[start:stop] = b"\xff" * (stop - start)
    path.write_bytes(data)
    bundle = scripted.write_bundle(tmp_path / "bundle")
    words = [str(bag), "--out", str(tmp_path / "out"), "--bundle", str(bundle), "--backend", "fake", "--no-video"]
    assert replay.main(words) == 2
    assert "the bag is damaged after" in capsys.readouterr().err
    scenes = (tmp_path / "out/scenes.jsonl").read_text().splitlines()
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert scenes and sum(camera["processed"] for camera in report["cameras"].values()) == len(scenes)


def evaluate(command: str, folder: Path) -> dict:
    """Runs the command that a report names; the numbers that it writes."""
    from training.evaluate import run as evaluate_run

    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "training.evaluate"]
    evaluate_run(words[3:])
    return json.loads((folder / "accuracy/report.json").read_text())


def values(metrics: dict) -> dict[str, dict[str, float]]:
    return {kind: {name: estimate["value"] for name, estimate in numbers.items()} for kind, numbers in metrics.items()}


def test_labels_in_the_bag_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "bag", "MCAP", labelled=True)
    report = run(bag, tmp_path / "out", "--no-video")
    accuracy = report["cameras"]["front"]["accuracy"]
    assert "accuracy" not in report["cameras"]["rear"]
    assert (accuracy["labelled"], accuracy["refused"]) == (FRAMES - 2, 1)  # less the broken image and the wrong label
    assert "320, 180" in accuracy["first_refusal"]
    head = accuracy["headline"]
    assert head["lanes, CULane F1@50"] == head["boxes, F1 at IoU 0.5, taller than 5 % of the image"] == 1.0
    assert head["sign points, F1 at 2 % of the image width"] == 1.0
    assert head["drivable area IoU, pooled"] > 0.97
    out = capsys.readouterr().out
    assert "accuracy of front on 10 labelled frames" in out and "lanes, CULane F1@50: 1.0000" in out
    theirs = evaluate(accuracy["command"], tmp_path / "out")
    assert theirs["frames"] == FRAMES - 2 and values(theirs["metrics"]) == accuracy["metrics"]


def test_only_the_kinds_that_are_labelled_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "bag", "SQLITE3", labelled=True)
    report = run(bag, tmp_path / "out", "--no-video", "--tasks", "lanes,signs", "--topics", "/front/image_raw")
    found = report["cameras"]["front"]["accuracy"]["metrics"]
    assert set(found) == {"lanes", "signs", "drive_lanes", "drive_signs"}
    assert found["drive_lanes"]["flicker"] == 0.0
    with pytest.raises(SystemExit):
        replay.parser().parse_args([str(bag), "--out", "x", "--tasks", "lanes,dragons"])
    with pytest.raises(SystemExit):
        replay.parser().parse_args([str(bag), "--out", "x", "--max-frames=-1"])
    assert "'dragons' is no kind" in capsys.readouterr().err


def test_without_the_repository_the_report_says_how_to_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from getok_drive.ros import accuracy

    def absent(module: str) -> None:
        raise InputError(f"{module} is part of the repository")

    monkeypatch.setattr(accuracy, "on_checkout", absent)
    report = run(write_bag(tmp_path / "bag", "MCAP", labelled=True), tmp_path / "out", "--no-video")
    found = report["cameras"]["front"]["accuracy"]
    assert found["labelled"] == FRAMES - 2 and "part of the repository" in found["unscored"] and "headline" not in found
    assert values(evaluate(found["command"], tmp_path / "out")["metrics"])["lanes"]["f1_50"] == 1.0


def test_the_world_is_recorded_with_labels_replayed_and_scored(ros: Client, tmp_path: Path) -> None:
    """Camera source -> DDS -> bag -> replay: the report must say what the world itself says of the same scenes."""
    from training.datasets import world
    from training.evaluation import Collector
    from training.predictions import read_lines, scene_from_json

    frames = 5
    received: list[tuple[int, str, str, bytes]] = []
    for kind, topic in ((Image, "image_raw"), (CameraInfo, "camera_info"), (gm.Scene, "ground_truth")):
        ros.node.create_subscription(
            kind,
            f"/front/{topic}",
            lambda d, t=topic, k=kind: received.append((time.time_ns(), f"/front/{t}", type_name(k), d)),
            50,
            raw=True,
        )
    settings = {"source": "world:7", "camera": "front", "width_px": 320, "max_frames": frames, "loop": True, "rate_hz": 5.0}
    words = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    source = ros.start("camera_source", *words, "-p", "ground_truth:=true")
    ros.wait(lambda: sum(topic == "/front/image_raw" for _, topic, _, _ in received) >= frames + 2, 90.0, "images")
    assert source.stop()[0] == 0
    with BagWriter(tmp_path / "bag") as writer:
        for now_ns, topic, kind, data in received:
            writer.write(topic, kind, now_ns, data)
    assert writer.counts["/front/ground_truth"] >= frames

    accuracy = run(tmp_path / "bag", tmp_path / "out", "--no-video")["cameras"]["front"]["accuracy"]
    assert accuracy["labelled"] == writer.counts["/front/image_raw"] and not accuracy["refused"]

    drive = list(world.Drive(7, (320, 180), 15.0, frames))
    images = [image_msg(sample.image_bgr).data.tobytes() for sample in drive]
    shown = [deserialize_message(data, Image) for _, topic, _, data in received if topic == "/front/image_raw"]
    collector = Collector(("lanes", "drivable", "boxes", "signs"))
    for msg, line in zip(shown, read_lines(tmp_path / "out/scenes.jsonl"), strict=True):
        sample = drive[images.index(msg.data.tobytes())]  # pixels have come through unchanged
        scene = scene_from_json(line)
        collector.add("", replace(sample, meta={"sequence": "drive", "stamp_ns": scene.stamp_ns}), scene)
    expected = {
        kind: {name: e.to_json()["value"] for name, e in numbers.items()} for kind, numbers in collector.report().numbers.items()
    }
    assert accuracy["metrics"] == expected
    assert any(sample.lanes for sample in drive) and any(sample.drivable for sample in drive)


def test_labels_are_refused_where_the_source_has_none(ros: Client) -> None:
    source = ros.start("camera_source", "-p", f"source:={ros.picture()}", "-p", "ground_truth:=true")
    ros.wait(lambda: not source.alive, what="end of the source")
    assert source.popen.returncode == 1 and "has no labels" in source.output()


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 2
    assert "no such bag" in capsys.readouterr().err
    (tmp_path / "broken.mcap").write_bytes(b"not a bag")
    assert replay.main([str(tmp_path / "broken.mcap"), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be read as a bag" in capsys.readouterr().err
    bag = write_bag(tmp_path / "bag", "MCAP")
    (tmp_path / "file").write_text("")
    assert replay.main([str(bag), "--out", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert replay.main([str(bag), "--out", str(tmp_path / "out2"), "--topics", "/nothing"]) == 2
    assert "/front/image_raw" in capsys.readouterr().err
    with pytest.raises(InputError, match="not empty"):
        replay.run(replay.parser().parse_args([str(bag), "--out", str(bag)]))
