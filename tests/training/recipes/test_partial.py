"""What is not labelled is neither taught nor punished."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from getok_drive.preprocess import Preprocessor
from getok_drive.tokens.vocab import TOKEN_ID, TOKENS
from training.auxiliary import DENSE_CHANNELS, dense_labels
from training.collate import Collator
from training.datasets import world
from training.losses import choice_entropy
from training.recipes.conversation import IGNORE
from training.recipes.driving import DrivingRecipe
from training.recipes.partial import Labelling, assume_complete
from training.targets import Noise

ALL = {"<lane>", "<drivable>", "<box>", "<sign>", "</scene>"}


def said(labelling, previous, following):
    return {TOKENS[token] for token in labelling.alternatives(previous, following)}


@pytest.fixture(scope="module")
def scene():
    """A frame with elements of all kinds."""
    for seed in range(100):
        sample = world.render(seed, (224, 126))
        if sample.lanes and sample.drivable and len(sample.boxes) > 1 and sample.signs:
            return sample
    raise AssertionError


def only(sample, *known, **meta):
    empty = {kind: () for kind in ("lanes", "drivable", "boxes", "signs") if kind not in known}
    return replace(sample, known=known, meta={**sample.meta, **meta}, **empty)


def test_everything_labelled_leaves_no_choice(scene):
    labelling = Labelling.of(scene)
    for previous in (None, "lane", "drivable", "box", "sign"):
        for following in ("lane", "drivable", "box", "sign", None):
            assert not labelling.alternatives(previous, following)


def test_lanes_alone(scene):
    labelling = Labelling.of(only(scene, "lanes"))
    assert said(labelling, None, "lane") == set()  # there is a lane: certain
    assert said(labelling, "lane", "lane") == set()
    assert said(labelling, "lane", None) == {"<drivable>", "<box>", "<sign>"}  # no further lane, but anything else
    assert said(labelling, None, None) == {"<drivable>", "<box>", "<sign>"}


def test_unlabelled_in_between(scene):
    labelling = Labelling.of(only(scene, "lanes", "boxes"))
    assert said(labelling, "lane", "box") == {"<drivable>"}
    assert said(labelling, "box", "box") == set()
    assert said(labelling, "box", None) == {"<sign>"}
    assert said(Labelling.of(only(scene, "boxes")), None, "box") == {"<lane>", "<drivable>"}


def test_some_classes_of_a_kind(scene):
    partly = only(scene, "boxes", "signs", labelled_classes={"boxes": ("car", "truck")})
    labelling = Labelling.of(partly)
    # one more box or none: never known, so the label may not depend on which it is
    for following in ("box", "sign", None):
        own = {"box": "<box>", "sign": "<sign>", None: "</scene>"}[following]
        assert said(labelling, "box", following) | {own} == {"<box>", "<sign>", "</scene>"}
        assert said(labelling, None, following) | {own} == ALL
    assert said(labelling, "sign", None) == set()
    assert not Labelling.of(assume_complete(partly, ("boxes",))).open
    assert not labelling.teaches("box") and labelling.teaches("sign") and not labelling.teaches("lane")


def test_the_conversation_of_a_lane_data_set(scene, encoder):
    recipe = DrivingRecipe(encoder.layout, Noise(jitter=0.0, shift=0.0, phantoms=1.0))
    lanes = only(scene, "lanes", derived=("lane_type", "lane_color"))
    for seed in range(10):
        text = recipe(lanes, np.random.default_rng(seed))
        local = [token - encoder.layout.first_id for token in text.ids]
        labels = [None if label == IGNORE else label - encoder.layout.first_id for label in text.labels]
        assert TOKEN_ID["<box>"] not in local and TOKEN_ID["<sign>"] not in local  # no made-up element of an unlabelled kind
        end = local.index(TOKEN_ID["</scene>"])
        assert text.alternatives == {end: frozenset(TOKEN_ID[word] for word in ("<drivable>", "<box>", "<sign>"))}
        for at, token in enumerate(local[:end]):
            if token == TOKEN_ID["<lane>"]:
                assert labels[at] == token and labels[at + 1] is None and labels[at + 2] is None  # guessed words are read only
                assert labels[at + 3] == local[at + 3]
    assert recipe(only(scene), np.random.default_rng(0)) is None


def test_the_loss_asks_for_any_right_answer(scene, encoder):
    recipe = DrivingRecipe(encoder.layout)
    texts = [recipe(sample, np.random.default_rng(0)) for sample in (scene, only(scene, "lanes"))]
    batch = Collator(Preprocessor((224, 112)), encoder.layout)(texts)
    taught = batch.labels[:, 1:] != IGNORE
    logits = torch.randn(int(taught.sum()), encoder.layout.first_id + len(TOKENS) + 3, requires_grad=True)
    labels = batch.labels[:, 1:][taught]
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    entropy = choice_entropy(plain, logits, batch.choices, taught)
    index = batch.choices.index[:, 1:][taught]
    (place,) = (index >= 0).nonzero().flatten().tolist()
    rest = torch.arange(len(labels)) != place
    torch.testing.assert_close(entropy[rest], plain[rest], rtol=0, atol=0)
    right = [encoder.layout.first_id + TOKEN_ID[word] for word in ("<drivable>", "<box>", "<sign>", "</scene>")]
    expected = -torch.log(torch.softmax(logits[place], 0)[right].sum())
    torch.testing.assert_close(entropy[place], expected)
    entropy[place].backward()
    gradient = logits.grad[place]
    assert gradient[right].max() < 0 < gradient[encoder.layout.first_id + TOKEN_ID["<lane>"]]


def test_choices_follow_their_rows(scene, encoder):
    recipe = DrivingRecipe(encoder.layout)
    texts = [recipe(sample, np.random.default_rng(0)) for sample in (scene, only(scene, "lanes"), only(scene, "signs"))]
    batch = Collator(Preprocessor((224, 112)), encoder.layout)(texts)
    part = batch.rows(torch.tensor([2, 1]))
    for row, whole in ((0, 2), (1, 1)):
        stop = part.ids.shape[1]
        assert torch.equal(part.choices.index[row], batch.choices.index[whole, :stop])
    assert Collator(Preprocessor((224, 112)), encoder.layout)(texts[:1]).choices is None


def test_dense_channels_of_partly_labelled_kinds_are_left_out(scene):
    partly = only(scene, "boxes", "signs", labelled_classes={"boxes": ("car", "truck", "bus"), "signs": ("stop",)})
    picture = dense_labels(partly, (32, 16))
    left_out = {name for name, channel in zip(DENSE_CHANNELS, picture, strict=False) if (channel == 255).all()}
    assert set(DENSE_CHANNELS) - left_out == {"vehicle", "vehicle_first", "vehicle_second"}
