"""CULane's F1 against the numbers of its own C++ evaluator and of CLRNet's port, degenerate lanes included."""

from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import splev, splprep

from training.metrics.culane import THRESHOLDS, culane_counts, f1_at, mean_f1, stroke_ious
from training.metrics.spline import drop_repeated, natural_spline, not_a_knot_spline


@pytest.fixture(scope="module")
def cases():
    """Per case: ground truth, predictions, the C++ tool's IoUs and counts, CLRNet's counts (None where it raises)."""
    data = np.load(Path(__file__).parent / "culane_official.npz")
    lanes = iter(np.split(data["points"], np.cumsum(data["lane_lengths"])[:-1]))
    ious, at, result = data["official_ious"], 0, []
    for (truth_count, predicted_count), counts, clrnet in zip(
        data["lanes"], data["official_counts"], data["clrnet_counts"], strict=True
    ):
        truth, predicted = [next(lanes) for _ in range(truth_count)], [next(lanes) for _ in range(predicted_count)]
        size = int(truth_count) * int(predicted_count)
        result.append((truth, predicted, ious[at : at + size].reshape(truth_count, predicted_count), counts, clrnet))
        at += size
    return result


def test_ious_and_counts_equal_the_official_tool(cases):
    assert len(cases) > 100
    for truth, predicted, ious, counts, _ in cases[::2]:
        np.testing.assert_allclose(stroke_ious(truth, predicted), ious, atol=1e-9)
        assert np.array_equal(culane_counts(truth, predicted), counts)


def test_counts_equal_clrnets_port(cases):
    compared = 0
    for truth, predicted, _, _, counts in cases[1::2]:
        if counts[0, 0] >= 0:
            compared += 1
            assert np.array_equal(culane_counts(truth, predicted, convention="clrnet"), counts)
    assert compared > 50


def test_the_interpolating_spline_is_scipys():
    rng = np.random.default_rng(0)
    for count in (2, 3, 4, 5, 6, 12, 40):
        points = np.cumsum(rng.uniform(1, 9, (count, 2)), axis=0)
        knots, u = splprep(points.T, s=0, k=min(3, count - 1))
        expected = np.array(splev(np.linspace(0, 1, (len(u) - 1) * 5 + 1), knots)).T
        np.testing.assert_allclose(not_a_knot_spline(points), expected, atol=1e-8)


def test_the_natural_spline_passes_through_its_points_and_keeps_straight_lines():
    points = np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0], [9.0, 12.0]])
    curve = natural_spline(points, 10)
    np.testing.assert_allclose(curve[::10], points, atol=1e-5)
    np.testing.assert_allclose(curve[:, 1], curve[:, 0] * 4 / 3, atol=1e-5)


def test_worked_by_hand():
    # two parallel vertical strokes 15 px apart share half of their 30 px: IoU about 1/3
    lane, near, far = ([[x, 500.0], [x, 300.0]] for x in (400.0, 415.0, 900.0))
    assert stroke_ious([lane], [near])[0, 0] == pytest.approx(1 / 3, abs=0.03)
    counts = culane_counts([lane, far], [lane, near])
    assert counts[0].tolist() == [1, 1, 1]
    assert f1_at(counts.astype(float), 0) == pytest.approx(0.5)
    assert mean_f1(counts.astype(float)) == pytest.approx(0.5)


def test_empty_sides_repeated_points_and_single_points_count_but_never_match():
    lane = [[400.0, 500.0], [410.0, 300.0]]
    assert culane_counts([], [lane])[0].tolist() == [0, 1, 0]
    assert culane_counts([lane], [])[0].tolist() == [0, 0, 1]
    assert culane_counts([], [])[0].tolist() == [0, 0, 0]
    assert culane_counts([lane], [[[5.0, 5.0]]])[0].tolist() == [0, 1, 1]
    assert culane_counts([lane], [[lane[0], lane[0], lane[1]]])[-1].tolist() == [1, 0, 0]
    assert drop_repeated([[1, 1], [1, 1], [2, 2], [1, 1]]).tolist() == [[1, 1], [2, 2], [1, 1]]
    assert f1_at(np.zeros((10, 3)), 0) == 0


def test_lanes_of_another_picture_size_are_scaled():
    lane = np.array([[100.0, 250.0], [200.0, 100.0]])
    shifted = lane + np.array([3.0, 0.0])
    scale = np.array([1640 / 448, 590 / 252])
    scaled = [(points + 0.5) * scale - 0.5 for points in (lane, shifted)]
    assert np.array_equal(culane_counts([lane], [shifted], (448, 252)), culane_counts(scaled[:1], scaled[1:]))
    assert len(THRESHOLDS) == 10
