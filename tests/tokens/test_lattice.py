import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from getok_drive.tokens import lattice

POINT = st.tuples(st.integers(0, 6), st.integers(0, 6))
CHAIN = st.lists(POINT, min_size=0, max_size=7)


def chain_is_simple(chain) -> bool:
    """By shapely: no repeated point, no touching; a closed chain counts as touching."""
    if len(set(chain)) < len(chain):
        return False
    return len(chain) < 2 or bool(shapely.is_simple(shapely.linestrings(np.array(chain, float))))


@given(POINT, POINT, POINT, POINT)
def test_segments_touch_as_shapely_says(a, b, c, d):
    first, second = (shapely.LineString([p, q]) if p != q else shapely.Point(p) for p, q in ((a, b), (c, d)))
    assert lattice.segments_touch(a, b, c, d) == first.intersects(second)


@given(CHAIN, POINT)
@settings(max_examples=200)
def test_appending_point_by_point_keeps_a_chain_simple(points, extra):
    chain: list[lattice.Point] = []
    for point in [*points, extra]:
        expected = chain_is_simple([*chain, point])
        assert lattice.can_append(chain, point) == expected
        if expected:
            chain.append(point)


@given(CHAIN)
@settings(max_examples=200)
def test_vectorised_appending_agrees(points):
    chain: list[lattice.Point] = []
    for point in points:
        if lattice.can_append(chain, point):
            chain.append(point)
    candidates = np.array([(x, y) for x in range(7) for y in range(7)])
    assert lattice.appendable(chain, candidates).tolist() == [lattice.can_append(chain, (int(x), int(y))) for x, y in candidates]


@given(CHAIN)
@settings(max_examples=200)
def test_closing_gives_a_valid_polygon(points):
    chain: list[lattice.Point] = []
    for point in points:
        if lattice.can_append(chain, point):
            chain.append(point)
    if len(chain) >= 3:
        assert (
            lattice.can_close(chain)
            == bool(shapely.is_valid(shapely.polygons(np.array(chain, float))))
            == lattice.is_simple(chain)
        )


@st.composite
def rings(draw):
    """A simple polygon with whole coordinates."""
    chain: list[lattice.Point] = []
    for point in draw(st.lists(POINT, min_size=3, max_size=9)):
        if lattice.can_append(chain, point):
            chain.append(point)
    while len(chain) > 3 and not lattice.can_close(chain):
        chain.pop()
    return chain if lattice.can_close(chain) else [(0, 0), (6, 1), (3, 6)]


@given(rings(), st.data())
@settings(max_examples=200)
def test_moving_and_removing_vertices(ring, data):
    index = data.draw(st.integers(0, len(ring) - 1))
    target = data.draw(POINT)
    assert lattice.can_move(ring, index, target) == lattice.is_simple([*ring[:index], target, *ring[index + 1 :]])
    if len(ring) >= 4:
        assert lattice.can_remove(ring, index) == lattice.is_simple(ring[:index] + ring[index + 1 :])


def test_orientation_is_clockwise_on_the_screen():
    square = np.array([[0, 0], [8, 0], [8, 8], [0, 8]])  # right, then down: clockwise on the screen
    assert lattice.twice_area(square) == 128
    assert lattice.canonical_ring(square[::-1]).tolist() == [[0, 8], [0, 0], [8, 0], [8, 8]]


@given(st.lists(st.tuples(st.integers(0, 256), st.integers(0, 256)), min_size=3, max_size=40), st.integers(3, 12))
@settings(max_examples=80)
def test_any_polygon_becomes_representable_or_nothing(points, most):
    polygon = lattice.representable_polygon(np.array(points), 8, most)
    if polygon is None:
        return
    cells = np.minimum(polygon // 8, 31)
    assert 3 <= len(polygon) <= most
    assert lattice.is_simple(polygon)
    assert lattice.is_simple(cells)
    again = lattice.representable_polygon(polygon, 8, most)
    assert again is not None and np.array_equal(again, polygon)


def test_a_thin_strip_beside_a_square_is_left_out_and_the_square_kept():
    polygon = np.array([[0, 200], [0, 100], [100, 100], [100, 150], [200, 150], [200, 152], [100, 152], [100, 200]])
    result = lattice.representable_polygon(polygon, 8, 32)
    square = shapely.box(0, 100, 100, 200)
    assert shapely.Polygon(result).intersection(square).area / square.area > 0.99
