import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from getok_drive.errors import InputError
from getok_drive.geometry import polyline

COORDINATE = st.floats(-500, 500).map(lambda value: round(value, 2))
LINES = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=2, max_size=12).map(np.array)


def test_length_by_hand():
    assert polyline.length([[0, 0], [3, 4], [3, 4], [3, 10]]) == 11
    assert polyline.arc_lengths([[0, 0], [3, 4], [3, 10]]).tolist() == [0, 5, 11]


def test_resample_by_hand():
    corner = [[0, 0], [2, 0], [2, 2]]
    assert polyline.resample(corner, count=5).tolist() == [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2]]
    assert polyline.resample(corner, step_px=1.0).tolist() == polyline.resample(corner, count=5).tolist()
    assert len(polyline.resample(corner, step_px=0.9)) == 6
    assert polyline.resample([[1, 1], [1, 1]], count=3).tolist() == [[1, 1]] * 3


@given(LINES, st.integers(2, 30))
def test_resampled_points_lie_on_the_line_at_equal_distances(points, count):
    result = polyline.resample(points, count=count)
    assert np.allclose(result[[0, -1]], points[[0, -1]])
    assert shapely.distance(shapely.linestrings(points), shapely.points(result)).max() < 1e-6
    assert polyline.length(result) <= polyline.length(points) + 1e-6


def test_points_at_rows_by_hand():
    line = [[0, 10], [10, 0], [20, 10]]
    assert polyline.points_at_rows(line, [10, 5, 0]).tolist() == [0, 5, 10]
    assert np.isnan(polyline.points_at_rows(line, [11, -0.1])).all()
    assert polyline.points_at_rows([[3, 5], [9, 5], [9, 0]], [5, 2]).tolist() == [3, 9]
    assert polyline.points_at_rows(line, []).shape == (0,)


@given(LINES, st.lists(COORDINATE, min_size=1, max_size=10))
def test_points_at_rows_lie_on_the_line(points, rows):
    x = polyline.points_at_rows(points, rows)
    reached = (points[:, 1].min() <= rows) & (points[:, 1].max() >= rows)
    assert (np.isfinite(x) == reached).all()
    crossings = np.stack([x[reached], np.array(rows)[reached]], axis=1)
    if len(crossings):
        assert shapely.distance(shapely.linestrings(points), shapely.points(crossings)).max() < 1e-6


def test_clip_polyline_by_hand():
    image = (10, 10)  # -0.5 .. 9.5
    inside = [[1, 1], [5, 5]]
    assert [part.tolist() for part in polyline.clip_polyline(inside, image)] == [inside]
    assert polyline.clip_polyline([[20, 20], [30, 20]], image) == []
    there_and_back = [[-2.5, 1], [11.5, 1], [11.5, 5], [-2.5, 5]]
    parts = polyline.clip_polyline(there_and_back, image)
    assert [part.tolist() for part in parts] == [[[-0.5, 1], [9.5, 1]], [[9.5, 5], [-0.5, 5]]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: polyline.length([1, 2]),
        lambda: polyline.resample([[0, 0]], count=2),
        lambda: polyline.resample([[0, 0], [1, 1]]),
        lambda: polyline.resample([[0, 0], [1, 1]], count=1),
        lambda: polyline.resample([[0, 0], [1, 1]], step_px=0),
        lambda: polyline.resample([[0, 0], [np.nan, 1]], count=3),
        lambda: polyline.clip_polyline([[0, 0], [1, 1]], (0, 4)),
    ],
)
def test_wrong_input_is_named(call):
    with pytest.raises(InputError):
        call()
