"""``python -m training.data``: converting and going on after a stop, checking, counting, showing, dividing without leaks."""

import json

import cv2
import numpy as np
import pytest

from getok_drive.types import Lane
from training import data
from training.datasets import jsonl, reading
from training.datasets.checks import check_sample
from training.datasets.convert import convert
from training.datasets.shapes import encode_rle
from training.datasets.splitting import split_file
from training.datasets.walk import open_dataset, walk
from training.samples import Sample
from training.sources import readers

from .minis import road_photo, write, write_text


@pytest.fixture
def idd(tmp_path):
    """IDD lite with twelve pictures of four drives; one label is broken, one picture has no label."""
    root = tmp_path / "idd"
    rng = np.random.default_rng(0)
    for number in range(12):
        drive, stem = f"{number // 3}", f"frame{number:04d}"
        image = np.clip(road_photo().astype(int) + rng.integers(-9, 9, (180, 320, 3)), 0, 255).astype(np.uint8)
        write(root / f"leftImg8bit/train/{drive}/{stem}_image.png", image)
        label = np.full((180, 320), 1, np.uint8)
        cv2.fillPoly(label, [np.array([(10 + number, 179), (140, 95), (180, 95), (300, 179)])], 0)
        write(root / f"gtFine/train/{drive}/{stem}_label.png", label)
    (root / "gtFine/train/1/frame0004_label.png").write_bytes(b"\x89PNG broken")
    write(root / "leftImg8bit/train/3/extra_image.png", road_photo())
    return root


def run(*argv):
    return data.main([str(word) for word in argv])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_convert_reports_what_is_left_out(idd, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("convert", "--dataset", f"idd:{idd}", "--split", "train", "--out", out, "--masks") == 0
    assert "11 pictures" in capsys.readouterr().out
    skipped = {entry["name"]: entry["reason"] for entry in lines(out / "skipped.jsonl")}
    assert "frame0004_label.png: not a picture" in skipped["idd:leftImg8bit/train/1/frame0004_image.png"]
    assert "no extra_label.png" in skipped["leftImg8bit/train/3/extra_image.png"]
    report = json.loads((out / "report.json").read_text())
    assert (report["pictures"], report["left_out"], report["elements"]) == (11, 2, {"drivable": 11})
    before, after = reading_list("idd", idd), reading_list("jsonl", out)
    for key in after:
        a, b = before[key], after[key]
        assert (a.image_bgr == b.image_bgr).all() and a.known == b.known and a.meta["sequence"] == b.meta["sequence"]
        assert np.allclose(a.drivable[0].polygon_px, b.drivable[0].polygon_px, atol=0.006)
        assert (a.masks["semantic"] == b.masks["semantic"]).all() and "IDD" in b.meta["terms"]


def reading_list(kind, path):
    dataset = open_dataset(f"{kind}:{path}")
    return {key: dataset.read(index) for index, key in enumerate(dataset.keys) if "frame0004" not in key}


def test_convert_goes_on_after_a_kill(idd, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    convert(f"idd:{idd}", "train", whole, jobs=1)
    convert(f"idd:{idd}", "train", part, limit=5)
    text = (part / "samples.jsonl").read_text()
    (part / "samples.jsonl").write_text(text[:-30])  # killed while it wrote a line
    report = convert(f"idd:{idd}", "train", part, jobs=2)
    assert (report.kept, report.written) == (3, 11)
    assert (part / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    assert sorted(p.name for p in (part / "images").iterdir()) == sorted(p.name for p in (whole / "images").iterdir())


def test_convert_refuses_another_conversion(idd, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("convert", "--dataset", f"idd:{idd}", "--split", "train", "--out", out) == 0
    assert run("convert", "--dataset", f"idd:{idd}", "--split", "all", "--out", out) == 2
    assert "holds a conversion with split = 'train'" in capsys.readouterr().err
    assert run("convert", "--dataset", f"nothing:{idd}", "--out", tmp_path / "x") == 2
    assert "no reader for 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize("helper", ["masks", "reading", "__init__", "walk.open_dataset"])
def test_helpers_beside_the_readers_are_no_readers(tmp_path, capsys, helper):
    assert run("stats", "--dataset", f"{helper}:{tmp_path}") == 2
    error = capsys.readouterr().err
    assert f"no reader for {helper!r}" in error and ", idd, jsonl, kitti, " in error
    assert "use world, world-crowd or world-drive, or " in error
    assert not {"masks", "walk", "shapes"} & set(readers())


def test_convert_the_world(tmp_path):
    assert run("convert", "--dataset", "world:5-6", "--size", "224x126", "--out", tmp_path) == 0
    sample = jsonl.open_samples(tmp_path / "samples.jsonl", "all")[0]
    assert sample.size_wh == (224, 126) and set(sample.known) == {"lanes", "drivable", "boxes", "signs"} and sample.drivable


def test_walk_keeps_the_order_and_names_what_failed(idd):
    dataset = open_dataset(f"idd:{idd}", "train")
    results = list(walk(dataset, _index_of, jobs=2))
    assert [key for key, *_ in results] == list(dataset.keys)
    assert [index for _, index, _ in results] == [0, 1, 2, 3, None, *range(5, 12)]
    assert "frame0004" in results[4][2]


def _index_of(index, key, sample):
    return index


def test_validate(idd, tmp_path, capsys):
    assert run("validate", "--dataset", f"idd:{idd}", "--out", tmp_path / "problems.jsonl") == 1
    problems = lines(tmp_path / "problems.jsonl")
    assert [p["level"] for p in problems].count("error") == 1 and "frame0004" in str(problems)
    (idd / "gtFine/train/1/frame0004_label.png").unlink()
    assert run("validate", "--dataset", f"idd:{idd}") == 0
    assert "0 errors, 2 warnings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({"drivable": [{"polygon_px": [[0, 0], [99, 99], [99, 0], [0, 99]]}]}, "error", "drivable area 0: Self-intersection"),
        ({"drivable": [{"polygon_px": [[0, 0], [99, 0], [99, 99]]}] * 2}, "warning", "drivable areas overlap"),
        ({"boxes": [{"xyxy_px": [300, 5, 400, 50], "class": "car"}]}, "error", "box 0 lies outside the picture"),
        ({"boxes": [{"xyxy_px": [30, 5, 40, 50], "class": "car"}] * 2}, "warning", "boxes 0 and 1 are the same"),
        ({"boxes": [{"xyxy_px": [k, 5, k + 9, 50], "class": "car"} for k in range(40)]}, "warning", "40 box elements"),
        (
            {"lanes": [{"points_px": [[5, 20], [5, 90]], "type": "solid", "color": "white"}]},
            "error",
            "lane 0 does not run bottom",
        ),
        (
            {"signs": [{"point_px": [5, 5], "class": "stop", "color": "red", "attributes": {"visible_state": "half"}}]},
            "error",
            "'half'",
        ),
        ({"scene": {"surface_condition": "muddy"}}, "error", "surface_condition is 'muddy'"),
    ],
)
def test_each_check(tmp_path, changes, level, text):
    write(tmp_path / "a.png", road_photo())
    kinds = [kind for kind in ("lanes", "drivable", "boxes", "signs") if kind in changes]
    record = {
        "schema": jsonl.SCHEMA,
        "image": "a.png",
        "size_wh": [320, 180],
        "known": kinds,
        "meta": {"sequence": "s", "terms": "t"},
    }
    write_text(tmp_path / "s.jsonl", json.dumps({**record, **changes}))
    found = check_sample(jsonl.open_samples(tmp_path / "s.jsonl")[0])
    assert any(a == level and text in b for a, b in found), found


def test_checks_of_samples_made_in_code():
    lane = Lane(np.array([(10, 170), (100, 100)], np.float32))
    sample = Sample(road_photo(), lanes=(lane,), known=("drivable",), masks={"semantic": np.zeros((90, 160), np.uint8)})
    assert check_sample(sample) == [
        ("error", "has lanes, which are not declared as known"),
        ("error", "mask semantic has 160x90 px"),
        ("warning", "meta.sequence is missing"),
        ("warning", "meta.terms is missing"),
    ]


def records(root, names):
    """A JSONL of pictures; a name is SEQUENCE/PICTURE, equal picture names are equal pictures."""
    out = []
    for number, name in enumerate(names):
        sequence, picture = name.split("/")
        image = road_photo()
        image[0, :8] = np.frombuffer(picture.encode().ljust(24)[:24], np.uint8).reshape(8, 3)
        write(root / f"{number}.png", image)
        meta = {"source": f"x:{number}", "sequence": sequence, "terms": "t"}
        out.append({"schema": jsonl.SCHEMA, "image": f"{number}.png", "size_wh": [320, 180], "known": [], "meta": meta})
    return write_text(root / "samples.jsonl", "".join(json.dumps(record) + "\n" for record in out))


def test_split_without_leaks(tmp_path, capsys):
    names = [f"drive{number % 12}/p{number}" for number in range(60)] + ["twin/p0"]
    path = records(tmp_path, names)
    assert run("split", "--file", path, "--shares", "0.6,0.2,0.2") == 0
    parts = {part: lines(tmp_path / f"{part}.jsonl") for part in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == 61 and 30 <= len(parts["train"]) <= 42 and all(len(p) >= 5 for p in parts.values())
    where = {}
    for part, entries in parts.items():
        for entry in entries:
            assert entry["split"] == part
            where.setdefault(entry["meta"]["sequence"], set()).add(part)
    assert all(len(places) == 1 for places in where.values())
    assert where["twin"] == where["drive0"]  # they share a picture
    assert "1 sequences share pictures" in capsys.readouterr().out
    assert run("validate", "--dataset", f"jsonl:{tmp_path}") == 0
    again = split_file(path, {"train": 0.6, "val": 0.2, "test": 0.2})
    assert {part: pictures for part, (pictures, _) in again.parts.items()} == {part: len(p) for part, p in parts.items()}


def test_a_new_split_leaves_no_part_of_the_one_before(tmp_path):
    path = records(tmp_path, [f"drive{number}/p{number}" for number in range(20)])
    assert run("split", "--file", path, "--shares", "0.5,0.2,0.3") == 0
    assert run("split", "--file", path, "--shares", "0.8,0.2,0") == 0
    assert not (tmp_path / "test.jsonl").exists()  # its pictures are in train or val now
    (tmp_path / "test.jsonl").write_text(json.dumps({**lines(path)[0], "image": "images/somebody_elses.png"}) + "\n")
    assert run("split", "--file", path, "--shares", "0.8,0.2,0") == 0
    (tmp_path / "test.jsonl").unlink()  # was left alone: none of it is in the file that was divided
    assert run("validate", "--dataset", f"jsonl:{tmp_path}") == 0


def test_validate_finds_leaks(tmp_path, capsys):
    path = records(tmp_path, ["a/p1", "a/p2", "b/p3", "c/p3"])
    entries = lines(path)
    for entry, part in zip(entries, ("train", "val", "train", "test"), strict=True):
        entry["split"] = part
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert run("validate", "--dataset", f"jsonl:{path}") == 1
    printed = capsys.readouterr().out
    assert "the sequence is in train and val: a leak" in printed and "the same picture as x:2, which is in train" in printed


def test_split_wrong_use(tmp_path, capsys):
    path = records(tmp_path, ["a/p1", "a/p2"])
    assert run("split", "--file", path) == 2
    assert "cannot be divided into 3 parts without leaks" in capsys.readouterr().err
    assert run("split", "--file", path, "--shares", "1,x") == 2
    write_text(path, '{"image": 1')
    assert run("split", "--file", path) == 2
    assert "line 1 is not JSON" in capsys.readouterr().err


def test_stats_and_preview(idd, tmp_path, capsys):
    assert run("stats", "--dataset", f"idd:{idd}", "--out", tmp_path / "stats") == 0
    printed = capsys.readouterr().out
    assert "11 pictures of 4 sequences" in printed and "lanes     not labelled" in printed
    stats = json.loads((tmp_path / "stats/stats.json").read_text())
    assert stats["elements"] == {"drivable": 11} and sum(stats["histograms"]["drivable share of the image"].values()) == 11
    assert len(stats["left_out"]) == 2 and "<h2>terms</h2>" in (tmp_path / "stats/stats.html").read_text()
    assert run("preview", "--dataset", f"idd:{idd}", "--out", tmp_path / "show", "--every", "2", "--width", "160") == 0
    page = (tmp_path / "show/index.html").read_text()
    assert (
        page.count("<figure>") == 5
        and "frame0004_label.png: not a picture" in page
        and "not labelled: lanes, boxes, signs" in page
    )
    picture = cv2.imread(str(tmp_path / "show/pictures/0000000.jpg"))
    assert picture.shape == (90, 160, 3) and picture[80, 80, 1] > picture[80, 80, 2] + 15  # the road is tinted green


def test_phrases_in_statistics_checks_and_preview(tmp_path, capsys):
    write(tmp_path / "a.png", np.full((90, 160, 3), 90, np.uint8))
    mask = np.zeros((90, 160), bool)
    mask[30:60, 40:100] = True
    regions = [{"xyxy_px": [39.5, 29.5, 99.5, 59.5], "rle": encode_rle(mask)}]
    phrases = [
        {"task": "refer", "text": "the <dark> car", "regions": regions},
        {"task": "question", "text": "Who?", "answer": "<region_0> does", "regions": [{"point_px": [140, 80]}]},
        {"task": "refer", "text": "far away", "regions": [{"xyxy_px": [150, 80, 200, 99]}]},
        {"task": "refer", "text": "of another size", "regions": [{"rle": {"size": [9, 16], "counts": [144]}}]},
        {"task": "point", "text": "the wheel", "regions": [{"xyxy_px": [1, 1, 5, 5]}]},
    ]
    record = {
        "schema": jsonl.SCHEMA,
        "image": "a.png",
        "size_wh": [160, 90],
        "known": [],
        "meta": {"sequence": "s", "terms": "t"},
    }
    write_text(tmp_path / "s.jsonl", json.dumps({**record, "phrases": [*phrases, phrases[4]]}))
    assert run("validate", "--dataset", f"jsonl:{tmp_path}/s.jsonl", "--out", tmp_path / "problems") == 1
    found = [(entry["level"], entry["text"]) for entry in lines(tmp_path / "problems")]
    assert found == [
        ("error", "phrase 2 ('far away'): a region lies outside the picture of 160x90 px"),
        ("error", "phrase 3 ('of another size'): a mask of 16x9 px"),
        ("warning", "phrase 4 ('the wheel'): a region to point at without a point or a mask"),
        ("warning", "phrase 5 ('the wheel'): a region to point at without a point or a mask"),
        ("warning", "1 phrases are given more than once"),
    ]
    write_text(tmp_path / "s.jsonl", json.dumps({**record, "phrases": phrases[:2]}))
    assert run("stats", "--dataset", f"jsonl:{tmp_path}/s.jsonl") == 0
    assert "phrases: refer 1, question 1" in capsys.readouterr().out
    assert run("preview", "--dataset", f"jsonl:{tmp_path}/s.jsonl", "--out", tmp_path / "show", "--width", "160") == 0
    page = (tmp_path / "show/index.html").read_text()
    assert (
        "the &lt;dark&gt; car (1 region)" in page and "Who? &rarr; &lt;region_0&gt; does" in page and "not labelled" not in page
    )
    picture = cv2.imread(str(tmp_path / "show/pictures/0000000.jpg")).astype(int)
    assert (
        picture[45, 70, 2] > picture[45, 70, 1] + 40 and abs(picture[70, 20] - 90).max() < 12
    )  # the mask is tinted, not the rest
    assert np.abs(picture[76:85, 136:145] - 90).max() > 40  # the point


def test_splits_by_name_are_stable():
    parts = [reading.split_of(f"drive{number}") for number in range(2000)]
    assert parts[:5] == [reading.split_of(f"drive{number}") for number in range(5)]
    assert 0.77 < parts.count("train") / 2000 < 0.83 and 0.08 < parts.count("val") / 2000 < 0.12
