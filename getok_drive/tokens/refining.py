"""`RefineGrammar`: the state machine of the refine turn; what it allows always leaves valid elements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.tokens import lattice, masks
from getok_drive.tokens.codec import OFFSET_NONE
from getok_drive.tokens.elements import KINDS, LEAST_POINTS
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.reading import Proposed, read_proposal
from getok_drive.tokens.vocab import GRID_SIZE, OFFSET_ROUNDS, TABLE, TOKENS

_OFFSETS = tuple(range(TABLE.offset_base, TABLE.offset_base + 9))
_START, _ANCHOR, _ANSWER, _STOP, _DONE = range(5)


class RefineGrammar:
    """Which token may come next in a refinement: ``<offset>``, each proposed grid token and its answer, ``</offset>``.

    Offsets never leave the image. Beyond that, each kind keeps a promise that some legal answer always remains:

    - lane: points never go down nor stand still. An offset is legal while the rounds still to come can reach the height of the
      point before; as rows only rise, the later points can then follow too.
    - box: an offset is legal while the rounds and the corner still to come can leave an area.
    - polygon: it is simple with the points answered so far moved and all others at their cells' centres, so staying
      (``<OFF_0_0>``) is always legal; a vertex may only be deleted if the rest is simple.

    Once an element is gone (a corner deleted, too few points left), its remaining answers are ``<DELETE>`` by force.

    Attributes:
        ids: the tokens so far.
        done: whether ``</offset>`` has been written.
    """

    __slots__ = (
        "_at", "_before", "_decided_of", "_element", "_elements", "_finished", "_forced", "_gone", "_left", "_limit", "_mask",
        "_point", "_ring", "_ring_at", "_round", "_rounds", "_state", "_steps", "done", "ids",
    )  # fmt: skip

    def __init__(
        self,
        propose_ids: Sequence[int],
        rounds: int = OFFSET_ROUNDS,
        limits: Limits | None = None,
        decided: int | Mapping[str, int] | None = None,
    ) -> None:
        """Begin the turn.

        Args:
            propose_ids: the proposal, any integers.
            rounds: offset rounds, 1 or more.
            limits: as for the proposal.
            decided: rounds that are left to choose, 1 or more, for all kinds of elements or by kind; in later ones ``<OFF_0_0>``
                is the only token that fits. None: all.

        Raises:
            ConfigError: when ``rounds`` or ``decided`` is out of range.
        """
        if rounds < 1:
            raise ConfigError(f"rounds: expected 1 or more offset rounds, got {rounds}")
        self._elements, _ = read_proposal(propose_ids, limits or Limits(), Counter())
        self._decided_of = (
            dict(decided) if isinstance(decided, Mapping) else dict.fromkeys(KINDS, rounds if decided is None else decided)
        )
        if set(self._decided_of) != set(KINDS) or not all(1 <= number <= rounds for number in self._decided_of.values()):
            raise ConfigError(f"rounds: expected 1..{rounds} offset rounds to decide for {', '.join(KINDS)}, got {decided}")
        self._rounds, self._steps = rounds, lattice.cell_steps(rounds)
        self._limit = self._steps * GRID_SIZE  # the image's far border on the lattice
        self._element, self._at, self._round = 0, 0, 0  # element, point in it, offsets of that point so far
        self._left = 0  # points of the element not deleted, answered or not
        self._gone = False
        self._point: lattice.Point = (0, 0)  # where the point's offsets have brought it
        self._before: lattice.Point | None = None  # the last kept point of the element
        self._ring: list[lattice.Point] = []  # a polygon's vertices without the deleted ones
        self._ring_at = 0
        self._finished = 1
        self._state = _START
        self.ids: list[int] = []
        self.done = False
        self._begin()
        self._update()

    @property
    def points(self) -> int:
        """Number of points to be answered; with none the turn can be skipped."""
        return sum(len(element.cells) for element in self._elements)

    @property
    def kind(self) -> str:
        """The kind of the element being answered, "" after the last."""
        return self._current.kind if self._element < len(self._elements) else ""

    def allowed(self) -> masks.Mask:
        """``(len(TOKENS),)`` read-only mask of the tokens that fit, but for geometry (see `accepts`)."""
        return self._mask

    def forced(self) -> int | None:
        """The only token that fits, if there is just one: given-back grid tokens, ``<offset>``, ``</offset>``."""
        return self._forced

    def accepts(self, token: int) -> bool:
        """Whether ``token`` may come next, geometry included. Costs more than `allowed`: ask for chosen tokens only."""
        if not (0 <= token < len(TOKENS) and self._mask[token]):
            return False
        if self._state != _ANSWER or self._gone:
            return True
        return self._may_delete() if token == TABLE.delete else self._may_move(self._moved(token))

    def legal(self) -> masks.Mask:
        """The exact mask: `accepts` for every token at once."""
        mask = np.zeros(len(TOKENS), dtype=bool)
        tokens = np.flatnonzero(self._mask)
        mask[tokens] = [self.accepts(int(token)) for token in tokens]
        return mask

    def advance(self, token: int) -> None:
        """Append a token that `accepts` agreed to; geometry is not checked again.

        Raises:
            InputError: when `allowed` forbids the token.
        """
        if not (0 <= token < len(TOKENS) and self._mask[token]):
            raise InputError(f"refine grammar: token {token} is not allowed after {len(self.ids)} tokens; ask allowed() first")
        self.ids.append(token)
        if self._state == _START:
            self._state = _ANCHOR if self._elements else _STOP
        elif self._state == _ANCHOR:
            self._state, self._round = _ANSWER, 0
            self._point = lattice.center(token, self._steps)
        elif self._state == _STOP:
            self._state, self.done = _DONE, True
        elif token == TABLE.delete:
            self._delete()
            self._next_point()
        else:
            self._point = self._moved(token)
            self._round += 1
            if self._ring:
                self._ring[self._ring_at] = self._point
            if self._round == self._rounds:
                self._before = self._point
                self._ring_at += 1
                self._next_point()
        self._update()

    def finished_ids(self) -> list[int]:
        """The completely answered elements' tokens and ``</offset>``: what to hand over when a budget is reached."""
        return list(self.ids) if self.done else [masks.OFFSET_START, *self.ids[1 : self._finished], masks.OFFSET_END]

    # --- where in the text ---

    @property
    def _decided(self) -> int:
        return self._decided_of[self._current.kind]

    @property
    def _current(self) -> Proposed:
        return self._elements[self._element]

    def _begin(self) -> None:
        """Set up the element that comes next, if any."""
        self._at, self._gone, self._before, self._ring, self._ring_at = 0, False, None, [], 0
        if self._element < len(self._elements):
            self._left = len(self._current.cells)
            if self._current.kind == "drivable":
                self._ring = [lattice.center(cell, self._steps) for cell in self._current.cells]

    def _next_point(self) -> None:
        self._at += 1
        if self._at == len(self._current.cells):
            self._element += 1
            self._finished = len(self.ids)
            self._begin()
        self._state = _ANCHOR if self._element < len(self._elements) else _STOP

    def _delete(self) -> None:
        self._left -= 1
        if self._ring:
            del self._ring[self._ring_at]
        if self._left < LEAST_POINTS[self._current.kind]:
            self._gone, self._ring = True, []

    def _update(self) -> None:
        if self._state == _START:
            self._mask, self._forced = masks.of_tokens(masks.OFFSET_START)
        elif self._state == _ANCHOR:
            self._mask, self._forced = masks.of_tokens(self._current.cells[self._at])
        elif self._state == _STOP:
            self._mask, self._forced = masks.of_tokens(masks.OFFSET_END)
        elif self._state == _DONE:
            self._mask, self._forced = masks.of_tokens()
        elif self._gone:
            self._mask, self._forced = masks.of_tokens(TABLE.delete)
        elif self._round >= self._decided:
            self._mask, self._forced = masks.of_tokens(OFFSET_NONE)
        else:
            self._mask, self._forced = masks.of_tokens(*_OFFSETS, *((TABLE.delete,) if self._round == 0 else ()))

    # --- geometry ---

    def _moved(self, token: int) -> lattice.Point:
        du, dv = lattice.move(token)
        step = self._steps >> (self._round + 1)
        return self._point[0] + du * step, self._point[1] + dv * step

    def _may_delete(self) -> bool:
        if not self._ring or self._left - 1 < LEAST_POINTS["drivable"]:
            return True
        return lattice.can_remove(self._ring, self._ring_at)

    def _may_move(self, target: lattice.Point) -> bool:
        if not (0 <= target[0] <= self._limit and 0 <= target[1] <= self._limit):
            return False
        if self._round >= self._decided:
            return True  # room for this stop was kept when the last round was decided
        reach = (self._steps >> (self._round + 1)) - (self._steps >> self._decided)  # what later rounds can still move
        kind = self._current.kind
        if kind == "lane" and self._before is not None:
            return target[1] - reach <= self._before[1] and (reach > 0 or target != self._before)
        if kind == "box":
            return self._leaves_area(target, reach)
        if kind == "drivable":
            return target == self._point or lattice.can_move(self._ring, self._ring_at, target)
        return True

    def _leaves_area(self, target: lattice.Point, reach: int) -> bool:
        if self._before is not None:
            return all(min(self._limit, value + reach) > low for value, low in zip(target, self._before, strict=True))
        other = lattice.center(self._current.cells[1], self._steps)
        return all(
            max(0, value - reach) < min(self._limit, high + self._steps - 1) for value, high in zip(target, other, strict=True)
        )


def unmoved(ids: Sequence[int]) -> list[int]:
    """A refinement that only deletes: every offset becomes ``<OFF_0_0>``.

    Args:
        ids: local ids of a refinement, any integers.
    """
    return [OFFSET_NONE if TABLE.offset_base <= token < TABLE.delete else token for token in ids]
