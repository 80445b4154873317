"""The dense loss, worked by hand."""

import math

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from getok_drive.errors import ConfigError  # noqa: E402
from training.losses import dense_loss  # noqa: E402
from training.presets import PRESETS, override  # noqa: E402


def test_each_channel_has_its_own_weight_and_what_is_not_labelled_counts_nothing():
    labels = torch.tensor([[[1, 0, 1, 255]]], dtype=torch.uint8)  # two channels of two subcells
    logits = torch.tensor([[[0.0, 0.0, 2.0, 9.0]]])
    expected = (4 * math.log(2) + math.log(2) + 7 * math.log1p(math.exp(-2))) / 3
    assert dense_loss(logits, labels, (4.0, 7.0)).item() == pytest.approx(expected, rel=1e-6)


def test_a_picture_without_labels_costs_nothing():
    assert dense_loss(torch.randn(1, 2, 4), torch.full((1, 2, 4), 255, dtype=torch.uint8), (1.0, 1.0)).item() == 0.0


def test_a_weight_for_every_channel_is_demanded():
    with pytest.raises(ConfigError, match="one for each of lane, drivable"):
        override(PRESETS["tiny"], ["dense_positive_weights=(1.0, 2.0)"])
