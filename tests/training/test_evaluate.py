"""The evaluator from the command line to the page: scores, resuming, foreign predictions, calibration, clear errors."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from getok_drive.errors import ConfigError, GetokError, InputError
from getok_drive.tokens.confidence import Calibration, calibrate, reliability
from getok_drive.types import Box, DecodeReport, Frame, Lane, Scene, Timings
from training import evaluate
from training.evaluate import evaluate_samples, fit_calibration, predict
from training.evaluation import Collector, sample_sha256
from training.evaluation_runs import predict_answers
from training.metrics.calibration import compose
from training.predictions import read_lines, scene_from_json
from training.prompted.answers import Answer
from training.samples import Sample
from training.sources import open_source

TASKS = ("lanes", "drivable", "boxes", "signs")


class Oracle:
    """A pipeline that knows the labels: right, except for what `spoil` does to the scene."""

    def __init__(self, source, spoil=lambda scene: scene):
        self.samples = {source.key(i): source.load(i) for i in range(len(source))}
        self.spoil, self.calls = spoil, 0

    def run(self, frame):
        self.calls += 1
        sample = self.samples[frame.source]
        return self.spoil(
            Scene(
                sample.size_wh, sample.lanes, sample.drivable, sample.boxes, sample.signs, source=frame.source,
                index=frame.index, timings=Timings(total_ms=5.0), bundle_name="oracle", bundle_sha256="0" * 64,
            )
        )  # fmt: skip


@pytest.fixture(scope="module")
def source():
    return open_source("world:0-5")


def _named(source):
    """Samples that carry their key, as a data set reader's do."""
    return [replace(source.load(i), meta={"source": source.key(i)}) for i in range(len(source))]


def test_the_labels_themselves_score_full_marks(source):
    report = evaluate_samples(Oracle(source), _named(source))
    assert set(report.headline()) == {"lanes/f1_50", "drivable/iou", "boxes/f1", "signs/f1"}
    assert all(value == pytest.approx(1.0, abs=2e-3) for value in report.headline().values())
    assert report.outputs["truncated"] == report.outputs["invalid"] == 0


def test_nothing_seen_scores_zero_and_a_limit_holds(source):
    report = evaluate_samples(Oracle(source, lambda scene: Scene(scene.image_size_wh)), _named(source), limit=4)
    assert report.frames == 4
    assert all(value == 0.0 for value in report.headline().values())
    assert "all" not in report.reliability


def test_invalid_and_truncated_outputs_are_counted(source):
    def spoil(scene):
        return Scene(scene.image_size_wh, truncated=True, report=DecodeReport(tokens=7, issues={"lane_too_short": 2}))

    outputs = evaluate_samples(Oracle(source, spoil), _named(source)).outputs
    assert (outputs["truncated"], outputs["invalid"], outputs["issues"]) == (6, 6, {"lane_too_short": 12})
    assert outputs["tokens_per_frame"] == 7


def test_kinds_that_a_data_set_does_not_label_are_left_out(source):
    samples = [replace(sample, known=("drivable",)) for sample in _named(source)]
    assert set(evaluate_samples(Oracle(source), samples).numbers) == {"drivable"}


def test_classes_that_a_data_set_does_not_label_are_neither_right_nor_wrong(source):
    def two_more(scene):
        stray = Box([1, 1, 60, 60], "cone"), Box([1, 1, 60, 60], "car")
        return replace(scene, boxes=(*scene.boxes, *stray))

    samples = _named(source)
    only_cars = [
        replace(
            sample,
            boxes=tuple(box for box in sample.boxes if box.class_name == "car"),
            meta={**sample.meta, "labelled_classes": {"boxes": ["car"]}},
        )
        for sample in samples
    ]
    cars = sum(len(sample.boxes) for sample in only_cars)
    report = evaluate_samples(Oracle(source, two_more), only_cars, ("boxes", "signs"))
    assert report.numbers["boxes"]["f1_all_sizes"].value == pytest.approx(
        2 * cars / (2 * cars + len(samples))
    )  # one stray car each
    assert report.headline()["signs/f1"] == 1.0
    report = evaluate_samples(Oracle(source, two_more), samples, ("boxes",))
    boxes = sum(len(sample.boxes) for sample in samples)
    assert report.numbers["boxes"]["f1_all_sizes"].value == pytest.approx(2 * boxes / (2 * boxes + 2 * len(samples)))


def test_boxes_in_ignored_regions_are_excused_unless_they_match_a_label():
    image = np.zeros((100, 200, 3), np.uint8)
    car, crowd = Box([10, 10, 50, 50], "car"), [100.0, 0.0, 180.0, 100.0]
    said = (
        car,
        Box([110, 10, 150, 50], "car"),  # in the crowd
        Box([80, 10, 120, 50], "car"),  # by half
        Box([70, 10, 110, 50], "car"),  # by a quarter: wrong
        Box([10, 10, 50, 50], "bus"),  # the car, by another name: wrong
    )

    def numbers(meta):
        samples = [Sample(image, boxes=(car,), known=("boxes",), meta={"source": "a", **meta})]
        seer = type("Seer", (), {"run": lambda self, frame: Scene((200, 100), boxes=said)})()
        return {name: estimate.value for name, estimate in evaluate_samples(seer, samples, ("boxes",)).numbers["boxes"].items()}

    assert numbers({})["precision"] == pytest.approx(1 / 5)
    everywhere = numbers({"ignore_xyxy_px": [crowd]})
    assert everywhere["precision"] == pytest.approx(1 / 3)
    assert (everywhere["recall"], everywhere["f1"]) == (1.0, pytest.approx(2 / 4))
    assert numbers({"ignore_xyxy_px": [crowd, [0, 0, 60, 60]]})["recall"] == 1.0  # a label in a crowd still counts


def test_an_interrupted_run_continues_and_gives_the_same_report(source, tmp_path):
    settings = {"bundle_sha256": "x"}
    whole = Collector(TASKS)
    predict(source, tmp_path / "whole", settings, lambda: Oracle(source), whole)

    class Stops(Oracle):
        def run(self, frame):
            if frame.index == 3:
                raise KeyboardInterrupt
            return super().run(frame)

    with pytest.raises(KeyboardInterrupt):
        predict(source, tmp_path / "cut", settings, lambda: Stops(source), Collector(TASKS))
    path = tmp_path / "cut" / "predictions.jsonl"
    with path.open("a") as file:
        file.write('{"key": "world:3", "lan')  # a line that was being written when the power went
    again, second = Oracle(source), Collector(TASKS)
    predict(source, tmp_path / "cut", settings, lambda: again, second)
    assert again.calls == 3 + 1  # frames 3, 4, 5 and the warm-up
    assert second.report().headline() == whole.report().headline()
    assert second.dataset_sha256 == whole.dataset_sha256
    assert [r["key"] for r in read_lines(path)] == [source.key(i) for i in range(6)]

    with pytest.raises(ConfigError, match="bundle_sha256 differ"):
        predict(source, tmp_path / "cut", {"bundle_sha256": "y"}, lambda: again, Collector(TASKS))
    (tmp_path / "cut" / "run.json").unlink()  # whose predictions these are, nobody knows
    with pytest.raises(ConfigError, match=r"there is no run\.json beside it"):
        predict(source, tmp_path / "cut", {"bundle_sha256": "x"}, lambda: again, Collector(TASKS))


def test_answers_of_other_settings_are_not_kept_whatever_was_predicted_in_between(source, tmp_path):
    class Silent:
        def ask(self, image_bgr, query):
            return Answer()

    def ask(segmenter):
        settings = {"bundle_sha256": "x", "segmenter": segmenter}
        predict_answers(source, tmp_path, settings, Silent, Collector(()), ["classification"])

    ask("opencv")
    ask("opencv")
    predict(source, tmp_path, {"bundle_sha256": "x"}, lambda: Oracle(source), Collector(TASKS))
    with pytest.raises(ConfigError, match=r"answers\.jsonl: made with other settings \(segmenter differ"):
        ask("sam2")
    with pytest.raises(ConfigError, match=r"predictions\.jsonl: made with other settings \(bundle_sha256 differ"):
        predict(source, tmp_path, {"bundle_sha256": "y"}, lambda: Oracle(source), Collector(TASKS))


def test_a_picture_that_changed_since_is_noticed(source, tmp_path):
    predict(source, tmp_path, {}, lambda: Oracle(source), Collector(TASKS))
    path = tmp_path / "predictions.jsonl"
    path.write_text(path.read_text().replace(sample_sha256(source.load(2)), "0" * 64))
    with pytest.raises(InputError, match="world:2 has changed"):
        predict(source, tmp_path, {}, lambda: Oracle(source), Collector(TASKS))


def _write_scenes(source, path, spoil=lambda scene: scene):
    oracle = Oracle(source, spoil)
    lines = [json.dumps(oracle.run(Frame(source.load(i).image_bgr, source=source.key(i))).to_json()) for i in range(len(source))]
    path.write_text("\n".join(lines) + "\n")


def test_somebody_elses_predictions_are_scored_with_all_files_written(source, tmp_path, capsys):
    def some_confidence(scene):
        boxes = tuple(Box(b.xyxy_px, b.class_name, 0.6, b.attributes) for b in scene.boxes)
        return Scene(scene.image_size_wh, scene.lanes, scene.drivable, boxes, scene.signs, source=scene.source)

    scenes, out = tmp_path / "scenes.jsonl", tmp_path / "out"
    _write_scenes(source, scenes, some_confidence)
    argv = ["--dataset", "world:0-5", "--predictions", str(scenes), "--out", str(out), "--worst", "2", "--fit-calibration"]
    report = evaluate.run(argv)
    assert report.headline()["boxes/f1"] == 1.0
    written = json.loads((out / "report.json").read_text())
    assert written["metrics"]["lanes"]["f1_50"]["value"] == pytest.approx(1.0)
    assert written["metrics"]["boxes"]["map50"]["value"] == pytest.approx(1.0)
    assert written["dataset"]["frames"] == 6
    assert len(written["dataset"]["sha256"]) == 64
    assert written["command"].startswith("python -m training.evaluate --dataset world:0-5")
    assert written["machine"]["cores"] >= 1
    assert "CULane F1@50" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg;base64") == 2
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing is fetched from elsewhere
    calibration = json.loads((out / "calibration.json").read_text())
    assert set(calibration) == {"lane", "drivable", "box", "sign"}
    assert calibration["box"]["bias"] > 0  # the boxes were right more often than 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "world:0-5"], "either --bundle"),
        (["--dataset", "world:nowhere", "--predictions", "x"], "expected world:test"),
        (["--dataset", "nosuch:here", "--predictions", "x"], "no reader for 'nosuch'"),
        (["--dataset", "world:0-5", "--predictions", "absent.jsonl"], "absent.jsonl"),
        (["--dataset", "world:0-5", "--bundle", "absent"], "no bundle 'absent'"),
        (["--dataset", "world:0-5", "--predictions", "x", "--tasks", "lanes,cats"], "--tasks: cats"),
        (["--dataset", "world:0-5", "--predictions", "x", "--limit", "0"], "--limit"),
        (["--dataset", "world:0-5", "--predictions", "x", "--size", "big"], "--size"),
    ],
)
def test_mistakes_are_named(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GetokError, match=re.escape(message)):
        evaluate.run([*options, "--out", str(tmp_path / "out")])


def test_a_missing_line_is_an_error_unless_allowed(source, tmp_path):
    scenes = tmp_path / "scenes.jsonl"
    _write_scenes(source, scenes)
    scenes.write_text("\n".join(scenes.read_text().splitlines()[:-1]) + "\n")
    argv = ["--dataset", "world:0-5", "--predictions", str(scenes), "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"1 of 6 pictures have no line, the first is 'world:5'"):
        evaluate.run(argv)
    report = evaluate.run([*argv, "--allow-missing"])
    assert report.outputs["missing"] == 1
    assert report.headline()["lanes/f1_50"] < 1.0


def test_predictions_for_pictures_of_another_size_are_refused(source, tmp_path):
    scenes = tmp_path / "scenes.jsonl"
    _write_scenes(source, scenes, lambda scene: Scene((64, 36), source=scene.source))
    argv = ["--dataset", "world:0-5", "--predictions", str(scenes), "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match="world:0: the scene is for a picture of 64x36 px, the labels for 448x252 px"):
        evaluate.run(argv)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "image_size_wh"),
        ({"image_size_wh": [4, 4], "lanes": [{"points_px": [[0, 0]]}]}, r"lanes\[0\].*at least 2"),
        ({"image_size_wh": [4, 4], "boxes": [{"xyxy_px": [0, 0, 1, 1]}]}, r"boxes\[0\].*class"),
        ({"image_size_wh": [4, 4], "signs": [{"point_px": [0, 0], "class": "stop", "confidence": 2}]}, r"signs\[0\].*0\.\.1"),
        ({"image_size_wh": [4, 4], "drivable": [7]}, r"drivable\[0\]"),
        ({"image_size_wh": [4, 4], "decode_report": {"nonsense": 1}}, "decode_report"),
        ({"image_size_wh": [4, float("inf")]}, r"image_size_wh.*infinity"),
    ],
)
def test_malformed_scenes_are_refused_with_their_place(record, message):
    with pytest.raises(InputError, match=message):
        scene_from_json(record, "file.jsonl:3")


def test_a_scene_survives_the_file(source):
    oracle = Oracle(source)
    scene = oracle.run(Frame(source.load(0).image_bgr, source="world:0"))
    once = scene_from_json(scene.to_json())
    assert once.to_json() == scene.to_json()
    assert scene_from_json(once.to_json()).to_json() == once.to_json()


def test_the_fitted_calibration_replaces_the_current_one():
    rng = np.random.default_rng(0)
    raw = rng.uniform(0.02, 0.98, 4000)
    truth = calibrate(raw, 2.5, -0.7)
    hits = rng.random(4000) < truth
    current = Calibration(0.6, 0.3)
    shown = calibrate(raw, current.temperature, current.bias)
    fitted = fit_calibration({"boxes": np.stack([shown, hits], 1)}, {"box": current})["box"]
    assert fitted.temperature == pytest.approx(2.5, rel=0.15)
    assert fitted.bias == pytest.approx(-0.7, abs=0.15)
    assert reliability(calibrate(raw, fitted.temperature, fitted.bias), hits).ece < 0.03 < reliability(shown, hits).ece
    both = compose(current, Calibration(1.7, -0.2))
    once = calibrate(calibrate(raw, current.temperature, current.bias), 1.7, -0.2)
    np.testing.assert_allclose(calibrate(raw, both.temperature, both.bias), once, atol=1e-9)
    with pytest.raises(InputError, match="no predictions"):
        fit_calibration({"boxes": np.zeros((0, 2))})


def test_the_data_sets_hash_sees_pixels_and_labels(source):
    sample = source.load(0)
    assert sample_sha256(sample) == sample_sha256(source.load(0))
    assert sample_sha256(sample) != sample_sha256(source.load(1))
    assert sample_sha256(sample) != sample_sha256(replace(sample, lanes=(Lane([[0, 9], [5, 0]]), *sample.lanes)))
    other = sample.image_bgr.copy()
    other[0, 0, 0] ^= 1
    assert sample_sha256(sample) != sample_sha256(replace(sample, image_bgr=other))
