"""The procedural world: the same seed gives the same bytes, and labels agree with pixels and geometry."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from shapely.geometry import Polygon

from getok_drive.tokens import vocab
from training.datasets.world import TEST_SEEDS, TRAIN_SEEDS, VAL_SEEDS, Drive, render, scene
from training.datasets.world.camera import Camera, Rig
from training.samples import KINDS, Sample

SEEDS = range(2000, 2040)


@functools.lru_cache(maxsize=64)
def still(seed: int) -> Sample:
    return render(seed, masks=True)


@pytest.mark.parametrize("seed", [0, 1234, TRAIN_SEEDS[0]])
def test_same_seed_gives_the_same_bytes(seed: int) -> None:
    first, second = render(seed), render(seed)
    assert np.array_equal(first.image_bgr, second.image_bgr)
    for kind in KINDS:
        pairs = list(zip(getattr(first, kind), getattr(second, kind), strict=True))
        assert all(str(a) == str(b) for a, b in pairs)
    assert not np.array_equal(first.image_bgr, render(seed + 1).image_bgr)


def test_a_fresh_process_draws_the_same_bytes_and_compiles_nothing_again() -> None:
    expected = [zlib.crc32(render(s).image_bgr) for s in (7, 8)]
    code = """
import json, zlib
from training.datasets.world import render
from training.datasets.world.kernels import ground, sprite
pictures = [zlib.crc32(render(s).image_bgr) for s in (7, 8)]
print(json.dumps([pictures, sum(sum(kernel.stats.cache_misses.values()) for kernel in (ground.relief, sprite.paste))]))
"""
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(fresh) == [expected, 0]


def test_seeds_of_the_splits_are_disjoint() -> None:
    splits = (TRAIN_SEEDS, VAL_SEEDS, TEST_SEEDS)
    assert len(VAL_SEEDS) == len(TEST_SEEDS) == 500
    for a, b in itertools.combinations(splits, 2):
        assert a.stop <= b.start or b.stop <= a.start


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_are_words_of_the_table_and_inside_the_image(seed: int) -> None:
    sample = still(seed)
    width, height = sample.size_wh
    limit = np.array([width - 1, height - 1]) + 1e-3
    for lane in sample.lanes:
        assert lane.type in vocab.LANE_TYPES and lane.color in vocab.LANE_COLORS
        assert (lane.points_px >= -1e-3).all() and (lane.points_px <= limit).all()
        assert (np.diff(lane.points_px[:, 1]) <= 0).all(), "bottom to top"
    for area in sample.drivable:
        polygon = Polygon(area.polygon_px)
        assert polygon.is_valid and polygon.area >= 0.002 * width * height
        assert (area.polygon_px >= 0).all() and (area.polygon_px <= limit).all()
        assert polygon.exterior.is_ccw, "clockwise on the screen, whose y runs down"
    for box in sample.boxes:
        assert box.class_name in vocab.BOX_CLASSES
        assert (box.xyxy_px >= 0).all() and (box.xyxy_px.reshape(2, 2) <= limit).all()
        assert box.attributes["visible_state"] in vocab.VISIBLE_STATES and box.attributes["truncated"] in ("yes", "no")
        assert box.attributes.get("road_blockage", "not_blocking") in vocab.ROAD_BLOCKAGES
        assert box.xyxy_px[3] - box.xyxy_px[1] >= 5.0
    for sign in sample.signs:
        assert sign.class_name in vocab.SIGN_CLASSES and sign.color in vocab.SIGN_COLORS
        assert (sign.point_px >= 0).all() and (sign.point_px <= limit).all()
    assert sample.scene["surface_condition"] in vocab.SURFACE_CONDITIONS
    assert sample.scene["traffic_density"] in vocab.TRAFFIC_DENSITIES


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_are_the_extent_of_their_instance(seed: int) -> None:
    sample = still(seed)
    instance = sample.masks["instance"]
    assert int(instance.max()) <= len(sample.boxes)
    for number, box in enumerate(sample.boxes, 1):
        ys, xs = np.nonzero(instance == number)
        assert len(xs) >= 4
        extent = np.array([xs.min() - 0.5, ys.min() - 0.5, xs.max() + 0.5, ys.max() + 0.5])
        assert np.abs(box.xyxy_px - extent).max() <= 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_drivable_polygons_fit_the_visible_road(seed: int) -> None:
    sample = still(seed)
    road = np.isin(sample.masks["semantic"], (scene.SEMANTIC.index("road"), scene.SEMANTIC.index("lane_paint"))).astype(np.uint8)
    road = cv2.morphologyEx(road, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    drawn = np.zeros_like(road)
    for area in sample.drivable:
        assert 3 <= len(area.polygon_px) <= 80
        cv2.fillPoly(drawn, [np.round(area.polygon_px).astype(np.int32)], 1)
    if road.mean() > 0.05:
        assert (road & drawn).sum() / (road | drawn).sum() > 0.9


def clear_scenes(count: int) -> list[Sample]:
    found = []
    for seed in range(3000, 4000):
        world = scene.create(seed)
        plain = world.look.time == "day" and world.look.weather in ("clear", "overcast") and world.look.surface == "dry"
        if plain and any(line.paint > 0.8 for line in world.road.lines):
            found.append(render(seed, masks=True))
        if len(found) == count:
            return found
    raise AssertionError("too few clear scenes")


def test_lane_labels_lie_on_painted_pixels() -> None:
    paint_id = scene.SEMANTIC.index("lane_paint")
    shares = []
    for sample in clear_scenes(12):
        semantic = sample.masks["semantic"]
        near_paint = cv2.dilate((semantic == paint_id).astype(np.uint8), np.ones((3, 3), np.uint8))
        for lane in sample.lanes:
            at = np.round(lane.points_px).astype(int)
            at = at[at[:, 1] > 0.55 * semantic.shape[0]]
            on_road = np.isin(semantic[at[:, 1], at[:, 0]], (1, 2, 3)) if len(at) else np.zeros(0, bool)
            if lane.type == "solid" and on_road.sum() > 10:
                shares.append(near_paint[at[on_road, 1], at[on_road, 0]].mean())
    assert len(shares) >= 5
    assert np.median(shares) > 0.95


def test_paint_is_brighter_than_the_road_beside_it() -> None:
    gains = []
    for sample in clear_scenes(10):
        grey = sample.image_bgr.astype(float).max(axis=2)
        for lane in sample.lanes:
            at = np.round(lane.points_px).astype(int)
            at = at[(at[:, 1] > 0.6 * grey.shape[0]) & (at[:, 0] > 14) & (at[:, 0] < grey.shape[1] - 15)]
            at = at[sample.masks["semantic"][at[:, 1], at[:, 0]] == scene.SEMANTIC.index("lane_paint")]
            if len(at) > 8:
                beside = 0.5 * (grey[at[:, 1], at[:, 0] - 14] + grey[at[:, 1], at[:, 0] + 14])
                gains.append(float(np.mean(grey[at[:, 1], at[:, 0]] - beside)))
    assert len(gains) >= 5
    assert np.median(gains) > 15


@pytest.mark.parametrize("seed", [2001, 2004, 2011, 2017])
def test_another_size_shows_the_same_scene(seed: int) -> None:
    small, large = render(seed, (448, 252)), render(seed, (896, 504))
    shrunk = cv2.resize(large.image_bgr, (448, 252), interpolation=cv2.INTER_AREA)
    a, b = cv2.GaussianBlur(small.image_bgr, (0, 0), 4).astype(float), cv2.GaussianBlur(shrunk, (0, 0), 4).astype(float)
    assert np.abs(a - b).mean() < 12
    assert abs(len(small.lanes) - len(large.lanes)) <= 1
    tracks = {box.attributes["track_id"]: box for box in large.boxes}
    common = [(box, tracks[box.attributes["track_id"]]) for box in small.boxes if box.attributes["track_id"] in tracks]
    assert len(common) >= len(small.boxes) - 2
    for one, other in common:
        assert one.class_name == other.class_name
        whole = "fully_visible"
        if one.attributes["visible_state"] == other.attributes["visible_state"] == whole:
            assert np.abs((one.xyxy_px + 0.5) * 2 - 0.5 - other.xyxy_px).max() <= 5


def test_every_kind_of_label_turns_up() -> None:
    samples = [render(seed) for seed in range(5000, 5150)]
    assert {lane.type for s in samples for lane in s.lanes} == set(vocab.LANE_TYPES)
    assert {lane.color for s in samples for lane in s.lanes} == set(vocab.LANE_COLORS)
    assert {box.class_name for s in samples for box in s.boxes} >= set(vocab.BOX_CLASSES) - {"fallen_tree", "debris"}
    assert {sign.class_name for s in samples for sign in s.signs} == set(vocab.SIGN_CLASSES)
    assert {s.scene["traffic_density"] for s in samples} == set(vocab.TRAFFIC_DENSITIES)
    states = {box.attributes["visible_state"] for s in samples for box in s.boxes}
    assert states == set(vocab.VISIBLE_STATES)


def test_a_crowd_is_the_same_scene_with_more_of_what_is_rare() -> None:
    seeds = range(2000, 2016)
    plain, crowded = [render(s) for s in seeds], [render(s, crowded=True) for s in seeds]
    rare = ("pedestrian", "two_wheeler", "bus", "truck")
    counts = [sum(box.class_name in rare for sample in samples for box in sample.boxes) for samples in (plain, crowded)]
    assert counts[1] > 1.4 * counts[0]
    signs = [[sign.class_name for sample in samples for sign in sample.signs] for samples in (plain, crowded)]
    assert len(signs[1]) > 1.8 * len(signs[0]) and set(signs[1]) >= set(signs[0])
    for a, b in zip(plain, crowded, strict=True):
        assert str(b.meta["source"]) == str(a.meta["source"]).replace("world:", "world-crowd:")
        assert np.array_equal(np.asarray(a.meta["K"]), np.asarray(b.meta["K"])) and a.meta["road"] == b.meta["road"]
        tracks = [item.attributes["track_id"] for item in (*b.boxes, *b.signs)]
        assert len(set(tracks)) == len(tracks)


def test_a_drive_has_steady_stamps_poses_and_tracks() -> None:
    drive = Drive(11, (448, 252), rate_hz=15.0, frames=45)
    frames = list(drive)
    assert len(frames) == len(drive) == 45
    stamps = np.array([f.meta["stamp_ns"] for f in frames])
    assert np.abs(np.diff(stamps) - 1e9 / 15).max() <= 1
    positions = np.array([f.meta["world_SE3_ego"][:3, 3] for f in frames])
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    assert steps.min() > 0.1 and steps.max() < 4.0 and np.ptp(steps) < 0.5
    for frame in frames:
        assert np.array_equal(frame.meta["K"], drive.k) and np.allclose(frame.meta["ego_SE3_cam"][3], (0, 0, 0, 1))
        tracks = [box.attributes["track_id"] for box in frame.boxes]
        assert len(tracks) == len(set(tracks))
    kept = overlap = 0
    for one, other in itertools.pairwise(frames):
        later = {box.attributes["track_id"]: box for box in other.boxes}
        for box in one.boxes:
            twin = later.get(box.attributes["track_id"])
            if twin is None:
                continue
            kept += 1
            assert twin.class_name == box.class_name
            low, high = np.maximum(box.xyxy_px[:2], twin.xyxy_px[:2]), np.minimum(box.xyxy_px[2:], twin.xyxy_px[2:])
            overlap += bool((high > low).all())
    assert kept > 60
    assert overlap / kept > 0.85
    assert np.array_equal(frames[7].image_bgr, Drive(11, (448, 252), rate_hz=15.0, frames=45).frame(7).image_bgr)


def test_projection_and_lens_are_inverse() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        camera = Camera(Rig.sample(rng), (448, 252))
        image = rng.random((50, 2)) * (447, 251)
        assert np.abs(camera.to_image(camera.to_canvas(image)) - image).max() < 0.05
        exact = camera.to_canvas(np.stack(np.meshgrid(np.arange(448.0), np.arange(252.0)), -1).reshape(-1, 2))
        assert np.abs(camera.maps().reshape(-1, 2) - exact).max() < 0.15
        assert exact.min() > -1 and (exact < np.array(camera.canvas_wh)).all()


def test_bad_arguments_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="seed"):
        render(-1)
    with pytest.raises(ValueError, match="64x36"):
        render(0, (10, 10))
    with pytest.raises(ValueError, match="frames"):
        Drive(0, frames=0)
    with pytest.raises(IndexError, match="frame 9"):
        Drive(0, (448, 252), frames=2).frame(9)
