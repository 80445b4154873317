"""Flat ground and 3D boxes in a camera's picture, compared with rays and with dense samples of surfaces."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from training.datasets.projection import GROUND_TOLERANCE_M, NEAR_M, Camera, Ground, GroundView, fit_ground, hull

K = np.array([[120.0, 0, 79.5], [0, 120.0, 44.5], [0, 0, 1]])
SIZE = (160, 90)
FORWARD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # columns: the camera's x, y, z in the ego frame


def camera(yaw=0.0, pitch=0.0, at=(1.5, 0.0, 1.6)):
    """A camera that looks ``yaw`` to the left and ``pitch`` down, radians."""
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    tilt = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn @ tilt @ FORWARD, at
    return Camera(K, pose, SIZE)


def seen_by_rays(shape, view):
    """``(H, W)``: whether the ray of each pixel meets the shape on the ground, in range and in front of the near plane."""
    eye, ground = view.camera.ego_SE3_cam[:3, 3], view.ground
    u, v = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    rays = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3) @ np.linalg.inv(K).T
    rays = rays @ view.camera.ego_SE3_cam[:3, :3].T  # depth 1 each
    normal = np.array([-ground.slope_x, -ground.slope_y, 1.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (ground.offset_m - normal @ eye) / (rays @ normal)
    points = eye + rays * np.where(np.isfinite(depth), depth, 0)[:, None]
    good = (depth >= NEAR_M) & (np.hypot(points[:, 0], points[:, 1]) <= ground.range_m)
    return (good & shapely.contains_xy(shape, points[:, 0], points[:, 1])).reshape(SIZE[1], SIZE[0])


coordinate = st.floats(-25, 25).map(lambda value_m: round(value_m, 6))  # GEOS cannot cut slivers of 1e-196 m, which no map has


@settings(max_examples=30)
@given(
    st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9),
    st.floats(-3.1, 3.1),
    st.floats(-0.15, 0.5),
    st.floats(-0.05, 0.05),
)
def test_polygons_with_holes_are_what_the_rays_meet(points, yaw, pitch, slope):
    shape = (
        shapely.make_valid(shapely.Polygon(points))
        .difference(shapely.box(3, -1.5, 9, 1.5))
        .difference(shapely.box(-9, -4, -5, 2))
    )
    view = GroundView(camera(yaw, pitch), Ground(slope_x=slope, slope_y=-slope / 2, offset_m=0.05, range_m=22.0))
    drawn = view.polygon(shape)
    u, v = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    ours = shapely.contains_xy(drawn, u, v)
    edge = shapely.distance(drawn.boundary, shapely.points(u, v)) < 0.6 if not drawn.is_empty else np.zeros_like(ours)
    assert not ((ours != seen_by_rays(shape, view)) & ~edge).any()
    assert drawn.is_empty or drawn.within(view.camera.picture.buffer(1e-6))


def test_what_runs_past_the_camera_is_cut_and_not_mirrored():
    view = GroundView(camera(), Ground(range_m=40.0))
    road = shapely.box(-30, -4, 60, 4)
    drawn = view.polygon(road)
    _, top, _, bottom = drawn.bounds
    assert bottom == pytest.approx(89.5) and top > 44.5  # below the horizon, however far it runs
    assert top == pytest.approx(44.5 + 120 * 1.6 / (np.sqrt(40**2 - 0) - 1.5), abs=0.2)
    assert view.polygon(shapely.box(-30, -4, 1.9, 4)).is_empty  # behind, and nearer than the near plane
    (line,) = view.lines(shapely.LineString([(-30, 1.6), (60, 1.6)]))
    assert np.allclose(line[:, 0] - 79.5, -(line[:, 1] - 44.5), atol=1e-6)  # 1.6 m to the left, 1.6 m below: a diagonal
    assert line[0, 1] > line[-1, 1]
    behind = GroundView(camera(yaw=np.pi), Ground(range_m=40.0))
    (line,) = behind.lines(shapely.LineString([(-30, 1.6), (60, 1.6)]))
    assert (line[:, 0] > 79.5).all()  # what is on the left is on the right when looking back
    hole = road.difference(shapely.box(10, -1, 14, 1))
    assert len(view.polygon(hole).interiors) == 1


def box_corners(center, size, yaw):
    """Front face first, as the devkit's: ``(8, 3)`` in the camera's frame, y down."""
    x, y, z = (np.array(signs) / 2 for signs in (
        [-1, 1, 1, -1, -1, 1, 1, -1], [-1, -1, 1, 1, -1, -1, 1, 1], [-1, -1, -1, -1, 1, 1, 1, 1],
    ))  # fmt: skip
    points = np.column_stack([x * size[0], y * size[1], z * size[2]])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return points @ turn.T + center


@settings(max_examples=30)
@given(
    st.tuples(st.floats(-6, 6), st.floats(-1, 2), st.floats(-4, 20)),
    st.tuples(st.floats(0.5, 3), st.floats(0.5, 3), st.floats(0.5, 9)),
    st.floats(-3.1, 3.1),
)
def test_box_outlines_hold_the_whole_visible_surface(center, size, yaw):
    corners = box_corners(center, size, yaw)
    found = hull(corners, camera())
    steps = np.linspace(0, 1, 9)
    a, b, c = np.meshgrid(steps, steps, steps, indexing="ij")
    inside = corners[0] + sum(w.reshape(-1, 1) * (corners[k] - corners[0]) for w, k in ((a, 1), (b, 3), (c, 4)))
    front = inside[inside[:, 2] >= NEAR_M]
    if found is None:
        assert len(front) == 0
        return
    outline, depth = found
    assert depth >= NEAR_M and depth <= front[:, 2].min() + 1e-6 if len(front) else True
    uv = camera().project(front)
    assert shapely.intersects_xy(outline.buffer(1e-3 * max(1.0, np.abs(uv).max(initial=0))), uv[:, 0], uv[:, 1]).all()
    if (corners[:, 2] >= NEAR_M).all():
        assert np.allclose(outline.bounds, [*camera().project(corners).min(axis=0), *camera().project(corners).max(axis=0)])


def test_points_behind_the_near_plane_are_refused():
    with pytest.raises(ValueError, match="cut them first"):
        camera().project([[0, 0, -3.0]])
    assert hull(box_corners((0, 0, -5), (2, 2, 4), 0.3), camera()) is None


def test_ground_from_the_feet_of_boxes():
    assert fit_ground(np.zeros((0, 3)), Ground(0.01, 0.0, 0.0)) == Ground(0.01, 0.0, 0.0)
    rng = np.random.default_rng(0)
    xy = rng.uniform([-40, -12], [40, 12], (40, 2))
    hill = 0.04 * xy[:, 0] - 0.01 * xy[:, 1] + 0.05
    plane = fit_ground(np.column_stack([xy, hill + rng.normal(0, 0.03, 40)]))
    assert plane.slope_x == pytest.approx(0.04, abs=0.004) and plane.slope_y == pytest.approx(-0.01, abs=0.006)
    assert plane.range_m == 50.0
    outlier = fit_ground(np.vstack([np.column_stack([xy, hill]), [30.0, 0, 4.0]]))  # on a bridge
    assert outlier.slope_x == pytest.approx(0.04, abs=0.005) and outlier.range_m == pytest.approx(30.0)
    crest = np.column_stack([np.arange(5, 45, 2.0), np.zeros(20), -0.004 * np.maximum(np.arange(5, 45, 2.0) - 12, 0) ** 2])
    bent = fit_ground(crest)
    assert (
        bent.range_m < 45
        and np.abs(bent.height_m(crest[crest[:, 0] < bent.range_m, :2]) - crest[crest[:, 0] < bent.range_m, 2]).max()
        <= GROUND_TOLERANCE_M
    )
