"""Batches: the conversation of ARCHITECTURE.md as token ids, M-RoPE positions, labels and weights, beside the pixel tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from getok_drive.preprocess import Preprocessor
from getok_drive.tokens import prompts
from getok_drive.tokens.vocab import OFFSET_ROUNDS, TABLE, TOKEN_ID
from training.model import first_token_id
from training.samples import Sample
from training.targets import DENSE_CHANNELS, Noise, Target, dense_labels, elements_of, noisy_targets

IGNORE = -100
DENSE_SUBCELLS = 8  # dense labels per side of a visual token


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of every conversation that never change, as model token ids."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    refine_turn: tuple[int, ...]
    image_pad: int
    end: int
    first_id: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> Layout:
        """The layout in this tokenizer's ids."""
        before, after = prompts.propose_segments()

        def ids(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, add_special_tokens=False))

        pad, end = tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|im_end|>"])
        return cls(ids(before), ids(after), ids(prompts.refine_segment()), pad, end, first_token_id(tokenizer))


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weight of each kind of answer token in the language loss; later rounds move less, so they count less."""

    propose: float = 1.0
    offset: tuple[float, ...] = (0.5, 0.3, 0.2)


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of ``B`` conversations padded on the right to ``T`` tokens, with ``K`` visual tokens each.

    Attributes:
        pixel_values: ``(B, patches, patch_dim)`` float32.
        ids: ``(B, T)``; the visual tokens' places are ``visual``, a slice common to all rows.
        positions: ``(3, B, T)`` M-RoPE positions (time, height, width).
        labels: ``(B, T)``: the token that belongs *at* this place, ``IGNORE`` where nothing is taught.
        weights: ``(B, T)`` float32.
        dense: ``(B, K, channels * subcells**2)`` uint8, 255 = not labelled.
    """

    pixel_values: Tensor
    ids: Tensor
    positions: Tensor
    labels: Tensor
    weights: Tensor
    dense: Tensor
    visual: slice

    @property
    def lengths(self) -> Tensor:
        """``(B,)``: tokens of each row up to the last taught one."""
        taught = self.labels != IGNORE
        return torch.where(taught.any(1), taught.shape[1] - taught.int().flip(1).argmax(1), self.visual.stop + 1)

    @property
    def token_weight(self) -> Tensor:
        """Total weight of the taught tokens, a scalar."""
        return self.weights[self.labels != IGNORE].sum()

    def rows(self, chosen: Tensor) -> Batch:
        """These rows alone, cut to the longest of them."""
        stop = int(self.lengths[chosen].max())
        texts = (
            self.ids[chosen, :stop],
            self.positions[:, chosen, :stop],
            self.labels[chosen, :stop],
            self.weights[chosen, :stop],
        )
        return Batch(self.pixel_values[chosen], *texts, self.dense[chosen], self.visual)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        tensors = (self.pixel_values, self.ids, self.positions, self.labels, self.weights, self.dense)
        pixels, ids, positions, labels, weights, dense = (t.to(device, non_blocking=True) for t in tensors)
        return Batch(pixels, ids, positions, labels, weights, dense, self.visual)


@dataclass
class _Turn:
    """Growing lists of one conversation after the image."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    next_position: int = 0

    def add(self, ids: Sequence[int], labels: Sequence[int] | None = None, weight: float | Sequence[float] = 0.0) -> None:
        count = len(ids)
        self.ids += ids
        self.labels += labels if labels is not None else [IGNORE] * count
        self.weights += [weight] * count if isinstance(weight, float) else list(weight)
        self.positions += range(self.next_position, self.next_position + count)
        self.next_position += count


def mrope_image_positions(start: int, merged_hw: tuple[int, int]) -> npt.NDArray[np.int64]:
    """M-RoPE positions ``(3, K)`` of an image's visual tokens that begin at position ``start`` (Qwen2.5-VL, section 2.1.3)."""
    rows, columns = np.divmod(np.arange(merged_hw[0] * merged_hw[1]), merged_hw[1])
    return np.stack([np.full_like(rows, start), start + rows, start + columns])


@dataclass(frozen=True, slots=True)
class Collator:
    """Turns samples into a `Batch`.

    Attributes:
        preprocessor: the runtime's own; image size and patches.
        layout: fixed token ids.
        noise: on the context; ``None`` for evaluation.
        refine_points: at most so many points are taught in the refinement turn of one image (whole elements, drawn at random; the
            others are left out of the sequence but keep their positions, so that places match those at run time).
    """

    preprocessor: Preprocessor
    layout: Layout
    noise: Noise | None = None
    refine_points: int = 24
    loss_weights: LossWeights = field(default_factory=LossWeights)

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Batch:
        """The batch of these samples; ``rng`` draws the noise and the refinement's subset."""
        pre, layout = self.preprocessor, self.layout
        count = pre.num_visual_tokens
        merged_hw = (pre.grid_hw[0] // pre.merge_size, pre.grid_hw[1] // pre.merge_size)
        start = len(layout.before)
        rows = [self._answer(sample, start + max(merged_hw), rng) for sample in samples]
        total = start + count + max(len(row.ids) for row in rows)
        shape = (len(samples), total)
        ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        weights, positions = np.zeros(shape, np.float32), np.zeros((3, *shape), np.int64)
        prefix = [*layout.before, *[layout.image_pad] * count]
        for index, row in enumerate(rows):
            stop = len(prefix) + len(row.ids)
            span = slice(len(prefix), stop)
            ids[index, : len(prefix)], ids[index, span] = prefix, row.ids
            labels[index, span], weights[index, span] = row.labels, row.weights
            positions[:, index, :start] = np.arange(start)
            positions[:, index, start : start + count] = mrope_image_positions(start, merged_hw)
            positions[:, index, span] = row.positions
        pixels = np.stack([pre(sample.image_bgr)[0] for sample in samples])
        dense = np.stack([self._dense(sample, merged_hw) for sample in samples])
        tensor = torch.from_numpy
        visual = slice(start, start + count)
        return Batch(tensor(pixels), tensor(ids), tensor(positions), tensor(labels), tensor(weights), tensor(dense), visual)

    def _answer(self, sample: Sample, position: int, rng: np.random.Generator) -> _Turn:
        layout = self.layout
        targets = noisy_targets(elements_of(sample), self.noise, rng)
        turn = _Turn(next_position=position)
        turn.add(layout.after)
        self._propose(turn, targets)
        turn.add(layout.refine_turn[:1], [layout.end], 1.0)  # the turn's end is the model's own to write
        turn.add(layout.refine_turn[1:])
        self._refine(turn, targets, rng)
        turn.add([layout.end], [layout.end], 1.0)
        return turn

    def _propose(self, turn: _Turn, targets: Sequence[Target]) -> None:
        first, weight = self.layout.first_id, self.loss_weights.propose
        end = TOKEN_ID["</scene>"]
        for index, target in enumerate(targets):
            head, cells = target.element.head, target.context_cells.tolist()
            context = [first + token for token in (*head, *cells)]
            truth = [first + token for token in (*head, *target.element.cells.tolist())]
            if target.phantom:
                following = next((t.element.head[0] for t in targets[index:] if not t.phantom), end)
                truth = [first + following, *[IGNORE] * (len(context) - 1)]
            turn.add(context, truth, weight)
        turn.add([first + end], [first + end], weight)

    def _refine(self, turn: _Turn, targets: Sequence[Target], rng: np.random.Generator) -> None:
        first, weights = self.layout.first_id, self.loss_weights.offset
        kept = self._subset(targets, rng)
        turn.add([first + TOKEN_ID["<offset>"]])
        for index, target in enumerate(targets):
            cells, answers = target.context_cells, target.answers
            deleted = (answers[:, :1] == TABLE.delete).any(axis=1)
            lengths = np.where(deleted, 2, 1 + OFFSET_ROUNDS)
            if index not in kept:
                turn.next_position += int(lengths.sum())
                continue
            for cell, answer, length in zip(cells.tolist(), answers.tolist(), lengths.tolist(), strict=True):
                tokens = [first + token for token in (cell, *answer)][:length]
                labels, scale = [IGNORE, *tokens[1:]], (0.0, 1.0) if length == 2 else (0.0, *weights)
                turn.add(tokens, labels, scale)
        closing = first + TOKEN_ID["</offset>"]
        turn.add([closing])

    def _subset(self, targets: Sequence[Target], rng: np.random.Generator) -> set[int]:
        kept: set[int] = set()
        points = 0
        for index in rng.permutation(len(targets)).tolist():
            size = len(targets[index].context_cells)
            if not kept or points + size <= self.refine_points:
                kept.add(index)
                points += size
        return kept

    def _dense(self, sample: Sample, merged_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
        side, (rows, columns) = DENSE_SUBCELLS, merged_hw
        picture = dense_labels(sample, (columns * side, rows * side))
        blocks = picture.reshape(len(DENSE_CHANNELS), rows, side, columns, side).transpose(1, 3, 0, 2, 4)
        return np.ascontiguousarray(blocks.reshape(rows * columns, -1))
