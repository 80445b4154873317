"""3D boxes: submissions in nuScenes' own format against the devkit's own evaluation of the same files.

These need the devkit, as `tests/training/datasets/test_nuscenes.py` says; the numbers themselves are tested without it in
`tests/training/metrics/test_nuscenes_scores.py`.
"""

import importlib.util
import json

import numpy as np
import pytest

from getok_drive.errors import ConfigError, GetokError
from training import evaluate, scene_boxes
from training.metrics.nuscenes import CLASSES, NAMES

from .datasets.nuscenes_mini import EGO_YAW, Mini, to_global, yaw_quaternion

needs_devkit = pytest.mark.skipif(importlib.util.find_spec("nuscenes") is None, reason="nuscenes-devkit is not installed")


@pytest.fixture
def mini(tmp_path):
    """A scene with every filter's cases: too far, without returns, in a rack, of no class of the challenge."""
    mini = Mini(tmp_path / "nuscenes")
    rng = np.random.default_rng(3)
    for number in range(14):
        at = (*rng.uniform(-25, 25, 2), 0.0)
        mini.box("vehicle.car", at, yaw=float(rng.uniform(-3, 3)), attribute=("vehicle.moving", "vehicle.parked", "")[number % 3])
    mini.box("vehicle.car", (60.0, 0.0, 0.0))
    mini.box("vehicle.car", (10.0, 10.0, 0.0), lidar=0)
    mini.box("animal", (5.0, 5.0, 0.0))
    for x in (-20.0, -10.0, 10.0, 20.0):
        mini.box("human.pedestrian.adult", (x, 4.0, 0.0), (0.6, 0.7, 1.8), attribute="pedestrian.standing")
        mini.box("movable_object.barrier", (x, -4.0, 0.0), (2.5, 0.5, 1.0), yaw=0.3)
        mini.box("movable_object.trafficcone", (x, -6.0, 0.0), (0.4, 0.4, 1.0))
    mini.box("static_object.bicycle_rack", (0.0, 12.0, 0.0), (2.0, 8.0, 1.5), yaw=0.4)
    mini.box("vehicle.bicycle", (0.5, 12.2, 0.0), (0.6, 1.7, 1.2), attribute="cycle.without_rider")  # in the rack
    mini.box("vehicle.bicycle", (8.0, 12.0, 0.0), (0.6, 1.7, 1.2), attribute="cycle.with_rider")
    mini.write()
    return mini


def entries(mini, seed=0):
    """What a detector might have sent in: most labels, disturbed, some twice, and some that are not there."""
    rng = np.random.default_rng(seed)
    found = []
    names = {token: name for name, token in mini.categories.items()}
    category = {each["token"]: names[each["category_token"]] for each in mini.instances}
    for label in mini.annotations:
        name = scene_boxes.CLASS_OF.get(category[label["instance_token"]], "car")
        for _ in range(int(rng.integers(0, 3))):
            yaw = EGO_YAW + float(rng.uniform(-3, 3))
            found.append(
                {
                    "sample_token": mini.sample, "detection_name": name, "detection_score": round(float(rng.random()), 2),
                    "translation": (np.array(label["translation"]) + rng.normal(0, 0.6, 3)).tolist(),
                    "size": (np.array(label["size"]) * rng.uniform(0.8, 1.2, 3)).tolist(), "rotation": yaw_quaternion(yaw),
                    "velocity": rng.normal(0, 2, 2).tolist(), "attribute_name": scene_boxes.ATTRIBUTES[int(rng.integers(8))],
                }
            )  # fmt: skip
    for _ in range(6):
        at = to_global([(*rng.uniform(-40, 40, 2), 0.5)])[0].tolist()
        found.append({**found[0], "detection_name": CLASSES[int(rng.integers(10))], "translation": at, "attribute_name": ""})
    return found


def submission(mini, tmp_path, boxes, **results):
    path = tmp_path / "submission.json"
    meta = {f"use_{name}": name == "camera" for name in ("camera", "lidar", "radar", "map", "external")}
    path.write_text(json.dumps({"meta": meta, "results": {mini.sample: boxes, **results}}))
    return path


def run(mini, path, tmp_path, *more):
    data = ["--dataset", f"nuscenes:{mini.root}", "--split", "train", "--tasks", "detection3d"]
    return evaluate.run([*data, "--predictions", str(path), "--out", str(tmp_path / "out"), *more])


@needs_devkit
@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_the_devkits_own_evaluation(mini, tmp_path, seed):
    from nuscenes.eval.detection.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval
    from nuscenes.nuscenes import NuScenes

    path = submission(mini, tmp_path, entries(mini, seed))
    tables = NuScenes("v1.0-mini", str(mini.root), verbose=False)
    official, _ = DetectionEval(
        tables, config_factory("detection_cvpr_2019"), str(path), "mini_train", str(tmp_path / "theirs"), verbose=False
    ).evaluate()
    errors = [official.tp_errors[name] for name in ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")]
    aps = [official.mean_dist_aps[name] for name in CLASSES]
    report = run(mini, path, tmp_path)
    numbers = [report.numbers["nuscenes"][name].value for name in NAMES]
    np.testing.assert_allclose(numbers, [official.nd_score, official.mean_ap, *errors, *aps], atol=1e-9)
    assert 0.05 < numbers[1] < 0.9
    assert "nuScenes detection score (NDS)" in report.table() and report.frames == 1


@needs_devkit
def test_what_does_not_fit_is_refused(mini, tmp_path):
    boxes = entries(mini)
    with pytest.raises(GetokError, match="1 sample tokens are none of nuscenes"):
        run(mini, submission(mini, tmp_path, boxes, abc=[]), tmp_path)
    path = submission(mini, tmp_path, boxes)
    path.write_text(json.dumps({"results": {}}))
    with pytest.raises(GetokError, match="1 of 1 samples are not in the results"):
        run(mini, path, tmp_path)
    assert run(mini, path, tmp_path, "--allow-missing").outputs["missing"] == 1
    for content, told in (([], "an object 'results'"), ({"results": {mini.sample: {}}}, "a list of at most 500 boxes, got dict")):
        path.write_text(json.dumps(content))
        with pytest.raises(GetokError, match=told):
            run(mini, path, tmp_path)
    with pytest.raises(ConfigError, match="takes --predictions and --out, and no other task"):
        run(mini, path, tmp_path, "--tasks", "detection3d,boxes")
    with pytest.raises(ConfigError, match="needs --dataset nuscenes:PATH, got world:test"):
        run(mini, path, tmp_path, "--dataset", "world:test")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size": [1.0, 0.0, 1.0]}, r"box\[0\]: size must be above 0"),
        ({"translation": [1.0, 2.0]}, "translation must be 3 finite numbers"),
        ({"translation": [1.0, 2.0, float("nan")]}, "translation must be 3 finite numbers"),
        ({"detection_name": "horse"}, "horse|not in tuple"),
        ({"attribute_name": "asleep"}, "asleep|not in tuple"),
        ({"detection_score": float("inf")}, "detection_score must be a finite number"),
        ({"rotation": [0, 0, 0, 0]}, "rotation a quaternion"),
        ({"velocity": None}, "velocity must be 2 finite numbers"),
    ],
)
def test_a_malformed_box_is_named(change, told):
    good = {
        "translation": [0, 0, 0], "size": [1, 1, 1], "rotation": [1, 0, 0, 0], "velocity": [0, 0], "detection_name": "car",
        "detection_score": 0.5, "attribute_name": "",
    }  # fmt: skip
    classes, rows = scene_boxes._predicted([good], "box")
    assert classes.tolist() == [0] and rows.shape == (1, 11)
    with pytest.raises(GetokError, match=told):
        scene_boxes._predicted([{**good, **change}], "box")
    with pytest.raises(GetokError, match=r"box\[0\]: 'size' is missing"):
        scene_boxes._predicted([{name: value for name, value in good.items() if name != "size"}], "box")


def test_headings():
    for yaw in (-3.0, -0.5, 0.0, 1.0, 3.1):
        assert scene_boxes._yaw(yaw_quaternion(yaw)) == pytest.approx(yaw)
        assert scene_boxes._yaw([2 * part for part in yaw_quaternion(yaw)]) == pytest.approx(yaw)  # not of unit length
