"""Boxes: AP equal to pycocotools, F1 by hand, sizes that are ignored."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.metrics.detection import (
    COCO_THRESHOLDS,
    Boxes,
    average_precision,
    box_hits,
    box_ious,
    detection_counts,
    detection_counts_by_class,
    match_by_confidence,
)

CASES = json.loads((Path(__file__).parent / "coco_official.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['truth'])} pictures")
def test_average_precision_equals_pycocotools(case):
    truth, predicted = ([Boxes.of(**boxes) for boxes in case[side]] for side in ("truth", "predicted"))
    for column, name in enumerate(("car", "truck", "pedestrian")):
        official = [row[column] for row in case["ap"]]
        ours = [average_precision(hits) for hits in match_by_confidence(truth, predicted, COCO_THRESHOLDS, name)]
        np.testing.assert_allclose(ours, [np.nan if ap is None else ap for ap in official], atol=1e-9)


def test_iou_by_hand():
    ious = box_ious([[0, 0, 10, 10]], [[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30], [10, 0, 20, 10]])
    np.testing.assert_allclose(ious, [[1 / 3, 1.0, 0.0, 0.0]])
    assert box_ious([], [[0, 0, 1, 1]]).shape == (0, 1)


def test_counts_by_hand():
    truth = Boxes.of([[0, 0, 10, 20], [100, 0, 110, 20]], ["car", "truck"])
    predicted = Boxes.of([[0, 0, 10, 20], [0, 0, 10, 19], [100, 0, 110, 20]], ["car", "car", "bus"])
    assert detection_counts(truth, predicted).tolist() == [2, 1, 0]
    by_class = detection_counts_by_class(truth, predicted, ("car", "truck", "bus"))
    assert by_class.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert box_hits(truth, predicted).tolist() == [0, -1, -1]


def test_an_iou_of_exactly_the_threshold_matches():
    truth, predicted = Boxes.of([[0, 0, 10, 10]], ["car"]), Boxes.of([[0, 0, 10, 5]], ["car"])
    assert detection_counts(truth, predicted, 0.5).tolist() == [1, 0, 0]
    assert average_precision(match_by_confidence([truth], [predicted], (0.5,))[0]) == 1.0


def test_short_boxes_are_neither_missed_nor_wrong():
    truth = Boxes.of([[0, 0, 10, 20], [50, 0, 60, 9]], ["car", "car"])
    predicted = Boxes.of([[0, 0, 10, 20], [50, 0, 60, 9], [50, 0, 60, 11], [80, 0, 90, 5], [80, 50, 90, 70]], ["car"] * 5)
    # right; matches the ignored box; a second box on it, tall enough to count: wrong; short: ignored; wrong
    assert detection_counts(truth, predicted, 0.5, min_height_px=10).tolist() == [1, 2, 0]
    assert detection_counts(truth, predicted, 0.5).tolist() == [2, 3, 0]


def test_average_precision_by_hand_and_under_weights():
    # right, wrong, right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1; monotone: 1 up to 1/2, 2/3 up to 1
    truth = [Boxes.of([[0, 0, 10, 10]], ["car"])] * 2
    predicted = [
        Boxes.of([[0, 0, 10, 10], [50, 50, 60, 60]], ["car"] * 2, [0.9, 0.8]),
        Boxes.of([[0, 0, 10, 10]], ["car"], [0.7]),
    ]
    hits = match_by_confidence(truth, predicted)[0]
    assert average_precision(hits, "voc") == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(hits, "coco") == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert average_precision(hits, "voc", [0.0, 1.0]) == 1.0
    assert np.isnan(average_precision(hits, "voc", [0.0, 0.0]))


def test_no_predictions_and_no_truth():
    empty, one = Boxes.of([], []), Boxes.of([[0, 0, 10, 10]], ["car"])
    assert average_precision(match_by_confidence([one], [empty])[0]) == 0.0
    assert np.isnan(average_precision(match_by_confidence([empty], [one])[0]))
    assert detection_counts(empty, one).tolist() == [0, 1, 0]
    assert detection_counts(one, empty).tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="2 classes"):
        Boxes.of([[0, 0, 1, 1]], ["a", "b"])
