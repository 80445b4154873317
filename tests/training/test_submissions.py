"""Submissions round trip: what is written scores, by the benchmarks' own rules, as the scenes that it was written from."""

import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from getok_drive.errors import ConfigError
from getok_drive.types import Lane, Scene, Timings
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


LANE_PY = {  # what the benchmark's lane.py prints for `_disturbed` labels, see below
    "_under_200_ms": {"accuracy": 0.7074652777777778, "fp": 0.3615740740740741, "fn": 0.4305555555555556},
    "": {"accuracy": 0.7747395833333334, "fp": 0.39814814814814814, "fn": 0.3819444444444444},  # with every run_time made 1
}
PICTURES = 36


def _disturbed(lanes, number):
    """Predictions of a picture, wrong in every way that the metric knows, and the time that they took."""
    said = []
    for place, lane in enumerate(lanes):
        step = (7 * number + 13 * place) % 11
        points = lane.points_px.astype(float)
        if step == 0:
            continue  # missed
        if step > 6:
            points = points[: max(2, len(points) * step // 12)]  # too short
        said.append(replace(lane, points_px=np.add(points, (6.5 * (step - 5), 0))))
        if step in (3, 4):
            said.append(
                replace(lane, points_px=np.subtract(points, (70, 0)))
            )  # invented; some pictures get more than two of these
    return (*said, *said[:2]) if number % 5 == 2 else tuple(said), 100.0 + 10.0 * (number % 12)


def test_the_tusimple_export_scores_as_the_report_and_as_lane_py(tusimple_folder, tmp_path):
    """All from one command; the official numbers were printed by TuSimple's ``evaluate/lane.py`` for the file that it wrote."""
    name, out = f"tusimple:{tusimple_folder}", tmp_path / "out"
    source = open_source(name, "all", limit=PICTURES)
    labels = [json.loads(line) for line in (tusimple_folder / "label_data_0313.json").read_text().splitlines()]
    lines = []
    for index in range(len(source)):
        sample = source.load(index)
        lanes, wall_ms = _disturbed(sample.lanes, index)
        scene = Scene(sample.size_wh, lanes, source=source.key(index), timings=Timings(total_ms=wall_ms))
        lines.append(json.dumps(scene.to_json()) + "\n")
    (tmp_path / "scenes.jsonl").write_text("".join(lines))
    argv = ["--dataset", name, "--split", "all", "--limit", str(PICTURES), "--tasks", "lanes", "--export", "tusimple"]
    report = evaluate.run([*argv, "--predictions", str(tmp_path / "scenes.jsonl"), "--out", str(out)])
    ours = {key: estimate.value for key, estimate in report.numbers["tusimple"].items()}
    # the file, scored on its own against the label file
    submitted = [json.loads(line) for line in (out / "submission" / "submission.json").read_text().splitlines()]
    truth = {record["raw_file"]: record["lanes"] for record in labels}
    for suffix, official in LANE_PY.items():
        times = [said["run_time"] if suffix else 0.0 for said in submitted]
        total = np.sum(
            [
                tusimple.score_picture(truth[said["raw_file"]], said["lanes"], said["h_samples"], time).row
                for said, time in zip(submitted, times, strict=True)
            ],
            axis=0,
        )
        again = dict(zip(("accuracy", "fp", "fn"), total[:3] / total[3], strict=True))
        for key, value in official.items():
            assert ours[f"{key}{suffix}"] == pytest.approx(value, abs=1e-6), key
            assert again[key] == pytest.approx(ours[f"{key}{suffix}"], abs=1e-12), key
    assert ours["zeroed_as_slower_than_200_ms"] == pytest.approx(1 / 12) and ours["zeroed_for_too_many_lanes"] == pytest.approx(
        2 / 36
    )


def test_the_labels_themselves_miss_only_lanes_without_a_point(tusimple_folder, tmp_path):
    """Some labels have a lane that is absent in every row: lane.py counts it, and no prediction can match it."""
    name, count = f"tusimple:{tusimple_folder}", 6
    source, scenes = open_source(name, "all", limit=count), tmp_path / "scenes.jsonl"
    scenes.write_text(_scenes(source, lambda lane: lane))
    argv = ["--dataset", name, "--split", "all", "--limit", str(count), "--tasks", "lanes", "--predictions", str(scenes)]
    report = evaluate.run([*argv, "--out", str(tmp_path / "out")])
    columns = [source.load(index).meta["lane_columns"] for index in range(count)]
    empty = [sum(max(lane) < 0 for lane in lanes) / min(4, len(lanes)) if len(lanes) <= 4 else 0.0 for lanes in columns]
    assert 0 < np.mean(empty) < 0.5
    assert report.headline()["lanes/f1_50"] > 0.999
    assert report.numbers["tusimple"]["fp"].value == 0.0
    assert report.numbers["tusimple"]["fn"].value == pytest.approx(np.mean(empty))


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


def test_culane_scores_as_the_scenes_on_real_pictures(tusimple_folder, tmp_path):
    """TuSimple's pictures and labels, laid out as CULane's: the exported files score as the predictions do."""
    real, root = open_source(f"tusimple:{tusimple_folder}", "all", limit=4), tmp_path / "data"
    (root / "list").mkdir(parents=True)
    names = []
    for index in range(len(real)):
        name = f"driver_1/a.MP4/{index:05d}.jpg"
        names.append(f"/{name}\n")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(tusimple_folder / real.key(index).partition(":")[2])
        lines = [" ".join(f"{v:g}" for v in lane.points_px.ravel()) + "\n" for lane in real.load(index).lanes]
        (root / name).with_suffix(".lines.txt").write_text("".join(lines))
    (root / "list" / "test.txt").write_text("".join(names))
    source = open_source(f"culane:{root}", "test")
    scenes = []
    for index in range(len(source)):
        sample = source.load(index)
        lanes, _ = _disturbed(sample.lanes, index)
        scenes.append(json.dumps(Scene(sample.size_wh, lanes, source=source.key(index)).to_json()) + "\n")
    (tmp_path / "scenes.jsonl").write_text("".join(scenes))
    argv = ["--dataset", f"culane:{root}", "--tasks", "lanes", "--export", "culane", "--out", str(tmp_path / "out")]
    report = evaluate.run([*argv, "--predictions", str(tmp_path / "scenes.jsonl")])
    for kind, convention in (("lanes", "culane"), ("culane", "clrnet")):
        counts = np.zeros((len(culane.THRESHOLDS), 3))
        for index in range(len(source)):
            sample = source.load(index)
            truth = [culane.scale_points(lane.points_px, sample.size_wh, culane.PICTURE_WH) for lane in sample.lanes]
            file = tmp_path / "out" / "submission" / source.key(index).partition(":")[2].replace(".jpg", ".lines.txt")
            counts += culane.culane_counts(truth, _read(file), convention=convention)
        for name, value in (
            ("f1_50", culane.f1_at(counts, 0)),
            ("f1_75", culane.f1_at(counts, 5)),
            ("mf1", culane.mean_f1(counts)),
        ):
            assert report.numbers[kind][name].value == pytest.approx(value, abs=1e-6)
    assert 0.1 < report.headline()["lanes/f1_50"] < 0.9


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
