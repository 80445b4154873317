"""Where each token of a conversation stands: the three positions (time, row, column) of the multimodal rotary embedding.

Two rules, chosen by the model's contract:

- ``text`` is Qwen2.5-VL's own (arXiv 2502.13923, section 2.1.3; M-RoPE: Qwen2-VL, arXiv 2409.12191, section 2.1): the image's
  tokens count rows and columns, text advances all three positions together.
- ``image`` puts what is written *onto the image*. Rows and columns are measured in cells of the token grid, whatever the image's
  resolution: a visual token stands at its centre, a grid token at its cell, an offset token at the point that it has moved
  to, everything else after the image at the image's centre; time advances as in text. From a grid token, the visual token
  under it is then always at the same relative position: to read where one writes need not be learnt place by place.

Released models keep ``text``; models trained from scratch take ``image`` (LOG.md has what it gained).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from getok_drive.errors import ConfigError
from getok_drive.tokens.vocab import GRID_SIZE, TABLE
from getok_drive.types import FloatArray

RULES = ("text", "image")
_CENTRE = GRID_SIZE / 2


@dataclass(frozen=True, slots=True)
class PositionSpec:
    """What the positions of a conversation depend on.

    Attributes:
        rule: one of `RULES`.
        count_before: text tokens before the image.
        merged_hw: visual tokens along the height and the width.
        first_token_id: model id of the token table's first token.
    """

    rule: str
    count_before: int
    merged_hw: tuple[int, int]
    first_token_id: int

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"position rule {self.rule!r}: expected one of {', '.join(RULES)}")

    @property
    def extent(self) -> int:
        """Positions that the image takes up in the conversation: the text behind it begins so much later."""
        return GRID_SIZE if self.rule == "image" else max(self.merged_hw)

    def prefix(self) -> FloatArray:
        """Positions of the text before the image and of its visual tokens, ``(3, count_before + K)`` float32."""
        height, width = self.merged_hw
        rows, columns = np.divmod(np.arange(height * width), width)
        if self.rule == "image":
            place = np.stack([np.zeros(len(rows)), (rows + 0.5) * GRID_SIZE / height, (columns + 0.5) * GRID_SIZE / width])
        else:
            place = np.stack([np.zeros(len(rows)), rows, columns])
        text = np.tile(np.arange(self.count_before), (3, 1))
        return np.concatenate([text, place + self.count_before], axis=1, dtype=np.float32)


class Positions:
    """Positions of what follows the image, token by token.

    Args:
        spec: see `PositionSpec`.
    """

    __slots__ = ("_column", "_round", "_row", "spec", "time")

    def __init__(self, spec: PositionSpec) -> None:
        self.spec = spec
        self.time = spec.count_before + spec.extent
        self._row = self._column = _CENTRE
        self._round = 0

    def copy(self) -> Positions:
        """An independent continuation."""
        other = Positions(self.spec)
        other.time, other._row, other._column, other._round = self.time, self._row, self._column, self._round
        return other

    def append(self, ids: Sequence[int], steps: Sequence[int] | None = None) -> FloatArray:
        """Positions of the next tokens, ``(3, len(ids))`` float32.

        Args:
            ids: model token ids; those outside the token table are text.
            steps: time of each, counted from the first, where some in between are left out.
        """
        positions = np.empty((3, len(ids)), np.float32)
        positions[:] = self.time + np.asarray(range(len(ids)) if steps is None else steps)
        self.time += len(ids) if steps is None else steps[-1] + 1
        if self.spec.rule == "image":
            start = self.spec.count_before
            for index, token in enumerate(ids):
                self._place(token - self.spec.first_token_id)
                positions[1, index] = start + self._row
                positions[2, index] = start + self._column
        return positions

    def _place(self, token: int) -> None:
        """Move to where this token of the table stands."""
        if 0 <= token < TABLE.offset_base:
            self._row, self._column = token // GRID_SIZE + 0.5, token % GRID_SIZE + 0.5
            self._round = 0
        elif TABLE.offset_base <= token < TABLE.delete:
            self._round += 1
            vertical, horizontal = divmod(token - TABLE.offset_base, 3)
            self._row += (vertical - 1) / 2**self._round
            self._column += (horizontal - 1) / 2**self._round
        elif token != TABLE.delete:
            self._row = self._column = _CENTRE
