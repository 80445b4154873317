"""The supervised loss: language loss on the answers plus an auxiliary dense loss on the visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2_5_VLForConditionalGeneration

from getok_drive.errors import ConfigError
from getok_drive.runtime.qwen import cell_reader, seeing
from getok_drive.runtime.stem import StemmedTower
from getok_drive.tokens.vocab import GRID_SIZE
from training.auxiliary import DENSE_CHANNELS, DENSE_CLASSES, UNLABELLED
from training.collate import DENSE_SUBCELLS, Batch, Choices
from training.recipes.conversation import IGNORE
from training.visual import Visual, encode_pictures, picture_inputs

HEADS = Path("training", "heads.safetensors")  # in a checkpoint folder, where other programs do not look for weights
_OCCUPANCY = len(DENSE_CHANNELS) * DENSE_SUBCELLS**2  # labels of a visual token
STEM_SHARE = 0.5  # of the convolutions' own dense loss, beside that on the visual tokens
CELL_SHARE = 0.5  # of the grid's cells' own
_WAY_BETA = 0.1  # cells: errors below it count by their square


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars of one batch.

    Attributes:
        total: what is minimised.
        language: weighted mean cross entropy of the taught tokens, nats.
        dense: mean binary cross entropy of the labelled subcells' occupancy, nats.
        correct: share of the taught tokens that the model ranks first.
    """

    total: Tensor
    language: Tensor
    dense: Tensor
    correct: Tensor


class TrainedModel(nn.Module):
    """The model with the auxiliary heads that are dropped at export.

    A head predicts, for every visual token, the occupancy of 8 x 8 subcells for each of `DENSE_CHANNELS`. It gives the vision
    tower a signal at every place of every image, which the sparse tokens of the answer cannot (measured in LOG.md). A second head
    says which of `DENSE_CLASSES` is at a subcell, asked at the centres of things only. A tower with convolutions has a head
    on what they see of each patch: without it they learn too late, and the tower does not use them. They are asked for classes,
    too, place by place: a sign of few pixels is told from another where it is seen, or not at all. Cells that are more than a
    map of the visual tokens (`CellReader` with detail) are asked both questions as well, once a cell, and which way the corners
    of boxes, lanes and lanes' ends lie: offsets are read from there, and what is few pixels wide needs fine ones.

    Args:
        model: what is trained.
        heads_from: checkpoint folder whose heads (`save_heads`) to begin with, where it has some; else they start anew.

    Raises:
        ConfigError: the folder's heads are of another model.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, heads_from: Path | None = None) -> None:
        super().__init__()
        self.model = model
        width = model.config.text_config.hidden_size
        self.dense_head = _dense_head(width)
        self.class_head = nn.Linear(width, len(DENSE_CLASSES) * DENSE_SUBCELLS**2)
        tower = model.model.visual
        self.stem_head: nn.Linear | None = None
        self.stem_class_head: nn.Linear | None = None
        if isinstance(tower, StemmedTower) and tower.spatial_merge_size == 1:  # the labels are a visual token's
            self.stem_head = _dense_head(tower.stem.proj.in_features)
            self.stem_class_head = nn.Linear(tower.stem.proj.in_features // tower.stem.side**2, len(DENSE_CLASSES))
            tower.stem.proj.register_forward_pre_hook(self._see)
        self._seen: Tensor | None = None
        reader = cell_reader(model)
        self.cell_head: nn.Linear | None = None
        self.corner_head: nn.Linear | None = None
        self.lane_head: nn.Linear | None = None
        if reader is not None and reader.detail is not None:
            self.cell_head = nn.Linear(reader.channels, len(DENSE_CHANNELS) + len(DENSE_CLASSES))
            self.corner_head = nn.Linear(reader.channels, 4)
            self.lane_head = nn.Linear(reader.channels, 4)
        if heads_from is not None and (heads_from / HEADS).is_file():
            self._load_heads(heads_from / HEADS)

    @property
    def heads(self) -> nn.ModuleDict:
        """The auxiliary heads by name."""
        heads = {
            "dense_head": self.dense_head,
            "class_head": self.class_head,
            "stem_head": self.stem_head,
            "stem_class_head": self.stem_class_head,
            "cell_head": self.cell_head,
            "corner_head": self.corner_head,
            "lane_head": self.lane_head,
        }
        return nn.ModuleDict({name: head for name, head in heads.items() if head is not None})

    def save_heads(self, folder: Path) -> None:
        """Keeps the heads in a checkpoint folder, for a run that begins with it."""
        (folder / HEADS).parent.mkdir(exist_ok=True)
        save_file({name: weight.detach().cpu() for name, weight in self.heads.state_dict().items()}, folder / HEADS)

    def _load_heads(self, path: Path) -> None:
        try:
            _, unknown = self.heads.load_state_dict(load_file(path), strict=False)  # heads that it lacks start anew
            if unknown:
                raise RuntimeError(f"unknown: {', '.join(unknown)}")
        except (RuntimeError, SafetensorError) as error:
            raise ConfigError(f"{path}: not the heads of this model ({error}); delete the file, and they start anew") from error

    def _see(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        self._seen = inputs[0]

    def forward(
        self,
        batch: Batch,
        grid_hw: tuple[int, int],
        dense_only: bool,
        dense_weight: float,
        dense_positive_weights: Sequence[float],
        token_weight: Tensor | None = None,
        vision_gradient: float = 1.0,
        class_weight: float = 0.0,
        way_weights: tuple[float, float] = (0.0, 0.0),
    ) -> Losses:
        """The losses of one batch.

        Args:
            batch: the conversations.
            grid_hw: patches along the height and the width.
            dense_only: skip the decoder.
            dense_weight: of the dense loss in the total.
            dense_positive_weights: of occupied subcells in the dense loss, one for each of `DENSE_CHANNELS`.
            token_weight: what the language loss is divided by; by default the weight of this batch's own taught tokens. Parts of
                one accumulated batch share theirs, so that cutting a batch changes nothing but memory.
            vision_gradient: scale of the language loss's gradient into the vision tower.
            class_weight: of a subcell whose class is labelled in the dense loss; an empty subcell's occupancy counts 1.
            way_weights: of a cell's way to a corner of a box near it, and to a lane, in the same measure; a cell counts as
                `DENSE_SUBCELLS` subcells.
        """
        visual = encode_pictures(self.model, batch.pixel_values, grid_hw)
        occupancy, classes = batch.dense.split((_OCCUPANCY, DENSE_SUBCELLS**2), dim=-1)
        dense = auxiliary = _read(self.dense_head, visual.tokens, occupancy, dense_positive_weights)
        named = class_entropy(self.class_head(visual.tokens.to(self.class_head.weight.dtype)), classes)
        auxiliary = auxiliary + class_weight * named / (occupancy != UNLABELLED).sum().clamp(min=1)
        merge = self.model.model.visual.spatial_merge_size
        merged_hw = (grid_hw[0] // merge, grid_hw[1] // merge)
        if self.cell_head is not None and visual.cells is not None:
            labels = labels_by_place(batch.dense, merged_hw, (GRID_SIZE, GRID_SIZE))
            auxiliary = auxiliary + CELL_SHARE * self._cells(visual.cells, labels, dense_positive_weights, class_weight)
            if any(way_weights) and batch.ways is not None:
                asked = (occupancy != UNLABELLED).sum().clamp(min=1)
                auxiliary = auxiliary + CELL_SHARE * self._ways(visual.cells, batch.ways, way_weights) / asked
        if self.stem_head is not None and self._seen is not None:
            seen, self._seen = self._seen, None
            auxiliary = auxiliary + STEM_SHARE * _read(self.stem_head, seen, occupancy, dense_positive_weights)
            if class_weight:
                auxiliary = auxiliary + class_weight * self._stem_classes(seen, batch.dense, grid_hw)
        if dense_only:
            zero = dense.new_zeros(())
            return Losses(dense_weight * auxiliary, zero, dense.detach(), zero)
        if vision_gradient != 1.0:
            visual = visual.map(lambda part: torch.lerp(part.detach(), part, vision_gradient))
        language, correct = self._language(batch, visual, token_weight)
        return Losses(language + dense_weight * auxiliary, language.detach(), dense.detach(), correct)

    def _stem_classes(self, seen: Tensor, dense: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        assert self.stem_class_head is not None
        (rows, columns), side = grid_hw, self.model.model.visual.stem.side
        places = seen.view(len(seen), rows, columns, side, side, -1).transpose(2, 3).flatten(1, 4)
        labels = labels_by_place(dense, grid_hw, (rows * side, columns * side))
        named = self.stem_class_head(places.to(self.stem_class_head.weight.dtype))
        return class_entropy(named, labels[..., -1:]) / (labels[..., :-1] != UNLABELLED).sum().clamp(min=1)

    def _cells(self, cells: Tensor, labels: Tensor, positive_weights: Sequence[float], class_weight: float) -> Tensor:
        assert self.cell_head is not None
        count = len(DENSE_CHANNELS)
        occupied, named = self.cell_head(cells.to(self.cell_head.weight.dtype)).split((count, len(DENSE_CLASSES)), dim=-1)
        occupancy, classes = labels.split((count, 1), dim=-1)
        entropy = class_entropy(named, classes) / (occupancy != UNLABELLED).sum().clamp(min=1)
        return dense_loss(occupied, occupancy, positive_weights) + class_weight / DENSE_SUBCELLS * entropy

    def _ways(self, cells: Tensor, ways: Tensor, weights: tuple[float, float]) -> Tensor:
        total = cells.new_zeros((), dtype=torch.float32)
        for head, labels, weight in zip((self.corner_head, self.lane_head), ways.split(2, dim=3), weights, strict=True):
            assert head is not None
            told = head(cells.to(head.weight.dtype)).float()
            labels = labels.reshape(told.shape)
            known = ~labels.isnan()
            error = F.smooth_l1_loss(told[known], labels[known], beta=_WAY_BETA, reduction="sum")
            total = total + weight * DENSE_SUBCELLS * error
        return total

    def _language(self, batch: Batch, visual: Visual, token_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs = picture_inputs(self.model, batch.ids, visual, batch.visual)
        text = self.model.model.language_model
        hidden = text(**inputs, position_ids=batch.positions, use_cache=False).last_hidden_state
        taught = batch.labels[:, 1:] != IGNORE
        text_from = batch.visual.stop - 1  # nothing is taught before
        asked, seen = seeing(self.model, hidden[:, text_from:-1], visual.cells)
        logits = F.linear(asked[taught[:, text_from:]], self.model.lm_head.weight).float()
        if seen is not None:
            logits[:, self.model.cells.ids] += seen[taught[:, text_from:]].float()
        labels, weights = batch.labels[:, 1:][taught], batch.weights[:, 1:][taught]
        entropy = F.cross_entropy(logits, labels, reduction="none")
        correct = (logits.detach().argmax(-1) == labels).float().mean()
        if batch.choices is not None:
            entropy = choice_entropy(entropy, logits, batch.choices, taught)
        return (entropy * weights).sum() / (weights.sum() if token_weight is None else token_weight), correct


def labels_by_place(dense: Tensor, merged_hw: tuple[int, int], places_hw: tuple[int, int]) -> Tensor:
    """`Batch.dense` on another raster: occupied where a subcell is, unlabelled where one is, of the class of one.

    Args:
        dense: ``(B, K, (channels + 1) * subcells**2)`` uint8.
        merged_hw: visual tokens along the height and the width; their product is K.
        places_hw: rows and columns of the raster.

    Returns:
        ``(B, places, channels + 1)`` float, row by row, the class last.
    """
    (rows, columns), side = merged_hw, DENSE_SUBCELLS
    split = dense.view(len(dense), rows, columns, -1, side, side).permute(0, 3, 1, 4, 2, 5)
    picture = split.reshape(len(dense), -1, rows * side, columns * side).float()
    occupancy = F.adaptive_max_pool2d(picture[:, :-1], places_hw)
    classes = -F.adaptive_max_pool2d(-picture[:, -1:], places_hw)  # any that there is: UNLABELLED is the greatest
    return torch.cat((occupancy, classes), dim=1).flatten(2).transpose(1, 2)


def _dense_head(features: int) -> nn.Linear:
    head = nn.Linear(features, len(DENSE_CHANNELS) * DENSE_SUBCELLS**2)
    nn.init.constant_(head.bias, -2.0)
    return head


def _read(head: nn.Linear, features: Tensor, labels: Tensor, positive_weights: Sequence[float]) -> Tensor:
    return dense_loss(head(features.to(head.weight.dtype)), labels, positive_weights)


def choice_entropy(entropy: Tensor, logits: Tensor, choices: Choices, taught: Tensor) -> Tensor:
    """``entropy`` with the places where several answers are right counted as such: ``-log sum p(token)`` over the right ones.

    Args:
        entropy: ``(N,)`` of the taught places, by their labels.
        logits: ``(N, vocabulary)`` of the same.
        choices: which tokens are right at which places.
        taught: ``(B, T - 1)`` bool: the N taught places, the first column left out.
    """
    index = choices.index[:, 1:][taught]
    some = index >= 0
    table = logits[some][:, choices.first_id : choices.first_id + choices.allowed.shape[1]]
    right = table.masked_fill(~choices.allowed[index[some]], float("-inf"))
    return entropy.masked_scatter(some, logits[some].logsumexp(-1) - right.logsumexp(-1))


def dense_loss(logits: Tensor, labels: Tensor, positive_weights: Sequence[float]) -> Tensor:
    """Binary cross entropy over labelled subcells, nats.

    Args:
        logits: ``(B, K, channels * subcells**2)``.
        labels: the same shape, uint8; `UNLABELLED` is left out.
        positive_weights: of occupied subcells, one a channel: the rarer and thinner a thing, the more its few subcells count.
    """
    known = labels != UNLABELLED
    target = labels.to(logits.dtype) * known
    channels = torch.tensor(positive_weights, device=logits.device)
    weight = known * (1 + (channels.repeat_interleave(logits.shape[-1] // len(channels)) - 1) * target)
    return F.binary_cross_entropy_with_logits(
        logits.float(), target.float(), weight=weight.float(), reduction="sum"
    ) / known.sum().clamp(min=1)


def class_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the classes of labelled subcells, summed, nats.

    Args:
        logits: ``(B, K, classes * subcells**2)``.
        labels: ``(B, K, subcells**2)`` indices into `DENSE_CLASSES`; `UNLABELLED` is left out.
    """
    known = labels != UNLABELLED
    by_subcell = logits.unflatten(-1, (len(DENSE_CLASSES), -1)).transpose(-1, -2)
    return F.cross_entropy(by_subcell[known].float(), labels[known].long(), reduction="sum")
