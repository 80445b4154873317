"""Our own format: what is written is read again, lines of another schema are refused by file and line."""

import json

import numpy as np
import pytest

from getok_drive.errors import InputError
from getok_drive.types import Box, DrivableArea, Lane, Sign
from training.datasets import jsonl
from training.datasets.phrases import region_mask, region_of_mask
from training.datasets.reading import split_of
from training.samples import Phrase, Region, Sample

from .minis import road_photo, write, write_text

CAR = np.zeros((180, 320), bool)
CAR[20:40, 10:30] = True
SAMPLE = Sample(
    road_photo(),
    lanes=(Lane(np.array([(10.125, 170), (100, 100)], np.float32), "dashed", "yellow"),),
    drivable=(DrivableArea(np.array([(0, 179), (100, 100), (319, 179)], np.float32)),),
    boxes=(Box(np.array([10, 20, 30, 40], np.float32), "car", attributes={"visible_state": "partly_occluded"}),),
    signs=(Sign(np.array([50, 60], np.float32), "stop", "red"),),
    scene={"surface_condition": "wet"},
    meta={"source": "x:1", "sequence": "drive", "terms": "MIT", "K": np.eye(3), "image_path": "/nowhere"},
    phrases=(
        Phrase("refer", "the red car", regions=(region_of_mask(CAR, "car"),), candidates=(Region([10, 20, 30, 40]),) * 2),
        Phrase("refer", "an elephant", ignore={"size": [180, 320], "counts": [57600]}, attributes={"domain": "rejection"}),
        Phrase("point", "wheels", regions=(Region(point_px=[50.25, 60]), Region(point_px=[80, 60]))),
        Phrase("question", "Who yields?", "<region_0> yields.", (Region([1, 2, 3, 4], label="truck"),)),
        Phrase("classify", "visible_state", "partly_occluded", (Region([1, 2, 3, 4]),)),
    ),
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


def test_a_line_ends_where_json_lines_end(tmp_path):
    """Captions from the web hold U+2028 and U+0085, which end lines for Python's ``splitlines``."""
    record = {**jsonl.record_of(SAMPLE, "images/a.png"), "scene": {"surface_condition": "wet\u2028or\u0085dry"}}
    write_text(tmp_path / "samples.jsonl", json.dumps(record, ensure_ascii=False) + "\r\n\n")
    write(tmp_path / "images/a.png", SAMPLE.image_bgr)
    assert jsonl.open_samples(tmp_path)[0].scene == record["scene"]


def test_phrases_round_trip(tmp_path):
    write(tmp_path / "images/a.png", SAMPLE.image_bgr)
    dump(tmp_path / "samples.jsonl")
    back = jsonl.open_samples(tmp_path)[0].phrases
    assert [(p.task, p.text, p.answer, p.ignore, p.attributes) for p in back] == [
        (p.task, p.text, p.answer, p.ignore, p.attributes) for p in SAMPLE.phrases
    ]
    assert (region_mask(back[0].regions[0]) == CAR).all() and len(back[0].candidates) == 2
    assert back[0].regions[0].xyxy_px.tolist() == [9.5, 19.5, 29.5, 39.5] and back[0].regions[0].label == "car"
    assert [region.point_px.tolist() for region in back[2].regions] == [[50.25, 60], [80, 60]]
    assert back[3].regions[0].xyxy_px.tolist() == [1, 2, 3, 4] and back[3].regions[0].label == "truck"


def test_lines_of_the_first_schema_are_read(tmp_path):
    write(tmp_path / "images/a.png", SAMPLE.image_bgr)
    first = {key: value for key, value in jsonl.record_of(SAMPLE, "images/a.png").items() if key != "phrases"}
    write_text(tmp_path / "samples.jsonl", json.dumps({**first, "schema": "getok-drive/1"}))
    assert len(jsonl.open_samples(tmp_path)[0].boxes) == 1
    dump(tmp_path / "samples.jsonl", schema="getok-drive/1")
    with pytest.raises(InputError, match="line 1: phrases came with 'getok-drive/2'"):
        jsonl.open_samples(tmp_path)


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
        ({"phrases": [{"task": "guess", "text": "x"}]}, "line 1: phrase 0: phrase: task 'guess' is unknown; use one of refer"),
        ({"phrases": [{"task": "refer", "text": " "}]}, "a refer without text"),
        ({"phrases": [{"task": "caption", "text": "x", "answer": "y"}]}, "questions and classifications have an answer"),
        ({"phrases": [{"task": "question", "text": "x"}]}, "questions and classifications have an answer"),
        ({"phrases": [{"task": "classify", "text": "x", "answer": "y"}]}, "a classification without a region"),
        ({"phrases": [{"task": "refer", "text": "x", "box": []}]}, "phrase 0: unknown field box; use answer"),
        ({"phrases": [{"task": "refer", "text": "x", "regions": [{}]}]}, "has neither a box nor a point nor a mask"),
        (
            {"phrases": [{"task": "refer", "text": "x", "regions": [{"xyxy_px": [5, 5, 4, 9]}]}]},
            "phrase 0: region: expected x0",
        ),
        ({"phrases": [{"task": "point", "text": "x", "regions": [{"point_px": [5]}]}]}, "point_px must be 2 finite numbers"),
        (
            {"phrases": [{"task": "question", "text": "x", "answer": "<region_1>", "regions": [{"point_px": [5, 5]}]}]},
            "<region_1> in the text, but there are 1 regions",
        ),
        ({"boxes": [{"class": "car"}]}, r"samples\.jsonl: line 1: not of schema .*KeyError: 'xyxy_px'"),
    ],
)
def test_broken_lines(tmp_path, changes, message):
    write(tmp_path / "images/a.png", SAMPLE.image_bgr)
    dump(tmp_path / "samples.jsonl", **changes)
    with pytest.raises(InputError, match=message):
        jsonl.open_samples(tmp_path)[0]
