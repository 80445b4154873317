"""OpenLane-V2: a miniature in the official format whose projection is worked out by hand."""

import numpy as np
import pytest

from getok_drive.errors import ConfigError, InputError
from training.datasets import openlane_v2

from .minis import road_photo, write, write_json

K = [[200.0, 0, 160], [0, 200.0, 80], [0, 0, 1]]
ROTATION = [[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # columns: the camera's x, y, z in the car's frame (x forward, z up)
HEIGHT_M = 1.5


def straight(y_m, start_m=2.0, stop_m=60.0, slope=0.0):
    x = np.linspace(start_m, stop_m, 10)
    return np.column_stack([x, np.full(10, y_m), slope * x]).tolist()


def segment(left, left_type, right, right_type, number=0):
    return {
        "id": number, "centerline": straight(0), "left_laneline": left, "left_laneline_type": left_type,
        "right_laneline": right, "right_laneline_type": right_type, "is_intersection_or_connector": False,
    }  # fmt: skip


@pytest.fixture
def make(tmp_path):
    """Write one frame; returns its sample."""

    def make(segments, elements=(), **changes):
        record = {
            "version": "OpenLaneV2_v2.0", "segment_id": "00009", "timestamp": 315969904359876000,
            "sensor": {"ring_front_center": {
                "image_path": "train/00009/image/ring_front_center/315969904359876000.jpg",
                "intrinsic": {"K": K, "distortion": [0, 0, 0]},
                "extrinsic": {"rotation": ROTATION, "translation": [0, 0, HEIGHT_M]},
            }},
            "pose": {"rotation": np.eye(3).tolist(), "translation": [0, 0, 0]},
            "annotation": {"lane_segment": list(segments), "traffic_element": list(elements), "area": [], "topology_lsls": []},
            **changes,
        }  # fmt: skip
        write(tmp_path / "train/00009/image/ring_front_center/315969904359876000.jpg", road_photo())
        write_json(tmp_path / "train/00009/info/315969904359876000-ls.json", record)
        samples = openlane_v2.open_samples(tmp_path, "train")
        assert samples.sequences == ["train/00009"]
        return samples[0]

    return make


def test_lines_are_projected_joined_and_given_once(make):
    near, far = straight(-1.75, 2, 30), straight(-1.75, 30, 60)
    sample = make([
        segment(straight(1.75), 2, near, 1),
        segment(straight(1.75), 2, far, 1, number=1),  # the same left line again, and the right one's continuation
        segment(straight(-1.75)[::-1], 0, straight(9), 0, number=2),
    ])  # fmt: skip
    left, right = sample.lanes
    assert (left.type, right.type) == ("dashed", "solid")
    for lane, y_m in ((left, 1.75), (right, -1.75)):
        u, v = lane.points_px.astype(float).T
        assert np.allclose(u - 160, -y_m / HEIGHT_M * (v - 80), atol=0.6)  # both are f / x times y and height
        assert (np.diff(v) < 0).all() and np.isclose(v[-1], 80 + 200 * HEIGHT_M / 60, atol=0.5)
        assert np.isclose(v[0], 179.5, atol=0.6)  # cut at the picture's lower edge
    assert sample.meta["stamp_ns"] == 315969904359876000 and sample.meta["ego_SE3_cam"][2, 3] == HEIGHT_M


def test_height_counts_and_crests_hide(make):
    (uphill,) = make([segment(straight(1.75, slope=0.05), 1, straight(0), 0)]).lanes
    assert np.isclose(uphill.points_px[-1, 1], 80 + 200 * (HEIGHT_M - 3.0) / 60, atol=0.5)  # 3 m up at 60 m: above the horizon
    x = np.linspace(2, 60, 59)
    crest = np.column_stack([x, np.full(59, 1.75), np.where(x > 20, -0.2 * (x - 20), 0.0)]).tolist()
    (lane,) = make([segment(crest, 1, straight(0), 0)]).lanes
    assert np.isclose(lane.points_px[:, 1].min(), 80 + 200 * HEIGHT_M / 20, atol=0.7)


def test_lines_behind_the_car_are_left_out(make):
    sample = make([segment(straight(1.75, -40, -2), 1, straight(-1.75, -10, 40), 1)])
    (lane,) = sample.lanes
    assert lane.points_px[0, 0] > 160


def test_traffic_elements(make):
    elements = [
        {"id": 1, "category": 1, "attribute": 2, "points": [[10, 20], [20, 40]]},
        {"id": 2, "category": 2, "attribute": 7, "points": [[100, 20], [110, 30]]},
        {"id": 3, "category": 2, "attribute": 5, "points": [[200, 20], [210, 30]]},
        {"id": 4, "category": 1, "attribute": 0, "points": [[400, 20], [410, 30]]},  # outside
    ]
    sample = make([], elements)
    assert [(s.class_name, s.color, s.point_px.tolist()) for s in sample.signs] == [
        ("traffic_light", "green", [15, 30]), ("prohibition", "red", [105, 25]), ("mandatory", "blue", [205, 25])
    ]  # fmt: skip
    assert sample.known == ("lanes", "signs") and not sample.lanes


def test_broken(make, tmp_path):
    with pytest.raises(InputError, match="published without"):
        make([], annotation=None)
    with pytest.raises(InputError, match=r"-ls\.json: not a openlane_v2 label \(KeyError: 'left_laneline_type'\)"):
        make([{"id": 0}])
    with pytest.raises(ConfigError, match="no split 'val' here; there is train"):
        openlane_v2.open_samples(tmp_path, "val")
    (tmp_path / "train/00009/image/ring_front_center/315969904359876000.jpg").unlink()
    assert "no ring_front_center or CAM_FRONT picture" in openlane_v2.open_samples(tmp_path, "train").skipped[0][1]
