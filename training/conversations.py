"""Rows of conversations over one cache of keys and values: encoded once, forked for the group, fed side by side.

Rows advance together, each by what its grammar wants: forced tokens (given-back grid tokens, the turn change) wait and are fed
with the chosen token after them, so rows take steps of different lengths. They are padded on the left, and the padding is masked
for good; a row's positions are its own, so a token has the same M-RoPE position here, in training and at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache, Qwen2_5_VLForConditionalGeneration

from getok_drive.runtime.qwen import embed_tokens
from getok_drive.tokens.positions import Positions
from getok_drive.tokens.vocab import TOKENS
from getok_drive.types import FloatArray
from training.collate import Layout
from training.visual import encode_pictures, picture_inputs, table_logits

_TABLE_SIZE = len(TOKENS)


class Conversations:
    """Rows of conversations over one cache.

    Args:
        model: in evaluation mode.
        layout: fixed token ids.
        pixel_values: ``(B, patches, patch_dim)``, one row each.
        grid_hw: patches along the height and the width.
    """

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, layout: Layout, pixel_values: Tensor, grid_hw: tuple[int, int]
    ) -> None:
        self._model, self._text, self._first = model, model.model.language_model, layout.first_id
        merge = model.config.vision_config.spatial_merge_size
        visual = encode_pictures(model, pixel_values, grid_hw)
        prefix, positions, after = prompt_prefix(layout, (grid_hw[0] // merge, grid_hw[1] // merge))
        count, device = len(pixel_values), pixel_values.device
        ids = torch.tensor([prefix] * count, device=device)
        start = len(layout.before)
        inputs = picture_inputs(model, ids, visual, slice(start, start + visual.tokens.shape[1]))
        self._cells = visual.cells
        self._cache = DynamicCache(config=model.config.text_config)
        self._seen = torch.zeros(count, 0, dtype=torch.long, device=device)
        self._positions = [after.copy() for _ in range(count)]
        self.waiting: list[list[int]] = [[] for _ in range(count)]
        self._scores = inputs["inputs_embeds"].new_zeros(count, _TABLE_SIZE)
        everything = torch.ones(count, len(prefix), dtype=torch.long, device=device)
        self._pass(inputs, torch.from_numpy(positions)[:, None].expand(3, count, -1).to(device), everything)

    def __len__(self) -> int:
        return len(self.waiting)

    def fork(self, times: int) -> None:
        """Repeat each row, its copies side by side."""
        if times == 1:
            return
        self._cache.batch_repeat_interleave(times)
        self._seen = self._seen.repeat_interleave(times, dim=0)
        self._cells = None if self._cells is None else self._cells.repeat_interleave(times, dim=0)
        self._scores = self._scores.repeat_interleave(times, dim=0)
        self._positions = [places.copy() for places in self._positions for _ in range(times)]
        self.waiting = [list(tokens) for tokens in self.waiting for _ in range(times)]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        chosen = torch.tensor(list(rows), device=self._seen.device)
        self._cache.batch_select_indices(chosen)
        self._seen, self._scores = self._seen[chosen], self._scores[chosen]
        self._cells = None if self._cells is None else self._cells[chosen]
        self._positions, self.waiting = [self._positions[row] for row in rows], [self.waiting[row] for row in rows]

    def scores(self) -> npt.NDArray[np.float32]:
        """Feed what waits; the table's logits of what follows in each row: ``(rows, len(TOKENS))``."""
        width = max(len(tokens) for tokens in self.waiting)
        if width:
            shape = (len(self), width)
            ids, mask, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros((3, *shape), np.float32)
            for row, tokens in enumerate(self.waiting):
                if tokens:
                    ids[row, -len(tokens) :], mask[row, -len(tokens) :] = tokens, 1
                    positions[:, row, -len(tokens) :] = self._positions[row].append(tokens)
                    tokens.clear()
            device = self._seen.device
            place = torch.from_numpy(positions).to(device)
            embedded = embed_tokens(self._model, torch.from_numpy(ids).to(device), self._cells)
            self._pass({"inputs_embeds": embedded}, place, torch.from_numpy(mask).to(device))
        return self._scores.float().cpu().numpy()

    def _pass(self, inputs: Mapping[str, Any], positions: Tensor, mask: Tensor) -> None:
        self._seen = torch.cat((self._seen, mask), dim=1)
        hidden = self._text(
            **inputs, attention_mask=self._seen, position_ids=positions, past_key_values=self._cache, use_cache=True
        ).last_hidden_state[:, -1:]
        scores = table_logits(self._model, hidden, self._cells, self._first)[:, 0]
        fed = mask.any(dim=1, keepdim=True)
        self._scores = torch.where(fed, scores, self._scores.to(scores.dtype))


def prompt_prefix(layout: Layout, merged_hw: tuple[int, int]) -> tuple[list[int], FloatArray, Positions]:
    """Model ids and positions ``(3, L)`` of what stands before every answer (image pads for the image), and how they go on."""
    spec = layout.position_spec(merged_hw)
    after = Positions(spec)
    ids = [*layout.before, *[layout.image_pad] * (merged_hw[0] * merged_hw[1]), *layout.after]
    return ids, np.concatenate([spec.prefix(), after.append(layout.after)], axis=1), after
