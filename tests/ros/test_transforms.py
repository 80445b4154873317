"""Camera poses from `/tf_static`: the tree without a node, and the node that uses it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from getok_drive.errors import CalibrationError
from getok_drive.geometry.camera import SE3
from getok_drive.ros import transforms
from getok_drive.ros.calibration import Calibration, CameraCalibration
from getok_drive.ros.camera import CameraIntake
from getok_drive.ros.feed import Calibrated
from getok_drive.ros.health import OK, WARN
from getok_drive.ros.params import NodeParams
from getok_drive.ros.transforms import StaticTransforms

MOUNT = SE3.from_mount(height_m=1.5, x_m=1.2, y_m=0.1, pitch_down_rad=0.05, yaw_rad=0.1)
SIZE_WH = (320, 180)


def transform(parent: str, child: str, pose: SE3, **changes: float) -> SimpleNamespace:
    """The fields of a ``geometry_msgs/TransformStamped``."""
    x, y, z, w = Calibrated(None, pose).quaternion_xyzw()  # type: ignore[arg-type]
    tx, ty, tz = pose.translation_m.tolist()
    rotation = SimpleNamespace(**{"x": x, "y": y, "z": z, "w": w, **changes})
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent), child_frame_id=child,
        transform=SimpleNamespace(rotation=rotation, translation=SimpleNamespace(x=tx, y=ty, z=tz)),
    )  # fmt: skip


def tree(*transforms: Any) -> StaticTransforms:
    made = StaticTransforms()
    made.put(transforms)
    return made


def test_chains_are_followed_up_and_down() -> None:
    """footprint <- base -> mast -> optical: up one branch and down the other."""
    base = SE3(np.eye(3), np.array([0.0, 0.0, 0.3]))
    mast = SE3.from_quaternion((0.0, 0.0, np.sin(0.2), np.cos(0.2)), (1.0, 0.5, 0.8))
    known = tree(
        transform("base", "footprint", base.inverse()), transform("base", "mast", mast), transform("/mast", "/optical", MOUNT)
    )
    got = known.lookup("footprint", "optical")
    want = base @ mast @ MOUNT
    np.testing.assert_allclose(got.rotation, want.rotation, atol=1e-9)
    np.testing.assert_allclose(got.translation_m, want.translation_m, atol=1e-9)
    np.testing.assert_allclose(known.lookup("optical", "footprint").translation_m, want.inverse().translation_m, atol=1e-9)
    np.testing.assert_allclose(known.lookup("mast", "mast").rotation, np.eye(3))


def test_only_changes_are_news() -> None:
    known = tree(transform("base", "optical", MOUNT))
    version = known.version
    known.put([transform("base", "optical", MOUNT)])
    assert known.version == version
    higher = SE3(MOUNT.rotation, MOUNT.translation_m + np.array([0.0, 0.0, 1.0]))
    known.put([transform("base", "optical", higher)])
    assert known.version > version and known.lookup("base", "optical").translation_m[2] == 2.5


def test_nonsense_from_outside_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "_MOST_FRAMES", 3)
    known = tree(*(transform("base", f"good_{i}", MOUNT) for i in range(9)))
    known.put(transform("base", f"broken_{i}", MOUNT, w=7.0) for i in range(9))
    assert len(known._parents) == len(known._broken) == 3
    with pytest.raises(CalibrationError, match="broken: quaternion"):
        known.lookup("base", "broken_0")
    assert known.lookup("base", "good_0").translation_m[2] == 1.5


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (StaticTransforms("no tf2_msgs"), "no tf2_msgs"),
        (tree(), "nothing on /tf_static yet"),
        (tree(transform("base", "lidar", MOUNT)), "the one's tree ends at 'optical', the other's at 'base'"),
        (tree(transform("mast", "optical", MOUNT)), "ends at 'mast', the other's at 'base'"),
        (tree(transform("base", "optical", MOUNT, w=7.0)), "broken: quaternion"),
        (tree(transform("base", "optical", MOUNT, x=float("nan"))), "broken: quaternion"),
        (tree(transform("a", "optical", MOUNT), transform("optical", "a", MOUNT)), "in a circle"),
    ],
)
def test_what_is_missing_is_named(known: StaticTransforms, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        known.lookup("base", "optical")


def test_a_broken_transform_can_be_mended() -> None:
    known = tree(transform("base", "optical", MOUNT, w=7.0))
    known.put([transform("base", "optical", MOUNT)])
    assert known.lookup("base", "optical").translation_m[2] == 1.5


def intake(known: StaticTransforms | None, mount: SE3 | None = None) -> CameraIntake:
    calibration = Calibration("map_of_file", {"camera": CameraCalibration(mount)} if mount else {})
    made = CameraIntake("camera", "/camera/image_raw", "/camera/camera_info", False, calibration, known, "base")
    made._camera = Calibrated.guess(SIZE_WH, 60.0, 1.0, 0.0).camera
    return made


def verdict(made: CameraIntake) -> Any:
    return made.health.verdict(NodeParams(watchdog_s=3600.0), 0.0, "topic", 1)


def test_the_pose_comes_from_the_tree_then_from_the_file() -> None:
    made = intake(tree(), mount=SE3.from_mount(height_m=9.0))
    projector = made.projector(SIZE_WH, 60.0, "optical")
    assert projector is not None and projector.ground_SE3_cam.translation_m[2] == 9.0 and made.ground_frame == "map_of_file"
    assert verdict(made).level == WARN and "nothing on /tf_static yet" in verdict(made).message
    assert made._transforms is not None
    made._transforms.put([transform("base", "optical", MOUNT)])
    projector = made.projector(SIZE_WH, 60.0, "optical")
    assert projector is not None and made.ground_frame == "base"
    np.testing.assert_allclose(projector.ground_SE3_cam.translation_m, MOUNT.translation_m)
    assert verdict(made).level == OK and verdict(made).values["calibration"] == "calibrated, ground frame base"


def test_without_a_pose_there_are_pixels_only_and_a_warning() -> None:
    made = intake(tree(transform("base", "lidar", MOUNT)))
    assert made.projector(SIZE_WH, 60.0, "optical") is None
    assert verdict(made).level == WARN and "no static transform from 'optical' to 'base'" in verdict(made).message
    link = intake(tree(transform("base", "camera_link", SE3(np.eye(3), np.array([1.0, 0.0, 1.5])))))
    assert link.projector(SIZE_WH, 60.0, "camera_link") is None
    assert "is it the camera's optical frame" in verdict(link).message
    assert intake(None).projector(SIZE_WH, 60.0, "optical") is None


def test_the_node_takes_its_pose_from_tf_static() -> None:
    """Over DDS: first pixels only with a warning, then metres in the frame asked for, without any calibration file."""
    pytest.importorskip("rclpy")
    tf2 = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not installed: run scripts/build_msgs.py")
    from geometry_msgs.msg import TransformStamped
    from getok_drive_msgs.msg import Scene
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from sensor_msgs.msg import CameraInfo

    from getok_drive.ros.source import info_msg
    from tests.ros.harness import NODE, Client
    from tests.ros.test_node import Camera

    with Client() as ros:
        ros.perception(ground_frame="base_footprint")
        ros.activate()
        scenes = ros.collect(Scene, f"{NODE}/scene")
        camera = Camera(ros).connected()
        info = ros.node.create_publisher(CameraInfo, "/camera/camera_info", 1)
        ros.wait(lambda: info.get_subscription_count() > 0)
        message = info_msg(Calibrated.guess(SIZE_WH, 60.0, 1.5, 0.02))

        def warned() -> bool:
            info.publish(message)
            camera.send()
            return "tf_static" in getattr(ros.status(": camera"), "message", "")

        ros.wait(warned, what="a warning that the transform is missing")
        assert ros.status(": camera").level == b"\x01" and not scenes[-1].calibrated
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        broadcaster = ros.node.create_publisher(tf2.TFMessage, "/tf_static", latched)
        told = TransformStamped(child_frame_id="camera_optical")
        told.header.frame_id = "base_footprint"
        q, t = told.transform.rotation, told.transform.translation
        q.x, q.y, q.z, q.w = Calibrated.guess(SIZE_WH, 60.0, 1.5, 0.02).quaternion_xyzw()
        t.x, t.z = 1.0, 1.5
        broadcaster.publish(tf2.TFMessage(transforms=[told]))
        camera.send_until(lambda: scenes[-1].calibrated)
        scene = scenes[-1]
        assert scene.ground_frame_id == "base_footprint"
        near = scene.lanes[0].points_ground_m[0]
        assert 3 < near.x < 11 and 0 < near.y < 5 and near.z == 0
        camera.send_until(lambda: ros.status(": camera").level == b"\x00")
