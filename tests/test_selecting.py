"""Which elements are handed over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from getok_drive.selecting import REPEAT_IOU, select, without_repeats
from getok_drive.types import Box, DecodeReport, DrivableArea, Lane, Sign


def iou(a, b):
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = max(width, 0.0) * max(height, 0.0)
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def assert_same(boxes, expected):
    assert [id(box) for box in boxes] == [id(box) for box in expected]


def one_by_one(boxes):
    """The same, by its definition."""
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: (-boxes[i].confidence, i)):
        rivals = (boxes[k] for k in kept if boxes[k].class_name == boxes[index].class_name)
        if all(iou(rival.xyxy_px, boxes[index].xyxy_px) <= REPEAT_IOU for rival in rivals):
            kept.append(index)
    return [boxes[index] for index in sorted(kept)]


def test_the_surest_of_a_class_stays():
    car = Box([10, 10, 20, 20], "car", 0.5)
    boxes = (
        car,
        Box([11, 10, 21, 20], "car", 0.7),  # IoU 9 / 11 with the first
        Box([10, 10, 20, 20], "truck", 0.1),  # another class
        Box([14, 10, 24, 20], "car", 0.2),  # IoU 7 / 13 with the second
        Box([50, 0, 60, 10], "car", 0.0),
        Box([50, 0, 60, 10], "car", 0.0),  # as sure: the first stays
    )
    assert_same(without_repeats(boxes), boxes[1:5])
    assert_same(without_repeats(()), ())
    assert_same(without_repeats([car]), [car])


def test_random_boxes_fare_as_the_definition_says():
    rng = np.random.default_rng(0)
    dropped = 0
    for _ in range(300):
        count = int(rng.integers(0, 15))
        first, size = rng.uniform(0, 8, (count, 2)), rng.uniform(6, 16, (count, 2))
        words, sure = rng.choice(["car", "bus"], count), rng.choice([0.1, 0.5, 0.9], count)
        ends = np.concatenate([first, first + size], axis=1).astype(np.float32)
        boxes = [Box(*row) for row in zip(ends, words.tolist(), sure.tolist(), strict=True)]
        expected = one_by_one(boxes)
        assert_same(without_repeats(boxes), expected)
        dropped += count - len(expected)
    assert dropped > 100


def test_what_is_kept_is_unchanged():
    box = Box([1, 2, 3, 4], "car", 0.25, {"occlusion": "partly"})
    assert_same(without_repeats([box, replace(box, confidence=0.2)]), [box])


def test_each_kind_has_its_own_least_confidence():
    lane, area, sign = (
        Lane([[0, 9], [5, 0]], confidence=0.1),
        DrivableArea([[0, 9], [5, 0], [9, 9]], 0.3),
        Sign([1, 1], "stop", "red", 0.5),
    )
    boxes = (Box([0, 0, 9, 9], "car", 0.4), Box([0, 0, 9, 9], "car", 0.3), Box([0, 0, 9, 9], "bus", 0.2))
    written = ((lane,), (area,), boxes, (sign,), DecodeReport(elements=6, deleted=2, issues={"lane_too_short": 1}))
    least = {"lane": 0.0, "drivable": 0.3, "box": 0.25, "sign": 0.6}
    lanes, drivable, kept, signs, report = select(written, least)
    assert (lanes, drivable, signs) == ((lane,), (area,), ())
    assert_same(kept, boxes[:1])
    assert (report.elements, report.unsure, report.repeated) == (3, 2, 1)
    assert (report.deleted, report.issues) == (2, {"lane_too_short": 1})
    assert select(written, dict.fromkeys(least, 0.0))[-1].unsure == 0
