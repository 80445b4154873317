"""What a driving scene's text leaves out, and what counts how much in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from getok_drive.errors import ConfigError
from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.vocab import OFFSET_ROUNDS, TABLE, TOKEN_ID
from getok_drive.types import Box
from training.datasets import world
from training.recipes.conversation import LossWeights
from training.recipes.driving import DrivingRecipe
from training.recipes.settings import RecipeConfig
from training.targets import elements_of


@pytest.fixture(scope="module")
def scene():
    """A frame with elements of all kinds, boxes of many heights among them."""
    for seed in range(100):
        sample = world.render(seed, (224, 126))
        if sample.lanes and sample.drivable and len(sample.boxes) > 3 and sample.signs:
            return sample
    raise AssertionError


def height(box: Box) -> float:
    return float(box.xyxy_px[3] - box.xyxy_px[1]) / 126


def written(conversation, encoder, word):
    return list(conversation.labels).count(encoder.layout.first_id + TOKEN_ID[word])


def test_boxes_too_low_to_see_are_not_written(encoder, scene):
    heights = sorted(height(box) for box in scene.boxes)
    least = (heights[1] + heights[2]) / 2
    rng = np.random.default_rng
    all_of_them = DrivingRecipe(encoder.layout)(scene, rng(0))
    tall = DrivingRecipe(encoder.layout, least_box_height=least)(scene, rng(0))
    kept = replace(scene, boxes=tuple(box for box in scene.boxes if height(box) >= least))
    assert 0 < len(kept.boxes) < len(scene.boxes)
    assert written(tall, encoder, "<box>") == sum(element.kind == "box" for element in elements_of(kept))
    assert written(all_of_them, encoder, "<box>") == sum(element.kind == "box" for element in elements_of(scene))
    assert tall.sample is scene  # the dense loss still knows them


def test_a_kinds_factor_is_for_its_words_places_and_offsets_only(encoder, scene):
    plain = DrivingRecipe(encoder.layout)(scene, np.random.default_rng(0))
    heavy = DrivingRecipe(encoder.layout, weights=LossWeights(kinds=(1, 1, 1, 3)))(scene, np.random.default_rng(0))
    assert heavy.labels == plain.labels
    changed = [label for label, a, b in zip(plain.labels, plain.weights, heavy.weights, strict=True) if a != b]
    assert [b / a for a, b in zip(plain.weights, heavy.weights, strict=True) if a != b] == pytest.approx([3.0] * len(changed))
    refined = sum(TABLE.offset_base <= label - encoder.layout.first_id < TABLE.delete for label in changed)
    assert refined % OFFSET_ROUNDS == 0 and refined <= len(scene.signs) * OFFSET_ROUNDS
    assert len(changed) - refined == len(scene.signs) * 3  # class, colour, cell; not the token that begins a sign
    assert encoder.layout.first_id + TOKEN_ID["<sign>"] not in changed


def test_kinds_are_refined_as_often_as_their_odds_say(encoder, scene):
    weights = LossWeights(propose=0.0, offset=(1.0, 1.0, 1.0), kinds=(2.0, 3.0, 4.0, 5.0))

    def refined(odds):
        """The kinds of the one element that each of many texts refines, told by their offsets' weights."""
        recipe = DrivingRecipe(encoder.layout, refine_points=1, weights=weights, refine_odds=odds)
        texts = [recipe(scene, np.random.default_rng(seed)) for seed in range(20)]
        return {KINDS[int(weight) - 2] for text in texts for weight in text.weights if weight >= 2}

    assert refined((1e-9, 1e-9, 1.0, 1e-9)) == {"box"}
    assert refined((1.0, 1e-9, 1e-9, 1e-9)) == {"lane"}
    assert {"lane", "box"} <= refined((1.0, 1.0, 1.0, 1.0))


@pytest.mark.parametrize("odds", [(1.0, 1.0), (1.0, 1.0, 0.0, 1.0)])
def test_odds_that_make_no_sense_are_refused(odds):
    with pytest.raises(ConfigError, match="expected one above 0 for each of lane, drivable, box, sign"):
        RecipeConfig(refine_odds=odds)


@pytest.mark.parametrize("kinds", [(1.0, 1.0, 1.0), (1.0, 1.0, -1.0, 1.0)])
def test_weights_that_make_no_sense_are_refused(kinds):
    with pytest.raises(ConfigError, match="kinds one each for lane, drivable, box, sign"):
        LossWeights(kinds=kinds)
    with pytest.raises(ConfigError, match="in offset one for each of 3 rounds"):
        LossWeights(offset=(1.0,))


def test_a_least_height_is_a_share():
    with pytest.raises(ConfigError, match=r"least_box_height=12: expected a share"):
        RecipeConfig(least_box_height=12)
