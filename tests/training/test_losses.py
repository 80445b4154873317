"""The dense loss, worked by hand, and whom it teaches."""

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from safetensors.torch import save_file  # noqa: E402

from getok_drive.errors import ConfigError  # noqa: E402
from training.auxiliary import DENSE_CHANNELS, DENSE_CLASSES  # noqa: E402
from training.batches import RecipeBatches  # noqa: E402
from training.collate import DENSE_SUBCELLS, Layout  # noqa: E402
from training.losses import HEADS, TrainedModel, class_entropy, dense_loss, labels_by_place  # noqa: E402
from training.model import SIZES, ModelSize, build_model, build_tokenizer  # noqa: E402
from training.presets import PRESETS, override  # noqa: E402
from training.recipes.encoder import Encoder  # noqa: E402


def test_each_channel_has_its_own_weight_and_what_is_not_labelled_counts_nothing():
    labels = torch.tensor([[[1, 0, 1, 255]]], dtype=torch.uint8)  # two channels of two subcells
    logits = torch.tensor([[[0.0, 0.0, 2.0, 9.0]]])
    expected = (4 * math.log(2) + math.log(2) + 7 * math.log1p(math.exp(-2))) / 3
    assert dense_loss(logits, labels, (4.0, 7.0)).item() == pytest.approx(expected, rel=1e-6)


def test_a_picture_without_labels_costs_nothing():
    assert dense_loss(torch.randn(1, 2, 4), torch.full((1, 2, 4), 255, dtype=torch.uint8), (1.0, 1.0)).item() == 0.0


def test_classes_are_asked_where_they_are_labelled():
    classes = len(DENSE_CLASSES)
    logits = torch.zeros(1, 2, classes * 4)
    labels = torch.full((1, 2, 4), 255, dtype=torch.uint8)
    assert class_entropy(logits, labels).item() == 0.0
    labels[0, 1, 2] = 3
    assert class_entropy(logits, labels).item() == pytest.approx(math.log(classes), rel=1e-6)
    logits.view(1, 2, classes, 4)[0, 1, 3, 2] = 5.0  # the right class at the labelled subcell
    logits.view(1, 2, classes, 4)[0, 1, 4, 1] = 50.0  # another subcell
    assert class_entropy(logits, labels).item() == pytest.approx(math.log(math.exp(5) + classes - 1) - 5, rel=1e-5)
    labels[0, 0, 0] = 0
    assert class_entropy(logits, labels).item() > math.log(classes)  # summed


@pytest.mark.parametrize("merged_hw", [(8, 16), (2, 3)], ids=["finer than the grid", "coarser"])
def test_a_cell_is_labelled_by_what_lies_in_it(merged_hw):
    """By hand: one occupied subcell, one unlabelled, one named centre, in a picture of subcells put into tokens' order."""
    (rows, columns), side = merged_hw, DENSE_SUBCELLS
    high, wide = rows * side, columns * side
    picture = torch.zeros(len(DENSE_CHANNELS) + 1, high, wide, dtype=torch.uint8)
    picture[-1] = 255
    picture[0, high - 1, 0] = 1  # the lowest row, the leftmost column
    picture[1, 0, wide - 1] = 255
    picture[-1, 0, 0] = 4
    dense = picture.view(-1, rows, side, columns, side).permute(1, 3, 0, 2, 4).reshape(1, rows * columns, -1)
    labels = labels_by_place(dense, merged_hw, (32, 32)).view(32, 32, -1)
    assert labels[31, 0, 0] == 1 and labels[0, 0, 0] == 0 and labels[0, 31, 0] == 0
    assert labels[0, 31, 1] == 255 and labels[31, 31, 1] == 0
    assert labels[0, 0, -1] == 4 and labels[31, 31, -1] == 255
    if merged_hw == (8, 16):
        assert [int((labels[..., at] == value).sum()) for at, value in ((0, 1), (1, 255), (-1, 4))] == [1, 1, 1]


def test_cells_with_detail_have_a_head_of_their_own():
    model, tokenizer = _with_cells(), build_tokenizer()
    config = override(PRESETS["tiny"], ["stages=((1, (128, 64), True),)", "dense_class_weight=60.0"])
    batch = RecipeBatches(config, config.stages[0], Encoder(tokenizer, Layout.of(tokenizer, model.config)), 0, 1)[0][0]
    trained = TrainedModel(model)
    assert "cell_head.weight" in trained.heads.state_dict()
    weights = {"class_weight": 60.0, "way_weights": (60.0, 25.0)}
    trained(batch, (4, 8), True, 1.0, config.dense_positive_weights, **weights).total.backward()
    for head in (trained.corner_head, trained.lane_head):
        assert head is not None and head.weight.grad.any(dim=1).all()
    assert trained.cell_head is not None and trained.cell_head.weight.grad.abs().min(dim=1).values.gt(0).any()
    assert model.cells.detail.weight.grad.any()  # which is zero itself, and is taught by the head


def test_cells_learn_the_ways_to_corners_and_lanes():
    """The loss by hand: three cells with a label each, one with an error below a tenth of a cell, which counts by its square."""
    trained = TrainedModel(_with_cells())
    for parameter in (*trained.corner_head.parameters(), *trained.lane_head.parameters()):
        torch.nn.init.zeros_(parameter)
    cells = torch.randn(1, 1024, 8)
    ways = torch.full((1, 32, 32, 4, 2), float("nan"))
    ways[0, 0, 1, 0], ways[0, 31, 31, 1] = torch.tensor([0.05, -0.5]), torch.tensor([1.5, 0.0])
    ways[0, 3, 4, 2] = torch.tensor([0.0, 0.25])
    loss = trained._ways(cells, ways, (1.0, 10.0))
    assert loss.item() == pytest.approx(DENSE_SUBCELLS * (0.05**2 / 0.2 + 0.45 + 1.45 + 10 * 0.2), rel=1e-5)
    loss.backward()
    assert trained.corner_head.bias.grad.ne(0).sum() == 3 and trained.lane_head.bias.grad.ne(0).sum() == 1
    assert torch.isfinite(trained.corner_head.weight.grad).all()
    assert trained._ways(cells, torch.full_like(ways, float("nan")), (1.0, 1.0)).item() == 0.0


def test_convolutions_learn_to_name_what_lies_where_they_look():
    """A head on one place alone, and a label there: the gradient reaches the head, at that place only, and the convolutions."""
    model = _with_convolutions()
    trained = TrainedModel(model)
    rows, columns, side = 2, 4, model.model.visual.stem.side
    dense = torch.zeros(1, rows * columns, (len(DENSE_CHANNELS) + 1) * DENSE_SUBCELLS**2, dtype=torch.uint8)
    dense[..., -(DENSE_SUBCELLS**2) :] = 255
    seen = torch.randn(1, rows * columns, model.model.visual.stem.proj.in_features, requires_grad=True)
    assert trained._stem_classes(seen, dense, (rows, columns)).item() == 0.0
    dense[0, 5, -(DENSE_SUBCELLS**2)] = 3  # upper left subcell of the sixth patch
    loss = trained._stem_classes(seen, dense, (rows, columns))
    loss.backward()
    touched = seen.grad.view(rows * columns, side, side, -1).abs().sum(-1).nonzero().tolist()
    assert touched == [[5, 0, 0]]
    assert loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(
            trained.stem_class_head(seen.view(rows * columns, side, side, -1)[5, 0, 0]), torch.tensor(3)
        ).item()
        / (rows * columns * side**2 * len(DENSE_CHANNELS)),
        rel=1e-5,
    )


def test_a_weight_for_every_channel_is_demanded():
    with pytest.raises(ConfigError, match="one for each of lane, drivable"):
        override(PRESETS["tiny"], ["dense_positive_weights=(1.0, 2.0)"])


def _with_cells() -> Any:
    size = ModelSize(
        32, 1, 2, 48, 32, 2, 2, 1, 48, patch_size_px=16, merge_size=1, conv_stem=((8, 2, 1),),
        cell_channels=8, cell_detail=(8, 1, 2), cell_blocks=1, cell_glances=1,
    )  # fmt: skip
    return build_model(size, build_tokenizer())


def _with_convolutions() -> Any:
    size = ModelSize(32, 1, 2, 48, 32, 2, 2, 1, 48, patch_size_px=24, merge_size=1, conv_stem=((8, 4, 0), (16, 2, 1)))
    return build_model(size, build_tokenizer())


def test_heads_that_were_kept_are_begun_with(tmp_path):
    first = TrainedModel(_with_convolutions())
    torch.nn.init.normal_(first.dense_head.weight)
    first.save_heads(tmp_path)
    second = TrainedModel(_with_convolutions(), heads_from=tmp_path)
    kept, begun = first.heads.state_dict(), second.heads.state_dict()
    assert set(kept) == {
        f"{head}_head.{part}" for head in ("dense", "class", "stem", "stem_class") for part in ("weight", "bias")
    }
    assert all(torch.equal(kept[name], begun[name]) for name in kept)


def test_heads_that_a_checkpoint_lacks_start_anew(tmp_path):
    first, second = TrainedModel(_with_convolutions()), TrainedModel(_with_convolutions())
    kept = {name: weight for name, weight in first.heads.state_dict().items() if not name.startswith("class")}
    (tmp_path / HEADS).parent.mkdir()
    save_file(kept, tmp_path / HEADS)
    begun = TrainedModel(_with_convolutions(), heads_from=tmp_path).heads.state_dict()
    assert all(torch.equal(weight, begun[name]) for name, weight in kept.items())
    assert begun["class_head.weight"].shape == second.class_head.weight.shape


def test_heads_of_another_model_are_refused(tmp_path):
    TrainedModel(_with_convolutions()).save_heads(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)heads.safetensors: not the heads of this model .*stem_head"):
        TrainedModel(build_model(SIZES["tiny"], build_tokenizer()), heads_from=tmp_path)


def test_convolutions_are_taught_before_the_tower_reads_them():
    """Their projection starts at zero, so nothing but their own head can teach them at first; the tower sees them later."""
    tokenizer = build_tokenizer()
    model = _with_convolutions()
    config = override(PRESETS["tiny"], ["stages=((1, (96, 48), True),)"])
    batch = RecipeBatches(config, config.stages[0], Encoder(tokenizer, Layout.of(tokenizer, model.config)), 0, 1)[0][0]
    trained = TrainedModel(model)
    losses = trained(batch, (2, 4), True, 1.0, config.dense_positive_weights)
    losses.total.backward()
    stem = model.model.visual.stem
    assert not stem.proj.weight.any() and stem.proj.weight.grad.any()
    assert all(stage[0].weight.grad.abs().max() > 0 for stage in stem.stages)
    assert losses.total.item() > losses.dense.item() > 0  # their own loss comes on top of the tokens', which is what is logged
