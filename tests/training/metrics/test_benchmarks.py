"""The benchmarks' own metrics against the numbers that their own code gave for the same cases."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.metrics import bdd100k, boundary, openlane, tusimple
from training.metrics.captions import cider, tokenize

HERE = Path(__file__).parent
TUSIMPLE = json.loads((HERE / "tusimple_official.json").read_text())
OTHERS = json.loads((HERE / "caption_openlane_official.json").read_text())


def test_tusimple_equals_lane_py():
    rules = set()
    for case in TUSIMPLE["cases"]:
        score = tusimple.score_picture(case["truth"], case["predicted"], TUSIMPLE["h_samples"], case["run_time_ms"])
        assert (score.accuracy, score.fp, score.fn) == pytest.approx(case["official"], abs=1e-9)
        rules.add(score.rule)
    assert rules == {"", "too_slow", "too_many_lanes"}


def test_tusimple_by_hand():
    rows = list(range(240, 340, 10))
    lane = [100.0] * 10
    assert tusimple.score_picture([lane], [[119.0] * 10], rows) == tusimple.Score(1.0, 0.0, 0.0)
    assert tusimple.score_picture([lane], [[120.0] * 10], rows) == tusimple.Score(0.0, 1.0, 1.0)
    assert tusimple.score_picture([lane], [lane], rows, 200.0).rule == ""
    assert tusimple.score_picture([lane], [lane], rows, 200.1) == tusimple.Score(0.0, 0.0, 1.0, "too_slow")
    assert tusimple.score_picture([], [lane] * 3, rows).rule == "too_many_lanes"
    with pytest.raises(ValueError, match="10 rows"):
        tusimple.score_picture([lane], [[1.0]], rows)
    half = tusimple.Score(0.9, 0.5, 0.2).row + tusimple.Score(0.7, 0.1, 0.4).row
    assert tusimple.accuracy(half) == pytest.approx(0.8)
    assert tusimple.f1(half) == pytest.approx(0.7)


def test_bdd100k_lane_marking_equals_the_toolkit():
    data = np.load(HERE / "bdd_lane_official.npz")
    rows = []
    for truth, predicted, official in zip(data["truth"], data["predicted"], data["f"], strict=True):
        rows.append(bdd100k.lane_row(truth, predicted))
        np.testing.assert_allclose(rows[-1], official, atol=1e-9)
    numbers = bdd100k.lane_f1(np.mean(rows, axis=0))
    mean = data["f"].mean(axis=0)
    np.testing.assert_allclose(numbers["category"], mean[4:].mean(axis=0))
    np.testing.assert_allclose(numbers["average"], (mean[:2].mean(0) + mean[2:4].mean(0) + mean[4:].mean(0)) / 3)


def test_papers_lane_iou_pools_or_averages_batches():
    truth, predicted = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    truth[0, 0], predicted[0, 0, :2] = True, True
    truth[1, :2], predicted[1, :2] = True, True
    rows = [bdd100k.pixel_row(t, p) for t, p in zip(truth, predicted, strict=True)]
    assert bdd100k.pixel_iou(np.sum(rows, axis=0)) == pytest.approx(10 / 12)
    assert bdd100k.pixel_recall(np.sum(rows, axis=0)) == pytest.approx(10 / 12)
    assert np.mean([bdd100k.pixel_iou(row) for row in rows]) == pytest.approx(0.75)
    assert bdd100k.pixel_iou(np.zeros(3)) == 0.0


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 9, 40])
def test_tolerance_is_euclidean(radius):
    rng = np.random.default_rng(radius)
    for share in (0.005, 0.03, 0.3):
        truth, predicted = rng.random((2, 13, 17)) < share
        truth[6, 16] = predicted[7, 0] = True  # neighbours in the order of memory only
        ones, others = np.argwhere(truth), np.argwhere(predicted)
        near = ((ones[:, None] - others[None]) ** 2).sum(axis=2) <= radius**2
        recall, precision = near.any(axis=1).mean(), near.any(axis=0).mean()
        expected = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert boundary.f_measure(truth, predicted, radius) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", OTHERS["openlane"], ids=lambda case: f"{len(case['frames'])} frames")
def test_openlane_average_precision_equals_the_toolkit(case):
    distances = [openlane.lane_distances(frame["truth"], frame["predicted"]) for frame in case["frames"]]
    confidences = [frame["confidences"] for frame in case["frames"]]
    ranked = [openlane.rank(distances, confidences, threshold) for threshold in openlane.FRECHET_M]
    np.testing.assert_allclose([openlane.average_precision(each) for each in ranked], case["ap"], atol=1e-6)  # it sums in 32 bits
    twice = [openlane.average_precision(each, np.full(len(distances), 2.0)) for each in ranked]
    np.testing.assert_allclose(twice, case["ap"], atol=1e-6)


def test_openlane_distances_by_hand():
    line = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    assert openlane.frechet_distances(line[None], line[None] + [[0, 3.0, 0]])[0] == 3.0
    assert openlane.frechet_distances(line[None], line[None, ::-1])[0] == 2.0
    assert openlane.chamfer_distance(line, line[::-1]) == 0.0
    assert openlane.lane_distances([line], [line + 50])[0, 0] == 1024
    assert openlane.average_precision(openlane.rank([np.zeros((0, 0))], [[]], 1.0)) == 1.0
    assert openlane.element_distances([[0, 0, 2, 2]], [[0, 0, 2, 1]])[0, 0] == 0.5


def test_cider_equals_the_coco_code():
    case = OTHERS["cider"]
    hypotheses = [text.split() for text in case["hypotheses"]]
    references = [[text.split() for text in each] for each in case["references"]]
    np.testing.assert_allclose(cider(hypotheses, references), case["cider"], atol=1e-8)
    assert tokenize("A red car, don't 2 stop!") == ["a", "red", "car", "don't", "2", "stop"]
    with pytest.raises(ValueError, match="at least one reference"):
        cider([["a"]], [[]])
