"""Five ways of writing the points of a lane: what table 5 compares. A form writes tokens' texts and reads them back.

| form | a point | finest step | tokens a point |
|---|---|---|---|
| ``text`` | ``512,981;`` in thousandths of the image, a character a token | 1/1000 | 4 to 9 |
| ``bins`` | ``<x_131><y_251>``, 256 bins an axis | 1/256 | 2 |
| ``grid`` | ``<grid_16_31>`` | 1/32 | 1 |
| ``grid-offset`` | the same, and one offset in a second turn | 1/64 | 1 + 1 (the anchor that is given back is not the model's) |
| ``grid-offsets`` | the same, three offsets | 1/256 | 1 + 3 |

``bins`` has the resolution of ``grid-offsets``, so that these two differ in form only. What surrounds the points is the same in
all of them: ``<lane>`` with its type and colour before, ``</scene>`` after the last lane.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from getok_drive.tokens.codec import cell_centers, encode_points
from getok_drive.tokens.elements import HEAD_WORDS
from getok_drive.tokens.vocab import GRID_SIZE, OFFSET_ROUNDS, TOKENS

Points = npt.NDArray[np.float64]

TEXT_STEPS = 1000
BINS = 256  # of an axis: GRID_SIZE * 2**OFFSET_ROUNDS
BIN_TOKENS = (*(f"<x_{k}>" for k in range(BINS)), *(f"<y_{k}>" for k in range(BINS)))
_POINT = re.compile(r"(\d{1,4}),(\d{1,4});")
_GRID = {TOKENS[cell]: cell for cell in range(GRID_SIZE**2)}


class Form(Protocol):
    """How points are written.

    Attributes:
        rounds: of offsets that a second turn adds.
    """

    @property
    def rounds(self) -> int:
        """See the class."""

    def write(self, points_norm: Points) -> list[str]:
        """Tokens of the points ``(N, 2)`` of one lane, image fractions."""

    def read(self, tokens: Sequence[str]) -> Points | None:
        """The points of such tokens, None where they are malformed. Any tokens may come."""


@dataclass(frozen=True, slots=True)
class TextForm:
    """Plain digits of the tokenizer, not padded, as language models write numbers."""

    rounds: int = 0

    def write(self, points_norm: Points) -> list[str]:
        """See `Form.write`."""
        steps = np.rint(np.clip(points_norm, 0.0, 1.0) * TEXT_STEPS).astype(int)
        return list("".join(f"{x},{y};" for x, y in steps.tolist()))

    def read(self, tokens: Sequence[str]) -> Points | None:
        """See `Form.read`; a number above 1000 is malformed, too."""
        text = "".join(tokens)
        found = _POINT.findall(text)
        if sum(len(x) + len(y) + 2 for x, y in found) != len(text):
            return None
        points = np.array(found, dtype=np.float64).reshape(-1, 2) / TEXT_STEPS
        return points if (points <= 1.0).all() else None


@dataclass(frozen=True, slots=True)
class BinForm:
    """A token for x and a token for y, in turn, each the middle of its bin."""

    rounds: int = 0

    def write(self, points_norm: Points) -> list[str]:
        """See `Form.write`."""
        bins = np.clip(np.asarray(points_norm) * BINS, 0, BINS - 1).astype(int)
        return [token for x, y in bins.tolist() for token in (f"<x_{x}>", f"<y_{y}>")]

    def read(self, tokens: Sequence[str]) -> Points | None:
        """See `Form.read`."""
        places = {token: index for index, token in enumerate(BIN_TOKENS)}
        indices = np.array([places.get(token, -1) for token in tokens])
        if len(indices) % 2 or (indices < 0).any() or (indices[::2] >= BINS).any() or (indices[1::2] < BINS).any():
            return None
        return np.stack([indices[::2] + 0.5, indices[1::2] - BINS + 0.5], axis=1).reshape(-1, 2) / BINS


@dataclass(frozen=True, slots=True)
class GridForm:
    """The project's own tokens, one a point; ``rounds`` offsets follow in the refinement turn."""

    rounds: int = 0

    def write(self, points_norm: Points) -> list[str]:
        """See `Form.write`; the cells alone."""
        return [TOKENS[cell] for cell in encode_points(points_norm, 0)[0].tolist()]

    def read(self, tokens: Sequence[str]) -> Points | None:
        """See `Form.read`; the cells' centres."""
        if not all(token in _GRID for token in tokens):
            return None
        return cell_centers([_GRID[token] for token in tokens])


FORMS: dict[str, Form] = {
    "text": TextForm(),
    "bins": BinForm(),
    "grid": GridForm(),
    "grid-offset": GridForm(1),
    "grid-offsets": GridForm(OFFSET_ROUNDS),
}


@dataclass(slots=True)
class ReadLanes:
    """What an answer says.

    Attributes:
        lanes: ``(N, 2)`` image fractions of each well-formed lane.
        tokens: that its points were written with.
        malformed: lanes that were begun and cannot be used.
        complete: whether the answer ends with ``</scene>`` and has nothing before the first lane.
    """

    lanes: list[Points] = field(default_factory=list)
    tokens: list[list[str]] = field(default_factory=list)
    malformed: int = 0
    complete: bool = True


def read_lanes(form: Form, tokens: Sequence[str]) -> ReadLanes:
    """The lanes of an answer; one is malformed if its type or colour is missing, its points cannot be read, or are fewer than 2.

    Args:
        form: of the points.
        tokens: texts of an answer's tokens, whatever they are; what follows ``</scene>`` has no meaning.
    """
    ended = "</scene>" in tokens
    body = list(tokens[: tokens.index("</scene>")] if ended else tokens)
    starts = [index for index, token in enumerate(body) if token == "<lane>"]
    stray = bool(body) and starts[:1] != [0]  # something stands before the first lane
    read = ReadLanes(malformed=int(stray), complete=ended and not stray)
    for start, stop in zip(starts, [*starts, len(body)][1:], strict=True):
        head, points = body[start + 1 : start + 3], body[start + 3 : stop]
        found = form.read(points) if _is_head(head) else None
        if found is None or len(found) < 2:
            read.malformed += 1
        else:
            read.lanes.append(found)
            read.tokens.append(points)
    return read


def _is_head(tokens: Sequence[str]) -> bool:
    slots = HEAD_WORDS["lane"]
    return len(tokens) == len(slots) and all(
        token == f"<{token[1:-1]}>" and token[1:-1] in slot for token, slot in zip(tokens, slots, strict=True)
    )
