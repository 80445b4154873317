"""Drivable area, points, intervals: by hand."""

import numpy as np
import pytest

from training.metrics import drivable, points
from training.metrics.intervals import bootstrap, f1, group_rows, precision, ratio, recall

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10]]


def test_pooled_and_mean_iou_differ_as_defined():
    half = drivable.region_row([SQUARE], [[[0, 0], [5, 0], [5, 10], [0, 10]]], (40, 20))
    big = [[0, 0], [40, 0], [40, 20], [0, 20]]
    full, none = drivable.region_row([big], [big], (40, 20)), drivable.region_row([], [], (40, 20))
    rows = np.sum([half, full, none], axis=0)
    assert drivable.pooled_iou(rows) == pytest.approx((50 + 800) / (100 + 800))
    assert drivable.mean_iou(rows) == pytest.approx((0.5 + 1 + 1) / 3)
    background = (700 + 0 + 800) / (750 + 0 + 800)
    assert drivable.class_mean_iou(rows) == pytest.approx((850 / 900 + background) / 2)
    assert np.isnan(drivable.pooled_iou(none))


def test_overlapping_polygons_count_once():
    row = drivable.region_row([SQUARE], [SQUARE, SQUARE], (20, 20))
    assert drivable.pooled_iou(row) == 1.0


def test_points_within_the_radius_match_once_and_the_edge_counts():
    truth = [[0.0, 0.0], [10.0, 0.0]]
    assert points.point_counts(truth, [[3.0, 4.0]], 5.0).tolist() == [1, 0, 1]
    assert points.point_counts(truth, [[3.0, 4.1]], 5.0).tolist() == [0, 1, 2]
    assert points.point_counts(truth, [[1.0, 0.0], [0.5, 0.0]], 5.0).tolist() == [1, 1, 1]
    # both are near the left point, one near both: the matching leaves none over
    assert points.point_counts(truth, [[1.0, 0.0], [6.0, 0.0]], 6.0).tolist() == [2, 0, 0]
    assert points.point_counts([], [], 5.0).tolist() == [0, 0, 0]


def test_classes_keep_points_apart():
    counts = points.point_counts_by_class([[0, 0]], ["stop"], [[0, 0]], ["yield"], ("stop", "yield"), 5.0)
    assert counts.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert points.point_hits([[0, 0], [9, 9]], ["stop", "yield"], [[9, 8], [0, 1]], ["yield", "yield"], 5.0).tolist() == [1, -1]


def test_pointing_hits_masks():
    left, right = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    left[:, :3], right[:, 3:] = True, True
    assert points.pointing_counts([left, right], [[0, 0], [2.4, 1], [2.6, 1]]).tolist() == [2, 1, 0]
    assert points.pointing_counts([left], [[-1, 0], [6, 0]]).tolist() == [0, 2, 1]
    assert points.pointing_counts([left], []).tolist() == [0, 0, 1]


def test_the_interval_of_a_share_is_the_binomials():
    rng = np.random.default_rng(0)
    hits = rng.random(400) < 0.7
    rows = np.stack([hits, np.ones(400)], axis=1)
    estimate = bootstrap(rows, lambda sums: ratio(sums[..., 0], sums[..., 1]))
    spread = 1.96 * np.sqrt(0.7 * 0.3 / 400)
    assert estimate.value == pytest.approx(hits.mean())
    assert estimate.low == pytest.approx(hits.mean() - spread, abs=0.012)
    assert estimate.high == pytest.approx(hits.mean() + spread, abs=0.012)


def test_groups_are_drawn_whole_and_widen_the_interval():
    rng = np.random.default_rng(0)
    rows = np.repeat(np.stack([rng.random(20) < 0.5, np.ones(20)], axis=1), 20, axis=0)
    share = lambda sums: ratio(sums[..., 0], sums[..., 1])  # noqa: E731
    alone = bootstrap(rows, share)
    grouped = bootstrap(rows, share, groups=[i // 20 for i in range(400)])
    assert grouped.value == alone.value
    assert grouped.count == 20
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert group_rows([[1.0], [2.0], [4.0]], ["a", "b", "a"]).tolist() == [[5.0], [2.0]]
    with pytest.raises(ValueError, match="2 group labels"):
        group_rows([[1.0]], ["a", "b"])


def test_intervals_of_nothing_and_of_one():
    assert np.isnan(bootstrap(np.zeros((0, 3)), f1).value)
    one = bootstrap([[1.0, 1.0, 0.0]], f1)
    assert one.value == pytest.approx(2 / 3)
    assert np.isnan(one.low)
    assert one.to_json() == {"value": 0.666667, "low": None, "high": None, "count": 1}


def test_precision_recall_and_f1():
    counts = np.array([3.0, 1.0, 2.0])
    assert (precision(counts), recall(counts), f1(counts)) == (0.75, 0.6, pytest.approx(6 / 9))
    nothing = np.zeros(3)
    assert (precision(nothing), recall(nothing)) == (0.0, 0.0)
    assert np.isnan(f1(nothing))
