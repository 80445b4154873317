"""Strokes equal OpenCV's pixel for pixel; polygons follow the pixel-centre rule."""

import json
import zlib
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics.raster import common_pixels, draw_polyline, fill_polygons, polyline_runs

OPENCV4 = json.loads((Path(__file__).parent / "raster_opencv4.json").read_text())


@given(
    st.lists(st.tuples(st.integers(40, 160), st.integers(40, 100)), min_size=2, max_size=6),
    st.sampled_from([2, 3, 5, 16, 30, 31]),
)
@settings(max_examples=150)
def test_strokes_inside_the_picture_equal_the_installed_opencv(points, thickness):
    picture = np.zeros((140, 200), np.uint8)
    for a, b in pairwise(points):
        cv2.line(picture, a, b, 1, thickness)
    assert np.array_equal(draw_polyline(points, (200, 140), thickness), picture > 0)


@pytest.mark.parametrize("case", OPENCV4["cases"], ids=lambda case: str(case["crc32"]))
def test_strokes_across_the_border_equal_opencv_4(case):
    mask = draw_polyline(case["points"], tuple(OPENCV4["size_wh"]), case["thickness"])
    assert int(mask.sum()) == case["area"]
    assert zlib.crc32(np.packbits(mask).tobytes()) == case["crc32"]


@pytest.mark.parametrize(
    ("points", "area"), [([], 0), ([[5, 5]], 0), ([[5, 5], [5, 5]], None), ([[-500, -500], [-400, -400]], 0),
     ([[10**9, 0], [0, 10**9]], 0)]
)  # fmt: skip
def test_degenerate_strokes(points, area):
    mask = draw_polyline(points, (60, 40), 4)
    if area is None:
        disc = cv2.line(np.zeros((40, 60), np.uint8), (5, 5), (5, 5), 1, 4)
        assert np.array_equal(mask, disc > 0)
    else:
        assert mask.sum() == area


def test_common_pixels_counts_the_overlap_of_two_strokes():
    rng = np.random.default_rng(0)
    for _ in range(40):
        lanes = [rng.integers(-20, 120, (3, 2)) for _ in range(2)]
        masks = [draw_polyline(lane, (100, 80), 9) for lane in lanes]
        runs = [polyline_runs(lane, (100, 80), 9) for lane in lanes]
        assert common_pixels(runs[0], runs[1], 100) == (masks[0] & masks[1]).sum()


def test_polygons_hold_the_pixels_whose_centres_they_contain():
    rng = np.random.default_rng(1)
    ys, xs = np.mgrid[0:50, 0:70]
    for _ in range(50):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(5, 45, 9)
        polygon = np.stack([35 + radii * np.cos(angles), 25 + radii * np.sin(angles)], 1)
        inside = shapely.contains_xy(shapely.Polygon(polygon), xs, ys)
        assert np.array_equal(fill_polygons([polygon], (70, 50)), inside)


def test_polygons_that_share_an_edge_neither_overlap_nor_leave_a_gap():
    left, right = [[0, 0], [10, 0], [10, 20], [0, 20]], [[10, 0], [20, 0], [20, 20], [10, 20]]
    a, b = fill_polygons([left], (20, 20)), fill_polygons([right], (20, 20))
    assert not (a & b).any()
    assert (a | b).all()


def test_a_self_crossing_polygon_follows_the_even_odd_rule_and_too_few_points_fill_nothing():
    twice = [[1, 1], [9, 1], [9, 9], [1, 9], [1, 1], [9, 1], [9, 9], [1, 9]]
    assert fill_polygons([twice, [[0, 0], [5, 5]], []], (12, 12)).sum() == 0
