"""Our own format: what is written is read again, lines of another schema are refused by file and line."""

import json

import numpy as np
import pytest

from getok_drive.errors import InputError
from getok_drive.types import Box, DrivableArea, Lane, Sign
from training.datasets import jsonl
from training.datasets.reading import split_of
from training.samples import Sample

from .minis import road_photo, write, write_text

SAMPLE = Sample(
    road_photo(),
    lanes=(Lane(np.array([(10.125, 170), (100, 100)], np.float32), "dashed", "yellow"),),
    drivable=(DrivableArea(np.array([(0, 179), (100, 100), (319, 179)], np.float32)),),
    boxes=(Box(np.array([10, 20, 30, 40], np.float32), "car", attributes={"visible_state": "partly_occluded"}),),
    signs=(Sign(np.array([50, 60], np.float32), "stop", "red"),),
    scene={"surface_condition": "wet"},
    meta={"source": "x:1", "sequence": "drive", "terms": "MIT", "K": np.eye(3), "image_path": "/nowhere"},
)


def dump(path, **changes):
    return write_text(path, json.dumps({**jsonl.record_of(SAMPLE, "images/a.png"), **changes}) + "\n")


def test_round_trip(tmp_path):
    write(tmp_path / "images/a.png", SAMPLE.image_bgr)
    write(tmp_path / "masks/a.png", np.full((180, 320), 3, np.uint8))
    dump(tmp_path / "samples.jsonl", masks={"semantic": "masks/a.png"})
    samples = jsonl.open_samples(tmp_path)
    assert samples.keys == ["x:1"] and samples.sequences == ["drive"]
    back = samples[0]
    assert (back.image_bgr == SAMPLE.image_bgr).all()
    assert np.allclose(back.lanes[0].points_px, SAMPLE.lanes[0].points_px, atol=0.006) and back.lanes[0].color == "yellow"
    assert back.drivable[0].polygon_px.tolist() == SAMPLE.drivable[0].polygon_px.tolist()
    assert back.boxes[0].attributes == SAMPLE.boxes[0].attributes and back.signs[0].class_name == "stop"
    assert back.known == SAMPLE.known and back.scene == SAMPLE.scene and (back.masks["semantic"] == 3).all()
    assert back.meta["terms"] == "MIT" and back.meta["source"] == "x:1" and back.meta["K"] == np.eye(3).tolist()


def test_splits(tmp_path):
    write(tmp_path / "images/a.png", SAMPLE.image_bgr)
    dump(tmp_path / "samples.jsonl", split="val")
    assert [len(jsonl.open_samples(tmp_path, split)) for split in ("train", "val", "all")] == [0, 1, 1]
    (tmp_path / "samples.jsonl").unlink()
    dump(tmp_path / "test.jsonl")
    assert [len(jsonl.open_samples(tmp_path, split)) for split in ("train", "test", "all")] == [0, 1, 1]
    (tmp_path / "test.jsonl").rename(tmp_path / "mine.jsonl")
    assert len(jsonl.open_samples(tmp_path / "mine.jsonl", split_of("drive"))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "getok-drive/9"}, r"line 1: schema is 'getok-drive/9'"),
        ({"lane": []}, r"line 1: unknown field lane"),
        ({"known": ["lanes", "cats"]}, r"line 1: known: cats is no kind"),
        ({"known": ["lanes"]}, "has drivable, which the jsonl reader does not declare"),
        ({"size_wh": [640, 360]}, r"line 1: size_wh is 640x360, the picture has 320x180"),
        ({"boxes": [{"xyxy_px": [5, 5, 4, 9], "class": "car"}]}, r"line 1: box: expected x0 < x1"),
        ({"signs": [{"point_px": [5, 5], "class": "stopp", "color": "red"}]}, r"sign class 'stopp' is not in the token table"),
        ({"lanes": [{"points_px": [[5, 5]], "type": "solid", "color": "white"}]}, r"line 1: lane: expected at least 2"),
        ({"boxes": [{"class": "car"}]}, r"samples\.jsonl: line 1: not of schema .*KeyError: 'xyxy_px'"),
    ],
)
def test_broken_lines(tmp_path, changes, message):
    write(tmp_path / "images/a.png", SAMPLE.image_bgr)
    dump(tmp_path / "samples.jsonl", **changes)
    with pytest.raises(InputError, match=message):
        jsonl.open_samples(tmp_path)[0]
