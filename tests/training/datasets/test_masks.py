"""Polygons and boxes from masks: fit, validity, holes, and what is dropped."""

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from training.datasets.masks import MIN_AREA_SHARE, component_boxes, drivable_areas, from_colors, mask_box
from training.metrics.raster import fill_polygons


def iou(areas, mask):
    drawn = fill_polygons([area.polygon_px for area in areas], (mask.shape[1], mask.shape[0]))
    return (drawn & mask).sum() / (drawn | mask).sum()


def share_within(areas, mask):
    drawn = fill_polygons([area.polygon_px for area in areas], (mask.shape[1], mask.shape[0]))
    return (drawn & mask).sum() / drawn.sum()


def clockwise(points):
    x, y = points.astype(float).T
    return np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) > 0


def test_rectangle_is_exact():
    mask = np.zeros((180, 320), bool)
    mask[100:170, 40:250] = True
    (area,) = drivable_areas(mask)
    assert len(area.polygon_px) == 4 and clockwise(area.polygon_px)
    assert area.polygon_px.min(0).tolist() == [39.5, 99.5] and area.polygon_px.max(0).tolist() == [249.5, 169.5]


@settings(max_examples=40)
@given(st.integers(0, 10_000))
@example(381)
@example(1373)  # a large hole below a small one
def test_any_blob_becomes_simple_polygons_that_fit(seed):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((180, 320)).astype(np.float32), (0, 0), 14)
    mask = noise > np.quantile(noise, rng.uniform(0.3, 0.8))
    areas = drivable_areas(mask)
    assert len(areas) <= 3
    for area in areas:
        polygon = shapely.Polygon(area.polygon_px)
        assert polygon.is_valid and clockwise(area.polygon_px)
        assert polygon.area >= 0.9 * MIN_AREA_SHARE * mask.size
    kept = np.zeros(mask.shape, bool)  # the truth: the three largest components, their small holes filled
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for index in sorted(range(1, count), key=lambda i: -stats[i, 4])[:3]:
        if stats[index, 4] >= MIN_AREA_SHARE * mask.size:
            kept |= labels == index
    # beside two others, what a cut or a slit parts from an area is one too many and left out (seeds 381, 3209)
    if areas and len(areas) == (stats[1:, 4] >= MIN_AREA_SHARE * mask.size).sum():
        assert (iou(areas, kept) if len(areas) < 3 else share_within(areas, kept)) >= 0.95


def test_a_car_on_the_road_becomes_a_notch_and_a_speck_does_not():
    mask = np.zeros((180, 320), bool)
    mask[90:, :] = True
    mask[120:150, 100:160] = False  # a car, 3 % of the picture
    mask[160:164, 300:304] = False  # a speck
    (area,) = drivable_areas(mask)
    assert shapely.Polygon(area.polygon_px).is_valid
    assert not shapely.Polygon(area.polygon_px).covers(shapely.Point(130, 135))
    assert shapely.Polygon(area.polygon_px).covers(shapely.Point(302, 162))
    assert iou((area,), mask) > 0.97


def test_small_regions_and_the_fourth_are_dropped():
    mask = np.zeros((180, 320), bool)
    for k, size in enumerate((60, 50, 40, 30)):
        mask[10 : 10 + size, 10 + 75 * k : 10 + 75 * k + size] = True
    mask[170:174, 10:14] = True
    assert sorted(round(shapely.Polygon(a.polygon_px).area) for a in drivable_areas(mask)) == [1600, 2500, 3600]
    assert drivable_areas(np.zeros((180, 320), bool)) == ()


def test_component_boxes():
    mask = np.zeros((180, 320), bool)
    mask[50:70, 30:60] = True
    mask[100:140, 280:320] = True  # runs out of the picture
    mask[10:12, 10:13] = True  # too low
    first, second = component_boxes(mask, "car")
    assert first.xyxy_px.tolist() == [29.5, 49.5, 59.5, 69.5]
    assert first.attributes == {"derived": "components", "truncated": "no"}
    assert second.attributes["truncated"] == "yes" and second.xyxy_px[2] == 319
    assert mask_box(mask[:30]).tolist() == [9.5, 9.5, 12.5, 11.5]
    assert mask_box(np.zeros((4, 4), bool)) is None


def test_colors():
    picture = np.array([[[0x20, 0x20, 0x40], [0, 0, 255], [1, 2, 3]]], np.uint8)
    assert from_colors(picture, {"402020": 0, "ff0000": 1}).tolist() == [[0, 1, 255]]
    with pytest.raises(ValueError, match="grey"):
        from_colors(picture[..., 0], {"402020": 0})
