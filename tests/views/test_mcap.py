"""MCAP: read back with the reference reader, and in the form that Foxglove knows."""

import base64
import json

import cv2
import numpy as np
import pytest

from getok_drive.types import Box, DrivableArea, Frame, Lane, Scene, Sign
from getok_drive.views.mcap import McapFile, image_annotations

reader = pytest.importorskip("mcap.reader", reason="needs the extra 'mcap'")

SCENE = Scene(
    (64, 48),
    lanes=(Lane([[10, 40], [20, 5]], "dashed"),),
    drivable=(DrivableArea([[0, 47], [30, 10], [60, 47]]),),
    boxes=(Box([5, 6, 25, 30], "car", 0.75),),
    signs=(Sign([40, 8], "stop", "red", 0.5),),
)


def record(path, stamps_ns):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with McapFile(path) as file:
        for index, stamp_ns in enumerate(stamps_ns):
            file.write(Frame(image, stamp_ns=stamp_ns, source="x", index=index), SCENE)


def test_reads_back(tmp_path):
    record(tmp_path / "run.mcap", [5_000_000_000, 5_100_000_007])
    with (tmp_path / "run.mcap").open("rb") as file:
        messages = list(reader.make_reader(file, validate_crcs=True).iter_messages())
    assert len(messages) == 6
    schemas = {channel.topic: schema.name for schema, channel, _ in messages}
    assert schemas == {
        "/camera/image": "foxglove.CompressedImage",
        "/perception/annotations": "foxglove.ImageAnnotations",
        "/perception/scene": "getok_drive.Scene",
    }
    assert all(schema.encoding == "jsonschema" and json.loads(schema.data)["type"] == "object" for schema, _, _ in messages)
    assert {message.log_time for _, _, message in messages} == {5_000_000_000, 5_100_000_007}
    by_topic = {channel.topic: json.loads(message.data) for _, channel, message in messages}
    image = by_topic["/camera/image"]
    assert image["timestamp"] == {"sec": 5, "nsec": 100_000_007}
    assert cv2.imdecode(np.frombuffer(base64.b64decode(image["data"]), np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)
    assert by_topic["/perception/scene"]["boxes"][0]["class"] == "car"


def test_frames_without_a_time_still_follow_one_another(tmp_path):
    record(tmp_path / "run.mcap", [0, 0, 0])
    with (tmp_path / "run.mcap").open("rb") as file:
        times = sorted({message.log_time for _, _, message in reader.make_reader(file).iter_messages()})
    assert times == [0, 100_000_000, 200_000_000]


def test_a_second_video_follows_the_first_at_its_own_pace(tmp_path):
    record(tmp_path / "run.mcap", [0, 40_000_000, 80_000_000, 0, 20_000_000, 40_000_000])
    with (tmp_path / "run.mcap").open("rb") as file:
        times = sorted({message.log_time for _, _, message in reader.make_reader(file).iter_messages()})
    assert times == [0, 40_000_000, 80_000_000, 180_000_000, 200_000_000, 220_000_000]


def test_annotations_by_hand():
    found = image_annotations(SCENE, {"sec": 1, "nsec": 2})
    area, lane, box = found["points"]
    assert (area["type"], lane["type"], box["type"]) == (2, 3, 2)  # loop, strip, loop
    assert lane["points"] == [{"x": 10.5, "y": 40.5}, {"x": 20.5, "y": 5.5}]  # counted from the first pixel's corner
    assert box["points"] == [{"x": 5.5, "y": 6.5}, {"x": 25.5, "y": 6.5}, {"x": 25.5, "y": 30.5}, {"x": 5.5, "y": 30.5}]
    assert found["circles"][0]["position"] == {"x": 40.5, "y": 8.5}
    assert [text["text"] for text in found["texts"]] == ["car 0.75", "stop 0.50"]
    colors = [shape["outline_color"] for shape in found["points"]]
    assert all(0 <= value <= 1 for color in colors for value in color.values())
