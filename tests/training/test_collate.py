"""What the model reads in training is what it reads and writes at run time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from getok_drive.preprocess import Preprocessor
from getok_drive.tokens.codec import decode_points
from getok_drive.tokens.elements import propose_ids, refine_ids
from getok_drive.tokens.grammar import RefineGrammar
from getok_drive.tokens.parsing import parse
from getok_drive.tokens.vocab import TABLE, TOKEN_ID
from getok_drive.types import Box, Lane, Sign
from training.auxiliary import DENSE_CHANNELS, DENSE_CLASSES, corner_labels, dense_labels, lane_labels
from training.collate import Collator, Layout
from training.datasets import world
from training.model import SIZES, build_model, build_tokenizer
from training.recipes.conversation import IGNORE
from training.recipes.driving import DrivingRecipe
from training.samples import Sample
from training.targets import Noise, elements_of, noisy_targets, slipped, thin_lane

SAMPLES = [world.render(seed, (224, 126)) for seed in range(4)]


@pytest.fixture(scope="module")
def layout():
    tokenizer = build_tokenizer()
    return Layout.of(tokenizer, build_model(SIZES["tiny"], tokenizer).config)


def collate(layout, noise=None, refine_points=10_000):
    recipe, rng = DrivingRecipe(layout, noise, refine_points), np.random.default_rng(0)
    return Collator(Preprocessor((224, 112)), layout)([recipe(sample, rng) for sample in SAMPLES])


def test_without_noise_the_ids_are_the_canonical_text(layout):
    batch = collate(layout)
    for row, sample in zip(batch.ids.tolist(), SAMPLES, strict=True):
        elements = elements_of(sample)
        answer = [i - layout.first_id for i in row[batch.visual.stop + len(layout.after) :]]
        propose, refine = propose_ids(elements), refine_ids(elements)
        assert answer[: len(propose)] == propose
        rest = answer[len(propose) + len(layout.refine_turn) :]
        assert rest[: len(refine)] == refine
        assert parse(propose, refine, size_wh=sample.size_wh)[-1].dropped == 0


def test_pixels_are_the_runtimes_bit_for_bit(layout):
    batch = collate(layout)
    for row, sample in zip(batch.pixel_values.numpy(), SAMPLES, strict=True):
        np.testing.assert_array_equal(row, Preprocessor((224, 112))(sample.image_bgr)[0])


def test_dropped_elements_keep_their_places(layout):
    whole, part = collate(layout), collate(layout, refine_points=6)
    assert part.ids.shape[1] < whole.ids.shape[1]
    for row in range(len(SAMPLES)):
        places = dict(
            zip(whole.positions[0, row].tolist()[whole.visual.stop :], whole.ids[row].tolist()[whole.visual.stop :], strict=True)
        )
        taught = (part.labels[row] != IGNORE).nonzero().flatten().tolist()
        for index in taught[:-1]:
            assert places[int(part.positions[0, row, index])] == int(part.ids[row, index])


def test_noise_moves_the_context_and_the_answers_lead_back():
    elements = elements_of(SAMPLES[0])
    targets = noisy_targets(elements, Noise(jitter=0.5, shift=0.0, phantoms=0.0), np.random.default_rng(1))
    moved = 0
    for target in targets:
        truth = decode_points(target.element.cells, target.element.offsets)
        reached = decode_points(target.context_cells, target.answers)
        away = np.abs(decode_points(target.context_cells) - truth).max(axis=1)
        reachable = away <= 7 / 8 / 32
        assert np.abs(reached - truth)[reachable].max(initial=0) <= 1 / 256
        moved += int((target.context_cells != target.element.cells).sum())
    assert moved > 5


def test_a_slipped_offset_is_not_taught_and_the_later_ones_lead_back():
    none, some = 0, 0
    for target in noisy_targets(elements_of(SAMPLES[0]), Noise(0.0, 0.0, 0.0), np.random.default_rng(1)):
        taught, read = slipped(target, 0.5, np.random.default_rng(2))
        truth = decode_points(target.element.cells, target.element.offsets)
        np.testing.assert_array_equal(taught[:, 0], target.answers[:, 0])
        np.testing.assert_array_equal(taught[:, 1:], read[:, 1:])
        off = taught[:, 0] != read[:, 0]
        np.testing.assert_array_equal(read[~off], target.answers[~off])
        left, begun = (np.abs(decode_points(target.context_cells, read[:, :n]) - truth) * 32 for n in (3, 1))
        assert (
            left <= np.maximum(begun - 3 / 8, 1 / 16) + 1e-6
        ).all()  # as near as a quarter and an eighth of a cell can bring it
        none, some = none + int((~off).sum()), some + int(off.sum())
    assert none > 5 and some > 5


def test_a_shifted_element_moves_as_a_whole():
    elements = elements_of(SAMPLES[0])
    targets = noisy_targets(elements, Noise(jitter=0.0, shift=1.0, phantoms=0.0), np.random.default_rng(1))
    steps = []
    for target in targets:
        (row, column), (true_row, true_column) = (np.divmod(cells, 32) for cells in (target.context_cells, target.element.cells))
        inside = (true_row % 31 > 0) & (true_column % 31 > 0)  # at the border it stays in the picture
        step = np.stack([row - true_row, column - true_column], axis=1)[inside]
        assert (step == step[:1]).all()
        steps += step[:1].tolist()
    assert len({tuple(step) for step in steps}) > 3


def test_phantoms_are_read_but_not_taught_and_then_deleted(layout):
    noise = Noise(jitter=0.0, shift=0.0, phantoms=1.0)
    targets = noisy_targets(elements_of(SAMPLES[1]), noise, np.random.default_rng(0))
    phantoms = [t for t in targets if t.phantom]
    assert phantoms
    assert all((t.answers[:, 0] == TABLE.delete).all() for t in phantoms)
    batch = collate(layout, noise)
    delete = layout.first_id + TABLE.delete
    assert int((batch.labels == delete).sum()) >= len(SAMPLES)
    end = layout.first_id + TOKEN_ID["</scene>"]
    assert ((batch.labels == end).sum(dim=1) >= 1).all()


def test_the_grammar_dictates_the_given_back_cells():
    elements = elements_of(SAMPLES[2])
    grammar, text = RefineGrammar(propose_ids(elements)), refine_ids(elements)
    for token in text:
        forced = grammar.forced()
        assert forced is None or forced == token
        assert grammar.allowed()[token]
        grammar.advance(token)
    assert grammar.done


def test_thin_lane_keeps_the_ends_and_the_shape():
    y = np.linspace(250.0, 120.0, 200)
    x = 200 + 0.002 * (250 - y) ** 2
    dense = np.stack([x, y], axis=1).astype(np.float32)
    thin = thin_lane(dense, 252)
    assert len(thin) <= 8
    np.testing.assert_array_equal(thin[[0, -1]], dense[[0, -1]])
    assert np.abs(np.interp(-y, -thin[:, 1], thin[:, 0]) - x).max() < 1.5


def test_thin_lane_follows_bends_between_its_rows():
    """A straight lane has its ends and every third row; one that turns level between two of them has its bend, too."""
    row_px = 8.0  # of a picture of 256 px: rows at 251.5, 227.5, 203.5 ...
    straight = np.array([[0.0, 251.5], [96.0, 155.5]], np.float32)
    np.testing.assert_allclose(thin_lane(straight, 256)[:, 1], [251.5, 227.5, 203.5, 179.5, 155.5])
    level = np.linspace([55.0, 196.5], [300.0, 196.5], 50)[1:]
    bent = np.concatenate([np.linspace([0.0, 251.5], [55.0, 196.5], 50), level]).astype(np.float32)
    np.testing.assert_allclose(thin_lane(bent, 256), [[0, 251.5], [24, 227.5], [48, 203.5], [55, 196.5], [300, 196.5]], atol=1e-3)
    slight = bent + np.where(bent[:, :1] > 55, [[0, 0.1 * row_px]], 0)
    assert len(thin_lane(slight[bent[:, 0] > 54], 256)) == 2  # nowhere a quarter of a row from its chord
    falling = np.array([[0.0, 200.0], [40.0, 150.0], [60.0, 170.0]], np.float32)
    np.testing.assert_allclose(thin_lane(falling, 256)[-1], [40, 150])  # behind a crest


def test_dense_labels_mark_what_is_labelled_only():
    picture = dense_labels(SAMPLES[0], (64, 32))
    assert set(np.unique(picture[:-1])) <= {0, 1}
    unlabelled = dense_labels(replace(SAMPLES[0], known=("lanes",)), (64, 32))
    assert (unlabelled[1:] == 255).all()
    np.testing.assert_array_equal(unlabelled[0], picture[0])
    width, height = SAMPLES[0].size_wh
    half = [-0.5, -0.5, width / 2 - 0.5, height - 0.5]
    ignoring = dense_labels(replace(SAMPLES[0], meta={**SAMPLES[0].meta, "ignore_xyxy_px": [half]}), (64, 32))
    np.testing.assert_array_equal(ignoring[2:5, :, :32], np.where(picture[2:5, :, :32], 1, 255))
    np.testing.assert_array_equal(ignoring[2:5, :, 32:], picture[2:5, :, 32:])
    np.testing.assert_array_equal(ignoring[6:12, :, :32], np.where(picture[6:12, :, :32], 1, 255))  # the boxes' corners
    np.testing.assert_array_equal(ignoring[[0, 1, 5]], picture[[0, 1, 5]])


def test_a_box_is_marked_at_its_corners_too():
    car, far = Box(np.array([10, 10, 31, 20], np.float32), "car"), Box(np.array([40, 5, 42, 5.9], np.float32), "car")
    walker = Box(np.array([-10, 0, 70, 39], np.float32), "pedestrian")  # out of the picture on every side but one
    sample = Sample(image_bgr=np.zeros((32, 64, 3), np.uint8), boxes=(car, far, walker))
    picture = dict(zip(DENSE_CHANNELS, dense_labels(sample, (64, 32)), strict=False))
    marked = {name: [(int(x), int(y)) for y, x in zip(*np.nonzero(picture[name]), strict=True)] for name in DENSE_CHANNELS[6:]}
    assert marked == {
        "vehicle_first": [(10, 10)], "vulnerable_first": [(0, 0)], "obstacle_first": [],
        "vehicle_second": [(31, 20)], "vulnerable_second": [(63, 31)], "obstacle_second": [],
    }  # fmt: skip
    half = dict(zip(DENSE_CHANNELS, dense_labels(sample, (32, 16)), strict=False))
    assert half["vehicle_second"][10, 15] == 1 and half["vehicle_second"].sum() == 1


def test_cells_are_told_the_way_to_the_nearest_corners():
    car, walker = (
        Box(np.array([9.5, 7.5, 29.5, 19.5], np.float32), "car"),
        Box(np.array([12.5, 7.5, 13.5, 11.5], np.float32), "pedestrian"),
    )
    low = Box(np.array([50.0, 5.0, 60.0, 5.5], np.float32), "car")  # lower than a cell: told of neither corner
    sample = Sample(image_bgr=np.zeros((32, 64, 3), np.uint8), boxes=(car, walker, low))
    ways = corner_labels(sample)
    assert ways.shape == (32, 32, 2, 2)
    # in cells (2 x 1 px) the first corners lie at (5, 8) and (6.5, 8), the second ones at (15, 20) and (7, 12)
    np.testing.assert_allclose(ways[7, 4, 0], [0.5, 0.5])  # the cell left of and above the car's
    np.testing.assert_allclose(ways[8, 5, 0], [-0.5, -0.5])
    np.testing.assert_allclose(ways[8, 6, 0], [0.0, -0.5])  # the walker's is nearer than the car's
    np.testing.assert_allclose(ways[9, 4, 0], [0.5, -1.5])
    np.testing.assert_allclose(ways[12, 7, 1], [-0.5, -0.5])
    assert np.isnan(ways[8, 9, 0]).all() and np.isnan(ways[5, 25:31]).all()
    assert int(np.isfinite(ways[..., 1, 0]).sum()) == 18  # 3 x 3 cells around each second corner
    assert np.isnan(corner_labels(replace(sample, known=("lanes",)))).all()


def test_cells_are_told_the_way_to_lanes_and_their_ends():
    """Cells of 2 x 1 px: one lane straight up through the middle of column 10, from row 20 to the top of row 10."""
    lane = Lane(np.array([[20.5, 20.0], [20.5, 9.5]], np.float32), "solid", "white")
    sample = Sample(image_bgr=np.zeros((32, 64, 3), np.uint8), lanes=(lane,))
    ways = lane_labels(sample)
    assert ways.shape == (32, 32, 2, 2)
    np.testing.assert_allclose(ways[12:20, 10, 0], [[0.0, 0.0]] * 8, atol=0.07)  # between points an eighth of a cell apart
    np.testing.assert_allclose(ways[12:20, 9, 0], [[1.0, 0.0]] * 8, atol=0.07)
    np.testing.assert_allclose(ways[9, 11], [[-1.0, 0.5]] * 2, atol=1e-6)  # above it: its end is what is nearest
    np.testing.assert_allclose(ways[20, 10, 1], [0.0, 0.0], atol=1e-6)
    assert np.isnan(ways[:, 12:]).all() and np.isnan(ways[15, 10, 1]).all()
    assert int(np.isfinite(ways[..., 1, 0]).sum()) == 18
    assert np.isnan(lane_labels(replace(sample, known=("boxes",)))).all()


def test_corners_beyond_the_picture_are_told_where_a_cell_is_near():
    sample = Sample(
        image_bgr=np.zeros((32, 64, 3), np.uint8), boxes=(Box(np.array([-2.5, -0.5, 90.0, 31.5], np.float32), "car"),)
    )
    ways = corner_labels(sample)
    np.testing.assert_allclose(ways[0, 0, 0], [-1.5, -0.5])
    assert int(np.isfinite(ways[..., 0, 0]).sum()) == 2 and np.isnan(ways[..., 1, :]).all()


def test_the_last_dense_picture_names_what_is_at_the_centres():
    car, bus = Box(np.array([10, 10, 31, 31], np.float32), "car"), Box(np.array([-10, 0, 51, 39], np.float32), "bus")
    stop = Sign(np.array([50.0, 4.0], np.float32), "stop", "red")
    sample = Sample(image_bgr=np.zeros((32, 64, 3), np.uint8), boxes=(bus, car), signs=(stop,))
    names = dense_labels(sample, (64, 32))[-1]
    assert DENSE_CLASSES[names[4, 50]] == "stop"
    assert DENSE_CLASSES[names[20, 20]] == "bus"  # their centres coincide: the one that stands lower is nearer
    assert (names != 255).sum() == 10  # two dots, no more
    unlabelled = dense_labels(replace(sample, known=("lanes", "signs")), (64, 32))[-1]
    assert unlabelled[20, 20] == 255 and unlabelled[4, 50] == names[4, 50]
