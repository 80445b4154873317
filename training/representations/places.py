"""Where the tokens of all forms stand under the position rule ``image``: the same rights for every one of them.

ARCHITECTURE.md (Positions): a grid token stands at its cell, an offset at the point that it has moved to, other text at the
image's centre. If digits and bins stood at the centre, too, the table would measure positions and not representations. So a
number moves the place as soon as it is complete: ``<x_k>`` or the comma after a number sets the column, ``<y_k>`` or the
semicolon (or closing bracket) sets the row, and in between a token stands where the one before stood. Whoever writes the next
point has then, in every form, the last point under its feet. Under the rule ``text`` nothing of this happens.
"""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from getok_drive.tokens.positions import Positions, PositionSpec
from getok_drive.tokens.vocab import GRID_SIZE
from training.representations.forms import BIN_TOKENS, BINS, TEXT_STEPS

_TEXT = (*"0123456789", ",", ";", ")")


def marks_of(tokenizer: PreTrainedTokenizerBase, first_token_id: int) -> dict[int, str]:
    """Local ids (relative to the token table) of all tokens that place something, and their texts."""
    found: dict[int, str] = {}
    for text in (*_TEXT, *BIN_TOKENS):
        token = tokenizer.convert_tokens_to_ids(text)
        if token is not None and token != tokenizer.unk_token_id:
            found[token - first_token_id] = text
    return found


class PlacedPositions(Positions):
    """`Positions` that knows numbers.

    Args:
        spec: as there.
        marks: see `marks_of`.
    """

    def __init__(self, spec: PositionSpec, marks: Mapping[int, str]) -> None:
        super().__init__(spec)
        self._marks, self._digits = marks, ""

    def copy(self) -> PlacedPositions:
        """An independent continuation."""
        other = PlacedPositions(self.spec, self._marks)
        other.time, other._row, other._column, other._round = self.time, self._row, self._column, self._round
        other._digits = self._digits
        return other

    def _place(self, token: int) -> None:
        mark = self._marks.get(token)
        if mark is None:
            self._digits = ""
            super()._place(token)
        elif mark.isdigit():
            self._digits += mark
        elif mark in (",", ";", ")"):
            if self._digits:
                cells = min(int(self._digits[:4]), TEXT_STEPS) / TEXT_STEPS * GRID_SIZE
                self._row, self._column = (self._row, cells) if mark == "," else (cells, self._column)
            self._digits = ""
        else:
            cells = (int(mark[3:-1]) + 0.5) / BINS * GRID_SIZE
            self._row, self._column = (self._row, cells) if mark[1] == "x" else (cells, self._column)
