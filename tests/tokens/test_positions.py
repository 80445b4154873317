"""Positions of the rotary embedding: Qwen's own rule, and the one that writes on the image."""

import numpy as np
import pytest

from getok_drive.errors import ConfigError
from getok_drive.tokens.positions import Positions, PositionSpec
from getok_drive.tokens.vocab import TOKEN_ID

FIRST = 100


def ids(text: str) -> list[int]:
    return [FIRST + TOKEN_ID[f"<{word}>"] for word in text.split()]


def test_text_rule_by_hand():
    spec = PositionSpec("text", 2, (2, 3), FIRST)
    positions = np.concatenate([spec.prefix(), Positions(spec).append([7, *ids("grid_5_5")])], axis=1)
    assert positions.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ]


def test_text_rule_is_what_transformers_infers(tiny_checkpoint):
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    from training.model import load_checkpoint

    model, _ = load_checkpoint(tiny_checkpoint)
    pad = model.config.image_token_id
    tokens = torch.tensor([[5] * 7 + [pad] * 32 + [6] * 20])
    theirs, _ = model.model.get_rope_index(tokens, (tokens == pad).int(), image_grid_thw=torch.tensor([[1, 8, 16]]))
    spec = PositionSpec("text", 7, (4, 8), FIRST)
    ours = np.concatenate([spec.prefix(), Positions(spec).append([6] * 20)], axis=1)
    np.testing.assert_array_equal(ours, theirs[:, 0].numpy())


def test_image_rule_by_hand():
    spec = PositionSpec("image", 2, (2, 4), FIRST)
    visual = spec.prefix()[:, 2:] - 2
    assert visual[0].tolist() == [0] * 8
    assert visual[1].tolist() == [8] * 4 + [24] * 4
    assert visual[2].tolist() == [4, 12, 20, 28] * 2
    positions = Positions(spec)
    places = positions.append([3, *ids("lane grid_4_31 OFF_1_0 OFF_-1_-1 OFF_0_0 grid_0_0 DELETE /offset")]) - 2
    assert places[0].tolist() == list(range(32, 41))
    assert places[1].tolist() == [16, 16, 31.5, 31.5, 31.25, 31.25, 0.5, 0.5, 16]
    assert places[2].tolist() == [16, 16, 4.5, 5.0, 4.75, 4.75, 0.5, 0.5, 16]


def test_a_grid_token_stands_on_its_visual_token_at_any_resolution():
    cells = [FIRST + 32 * row + column for row in range(32) for column in range(32)]
    for merged_hw in ((4, 8), (7, 12), (32, 32)):
        spec = PositionSpec("image", 0, merged_hw, FIRST)
        tokens, places = spec.prefix()[1:], Positions(spec).append(cells)[1:]
        nearest = np.abs(places[:, :, None] - tokens[:, None]).max(axis=0).min(axis=1)
        assert nearest.max() <= 16 / min(merged_hw)  # half a visual token


def test_continuations_are_independent_and_equal_one_run():
    spec = PositionSpec("image", 3, (2, 2), FIRST)
    whole = ids("grid_9_9 OFF_1_1 OFF_1_1 OFF_-1_0 lane grid_1_2")
    expected = Positions(spec).append(whole)
    first = Positions(spec)
    head = first.append(whole[:2])
    fork = first.copy()
    first.append(ids("grid_0_0"))
    np.testing.assert_array_equal(np.concatenate([head, fork.append(whole[2:])], axis=1), expected)


def test_what_is_left_out_moves_time_alone():
    spec = PositionSpec("image", 3, (2, 2), FIRST)
    places = Positions(spec).append(ids("grid_1_1 grid_2_1"), [0, 7])
    assert places.tolist() == [[35, 42], [4.5, 4.5], [4.5, 5.5]]


def test_unknown_rule():
    with pytest.raises(ConfigError, match="text, image"):
        PositionSpec("pixel", 1, (2, 2), FIRST)
