"""Submissions round trip: what is written scores, by the benchmarks' own rules, as the scenes that it was written from."""

import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from getok_drive.errors import ConfigError
from getok_drive.types import Lane, Scene
from training import evaluate
from training.datasets import culane as culane_reader
from training.metrics import culane, tusimple
from training.metrics.tusimple import ABSENT, columns_at
from training.samples import Sample
from training.sources import open_source
from training.submissions import open_writer


def test_columns_follow_the_polyline():
    lane = [[10, 100], [20, 80], [20, 60], [-4, 40]]
    assert columns_at(lane, [110, 100, 90, 80, 70, 60, 50, 45, 40, 30], 640) == [ABSENT, 10, 15, 20, 20, 20, 8, 2, ABSENT, ABSENT]
    assert columns_at([[635, 9], [645, 0]], [8, 0], 640) == [636.11, ABSENT]  # outside the picture is absent
    assert columns_at([[0, 9], [3, 9]], [9], 640) == [0]


@pytest.fixture
def tusimple_folder():
    folder = Path(os.environ.get("GETOK_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "tusimple"
    if not folder.exists():
        pytest.skip(f"no TuSimple at {folder}; set GETOK_DATA")
    return folder


def _scenes(source, spoil):
    """Lines of a predictions file: the labels, each lane after ``spoil``."""
    lines = []
    for index in range(len(source)):
        sample = source.load(index)
        scene = Scene(sample.size_wh, tuple(spoil(lane) for lane in sample.lanes), source=source.key(index))
        lines.append(json.dumps(scene.to_json()) + "\n")
    return "".join(lines)


def test_tusimple_on_the_real_labels(tusimple_folder, tmp_path):
    root = tusimple_folder
    source = open_source(f"tusimple:{root}", "all", limit=6)
    rng = np.random.default_rng(0)

    def shifted(lane):
        return replace(lane, points_px=np.add(lane.points_px, (rng.choice([0, 5, 60]), 0)))

    for spoil, perfect in ((lambda lane: lane, True), (shifted, False)):
        scenes = tmp_path / "scenes.jsonl"
        scenes.write_text(_scenes(source, spoil))
        argv = [
            "--dataset",
            f"tusimple:{root}",
            "--split",
            "all",
            "--limit",
            "6",
            "--tasks",
            "lanes",
            "--predictions",
            str(scenes),
        ]
        report = evaluate.run([*argv, "--export", "tusimple", "--out", str(tmp_path / "out")])
        lines = (tmp_path / "out" / "submission" / "submission.json").read_text().splitlines()
        submitted = {record["raw_file"]: record for record in map(json.loads, lines)}
        labels = [json.loads(line) for line in (root / "label_data_0313.json").read_text().splitlines()]
        labels = [record for record in labels if record["raw_file"] in submitted]
        assert len(labels) == len(submitted) == 6
        scores = []
        for record in labels:
            said = submitted[record["raw_file"]]
            assert len(said["h_samples"]) == len(record["h_samples"])
            present = [lane for lane in record["lanes"] if sum(x >= 0 for x in lane) >= 2]
            scores.append(tusimple.score_picture(present, said["lanes"], record["h_samples"], said["run_time"]).row)
        total = np.sum(scores, axis=0)
        assert (tusimple.accuracy(total) > 0.999) == perfect
        assert (tusimple.false_positives(total) == tusimple.false_negatives(total) == 0) == perfect
        assert (report.headline()["lanes/f1_50"] > 0.999) == perfect


def _lane_tree(root, rng):
    """Two pictures with lanes in CULane's layout, at another size than the benchmark's."""
    (root / "list").mkdir(parents=True)
    names = []
    for number in range(2):
        name = f"driver_1/0601.MP4/{number:05d}.jpg"
        names.append(f"/{name}\n")
        image = root / name
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), rng.integers(0, 255, (295, 820, 3), dtype=np.uint8))
        ys = np.arange(290.0, 100.0, -10)
        lanes = [np.stack([x + slope * (290 - ys), ys], axis=1) for x, slope in ((100, 1.2), (400, 0.1), (700, -1.0))]
        lanes = lanes[: 3 - 3 * number]  # the second picture has none
        text = "".join(" ".join(f"{v:.3f}" for v in lane.ravel()) + "\n" for lane in lanes)
        image.with_suffix(".lines.txt").write_text(text)
    (root / "list" / "test.txt").write_text("".join(names))
    return names


def _read(path):
    """A ``.lines.txt`` as the benchmark's evaluator reads it."""
    return [np.array(line.split(), float).reshape(-1, 2) for line in path.read_text().splitlines()]


def test_culane_scores_as_the_scenes(tmp_path):
    rng = np.random.default_rng(0)
    _lane_tree(tmp_path / "data", rng)
    source = open_source(f"culane:{tmp_path / 'data'}", "test")
    scenes = tmp_path / "scenes.jsonl"
    scenes.write_text(_scenes(source, lambda lane: replace(lane, points_px=np.add(lane.points_px, (rng.choice([0, 4, 30]), 0)))))
    argv = [
        "--dataset",
        f"culane:{tmp_path / 'data'}",
        "--tasks",
        "lanes",
        "--predictions",
        str(scenes),
        "--out",
        str(tmp_path / "out"),
    ]
    report = evaluate.run([*argv, "--export", "culane"])
    counts = np.zeros((len(culane.THRESHOLDS), 3))
    for index in range(len(source)):
        sample = source.load(index)
        path = tmp_path / "out" / "submission" / source.key(index).partition(":")[2].replace(".jpg", ".lines.txt")
        submitted = _read(path)
        truth = [culane.scale_points(lane.points_px, sample.size_wh, culane.PICTURE_WH) for lane in sample.lanes]
        counts += culane.culane_counts(truth, submitted)
    assert culane.f1_at(counts, 0) == pytest.approx(report.numbers["lanes"]["f1_50"].value)
    assert culane.mean_f1(counts) == pytest.approx(report.numbers["lanes"]["mf1"].value)
    assert 0 < culane.mean_f1(counts) < 1
    files = sorted((tmp_path / "out" / "submission").rglob("*.lines.txt"))
    assert len(files) == 2
    assert files[1].read_text() == ""  # no lanes: an empty file
    # the reader of the data set reads a submission as it reads labels
    image = np.zeros((*culane.PICTURE_WH[::-1], 3), np.uint8)
    item = culane_reader.Found("a", "a", files[0], files[0])
    assert len(culane_reader._labels(item, image).lanes) == 3


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match="needs --dataset tusimple:PATH"):
        open_writer("tusimple", tmp_path, open_source("world:0-0"))
    rng = np.random.default_rng(0)
    _lane_tree(tmp_path / "data", rng)
    source = open_source(f"culane:{tmp_path / 'data'}", "test")
    with pytest.raises(ConfigError, match="unknown format"):
        open_writer("apollo", tmp_path, source)
    writer = open_writer("culane", tmp_path / "out", source)
    scene = Scene((8, 8), (Lane([[1, 7], [1, 0]]),))
    with pytest.raises(ConfigError, match="outside"):
        writer.add("culane:../../x.jpg", Sample(np.zeros((8, 8, 3), np.uint8)), scene, None)


def test_slow_pictures_are_pointed_out(tmp_path):
    source = replace(open_source("world:0-0"), name="tusimple:x")
    writer = open_writer("tusimple", tmp_path, source)
    sample = Sample(np.zeros((8, 8, 3), np.uint8), meta={"h_samples": [0, 4]})
    lane = Lane([[1, 7], [3, 0]])
    for wall_ms in (150.0, 250.0, None):
        writer.add("tusimple:clips/a.jpg", sample, Scene((8, 8), (lane,)), wall_ms)
    said = writer.finish()
    assert "1 took more than 200 ms: lane.py scores them 0" in said
    assert "1 without a known time" in said
    records = [json.loads(line) for line in (tmp_path / "submission.json").read_text().splitlines()]
    assert [record["run_time"] for record in records] == [150.0, 250.0, 0.0]
    assert records[0]["raw_file"] == "clips/a.jpg"
    with pytest.raises(ConfigError, match="no h_samples"):
        writer.add("tusimple:b", replace(sample, meta={}), Scene((8, 8)), None)
