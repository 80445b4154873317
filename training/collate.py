"""Batches: the conversation of ARCHITECTURE.md as token ids, M-RoPE positions, labels and weights, beside the pixel tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from getok_drive.preprocess import Preprocessor
from getok_drive.tokens import prompts
from getok_drive.tokens.positions import Positions, PositionSpec
from getok_drive.tokens.vocab import TOKENS
from training.auxiliary import UNLABELLED, corner_labels, dense_labels, lane_labels
from training.model import position_rule
from training.recipes.conversation import IGNORE, Conversation
from training.samples import Sample
from training.visual import Pixels
from training.vocabulary import first_token_id

DENSE_SUBCELLS = 8  # dense labels per side of a visual token


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of every conversation that never change, as model token ids, and how the model takes pictures."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    refine_turn: tuple[int, ...]
    image_pad: int
    end: int
    first_id: int
    position_rule: str
    pixels: Pixels

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, config: PretrainedConfig) -> Layout:
        """The layout in this tokenizer's ids, with the position rule of the model's configuration."""
        before, after = prompts.propose_segments()

        def ids(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, add_special_tokens=False))

        pad, end = tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|im_end|>"])
        texts = ids(before), ids(after), ids(prompts.refine_segment())
        return cls(*texts, pad, end, first_token_id(tokenizer), position_rule(config), Pixels.of(config))

    def position_spec(self, merged_hw: tuple[int, int]) -> PositionSpec:
        """Where the tokens of a conversation stand."""
        return PositionSpec(self.position_rule, len(self.before), merged_hw, self.first_id)


@dataclass(frozen=True, slots=True)
class Choices:
    """Places of a batch where more than one answer is right (see `training.recipes.partial`).

    Attributes:
        index: ``(B, T)``: row of ``allowed`` for each place, -1 where the label alone is right.
        allowed: ``(N, table)`` bool: which tokens of the table are right.
        first_id: model id of the table's first token.
    """

    index: Tensor
    allowed: Tensor
    first_id: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of ``B`` conversations padded on the right to ``T`` tokens, with ``K`` visual tokens each.

    Attributes:
        pixel_values: ``(B, patches, patch_dim)`` float32.
        ids: ``(B, T)``; the visual tokens' places are ``visual``, a slice common to all rows.
        positions: ``(3, B, T)`` float32 M-RoPE positions (time, row, column), see `getok_drive.tokens.positions`.
        labels: ``(B, T)``: the token that belongs *at* this place, ``IGNORE`` where nothing is taught.
        weights: ``(B, T)`` float32.
        dense: ``(B, K, (channels + 1) * subcells**2)`` uint8, `training.auxiliary.dense_labels` of each visual token.
        choices: places where several answers are right; None where there are none.
        ways: ``(B, GRID_SIZE, GRID_SIZE, 4, 2)`` float32, `training.auxiliary.corner_labels` and `lane_labels`; None: not told.
    """

    pixel_values: Tensor
    ids: Tensor
    positions: Tensor
    labels: Tensor
    weights: Tensor
    dense: Tensor
    visual: slice
    choices: Choices | None = None
    ways: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """``(B,)``: tokens of each row up to the last taught one."""
        taught = self.labels != IGNORE
        return torch.where(taught.any(1), taught.shape[1] - taught.int().flip(1).argmax(1), self.visual.stop + 1)

    @property
    def token_weight(self) -> Tensor:
        """Total weight of the taught tokens, a scalar."""
        return self.weights[self.labels != IGNORE].sum()

    @property
    def dense_count(self) -> Tensor:
        """Number of subcells whose occupancy is labelled, a scalar."""
        return (self.dense[..., : -(DENSE_SUBCELLS**2)] != UNLABELLED).sum()

    def rows(self, chosen: Tensor) -> Batch:
        """These rows alone, cut to the longest of them."""
        stop = int(self.lengths[chosen].max())
        texts = (
            self.ids[chosen, :stop],
            self.positions[:, chosen, :stop],
            self.labels[chosen, :stop],
            self.weights[chosen, :stop],
        )
        choices = self.choices and replace(self.choices, index=self.choices.index[chosen, :stop])
        ways = None if self.ways is None else self.ways[chosen]
        return Batch(self.pixel_values[chosen], *texts, self.dense[chosen], self.visual, choices, ways)

    def parts(self, count: int) -> list[Batch]:
        """The batch in equal parts, rows of like length together, so that little padding is computed."""
        if count == 1:
            return [self]
        return [self.rows(part) for part in torch.argsort(self.lengths).chunk(count)]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        tensors = (self.pixel_values, self.ids, self.positions, self.labels, self.weights, self.dense)
        pixels, ids, positions, labels, weights, dense = (t.to(device, non_blocking=True) for t in tensors)
        choices = self.choices and replace(
            self.choices, index=self.choices.index.to(device), allowed=self.choices.allowed.to(device)
        )
        ways = None if self.ways is None else self.ways.to(device, non_blocking=True)
        return Batch(pixels, ids, positions, labels, weights, dense, self.visual, choices, ways)


@dataclass(frozen=True, slots=True)
class Collator:
    """Turns conversations of any domain into a `Batch`.

    Attributes:
        preprocessor: the runtime's own; image size and patches.
        layout: fixed token ids.
    """

    preprocessor: Preprocessor
    layout: Layout

    def __call__(self, conversations: Sequence[Conversation]) -> Batch:
        """The batch of these conversations."""
        pre, layout = self.preprocessor, self.layout
        merged_hw = (pre.grid_hw[0] // pre.merge_size, pre.grid_hw[1] // pre.merge_size)
        spec = layout.position_spec(merged_hw)
        pixels = torch.from_numpy(np.stack([pre(row.sample.image_bgr)[0] for row in conversations]))
        dense = torch.from_numpy(np.stack([self._dense(row.sample, merged_hw) for row in conversations]))
        batch = text_batch(conversations, layout, spec, lambda: Positions(spec), pixels, dense)
        choices = _choices(conversations, batch.labels.numpy(), batch.visual.stop, layout.first_id)
        ways = [np.concatenate([corner_labels(row.sample), lane_labels(row.sample)], axis=2) for row in conversations]
        return replace(batch, choices=choices, ways=torch.from_numpy(np.stack(ways)))

    def _dense(self, sample: Sample, merged_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
        side, (rows, columns) = DENSE_SUBCELLS, merged_hw
        picture = dense_labels(sample, (columns * side, rows * side))
        blocks = picture.reshape(len(picture), rows, side, columns, side).transpose(1, 3, 0, 2, 4)
        return np.ascontiguousarray(blocks.reshape(rows * columns, -1))


def text_batch(
    conversations: Sequence[Conversation],
    layout: Layout,
    spec: PositionSpec,
    positions_after: Callable[[], Positions],
    pixel_values: Tensor,
    dense: Tensor,
) -> Batch:
    """The texts of a batch, padded, behind the places of their pictures.

    Args:
        conversations: B of them.
        layout: fixed token ids.
        spec: where tokens stand.
        positions_after: makes the positions of one conversation's text, from its first token after the picture on.
        pixel_values: of the batch, passed on.
        dense: of the batch, passed on.
    """
    prefix = [*layout.before, *[layout.image_pad] * (spec.merged_hw[0] * spec.merged_hw[1])]
    start = len(prefix)
    shape = (len(conversations), start + max(len(row.ids) for row in conversations))
    ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
    weights, positions = np.zeros(shape, np.float32), np.zeros((3, *shape), np.float32)
    ids[:, :start], positions[:, :, :start] = prefix, spec.prefix()[:, None]
    for index, row in enumerate(conversations):
        span = slice(start, start + len(row.ids))
        ids[index, span], labels[index, span], weights[index, span] = row.ids, row.labels, row.weights
        positions[:, index, span] = positions_after().append(row.ids, row.places)
    tensor = torch.from_numpy
    visual = slice(len(layout.before), start)
    return Batch(pixel_values, tensor(ids), tensor(positions), tensor(labels), tensor(weights), dense, visual)


def _choices(conversations: Sequence[Conversation], labels: npt.NDArray[np.int64], first: int, first_id: int) -> Choices | None:
    """The places of a batch where several answers are right; ``first`` is the column of a conversation's first token."""
    where = [(row, first + at) for row, text in enumerate(conversations) for at in sorted(text.alternatives)]
    if not where:
        return None
    allowed = np.zeros((len(where), len(TOKENS)), bool)
    index = np.full(labels.shape, -1, np.int64)
    for number, (row, column) in enumerate(where):
        index[row, column] = number
        allowed[number, list(conversations[row].alternatives[column - first])] = True
        allowed[number, labels[row, column] - first_id] = True
    return Choices(torch.from_numpy(index), torch.from_numpy(allowed), first_id)
