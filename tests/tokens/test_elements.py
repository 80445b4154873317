import numpy as np
import pytest

from getok_drive.errors import ConfigError, InputError
from getok_drive.tokens.codec import to_text
from getok_drive.tokens.elements import canonical_elements, propose_ids, refine_ids
from getok_drive.tokens.grammar import Limits, ProposeGrammar, parse
from getok_drive.types import Box, DrivableArea, Lane, Sign
from tests.tokens.scenes import random_scene

SIZE = (320, 160)  # a cell is 10 x 5 pixels


def text(lanes=(), drivable=(), boxes=(), signs=(), size_wh=SIZE, **options) -> str:
    return to_text(propose_ids(canonical_elements(lanes, drivable, boxes, signs, size_wh, **options)))


def test_one_of_each_kind_by_hand():
    elements = canonical_elements(
        [Lane([[155, 100], [125, 159]], "dashed", "white")],
        [DrivableArea([[205, 120], [105, 120], [15, 158]])],
        [Box([42, 51, 88, 72], "car")],
        [Sign([301, 20], "stop", "red")],
        SIZE,
    )
    assert to_text(propose_ids(elements)).splitlines() == [
        "<lane><dashed><white><grid_12_31><grid_15_20>",
        "<drivable><grid_1_31><grid_10_24><grid_20_24>",
        "<box><car><grid_4_10><grid_8_14>",
        "<sign><stop><red><grid_30_4>",
        "</scene>",
    ]
    # (301.5 / 320, 20.5 / 160) is 241.2, 32.8 in steps of 1/256, so 241, 33; the centre is 244, 36: 4 back, 0, 1 forth
    assert to_text(refine_ids(elements[3:])) == "<offset><grid_30_4><OFF_-1_-1><OFF_0_0><OFF_1_1></offset>"


@pytest.mark.parametrize("seed", range(40))
def test_order_of_inputs_directions_and_starts_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(30, 3000)), int(rng.integers(30, 2000)))
    lanes, drivable, boxes, signs = random_scene(rng, size, margin=0.0)
    lanes, boxes, signs = lanes + lanes[:1], boxes + boxes[:2], signs + signs[:1]  # with ties
    reference = canonical_elements(lanes, drivable, boxes, signs, size)
    shuffled = [
        [Lane(lane.points_px[::-1], lane.type, lane.color) for lane in lanes],
        [DrivableArea(np.roll(a.polygon_px, int(rng.integers(50)), axis=0)) for a in drivable],
        list(boxes),
        list(signs),
    ]
    for kind in shuffled:
        order = rng.permutation(len(kind))
        kind[:] = [kind[k] for k in order]
    other = canonical_elements(*shuffled, size)
    lanes_areas = [e for e in other if e.kind != "drivable"]
    assert propose_ids(lanes_areas) == propose_ids(e for e in reference if e.kind != "drivable")
    assert refine_ids(lanes_areas) == refine_ids(e for e in reference if e.kind != "drivable")


@pytest.mark.parametrize("seed", range(10))
def test_a_polygons_start_and_direction_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 12)[:-1]
    polygon = np.array(SIZE) / 2 + np.stack([150 * np.cos(angles), 75 * np.sin(angles)], 1) * rng.uniform(0.7, 1, (11, 1))
    expected = text(drivable=[DrivableArea(polygon)])
    assert expected.count("grid") == 11
    assert text(drivable=[DrivableArea(np.roll(polygon, seed, axis=0)[::-1])]) == expected


@pytest.mark.parametrize("seed", range(60))
def test_text_is_stable_valid_and_close(seed):
    """Scene -> text -> scene -> text changes nothing, and the grammar accepts every text that training will teach."""
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(2, 4000)), int(rng.integers(2, 3000)))
    elements = canonical_elements(*random_scene(rng, size), size)
    proposal, refinement = propose_ids(elements), refine_ids(elements)
    grammar = ProposeGrammar()
    for token in proposal:
        assert grammar.accepts(token)
        grammar.advance(token)
    assert grammar.done
    *decoded, report = parse(proposal, refinement, size_wh=size)
    assert report.issues == {} and report.elements == len(elements)
    again = canonical_elements(*decoded, size)
    assert (propose_ids(again), refine_ids(again)) == (proposal, refinement)


@pytest.mark.parametrize("seed", range(20))
def test_boxes_and_signs_come_back_within_half_a_finest_step(seed):
    rng = np.random.default_rng(seed)
    size = (1280, 720)
    _, _, boxes, signs = random_scene(rng, size, margin=-0.05)
    boxes = [b for b in boxes if b.xyxy_px[2] < 1279 and b.xyxy_px[3] < 719 and min(b.xyxy_px[2:] - b.xyxy_px[:2]) > 6]
    elements = canonical_elements([], [], boxes, signs, size)
    _, _, got_boxes, got_signs, _ = parse(propose_ids(elements), refine_ids(elements), size_wh=size)
    half = np.array(size) / 512 + 1e-3
    assert len(got_boxes) == len(boxes) and len(got_signs) == len(signs)
    for box in boxes:
        assert any(
            (np.abs(box.xyxy_px - g.xyxy_px).reshape(2, 2) <= half).all() and g.class_name == box.class_name for g in got_boxes
        )
    for sign in signs:
        assert any((np.abs(sign.point_px - g.point_px) <= half).all() and g.color == sign.color for g in got_signs)


def test_lanes_collapse_cells_and_never_go_down():
    within_one_cell = Lane([[1, 1], [3, 3]])
    dip = Lane([[100, 150], [100, 100], [120, 110], [140, 60]])  # the third point goes down again
    level = Lane([[200, 52], [100, 52]])
    assert text([within_one_cell, dip, level]).splitlines() == [
        "<lane><solid><white><grid_10_30><grid_10_20><grid_14_12>",
        "<lane><solid><white><grid_10_10><grid_20_10>",
        "</scene>",
    ]


def test_dense_lanes_are_thinned_evenly():
    lane = Lane(np.stack([np.linspace(10, 300, 500), np.linspace(158, 2, 500)], 1))
    (element,) = canonical_elements([lane], [], [], [], SIZE, limits=Limits(lane_points=5))
    assert len(element.cells) == 5
    assert np.abs(np.diff(element.points_norm[:, 0]) - 290 / 320 / 4).max() < 0.03


def test_boxes_never_decode_to_nothing():
    for x in np.linspace(0, 318, 40):
        elements = canonical_elements([], [], [Box([x, 20, x + 0.01, 20.001], "cone")], [], SIZE)
        *_, boxes, _, report = parse(propose_ids(elements), refine_ids(elements), size_wh=SIZE)
        assert report.issues == {} and len(boxes) == 1
        assert abs(boxes[0].xyxy_px[[0, 2]].mean() - x) <= 320 / 256


def test_outside_is_cut_off():
    half = Box([-100, 20, 45, 80], "car")
    outside = Box([-100, 20, -45, 80], "bus")
    assert text(boxes=[half, outside]).splitlines() == ["<box><car><grid_0_4><grid_4_16>", "</scene>"]
    assert text(signs=[Sign([-3, 5], "stop")]) == "</scene>"
    crossing = Lane([[-160, 159], [160, 79]])  # enters the image at (-0.5, 119)
    assert text([crossing]).splitlines()[0] == "<lane><solid><white><grid_0_23><grid_16_15>"
    assert text([Lane([[-50, 159], [-5, 10]])]) == "</scene>"
    wide = DrivableArea([[-320, 300], [160, 80], [640, 300]])
    assert text(drivable=[wide]).splitlines()[0] == "<drivable><grid_0_31><grid_0_30><grid_16_16><grid_31_30><grid_31_31>"


def test_what_the_grid_cannot_tell_apart_is_written_once():
    """448x252 has cells of 14 x 7.9 px: two cars in the same cells are one, a bus and a car there are two."""
    corners = [np.array([14.0, 8, 40, 22], np.float32) + shift for shift in (0.0, 0.3, 14.0)]
    cars, size_wh = [Box(xyxy, "car") for xyxy in corners], (448, 252)
    assert text(boxes=cars, size_wh=size_wh).count("<box>") == 2
    assert text(boxes=[*cars, Box(corners[0], "bus")], size_wh=size_wh).count("<box>") == 3
    assert text(boxes=cars[:2], size_wh=size_wh) == text(boxes=cars[1::-1], size_wh=size_wh)
    signs = [Sign(np.array(xy, np.float32), "stop", "red") for xy in ((21.0, 4), (22, 5), (30, 5))]
    assert text(signs=signs, size_wh=size_wh).count("<sign>") == 2


def test_limits_keep_the_first_of_the_order():
    boxes = [Box([10, 10, 50, y], "car") for y in (50, 90, 120)]
    limits = Limits(boxes=2)
    assert text(boxes=boxes, limits=limits).splitlines() == [
        "<box><car><grid_1_2><grid_5_24>",
        "<box><car><grid_1_2><grid_5_18>",
        "</scene>",
    ]


def test_wrong_words_and_limits_are_named():
    with pytest.raises(InputError, match="zebra"):
        text(boxes=[Box([0, 0, 10, 10], "zebra")])
    with pytest.raises(ConfigError, match="lane_points"):
        Limits(lane_points=1)
    with pytest.raises(ConfigError, match="boxes"):
        Limits(boxes=2.5)  # type: ignore[arg-type]
