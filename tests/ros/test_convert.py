"""Scenes to messages, markers and grids: positions by hand, and every message through real serialisation."""

from __future__ import annotations

import numpy as np
import pytest
from getok_drive_msgs import msg as gm
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from getok_drive.geometry.camera import SE3, CameraModel
from getok_drive.geometry.ground import GroundProjector
from getok_drive.ros.convert import Context, scene_to_msg, stages
from getok_drive.ros.grid import FREE, OCCUPIED, UNKNOWN, grid_cells, scene_to_grid
from getok_drive.ros.markers import scene_to_markers, triangulate
from getok_drive.ros.params import NodeParams
from getok_drive.types import Box, DecodeReport, DrivableArea, Lane, Scene, Sign

# Level camera, 1.5 m high, f = 1000 px: y px below the horizon (row 360) is 1500 / y metres ahead.
CAMERA = CameraModel((1280, 720), np.array([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]]))
GROUND = GroundProjector(CAMERA, SE3.from_mount(height_m=1.5), max_range_m=60)
HEADER = Header(frame_id="front_optical")
CALIBRATED = Context(HEADER, "front", "base_link", GROUND)
SCENE = Scene(
    (1280, 720),
    lanes=(Lane([[340, 660], [640, 360.5], [640, 300]], "dashed", "yellow", 0.75),),
    drivable=(DrivableArea([[340, 660], [540, 460], [740, 460], [940, 660]], 0.5),),
    boxes=(Box([590, 360, 690, 510], "car", 0.9, {"visible_state": "fully_visible"}),),
    signs=(Sign([640, 360], "stop", "red", 0.8),),
    report=DecodeReport(issues={"lane_too_short": 2}),
    truncated=True,
)


def test_typed_scene_survives_the_wire() -> None:
    msg = scene_to_msg(SCENE, CALIBRATED)
    msg.stages = stages({"decode": 12.5})
    wire = serialize_message(msg)
    assert serialize_message(deserialize_message(wire, gm.Scene)) == wire
    lane, area, box, sign = msg.lanes[0], msg.drivable_areas[0], msg.boxes[0], msg.signs[0]
    assert (lane.type, lane.color, lane.confidence) == ("dashed", "yellow", 0.75)
    near = lane.points_ground_m[0]
    assert (near.x, near.y, near.z) == pytest.approx((5.0, 1.5, 0.0))
    assert np.isnan(lane.points_ground_m[1].x) and np.isnan(lane.points_ground_m[2].x)  # out of range; over the horizon
    assert len(lane.points_ground_m) == len(lane.points_px)
    assert [p.x for p in area.polygon_ground_m] == pytest.approx([5.0, 15.0, 15.0, 5.0])
    assert [(p.x, p.y) for p in box.footprint_ground_m] == [pytest.approx((10.0, 0.5)), pytest.approx((10.0, -0.5))]
    assert (box.attributes[0].name, box.attributes[0].value) == ("visible_state", "fully_visible")
    assert (sign.direction[0].x, sign.direction[0].y, sign.direction[0].z) == pytest.approx((0, 0, 1))
    assert msg.truncated and msg.decode_issues[0].reason == "lane_too_short" and msg.decode_issues[0].count == 2
    assert msg.calibrated and msg.ground_frame_id == "base_link" and msg.header.frame_id == "front_optical"


def test_without_calibration_there_are_no_metres() -> None:
    msg = scene_to_msg(SCENE, Context(HEADER, "front"))
    assert not msg.calibrated and msg.ground_frame_id == ""
    assert not msg.lanes[0].points_ground_m and not msg.drivable_areas[0].polygon_ground_m
    assert not msg.boxes[0].footprint_ground_m and not msg.signs[0].direction
    markers = scene_to_markers(SCENE, Context(HEADER, "front"), 1.0).markers
    assert [m.action for m in markers] == [Marker.DELETEALL]
    assert scene_to_grid(SCENE, Context(HEADER, "front"), NodeParams()) is None


def test_markers_stand_where_things_are() -> None:
    out = scene_to_markers(SCENE, CALIBRATED, 1.5)
    deserialize_message(serialize_message(out), type(out))
    by_kind = {m.ns: m for m in out.markers[1:]}
    assert out.markers[0].action == Marker.DELETEALL
    assert "lanes" not in by_kind  # one single point in range makes no line
    assert len({(m.ns, m.id) for m in out.markers}) == len(out.markers)
    assert by_kind["drivable"].type == Marker.TRIANGLE_LIST and len(by_kind["drivable"].points) == 6
    car = by_kind["boxes"]
    assert (car.pose.position.x, car.pose.position.y) == pytest.approx((10.0, 0.0))
    assert car.scale.x == pytest.approx(1.0) and car.scale.z == pytest.approx(1.5)  # 100 px and 150 px at 10 m
    assert by_kind["box_names"].text == "car" and by_kind["sign_names"].text == "stop"
    for marker in out.markers[1:]:
        assert (marker.lifetime.sec, marker.lifetime.nanosec) == (1, 500_000_000)
        assert marker.header.frame_id == "base_link" and marker.color.a > 0
    line = scene_to_markers(Scene((1280, 720), lanes=(Lane([[340, 660], [540, 460], [640, 300]]),)), CALIBRATED, 1.0).markers[1]
    assert line.type == Marker.LINE_STRIP and [p.x for p in line.points] == pytest.approx([5.0, 15.0])


def test_triangles_fill_the_polygon() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        polygon = rng.uniform(0.3, 1.0, (12, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        for corners in (polygon, polygon[::-1]):
            x, y = corners.T
            area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
            parts = [corners[list(t)] for t in triangulate(corners)]
            sides = [(t[1] - t[0], t[2] - t[0]) for t in parts]
            filled = sum(abs(u[0] * v[1] - u[1] * v[0]) / 2 for u, v in sides)
            assert filled == pytest.approx(area)
    assert triangulate(np.array([[0.0, 0], [1, 1], [2, 2]])) == []
    assert triangulate(np.zeros((0, 2))) == []


def test_grid_cells() -> None:
    params = NodeParams(grid_resolution_m=0.5, grid_length_m=30.0, grid_width_m=10.0)
    cells = grid_cells(SCENE, CALIBRATED, params)
    assert cells.shape == (20, 60)

    def at(x_m: float, y_m: float) -> int:
        return int(cells[int((y_m + 5.0) / 0.5), int(x_m / 0.5)])

    assert at(8.25, 0.25) == FREE
    assert at(10.25, 0.25) == OCCUPIED  # the car's foot
    assert at(10.25, 1.25) == FREE  # beside the car
    assert at(8.25, 3.25) == OCCUPIED  # seen, not drivable
    assert at(1.25, 0.25) == UNKNOWN and at(5.25, 4.75) == UNKNOWN  # below and beside the picture
    assert at(25.25, 0.25) == OCCUPIED
    grid = scene_to_grid(SCENE, CALIBRATED, params)
    assert grid is not None
    again = deserialize_message(serialize_message(grid), type(grid))
    assert (again.info.width, again.info.height, again.info.origin.position.y) == (60, 20, -5.0)
    np.testing.assert_array_equal(np.array(again.data, dtype=np.int8).reshape(20, 60), cells)
