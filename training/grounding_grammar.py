"""The grammar of answers that name things in a picture (`training.recipes.grounding` teaches them), and what they mean.

    <answer> (<box> cell cell [<seg> cell ... </seg>] | <seg> cell ... </seg>)* </answer>
    <offset> (cell offset ... | cell <DELETE>)* </offset>

A mask's cells rise, so that a set has one spelling; a box's second corner is not above or left of its first. Both classes are
`getok_drive.tokens.grammar.Grammar`s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from getok_drive.tokens import masks
from getok_drive.tokens.codec import cell_centers, decode_points
from getok_drive.tokens.vocab import GRID_SIZE, OFFSET_ROUNDS, TABLE, TOKEN_ID, TOKENS

ANSWER, END, BOX, SEG, SEG_END = (TOKEN_ID[text] for text in ("<answer>", "</answer>", "<box>", "<seg>", "</seg>"))
OFFSET, OFFSET_END = TOKEN_ID["<offset>"], TOKEN_ID["</offset>"]
_CELLS = GRID_SIZE**2


@dataclass(slots=True)
class Thing:
    """One instance of an answer: the cells of its box (none or two) and of its mask, and the answers of the second turn.

    Attributes:
        box: local grid ids.
        cells: likewise.
        moves: for each of ``box`` and then ``cells`` the offsets, or ``<DELETE>`` alone; empty: not refined.
    """

    box: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    moves: list[list[int]] = field(default_factory=list)

    @property
    def anchors(self) -> list[int]:
        """Grid tokens in the order in which they come back."""
        return [*self.box, *self.cells]

    @property
    def deleted(self) -> npt.NDArray[np.bool_]:
        """``(len(anchors),)``: which points were taken away."""
        return np.array([TABLE.delete in moves for moves in self.moves or [[]] * len(self.anchors)], dtype=bool)

    def points_norm(self, refined: bool) -> npt.NDArray[np.float64]:
        """``(len(anchors), 2)``, image fractions; a deleted point stays where it was."""
        if not self.anchors:
            return np.zeros((0, 2))
        points = np.asarray(cell_centers(self.anchors), dtype=np.float64).copy()
        for index, moves in enumerate(self.moves if refined else []):
            if TABLE.delete not in moves:
                points[index] = decode_points([self.anchors[index]], [moves])[0]
        return points


class _Machine(ABC):
    """What both grammars share; subclasses say which tokens are legal."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.done = False

    @abstractmethod
    def _legal(self) -> Iterable[int]:
        """Local ids of the tokens that may come next."""

    def legal(self) -> masks.Mask:
        """``(len(TOKENS),)`` bool."""
        mask = np.zeros(len(TOKENS), dtype=bool)
        if not self.done:
            mask[list(self._legal())] = True
        return mask

    def allowed(self) -> masks.Mask:
        """The same: there is no geometry beyond it."""
        return self.legal()

    def accepts(self, token: int) -> bool:
        """Whether a token may come next."""
        return not self.done and token in self._legal()

    def forced(self) -> int | None:
        """The only legal token, if there is just one."""
        if self.done:
            return None
        found = self._legal()
        few = list(found)[:2] if not isinstance(found, range) else list(found[:2])
        return few[0] if len(few) == 1 else None


class GroundingGrammar(_Machine):
    """The first turn.

    Args:
        instances: most instances.
        cells: most cells of one mask.
    """

    def __init__(self, instances: int, cells: int) -> None:
        super().__init__()
        self._most, self._most_cells = instances, cells
        self.things: list[Thing] = []
        self._open = 0  # 0 before <answer>, 1 between instances, BOX or SEG inside one

    def _legal(self) -> Iterable[int]:
        if not self._open:
            return (ANSWER,)
        if self._open == BOX:
            box = self.things[-1].box
            if not box:
                return range(_CELLS)
            row, column = divmod(box[0], GRID_SIZE)
            return [r * GRID_SIZE + c for r in range(row, GRID_SIZE) for c in range(column, GRID_SIZE)]
        if self._open == SEG:
            cells = self.things[-1].cells
            if not cells:
                return range(_CELLS)
            return [*(range(cells[-1] + 1, _CELLS) if len(cells) < self._most_cells else ()), SEG_END]
        more = [BOX, SEG] if len(self.things) < self._most else []
        if self.things and self.things[-1].box and not self.things[-1].cells and SEG not in more:
            more.append(SEG)  # the last box's mask
        return [END, *more]

    def advance(self, token: int) -> None:
        """Append an accepted token."""
        self.ids.append(token)
        if token == ANSWER:
            self._open = 1
        elif token == END:
            self.done = True
        elif token == BOX:
            self.things.append(Thing())
            self._open = BOX
        elif token == SEG:
            if not self.things or self.things[-1].cells or not self.things[-1].box:
                self.things.append(Thing())
            self._open = SEG
        elif token == SEG_END:
            self._open = 1
        elif self._open == BOX:
            self.things[-1].box.append(token)
            self._open = BOX if len(self.things[-1].box) < 2 else 1
        else:
            self.things[-1].cells.append(token)

    def finished_ids(self) -> list[int]:
        """The finished instances as a whole answer."""
        if self.done:
            return list(self.ids)
        ids = [ANSWER]
        for thing in self.things:
            whole = thing is not self.things[-1] or self._open == 1
            if len(thing.box) == 2:
                ids += [BOX, *thing.box]
            if thing.cells and whole:
                ids += [SEG, *thing.cells, SEG_END]
        return [*ids, END]


class GroundingRefineGrammar(_Machine):
    """The second turn: the cells of the first one come back, each is answered.

    Args:
        answer_ids: of the first turn.
        rounds: offset rounds.
    """

    def __init__(self, answer_ids: Sequence[int], rounds: int = OFFSET_ROUNDS) -> None:
        super().__init__()
        self._anchors = [anchor for thing in read_grounding(answer_ids)[0] for anchor in thing.anchors]
        self._rounds, self._at = rounds, -1  # -1: before <offset>
        self._moves: list[int] | None = None  # of the anchor that is being answered

    def _legal(self) -> Iterable[int]:
        if self._at < 0:
            return (OFFSET,)
        if self._moves is not None:
            return range(TABLE.offset_base, TABLE.delete + (0 if self._moves else 1))
        return (self._anchors[self._at],) if self._at < len(self._anchors) else (OFFSET_END,)

    def advance(self, token: int) -> None:
        """Append an accepted token."""
        self.ids.append(token)
        if token == OFFSET:
            self._at = 0
        elif token == OFFSET_END:
            self.done = True
        elif self._moves is None:
            self._moves = []
        else:
            self._moves.append(token)
            if token == TABLE.delete or len(self._moves) == self._rounds:
                self._moves, self._at = None, self._at + 1

    def finished_ids(self) -> list[int]:
        """What was answered to its end; an anchor without an answer is read as not refined."""
        if self.done:
            return list(self.ids)
        cut = len(self.ids) - (0 if self._moves is None else len(self._moves) + 1)
        return [*self.ids[:cut], OFFSET_END] if self.ids else [OFFSET, OFFSET_END]


def read_grounding(ids: Sequence[int], refine_ids: Sequence[int] | None = None) -> tuple[list[Thing], bool]:
    """What an answer means, whatever the ids; never raises.

    Args:
        ids: first turn, local ids.
        refine_ids: second turn.

    Returns:
        The instances, and whether both turns were well formed to their ends.
    """
    grammar, sound = GroundingGrammar(1 << 16, _CELLS), True
    for token in ids:
        if grammar.done or not grammar.accepts(token):
            sound = False
            break
        grammar.advance(token)
    sound = sound and grammar.done
    things = [thing for thing in grammar.things if len(thing.box) in (0, 2) and thing.anchors]
    if refine_ids is None:
        return things, sound
    answers: list[tuple[int, list[int]]] = []
    left = list(refine_ids)
    tail = left[-1:] == [OFFSET_END]
    body = left[1:-1] if left[:1] == [OFFSET] and tail else []
    sound = sound and bool(left[:1] == [OFFSET] and tail)
    for token in body:
        if token < _CELLS:
            answers.append((token, []))
        elif answers:
            answers[-1][1].append(token)
    anchors = [anchor for thing in things for anchor in thing.anchors]
    if [cell for cell, _ in answers] != anchors[: len(answers)] or len(answers) != len(anchors):
        sound = False
    moves = [found for (cell, found), anchor in zip(answers, anchors, strict=False) if cell == anchor and _is_move(found)]
    if len(moves) != len(anchors):
        return things, False
    at = 0
    for thing in things:
        thing.moves = moves[at : at + len(thing.anchors)]
        at += len(thing.anchors)
    return things, sound


def _is_move(found: Sequence[int]) -> bool:
    return list(found) == [TABLE.delete] or (bool(found) and all(TABLE.offset_base <= token < TABLE.delete for token in found))


def corners_px(points_px: npt.NDArray[np.float64], half_cell_px: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Two corners ``(2, 2)`` as a box ``(4,)``; where an axis has no extent it takes the cell's own."""
    low, high = np.minimum(points_px[0], points_px[1]), np.maximum(points_px[0], points_px[1])
    same = low >= high
    return np.concatenate([low - half_cell_px * same, high + half_cell_px * same]).astype(np.float64)
