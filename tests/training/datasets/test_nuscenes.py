"""nuScenes: miniatures in the official table format, read through the devkit, with projections worked out by hand.

The devkit does not install beside this project's newer numpy (see `training.datasets.nuscenes`); these tests run where it is:

    python -m venv nu && nu/bin/pip install -e .[nuscenes] pytest pytest-timeout hypothesis
    nu/bin/python -m pytest tests/training/datasets/test_nuscenes.py tests/training/test_scene_boxes.py

`test_in_an_environment_of_its_own` does just that where GETOK_VENVS=1.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from getok_drive.errors import ConfigError, InputError
from training.datasets import nuscenes
from training.datasets.checks import check_sample

from .minis import road_photo
from .nuscenes_mini import HEIGHT_M, PLACE, Mini

needs_devkit = pytest.mark.skipif(importlib.util.find_spec("nuscenes") is None, reason="nuscenes-devkit is not installed")
FOCAL, CX, CY = 200.0, 160.0, 80.0


def at(x, y, z=0.0):
    """Pixel of an ego point in CAM_FRONT."""
    depth = x - 1.5
    return np.array([CX - FOCAL * y / depth, CY - FOCAL * (z - HEIGHT_M) / depth])


def read(mini, channel="CAM_FRONT", **options):
    samples = nuscenes.open_samples(mini.write(**options), "all")
    sample = next(sample for sample in samples if sample.meta["camera"] == channel)
    assert [text for level, text in check_sample(sample) if level == "error"] == []
    return sample


def square(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def test_without_the_devkit(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nuscenes", None)
    Mini(tmp_path).write()
    with pytest.raises(ConfigError, match=r"needs the package nuscenes-devkit .*getok-drive\[nuscenes\]"):
        nuscenes.open_samples(tmp_path, "all")
    with pytest.raises(ConfigError, match=r"has none of v1\.0-trainval, v1\.0-mini"):
        nuscenes.open_samples(tmp_path / "maps", "all")
    with pytest.raises(ConfigError, match="test part is published without annotations"):
        nuscenes.open_samples(tmp_path, "test")


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("GETOK_VENVS") != "1", reason="makes an environment: set GETOK_VENVS=1")
def test_in_an_environment_of_its_own(tmp_path):
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "nu"], check=True)
    python = tmp_path / "nu/bin/python"
    packages = [f"{root}[nuscenes]", "pytest", "pytest-timeout", "hypothesis"]
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, timeout=280)
    files = [__file__, root / "tests/training/test_scene_boxes.py"]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-m", "not slow"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout + done.stderr


@needs_devkit
def test_boxes(tmp_path):
    mini = Mini(tmp_path)
    car = mini.box("vehicle.car", (13.5, 2.0, 0.0), visibility="3")
    mini.box("human.pedestrian.adult", (9.5, -3.0, 0.0), (0.6, 0.6, 1.8))
    mini.box("vehicle.car", (-10.0, 0.0, 0.0))  # behind the camera
    mini.box("vehicle.truck", (20.0, 6.0, 0.0), (2.5, 8.0, 3.0), lidar=0)  # nothing saw it
    mini.box("movable_object.trafficcone", (45.0, -2.0, 0.0), (0.1, 0.1, 0.1))  # half a pixel
    mini.box("static_object.bicycle_rack", (12.0, -5.0, 0.0))
    sample = read(mini)
    person, found = sample.boxes
    assert (found.class_name, person.class_name) == ("car", "pedestrian")
    near, far = 13.5 - 2.2, 13.5 + 2.2  # 4.4 m long, 1.8 m wide, 1.5 m high; its near face bounds it but for its right side
    expected = [at(near, 2.9)[0], at(far, 0, 1.5)[1], at(far, 1.1)[0], at(near, 0)[1]]
    assert np.allclose(found.xyxy_px, expected, atol=0.02)
    assert found.attributes == {
        "visible_state": "partly_occluded", "truncated": "no", "track_id": car, "derived": "box_3d",
    }  # fmt: skip
    assert person.attributes["visible_state"] == "fully_visible"
    assert sample.meta["left_out"] == {
        "movable_object.trafficcone (too small)": 1, "static_object.bicycle_rack": 1,
    }  # fmt: skip
    assert len(sample.meta["ignore_xyxy_px"]) == 1 and sample.meta["stamp_ns"] == 1532402927612460000
    assert sample.meta["sequence"] == "scene-0061" and sample.meta["source"].startswith("nuscenes:samples/CAM_FRONT/n015")
    (behind,) = read(mini, "CAM_BACK").boxes
    assert behind.class_name == "car" and behind.xyxy_px[0] < CX < behind.xyxy_px[2]


@needs_devkit
def test_boxes_that_hide_one_another(tmp_path):
    mini = Mini(tmp_path)
    mini.box("vehicle.bus.rigid", (9.0, 0.0, 0.0), (2.4, 2.0, 2.6))
    mini.box("vehicle.car", (20.0, 0.3, 0.0))  # all behind it
    mini.box("vehicle.car", (20.0, 3.0, 0.0))  # half behind it
    sample = read(mini)
    bus, car = sample.boxes
    assert bus.class_name == "bus" and bus.attributes["visible_state"] == "fully_visible"
    assert car.attributes["visible_state"] in ("partly_occluded", "mostly_occluded")
    assert np.isclose(car.xyxy_px[2], bus.xyxy_px[0], atol=0.6)  # ends where the bus begins
    assert sample.meta["left_out"] == {"vehicle.car (hidden by nearer boxes)": 1}


@needs_devkit
def test_a_box_beside_the_camera_is_cut_and_not_mirrored(tmp_path):
    mini = Mini(tmp_path)
    mini.box("vehicle.truck", (3.0, 2.6, 0.0), (2.4, 12.0, 3.2))  # from 3 m behind the lens to 7.5 m before it
    (truck,) = read(mini).boxes
    assert truck.attributes["truncated"] == "yes"
    assert truck.xyxy_px[:2].tolist() == [0, 0] and np.isclose(truck.xyxy_px[3], 179)
    assert np.isclose(truck.xyxy_px[2], at(9.0, 1.4)[0], atol=0.02)  # its far right edge


@needs_devkit
def test_lanes_of_the_map(tmp_path):
    mini = Mini(tmp_path)
    stations = [(x, 1.75) for x in range(-20, 61, 10)]
    mini.lane_divider(stations, ["DOUBLE_DASHED_WHITE"] * 4 + ["NIL"] + ["SINGLE_SOLID_YELLOW"] * 4)
    mini.road_divider([(-20, -1.75), (60, -1.75)])
    sample = read(mini)
    dashed, solid, road = sorted(sample.lanes, key=lambda lane: (lane.points_px[0, 0] > CX, -lane.points_px[0, 1]))
    assert [(lane.type, lane.color) for lane in (dashed, solid)] == [("dashed", "white"), ("solid", "yellow")]
    for lane, y in ((dashed, 1.75), (solid, 1.75), (road, -1.75)):
        u, v = lane.points_px.astype(float).T
        assert np.allclose(u - CX, -y / HEIGHT_M * (v - CY), atol=0.05)
        assert (np.diff(v) < 0).all()
    assert np.isclose(dashed.points_px[-1, 1], at(20, 0)[1], atol=0.05)  # 4 segments of 10 m from -20 m on
    assert np.isclose(solid.points_px[0, 1], at(30, 0)[1], atol=0.05)
    assert np.isclose(road.points_px[-1, 1], at(np.sqrt(50**2 - 1.75**2), 0)[1], atol=0.05)  # 50 m are the limit
    assert {"lanes", "drivable", "signs"} < set(sample.meta["derived"]) and sample.meta["map_range_m"] == 50
    left = read(mini, "CAM_BACK").lanes  # looking back, what was on the left is on the right
    assert any(lane.points_px[0, 0] > CX for lane in left if lane.type == "dashed")


@needs_devkit
def test_drivable_areas_with_holes_and_what_boxes_hide(tmp_path):
    mini = Mini(tmp_path)
    mini.drivable(square(-30, -6, 60, 6), holes=[square(12, -1, 16, 1)])
    mini.box("vehicle.car", (15.0, 4.0, 0.0))
    sample = read(mini)
    mask = np.zeros((180, 320), np.uint8)
    for area in sample.drivable:
        cv2.fillPoly(mask, [np.rint(area.polygon_px).astype(np.int32)], 1)

    def inside(x, y):
        u, v = np.rint(at(x, y)).astype(int)
        return bool(mask[v, u])

    assert inside(8, 0) and inside(10, -2) and not inside(16, 4)  # the last is under the car
    assert not inside(14, 0)  # the traffic island
    assert inside(20, -3) and not inside(10, 7)
    assert np.flatnonzero(mask.any(axis=1))[0] >= at(51, 0)[1] - 1  # nothing near the horizon


@needs_devkit
def test_lanes_end_where_boxes_hide_them(tmp_path):
    mini = Mini(tmp_path)
    for y in (0.0, 8.0):
        mini.lane_divider([(-20, y), (40, y)], ["SINGLE_SOLID_WHITE"] * 2)
    mini.box("vehicle.truck", (12.0, 0.0, 0.0), (2.5, 6.0, 3.5))
    hidden, seen = sorted(read(mini).lanes, key=lambda lane: -lane.points_px[-1, 0])
    assert np.isclose(hidden.points_px[-1, 1], at(9.0, 0)[1], atol=1.0)  # the truck's near face stands at 9 m
    assert np.isclose(seen.points_px[-1, 1], at(40, 0)[1], atol=0.6)


@needs_devkit
def test_stop_lines_and_traffic_lights(tmp_path):
    photo = road_photo()
    lamps = np.array([at(31.5, -3.0, 2.4 + tz) for tz in (0.632, 0.381, 0.13)])
    u, v = np.rint(lamps[2]).astype(int)
    photo[v - 1 : v + 2, u - 1 : u + 2] = (120, 255, 60)  # green, the lowest
    mini = Mini(tmp_path)
    mini.stop_line(square(18, -3.5, 19, 0))
    mini.traffic_light((31.5, -3.0), np.pi)  # faces us
    mini.traffic_light((31.5, 3.0), 0.0)  # faces away
    mini.traffic_light((-8.0, 3.0), np.pi)  # is behind us
    mini.traffic_light((26.5, 8.0), np.pi)  # is behind a lorry
    mini.box("vehicle.truck", (20.0, 5.9, 0.0), (3.0, 3.0, 4.2))
    sample = read(mini, photo=photo)
    (light,) = sample.signs
    assert light.class_name == "traffic_light" and np.allclose(light.point_px, lamps.mean(axis=0), atol=0.05)
    assert light.color == "green"
    (stop,) = sample.meta["stop_lines"]
    assert stop["type"] == "TRAFFIC_LIGHT"
    corners = np.array(stop["polygon_px"])
    assert np.allclose(corners.min(axis=0), [at(18, 0)[0], at(19, 0)[1]], atol=0.02)


@needs_devkit
def test_hills_end_the_map(tmp_path):
    mini = Mini(tmp_path)
    mini.drivable(square(-30, -6, 60, 6))
    mini.box("vehicle.car", (16.0, 4.0, 0.0))
    mini.box("vehicle.car", (30.0, 4.0, 2.5))  # on top of something
    sample = read(mini)
    assert 29 < sample.meta["map_range_m"] < 31
    assert min(area.polygon_px[:, 1].min() for area in sample.drivable) > at(31, 0)[1]
    mini.box("vehicle.car", (10.0, -4.0, 1.6))
    nuscenes._tables.cache_clear()
    sample = read(mini)
    assert sample.known == ("boxes",) and not sample.lanes
    assert "map: the road is not flat beyond 11 m" in sample.meta["left_out"]


@needs_devkit
def test_a_slope_that_the_boxes_show_is_followed(tmp_path):
    mini = Mini(tmp_path)
    for x in range(8, 48, 4):
        mini.box("movable_object.trafficcone", (x, (-1) ** (x // 4) * 5.0, 0.05 * x), (0.4, 0.4, 0.8))
    mini.lane_divider([(-20, 1.75), (40, 1.75)], ["SINGLE_SOLID_WHITE"] * 2)
    sample = read(mini)
    (lane,) = sample.lanes
    assert np.isclose(sample.meta["ground"][0], 0.05, atol=0.004) and sample.meta["map_range_m"] == 50
    assert abs(lane.points_px[-1, 1] - at(40, 1.75, 2.0)[1]) < 1.0  # above the lens: the flat map would be 10 px lower


@needs_devkit
def test_splits_and_what_is_missing(tmp_path):
    mini = Mini(tmp_path)
    mini.box("vehicle.car", (13.5, 2.0, 0.0))
    root = mini.write(with_map=False)
    assert [len(nuscenes.open_samples(root, split)) for split in ("train", "val", "all")] == [2, 0, 2]
    assert len(nuscenes.open_samples(root / "v1.0-mini", "train")) == 2
    sample = nuscenes.open_samples(root, "train")[0]
    assert sample.known == ("boxes",) and sample.meta["left_out"]["map expansion is not there"] == 1
    sample.meta["left_out"].clear()
    next((root / "samples/CAM_BACK").iterdir()).unlink()
    assert nuscenes.open_samples(root, "all").skipped[0][1].startswith("no such picture")


@needs_devkit
def test_broken(tmp_path):
    root = Mini(tmp_path / "a").write()
    (root / "v1.0-mini/ego_pose.json").write_text("[{")
    with pytest.raises(InputError, match=r"v1\.0-mini: the nuScenes devkit cannot read the tables \(JSONDecodeError"):
        nuscenes.open_samples(root, "all")
    mini = Mini(tmp_path / "b")
    mini.map["version"] = "1.0"
    samples = nuscenes.open_samples(mini.write(), "all")
    with pytest.raises(InputError, match=rf"{PLACE}\.json: not a map expansion of version 1\.3"):
        samples[0]
    samples = nuscenes.open_samples(Mini(tmp_path / "c").write(photo=road_photo(160, 90)), "all")
    with pytest.raises(InputError, match="160x90 px, the tables say 320x180 px"):
        samples[0]
