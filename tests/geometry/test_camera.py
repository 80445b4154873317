"""The camera model against OpenCV's own projection, and the ground plane against geometry worked out by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from getok_drive.errors import CalibrationError
from getok_drive.geometry.camera import SE3, CameraModel
from getok_drive.geometry.ground import GroundProjector

K = np.array([[1156.5, 0, 671.3], [0, 1151.3, 389.2], [0, 0, 1]])
MODELS = {
    "plumb_bob": np.array([-0.247, 0.05, 0.001, -0.0005, 0.01]),
    "rational_polynomial": np.array([0.3, 0.05, 0.001, -0.0005, 0.01, 0.6, 0.1, 0.02]),
    "equidistant": np.array([-0.02, 0.005, -0.002, 0.0003]),
}


@pytest.mark.parametrize("model", MODELS)
def test_projection_agrees_with_opencv(model: str) -> None:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-3, 3, 200), rng.uniform(-2, 2, 200), rng.uniform(4, 20, 200)])
    zero = np.zeros(3)
    if model == "equidistant":
        want, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, K, MODELS[model])
    else:
        want, _ = cv2.projectPoints(points, zero, zero, K, MODELS[model])
    got = CameraModel((1280, 720), K, MODELS[model], model).project(points)
    np.testing.assert_allclose(got, want.reshape(-1, 2), atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_rays_invert_the_projection(model: str) -> None:
    camera = CameraModel((1280, 720), K, MODELS[model], model)
    uv = np.stack(np.meshgrid(np.linspace(0, 1279, 17), np.linspace(0, 719, 11)), axis=-1).reshape(-1, 2)
    rays = camera.rays(uv)
    assert np.isfinite(rays).all()
    np.testing.assert_allclose(camera.project(rays * 7.0), uv, atol=2e-3)


def test_beyond_the_fold_of_the_distortion_there_is_no_ray() -> None:
    camera = CameraModel((4000, 4000), np.diag([500.0, 500.0, 1.0]), np.array([-0.3, 0.0, 0.0, 0.0]))
    assert np.isnan(camera.rays([[3900.0, 3900.0]])[0, :2]).all()


def test_resized_image_keeps_the_same_rays() -> None:
    camera = CameraModel((1280, 720), K, MODELS["plumb_bob"])
    half = camera.for_image((640, 360))
    uv = np.array([[100.0, 200.0], [900.0, 650.0]])
    np.testing.assert_allclose(half.rays((uv + 0.5) / 2 - 0.5), camera.rays(uv), atol=1e-9)
    with pytest.raises(CalibrationError, match="aspect ratio"):
        camera.for_image((640, 480))


@pytest.mark.parametrize("model", MODELS)
def test_a_window_and_binned_pixels_keep_their_rays(model: str) -> None:
    camera = CameraModel((1280, 720), K, MODELS[model], model)
    part = camera.windowed((100, 40), (800, 600), (2, 4))
    assert part.size_wh == (400, 150)
    uv = np.array([[0.0, 0.0], [211.0, 99.0]])  # of the window; each pixel is a block of 2 x 4 pixels of the sensor
    blocks = np.array([100.0, 40.0]) + (uv + 0.5) * (2, 4) - 0.5
    np.testing.assert_allclose(part.rays(uv), camera.rays(blocks), atol=1e-9)
    for offset, size in (((600, 0), (800, 600)), ((0, 0), (1, 2)), ((-1, 0), (10, 10))):
        with pytest.raises(CalibrationError, match="does not fit"):
            camera.windowed(offset, size, (2, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": np.full(9, np.nan)}, "finite"),
        ({"K": np.zeros(9)}, "positive"),
        ({"D": [0.1, np.inf, 0, 0]}, "finite"),
        ({"D": [0.1, 0.2]}, "expected 0 or 4 or 5"),
        ({"model": "magic"}, "unknown"),
        ({"size_wh": (0, 720)}, "empty"),
    ],
)
def test_impossible_calibrations_are_refused(change: dict, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        CameraModel(**{"size_wh": (1280, 720), "K": K, **change})


def test_level_camera_by_hand() -> None:
    """Height 1.5 m, f 1000 px: 30 px below the centre is 1.5 * 1000 / 30 = 50 m ahead; 20 px left of it there is 1 m left."""
    camera = CameraModel((1280, 720), np.array([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]]))
    ground = GroundProjector(camera, SE3.from_mount(height_m=1.5, x_m=2.0), max_range_m=60)
    points = ground.points([[620.0, 390.0], [640.0, 359.0], [640.0, 380.0]])
    np.testing.assert_allclose(points[0], [52.0, 1.0, 0.0], atol=1e-9)
    assert np.isnan(points[1:]).all()  # above the horizon; 75 m is out of range


@settings(max_examples=60)
@given(
    height=st.floats(0.5, 3), pitch=st.floats(-0.1, 0.3), roll=st.floats(-0.1, 0.1), yaw=st.floats(-3.1, 3.1),
    x=st.floats(4, 60), y=st.floats(-2, 2),
)  # fmt: skip
def test_ground_points_project_back(height: float, pitch: float, roll: float, yaw: float, x: float, y: float) -> None:
    ground_SE3_cam = SE3.from_mount(height_m=height, pitch_down_rad=pitch, roll_rad=roll, yaw_rad=yaw, x_m=1.0, y_m=-0.3)
    camera = CameraModel((1280, 720), K)
    turn = SE3.from_mount(height_m=0.0, yaw_rad=yaw).rotation @ SE3.from_mount(height_m=0.0).rotation.T
    point = turn @ np.array([x, y, 0.0]) + np.array([1.0, -0.3, 0.0])
    uv = camera.project(ground_SE3_cam.inverse().apply(point[None]))
    got = GroundProjector(camera, ground_SE3_cam, max_range_m=200).points(uv)
    np.testing.assert_allclose(got[0], point, atol=1e-5)


def test_polygon_over_the_horizon_is_cut_at_the_range() -> None:
    camera = CameraModel((1280, 720), np.array([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]]))
    ground = GroundProjector(camera, SE3.from_mount(height_m=1.5), max_range_m=40)
    polygon = ground.polygon([[0.0, 719.0], [600.0, 300.0], [680.0, 300.0], [1279.0, 719.0]])
    assert len(polygon) == 4
    assert polygon[:, 0].max() == pytest.approx(40.0)
    assert polygon[:, 0].min() == pytest.approx(1.5 * 1000 / 359)
    assert len(ground.polygon([[0.0, 100.0], [600.0, 50.0], [680.0, 90.0]])) == 0


def inside(polygon_m: np.ndarray, x: float, y: float) -> bool:
    return cv2.pointPolygonTest(polygon_m[:, :2].astype(np.float32), (x, y), False) > 0


def test_what_a_bending_lens_does_not_show_is_not_in_view() -> None:
    """Barrel distortion: the lower border's ends are 1.6 m ahead, its middle is 2.0 m ahead; a line between the ends lies."""
    camera = CameraModel((1280, 720), np.array([[700.0, 0, 639.5], [0, 700, 359.5], [0, 0, 1]]), np.array([-0.3, 0.08, 0, 0]))
    ground = GroundProjector(camera, SE3.from_mount(height_m=1.4, pitch_down_rad=0.1), 40.0)
    edge = ground.points([[639.5, 719.0]])[0, 0]
    corner = ground.points([[0.0, 719.0]])[0, 0]
    assert corner < edge - 0.3
    assert inside(ground.view(), edge + 0.05, 0.0) and not inside(ground.view(), edge - 0.05, 0.0)
    area = [[0.0, 719.0], [500.0, 400.0], [780.0, 400.0], [1279.0, 719.0]]
    assert inside(ground.polygon(area), edge - 0.05, 0.0)  # its vertices joined by lines, as messages have it
    assert not inside(ground.polygon(area, exact=True), edge - 0.05, 0.0)


def test_a_fisheye_whose_corners_look_backwards_still_sees_the_road() -> None:
    camera = CameraModel((1280, 960), np.array([[400.0, 0, 639.5], [0, 400, 479.5], [0, 0, 1]]), np.array([-0.02, 0.005, 0, 0]),
                         "equidistant")  # fmt: skip
    ground = GroundProjector(camera, SE3.from_mount(height_m=1.0, pitch_down_rad=0.2), 40.0)
    corners = [(0, 0), (1279, 0), (1279, 959), (0, 959)]
    assert np.isnan(ground.points(corners)).all()
    view = ground.view()
    assert np.isfinite(view).all()
    for x, y in ((1.0, 0.0), (3.0, 2.0), (3.0, -2.0), (30.0, 0.0)):
        uv = camera.project(ground.ground_SE3_cam.inverse().apply([[x, y, 0.0]]))
        assert (uv > 0).all() and (uv < (1280, 960)).all() and inside(view, x, y), (x, y)
    assert not inside(view, -1.0, 0.0)


def test_poses_under_the_ground_and_mirrored_are_refused() -> None:
    camera = CameraModel((1280, 720), K)
    with pytest.raises(CalibrationError, match="above the ground"):
        GroundProjector(camera, SE3.from_mount(height_m=-1.0))
    with pytest.raises(CalibrationError, match="mirrors"):
        SE3(np.diag([1.0, 1.0, -1.0]), np.zeros(3))
    quaternion = SE3.from_quaternion((-0.5, 0.5, -0.5, 0.5), (0, 0, 1.2))
    np.testing.assert_allclose(quaternion.rotation, SE3.from_mount(height_m=1.2).rotation, atol=1e-12)
