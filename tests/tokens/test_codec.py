import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from getok_drive.errors import InputError
from getok_drive.tokens import codec
from getok_drive.tokens.vocab import GRID_SIZE, TABLE, TOKEN_ID, TOKENS

NORM = arrays(np.float64, st.tuples(st.integers(0, 20), st.just(2)), elements=st.floats(0, 1))
SIZES = st.tuples(st.integers(1, 100_000), st.integers(1, 100_000))


def grid(column: int, row: int) -> int:
    return TOKEN_ID[f"<grid_{column}_{row}>"]


def test_table_has_the_spatial_tokens_of_the_paper():
    assert TABLE.spatial_count == 1034
    assert len(set(TOKENS)) == len(TOKENS)
    assert TOKENS[codec.OFFSET_NONE] == "<OFF_0_0>"


@given(NORM, SIZES, st.integers(0, 5))
def test_round_trip_errs_by_at_most_half_a_finest_step(points, size_wh, rounds):
    points_px = codec.norm_to_px(points, size_wh)
    decoded = codec.norm_to_px(codec.decode_points(*codec.encode_points(codec.px_to_norm(points_px, size_wh), rounds)), size_wh)
    half_step_px = np.array(size_wh) / (GRID_SIZE * 2**rounds) / 2
    assert (np.abs(decoded - points_px) <= half_step_px * (1 + 1e-9) + 1e-9).all()


@given(NORM, st.integers(0, 5))
def test_decode_of_encode_is_idempotent(points, rounds):
    once = codec.decode_points(*codec.encode_points(points, rounds))
    assert np.array_equal(codec.decode_points(*codec.encode_points(once, rounds)), once)
    if rounds:
        assert np.array_equal(once, np.rint(once * GRID_SIZE * 2**rounds) / (GRID_SIZE * 2**rounds))


@given(st.integers(0, GRID_SIZE**2 - 1), arrays(np.float64, (1, 2), elements=st.floats(-0.2, 1.2)))
def test_offsets_from_any_cell_are_the_best_there_are(cell, point):
    """Against all 27 sums per axis, for targets within reach or not."""
    decoded = codec.decode_points([cell], codec.offsets_for([cell], point))[0]
    steps = np.array([s for a in (-4, 0, 4) for b in (-2, 0, 2) for s in (a + b - 1, a + b, a + b + 1)]) / 256
    reachable = codec.cell_centers([cell])[0][:, None] + steps[None]
    target = np.clip(point[0], 0, 1)
    best = np.abs(reachable - target[:, None]).min(axis=1)
    assert np.allclose(np.abs(decoded - target), best, atol=1e-12)
    assert np.allclose(best[np.abs(target - codec.cell_centers([cell])[0]) <= 7 / 8 / GRID_SIZE] <= 1 / 512 + 1e-12, True)


def test_a_point_worked_by_hand():
    # x = 0.3: cell 9 (9.6), centre 9.5/32, 0.1 cell to the right: stay, stay (0.1 < 1/8), 1/8 right (0.1 > 1/16).
    # y = 0.99: cell 31 (31.68), centre 31.5/32, 0.18 cell down: stay (< 1/4), 1/4 down (> 1/8), then -0.07: 1/8 up (> 1/16).
    cells, offsets = codec.encode_points([[0.3, 0.99]])
    assert [TOKENS[t] for t in (*cells, *offsets[0])] == ["<grid_9_31>", "<OFF_0_0>", "<OFF_0_1>", "<OFF_1_-1>"]
    assert codec.decode_points(cells, offsets).tolist() == [[(9.5 + 1 / 8) / 32, (31.5 + 1 / 4 - 1 / 8) / 32]]


def test_first_round_is_the_papers_offset_of_one_sixty_fourth():
    moved = codec.decode_points([grid(5, 5)], [[TOKEN_ID["<OFF_1_-1>"]]]) - codec.cell_centers([grid(5, 5)])
    assert moved.tolist() == [[1 / 64, -1 / 64]]


def test_borders_and_outside():
    cells, offsets = codec.encode_points([[0, 0], [1, 1], [-5, 0.5], [np.inf, -np.inf]])
    assert cells.tolist() == [grid(0, 0), grid(31, 31), grid(0, 16), grid(31, 0)]
    assert codec.decode_points(cells, offsets).tolist() == [[0, 0], [1, 1], [0, 0.5], [1, 0]]
    outwards = [[TOKEN_ID["<OFF_-1_-1>"]] * 3]
    assert codec.decode_points([grid(0, 0)], outwards).tolist() == [[0, 0]]


def test_half_pixel_rule():
    assert codec.px_to_norm([[-0.5, 0]], (10, 4)).tolist() == [[0, 0.125]]
    assert codec.norm_to_px([[1, 0.125]], (10, 4)).tolist() == [[9.5, 0]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: codec.encode_points([[np.nan, 0]]),
        lambda: codec.encode_points([0.5, 0.5]),
        lambda: codec.encode_points([[0.5, 0.5]], -1),
        lambda: codec.decode_points([1024]),
        lambda: codec.decode_points([0], [[TABLE.delete]]),
        lambda: codec.decode_points([0, 1], [[codec.OFFSET_NONE]]),
        lambda: codec.offsets_for([0, 1], [[0.5, 0.5]]),
        lambda: codec.px_to_norm([[1, 1]], (0, 5)),
        lambda: codec.mask_to_cells(np.zeros((0, 4), bool)),
    ],
)
def test_wrong_input_is_named(call):
    with pytest.raises(InputError):
        call()


@given(arrays(np.bool_, (GRID_SIZE, GRID_SIZE)), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=30)
def test_masks_both_ways(cells_wanted, factor_x, factor_y):
    wanted = np.flatnonzero(cells_wanted)
    mask = codec.cells_to_mask(wanted, (GRID_SIZE * factor_x, GRID_SIZE * factor_y))
    assert mask.sum() == len(wanted) * factor_x * factor_y
    assert codec.mask_to_cells(mask).tolist() == wanted.tolist()


def test_mask_of_any_size_keeps_the_cells_whose_centre_it_holds():
    mask = np.zeros((253, 449), bool)
    mask[100:200, 30:300] = True
    centers = codec.cells_to_points_px(np.arange(GRID_SIZE**2), (449, 253))
    inside = (np.abs(centers[:, 0] - 164.5) < 135) & (np.abs(centers[:, 1] - 149.5) < 50)
    assert codec.mask_to_cells(mask).tolist() == np.flatnonzero(inside).tolist()


@given(st.lists(st.integers(0, len(TOKENS) - 1)))
def test_text_both_ways(ids):
    assert codec.from_text(codec.to_text(ids)) == ids


def test_text_is_a_line_per_element_and_reports_the_unknown():
    ids = [TOKEN_ID[t] for t in ("<sign>", "<stop>", "<red>", "<grid_1_2>", "</scene>")]
    assert codec.to_text(ids) == "<sign><stop><red><grid_1_2>\n</scene>"
    assert codec.to_text([99999, -3]) == "<unknown:99999><unknown:-3>"
    assert codec.from_text("hello <box> <nonsense><grid_1_2") == [-1, TOKEN_ID["<box>"], -1, -1]
