"""Metrics whose rule is stated here rather than in a benchmark's code: by hand."""

import numpy as np
import pytest

from training.metrics import classification, masks, polylines, referring


def test_polylines_need_place_and_length():
    lane = [[100.0, 400.0], [300.0, 100.0]]
    near, half = np.add(lane, [5.0, 0.0]), [[100.0, 400.0], [200.0, 250.0]]
    assert polylines.polyline_counts([lane], [near], 640).tolist() == [1, 0, 0]
    assert polylines.polyline_counts([lane], [half], 640).tolist() == [0, 1, 1]
    assert polylines.polyline_counts([lane], [lane[::-1]], 640).tolist() == [1, 0, 0]  # direction is no matter
    assert polylines.polyline_counts([lane], [lane, near], 640).tolist() == [1, 1, 0]
    assert polylines.polyline_counts([], [lane], 640).tolist() == [0, 1, 0]


def test_the_number_of_points_on_a_line_does_not_matter():
    coarse = [[0.0, 0.0], [100.0, 50.0]]
    fine = np.stack([np.linspace(0, 100, 40), np.linspace(0, 50, 40)], axis=1)
    assert polylines.lane_distances([coarse], [fine])[0, 0] == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(polylines.resample(coarse, 3), [[0, 0], [50, 25], [100, 50]])
    np.testing.assert_allclose(polylines.distances_to_line([[50.0, 25.0], [-3.0, 4.0 - 8.0]], coarse), [0.0, 5.0])


def test_masks_cumulative_and_mean():
    empty, left, full = np.zeros((4, 4), bool), np.zeros((4, 4), bool), np.ones((4, 4), bool)
    left[:, :2] = True
    rows = np.sum([masks.referred_row(full, left), masks.referred_row(left, left), masks.referred_row(empty, empty)], axis=0)
    assert masks.c_iou(rows) == pytest.approx(16 / 24)
    assert masks.g_iou(rows) == pytest.approx((0.5 + 1 + 1) / 3)
    assert (masks.no_target_accuracy(rows), masks.target_accuracy(rows)) == (1.0, 1.0)
    assert (masks.precision_at(rows, 0.5), masks.precision_at(rows, 0.7)) == (1.0, 0.5)
    assert masks.no_target_accuracy(masks.referred_row(empty, left)) == 0.0


def test_boundary_f_forgives_a_shift_within_its_tolerance():
    square, moved = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    square[20:40, 20:40], moved[20:40, 22:42] = True, True
    assert masks.boundary_f(square, square) == 1.0
    assert masks.boundary_f(square, moved, 2) == 1.0
    assert 0.3 < masks.boundary_f(square, moved, 1) < 1.0
    assert masks.boundary_f(square, np.zeros_like(square)) == 0.0


def test_referring_counts_a_missing_or_malformed_box_as_wrong():
    truth = [0, 0, 10, 10]
    answers = [truth, [0, 0, 10, 8], [0, 0, 10, 5], None, [5, 5, 1, 1], [0, 0, np.nan, 1]]
    rows = np.sum([referring.rec_row(truth, answer) for answer in answers], axis=0)
    assert referring.accuracy_at(rows, 0.5) == pytest.approx(3 / 6)
    assert referring.accuracy_at(rows, 0.8) == pytest.approx(2 / 6)


def test_classification_by_hand():
    classes = ("dry", "wet", "snowy")
    answers = [("dry", "dry")] * 8 + [("wet", "dry"), ("wet", "wet"), ("wet", "nonsense")]
    rows = np.sum([classification.confusion_row(truth, answer, classes) for truth, answer in answers], axis=0)
    assert classification.confusion(rows).tolist() == [[8, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]]
    assert classification.accuracy(rows) == pytest.approx(9 / 11)
    assert classification.balanced_accuracy(rows) == pytest.approx((1 + 1 / 3) / 2)
    assert classification.precisions(rows)[:2].tolist() == pytest.approx([8 / 9, 1.0])
    assert np.isnan(classification.recalls(rows)[2])
