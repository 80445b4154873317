"""Golden numbers on a 64 x 64 picture: one offset moves one pixel (s = 64/64), the centre of cell i is pixel 2i + 1.

The square of pixels 9..14 (both axes) gives, along a line through it:

    pixel       7       8..15      9..14    10..14     17
    band        B only  D          M        E          none
    pools of the centres: 7 Hard-Delete, 9 Far (in M, not in E), 11 and 13 Inside, 15 Ring, 17 Far
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from getok_drive.errors import ConfigError, InputError
from getok_drive.tokens.codec import cell_centers, decode_points
from getok_drive.tokens.vocab import TABLE, TOKEN_ID
from training import offset_data
from training.datasets.phrases import region_of_mask
from training.offset_answers import (
    Anchors,
    OffsetSettings,
    box_anchors,
    corner_answers,
    mask_answers,
    mask_box_norm,
    sample_cells,
)
from training.offset_bands import Pool, bands, draw_bands, hits, pools, step_px
from training.offset_data import conversation, conversations_of, refinement_ids
from training.offset_shapes import answers_to, feet, normals, polygon_anchors, polyline_anchors
from training.samples import Phrase, Sample

STAY = TOKEN_ID["<OFF_0_0>"]


def square(low=9, high=14, size=64):
    mask = np.zeros((size, size), dtype=bool)
    mask[low : high + 1, low : high + 1] = True
    return mask


def cell(i, j):
    return 32 * j + i


def off(du, dv):
    return TOKEN_ID[f"<OFF_{du}_{dv}>"]


# --- equations 2 and 3 ---


def test_one_step_is_the_image_over_m():
    assert step_px((840, 840)) == (13.125, 13.125)
    assert step_px((64, 128)) == (1.0, 2.0)


def test_bands_of_the_square():
    found = bands(square())
    # k_e = 2: the even square's anchor is its lower right pixel, so one pixel goes at the left and top
    assert np.array_equal(found.interior, square(10, 14))
    # k_d = 3: one pixel all round
    assert np.array_equal(found.halo, square(8, 15))
    # gradient: 8..15 without 10..13; widened by b = 3: 7..16 without 11..12
    assert np.array_equal(found.boundary, square(7, 16) & ~square(11, 12))


def test_sizes_of_the_squares_grow_with_the_step():
    # 192 x 192: s = 3, k_e = 4 (takes 3 pixels off each axis), k_d = 7 (adds 3 on each side)
    found = bands(square(60, 79, 192), boundary_px=1)
    assert found.interior.any(axis=0).sum() == 17
    assert np.array_equal(found.halo, square(57, 82, 192))
    assert np.array_equal(found.boundary, square(59, 80, 192) & ~square(61, 78, 192))


def test_bands_follow_the_height_as_printed():
    mask = np.zeros((64, 192), dtype=bool)
    mask[20:40, 60:100] = True
    assert bands(mask).halo.any(axis=0).sum() == 42  # s_y = 1 although s_x = 3


def test_the_image_border_does_not_erode():
    mask = np.zeros((64, 64), dtype=bool)
    mask[:10] = True
    assert bands(mask).interior.sum() == 64 * 10  # even squares take only at the top, which is the border here


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_interior_within_mask_within_halo(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((96, 96)) < rng.uniform(0.05, 0.95)
    mask[48, 48] = True
    found = bands(mask)
    assert not (found.interior & ~mask).any()
    assert not (mask & ~found.halo).any()


# --- equations 4 and 5 ---


def test_hits_of_the_square():
    assert np.flatnonzero(hits(square()).reshape(32, 32).any(axis=0)).tolist() == [4, 5, 6, 7]  # pixels 9, 11, 13, 15


def test_pool_of_every_branch():
    grid = pools(square()).reshape(32, 32)
    row = grid[5]  # pixel row 11
    assert row[:10].tolist() == [
        Pool.FAR,  # 1
        Pool.FAR,  # 3
        Pool.FAR,  # 5
        Pool.HARD_DELETE,  # 7: on the ribbon, outside, one pixel too far to hit
        Pool.FAR,  # 9: in the mask but not in E
        Pool.INSIDE,  # 11
        Pool.INSIDE,  # 13
        Pool.RING,  # 15: on the ribbon too, but it can hit
        Pool.FAR,  # 17
        Pool.FAR,
    ]
    assert np.array_equal(grid, grid.T)
    assert (grid == Pool.INSIDE).sum() == 4
    assert (grid == Pool.RING).sum() == 7  # pixel 15 with 9..15, both ways
    assert (grid == Pool.HARD_DELETE).sum() == 9  # pixel 7 with 7..15, both ways


def test_hard_delete_comes_before_ring():
    # a ring pixel that cannot hit: a line one pixel thin between the reach of the centres, with s = 3 (192 x 192)
    mask = np.zeros((192, 192), dtype=bool)
    mask[:, 31] = True  # centre of cell 5 is pixel 33: it looks at 30, 33 and 36
    assert bands(mask).halo[100, 33]
    grid = pools(mask).reshape(32, 32)
    assert (grid[:, 5] == Pool.HARD_DELETE).all()
    assert (pools(mask, boundary_px=1).reshape(32, 32)[:, 5] == Pool.RING).all()  # 33 is not on the thinner ribbon


def test_empty_and_malformed_masks_are_refused():
    for mask in (np.zeros((64, 64)), np.ones((64, 64, 3)), np.ones((0, 4))):
        with pytest.raises(InputError, match="mask"):
            pools(mask)
    with pytest.raises(ConfigError, match="boundary_px"):
        bands(square(), 0)


def test_the_picture_of_the_bands_has_their_colours():
    picture = draw_bands(np.zeros((640, 640, 3), np.uint8), square(100, 300, 640)).astype(int)
    blue, green, red = picture[210, 220]  # inside, between the points at 210 and 230
    assert green > max(blue, red) + 20
    blue, green, red = picture[200, 306]  # between points, six pixels outside: the ring
    assert blue > red + 20
    assert picture[200, 301].min() > 150  # the ribbon
    with pytest.raises(InputError):
        draw_bands(np.zeros((32, 64, 3), np.uint8), square())


# --- algorithm 1, points ---


def test_answers_of_every_branch():
    cells = [cell(5, 5), cell(4, 4), cell(7, 5), cell(7, 7), cell(3, 5), cell(20, 20)]
    assert mask_answers(square(), cells).reshape(-1).tolist() == [
        STAY,  # inside
        STAY,  # Far, but in the mask
        off(-1, 0),  # from (15, 11): (14, 10), (14, 11), (14, 12) hit, all one deep: the shortest
        off(-1, -1),  # from (15, 15) only (14, 14) hits
        TABLE.delete,  # Hard-Delete
        TABLE.delete,  # Far
    ]


def test_of_several_hits_the_deepest_is_picked():
    mask = np.zeros((64, 64), dtype=bool)
    mask[10, 11] = True  # above (11, 11): a lone pixel, depth 1
    mask[11:16, 12:17] = True  # below right: (12, 12) is two deep
    mask[11, 12] = False
    # (12, 12) has (11, 12) outside above and column 11 outside on the left: depth 1; (12, 10) and others are outside
    assert mask_answers(mask, [cell(5, 5)])[0, 0] == off(0, -1)  # equal depth: the shorter move
    mask[10:17, 10:17] = True
    mask[11, 11] = False
    mask[10, 11] = False
    depth_one = mask_answers(mask, [cell(5, 5)])[0, 0]
    moved = decode_points([cell(5, 5)], [[depth_one]])[0] * 64
    assert mask[int(moved[1]), int(moved[0])]
    assert depth_one == off(1, 1)  # (12, 12): its nearest outside pixel is sqrt(2) away, all others' is 1


def test_rounds_reach_what_one_step_misses_and_agree_where_it_does_not():
    mask = np.zeros((256, 256), dtype=bool)  # centres at 8i + 4, steps of 4, 2 and 1
    mask[44, 47] = True  # 3 right of (44, 44)
    only = mask_answers(mask, [cell(5, 5)], 1)
    assert only[0, 0] == TABLE.delete
    three = mask_answers(mask, [cell(5, 5)], 3)[0]
    assert decode_points([cell(5, 5)], [three])[0] * 256 == pytest.approx([47, 44])
    assert mask_answers(mask, [cell(6, 5)], 2)[0].tolist() == [TABLE.delete] * 2  # 52 -> 47 needs -5, not in {0, 2, 4, 6}
    wide = square(9, 14)
    cells = np.arange(1024)
    one, two = mask_answers(wide, cells, 1)[:, 0], mask_answers(wide, cells, 2)
    hit = one != TABLE.delete
    assert np.array_equal(one[hit], two[hit, 0])
    assert (two[hit, 1] == STAY).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_every_answer_ends_in_the_mask_and_only_the_unreachable_are_deleted(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 60, 2)
    mask = np.zeros((64, 64), dtype=bool)
    mask[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = True
    answers = mask_answers(mask, np.arange(1024))[:, 0]
    kept = answers != TABLE.delete
    assert np.array_equal(kept, hits(mask))
    ends = np.minimum(decode_points(np.flatnonzero(kept), answers[kept][:, None]) * 64, 63).astype(int)
    assert mask[ends[:, 1], ends[:, 0]].all()


# --- sampling ---


def test_every_pool_is_represented_and_inside_and_ring_are_preferred():
    pool_of = pools(square(20, 40))
    counts = np.zeros(4, int)
    for seed in range(60):
        cells = sample_cells(pool_of, OffsetSettings(), np.random.default_rng(seed))
        assert 4 <= len(cells) <= 14
        assert len(set(cells.tolist())) == len(cells)
        found = np.bincount(pool_of[cells], minlength=4)
        assert (found > 0).tolist() == [bool((pool_of == pool).any()) for pool in Pool]
        counts += found
    assert min(counts[Pool.INSIDE], counts[Pool.RING]) > 1.5 * max(counts[Pool.FAR], counts[Pool.HARD_DELETE])


def test_few_points_are_inside_and_ring():
    cells = sample_cells(pools(square()), OffsetSettings(least_points=2, most_points=2), np.random.default_rng(0))
    assert sorted(pools(square())[cells].tolist()) == [Pool.INSIDE, Pool.RING]


def test_sampling_stops_when_the_wanted_pools_are_empty():
    settings = OffsetSettings(least_points=30, most_points=30, shares=(0, 1, 0, 0))
    cells = sample_cells(pools(square()), settings, np.random.default_rng(0))
    assert len(cells) == 4 + 3  # all of Inside and the first of the others


@pytest.mark.parametrize(
    "change", [{"least_points": 5, "most_points": 4}, {"rounds": 0}, {"tau": 0.0}, {"jitter_cells": -1}, {"shares": (0, 0, 0, 0)}]
)
def test_settings_out_of_range(change):
    with pytest.raises(ConfigError):
        OffsetSettings(**change)


# --- algorithm 1, boxes ---


def test_box_of_a_mask_is_its_outer_edges():
    assert np.array_equal(mask_box_norm(square()), np.array([[9, 9], [15, 15]]) / 64)


def test_corners_get_the_best_pair():
    # box 9..15: from the centres of cells 4 and 7, edges 9 and 15: exact
    answers, iou = corner_answers(mask_box_norm(square()), [cell(4, 4), cell(7, 7)], 0.7)
    assert answers.reshape(-1).tolist() == [STAY, STAY]
    assert iou == 1.0
    # one cell off: 7 -> 8 and 17 -> 16 are as near as one step can go: 36 / 64
    answers, iou = corner_answers(mask_box_norm(square()), [cell(3, 3), cell(8, 8)], 0.5)
    assert answers.reshape(-1).tolist() == [off(1, 1), off(-1, -1)]
    assert iou == pytest.approx(36 / 64)


def test_corners_below_tau_are_both_deleted():
    answers, iou = corner_answers(mask_box_norm(square()), [cell(3, 3), cell(8, 8)], 0.57)
    assert (answers == TABLE.delete).all()
    assert iou == pytest.approx(36 / 64)


def test_corners_on_the_wrong_side_never_count():
    answers, iou = corner_answers(mask_box_norm(square()), [cell(20, 20), cell(4, 4)], 0.1)
    assert iou == 0.0
    assert (answers == TABLE.delete).all()


def test_corner_rounds_come_nearer():
    box = np.array([[0.301, 0.402], [0.577, 0.688]])
    cells = [cell(9, 12), cell(18, 22)]
    one, three = corner_answers(box, cells, 0.1, 1)[1], corner_answers(box, cells, 0.1, 3)
    assert three[1] > one
    assert np.abs(decode_points(cells, three[0]) - box).max() <= 1 / 512


def test_jittered_boxes_are_sometimes_right_and_sometimes_beyond_help():
    rng = np.random.default_rng(1)
    small = [box_anchors(square(9, 12), OffsetSettings(), rng).deleted.all() for _ in range(40)]
    assert 0 < sum(small) < 40
    large = [box_anchors(square(9, 60), OffsetSettings(), rng).deleted.any() for _ in range(40)]
    assert not any(large)


# --- polylines and polygons ---


def test_normals_of_a_line_and_a_square():
    line = normals([[0, 0], [1, 0], [2, 0]], closed=False)
    assert np.array_equal(line, [[0, 1]] * 3)
    corner = normals([[0, 0], [2, 0], [2, 2], [0, 2]], closed=True)
    assert corner[0] == pytest.approx(np.array([1, 1]) / np.sqrt(2))  # chord from (0, 2) to (2, 0)
    assert np.array_equal(normals([[1, 1], [1, 1]], closed=False), np.zeros((2, 2)))
    with pytest.raises(InputError):
        normals([[0, 0]], closed=False)


def test_feet_are_on_the_neighbouring_pieces_but_the_ends_stay():
    line = np.array([[0.1, 0.9], [0.1, 0.5], [0.1, 0.1]])
    anchors = np.array([[0.2, 0.7], [0.15, 0.45], [0.2, 0.3]])
    assert feet(anchors, line) == pytest.approx(np.array([[0.1, 0.9], [0.1, 0.45], [0.1, 0.1]]))


def test_reach_is_what_the_offsets_correct():
    center = cell_centers([cell(10, 10)])[0]
    within, beyond = (center + np.array([shift / 8 / 32, 0]) for shift in (7.4, 7.6))  # 7/8 of a cell and half a finest step
    assert not answers_to([cell(10, 10)], [within], 3, 1).deleted[0]
    assert answers_to([cell(10, 10)], [beyond], 3, 1).deleted[0]


def test_a_shape_left_with_too_few_points_goes_entirely():
    targets = cell_centers([cell(5, 5), cell(25, 5), cell(25, 25)])
    assert answers_to([cell(5, 5), cell(25, 5), cell(5, 25)], targets, 3, least=3).deleted.all()
    assert answers_to([cell(5, 5), cell(25, 5), cell(5, 25)], targets, 3, least=2).deleted.tolist() == [False, False, True]


@pytest.mark.parametrize(("make", "points"), [(polyline_anchors, 9), (polygon_anchors, 9)])
def test_shapes_lead_back_to_the_truth(make, points):
    angle = np.linspace(0.3, 5.0, points)
    shape = 0.5 + 0.35 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    moved = deleted = 0
    for seed in range(20):
        found = make(shape, 3, np.random.default_rng(seed))
        deleted += int(found.deleted.sum())
        kept = ~found.deleted
        moved += int((found.answers[kept] != STAY).any(axis=1).sum())
        ends = decode_points(found.cells[kept], found.answers[kept])
        if make is polygon_anchors:
            assert np.abs(ends - shape[kept]).max() <= 1 / 512 + 1e-9
        else:
            pieces = np.linspace(shape[:-1], shape[1:], 200).reshape(-1, 2)
            assert np.abs(ends[:, None] - pieces[None]).max(axis=2).min(axis=1).max() <= 1 / 512 + 2e-3
    assert moved > 50
    assert deleted > 5


# --- serialisation and the command ---


def test_conversation_by_hand():
    anchors = Anchors(np.array([cell(5, 5), cell(3, 5)], np.int32), np.array([[off(1, 0), STAY], [TABLE.delete] * 2], np.int32))
    text = ["<offset>", "<grid_5_5>", "<OFF_1_0>", "<OFF_0_0>", "<grid_3_5>", "<DELETE>", "</offset>"]
    assert refinement_ids(anchors) == [TOKEN_ID[t] for t in text]
    record = conversation("a.png", "the square", "mask", anchors)
    assert record["conversations"][0] == {
        "from": "human",
        "value": "<image>\nthe square\n<seg><grid_5_5><grid_3_5></seg>\nRefine each point.",
    }
    assert record["conversations"][1] == {"from": "gpt", "value": "".join(text)}


def test_expressions_and_classes_are_the_queries():
    image = np.zeros((64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[10:40, 20:50] = True
    one, two = region_of_mask(mask), region_of_mask(mask.T)
    phrases = (
        Phrase("refer", "the left one", regions=(one,)),
        Phrase("refer", "both", regions=(one, two)),
        Phrase("refer", "none"),
    )
    rng, small = np.random.default_rng(0), OffsetSettings(size_wh=(128, 128))

    def queries(sample):
        found = list(conversations_of(sample, "a.jpg", small, rng))
        return {record["conversations"][0]["value"].split("\n")[1] for record in found}, {record["kind"] for record in found}

    assert queries(Sample(image, known=(), phrases=phrases)) == ({"the left one"}, {"mask", "box"})  # RefCOCO has nothing else
    semantic = np.where(mask, np.uint8(3), np.uint8(255))
    assert queries(Sample(image, known=(), masks={"semantic": semantic}, meta={"dataset": "idd"}))[0] == {"vehicle"}  # not "3"
    assert queries(Sample(image, known=(), masks={"semantic": semantic}))[0] == {"object"}


def test_the_command_writes_reproducible_lines(tmp_path, capsys):
    arguments = ["--dataset", "world:5-6", "--size", "224x126", "--rounds", "1"]
    assert offset_data.main([*arguments, "--out", str(tmp_path / "a.jsonl")]) == 0
    assert offset_data.main([*arguments, "--out", str(tmp_path / "b.jsonl")]) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {"mask", "box", "drivable"} <= {record["kind"] for record in records}
    for record in records:
        given = record["conversations"][0]["value"].count("<grid_")
        answers = record["conversations"][1]["value"]
        assert given == answers.count("<grid_") == answers.count("<OFF_") + answers.count("<DELETE>")
    assert offset_data.main(["--dataset", "nothing:x", "--out", str(tmp_path / "c.jsonl")]) == 2
    assert "nothing" in capsys.readouterr().err
