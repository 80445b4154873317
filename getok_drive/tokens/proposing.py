"""`ProposeGrammar`: the state machine of the propose turn; only what it allows can be emitted, and all of it can be parsed."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.tokens import lattice, masks
from getok_drive.tokens.elements import HEAD_WORDS, KINDS, LEAST_POINTS
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.vocab import GRID_SIZE, TABLE, TOKEN_ID, TOKENS

WORD_IDS = {kind: tuple(tuple(TOKEN_ID[f"<{w}>"] for w in slot) for slot in slots) for kind, slots in HEAD_WORDS.items()}

_ALL_CELLS = np.stack(np.divmod(np.arange(GRID_SIZE**2), GRID_SIZE)[::-1], axis=1)  # (column, row) of every cell


class ProposeGrammar:
    """Which token may come next in a proposal.

    Kinds come in the order of the text. Lanes never go down the picture nor visit a cell twice; a box's second corner is never
    left of or above the first; no box or sign has the words and cells of an earlier one; a polygon's edges never touch an earlier
    edge, and it ends only where its closing edge touches none.

    A polygon that cannot be closed where it stands (it may have grown around its own start) has one exit besides going on:
    ``<DELETE>`` takes back its last vertex, and goes on doing so by force until the polygon can be closed or is gone. So every
    state has a legal successor, and every path ends: no element has more points, and no scene more elements, than ``limits``.

    Attributes:
        ids: the tokens so far.
        done: whether ``</scene>`` has been written.
    """

    __slots__ = (
        "_cells", "_chain", "_closable", "_counts", "_finished", "_forced", "_kind", "_kinds", "_limits", "_mask", "_repeats",
        "_taken_back", "_words", "done", "ids",
    )  # fmt: skip

    def __init__(self, limits: Limits | None = None, kinds: Collection[str] = KINDS) -> None:
        """Begin the turn.

        Args:
            limits: greatest numbers.
            kinds: the element kinds that may be written.

        Raises:
            ConfigError: on an unknown kind.
        """
        if unknown := set(kinds) - set(KINDS):
            raise ConfigError(f"kinds: unknown {', '.join(sorted(map(str, unknown)))}; expected some of {', '.join(KINDS)}")
        self._limits = limits or Limits()
        self._kinds = tuple(kind in kinds for kind in KINDS)
        self._counts = [0] * len(KINDS)
        self._finished = 0  # so many of `ids` belong to finished elements
        self._kind = -1  # index into KINDS of the element being written
        self._words = 0  # words of its head so far
        self._cells: set[int] = set()
        self._chain: list[lattice.Point] = []  # its points as (column, row)
        self._closable = False
        self._taken_back = False
        self._repeats: dict[tuple[int, ...], set[int]] = {}  # cells that would make an element a repetition, by its tokens before
        self.ids: list[int] = []
        self.done = False
        self._update()

    @property
    def kind(self) -> str:
        """The kind of the element being written, "" before the first."""
        return KINDS[self._kind] if self._kind >= 0 else ""

    def allowed(self) -> masks.Mask:
        """``(len(TOKENS),)`` read-only mask of the tokens that fit, but for geometry (see `accepts`)."""
        return self._mask

    def forced(self) -> int | None:
        """The only token that fits, if there is just one."""
        return self._forced

    def accepts(self, token: int) -> bool:
        """Whether ``token`` may come next, geometry included. Costs more than `allowed`: ask for chosen tokens only."""
        if not (0 <= token < len(TOKENS) and self._mask[token]):
            return False
        if token >= masks.GRID_COUNT:
            return True
        if self._kind == 0:
            return token not in self._cells
        if self._kind == 1:
            return lattice.can_append(self._chain, (token % GRID_SIZE, token // GRID_SIZE))
        return token not in self._repeats.get(tuple(self.ids[self._finished :]), ())

    def legal(self) -> masks.Mask:
        """The exact mask: `accepts` for every token at once (about a millisecond inside polygons)."""
        mask: masks.Mask = self._mask.copy()
        if self._kind == 0 and self._cells:
            mask[list(self._cells)] = False
        elif self._kind == 1 and mask[: masks.GRID_COUNT].any():
            mask[: masks.GRID_COUNT] &= lattice.appendable(self._chain, _ALL_CELLS)
        elif self._kind >= 2:
            mask[list(self._repeats.get(tuple(self.ids[self._finished :]), ()))] = False
        return mask

    def advance(self, token: int) -> None:
        """Append a token that `accepts` agreed to; geometry is not checked again.

        Raises:
            InputError: when `allowed` forbids the token.
        """
        if not (0 <= token < len(TOKENS) and self._mask[token]):
            raise InputError(f"propose grammar: token {token} is not allowed after {len(self.ids)} tokens; ask allowed() first")
        if token < masks.GRID_COUNT:
            self._cells.add(token)
            self._chain.append((token % GRID_SIZE, token // GRID_SIZE))
            self._closable = self._kind == 1 and lattice.can_close(self._chain)
        elif token == TABLE.delete:
            self._chain.pop()
            self._taken_back = True
            self._closable = lattice.can_close(self._chain)
        elif token == masks.END or token in masks.KIND_IDS:
            self._finished = len(self.ids)
            self._cells, self._chain = set(), []
            self._words, self._closable, self._taken_back = 0, False, False
            self.done = token == masks.END
            if not self.done:
                self._kind = masks.KIND_IDS.index(token)
                self._counts[self._kind] += 1
        else:
            self._words += 1
        self.ids.append(token)
        if self._kind >= 2 and len(self._chain) == LEAST_POINTS[KINDS[self._kind]]:
            self._remember()
            self._finished = len(self.ids)
        self._update()

    def finished_ids(self) -> list[int]:
        """The finished elements' tokens and ``</scene>``: what to hand over when a budget is reached.

        A box or sign is finished with its last point, a lane or polygon only when something follows it.
        """
        return list(self.ids) if self.done else [*self.ids[: self._finished], masks.END]

    def _remember(self) -> None:
        """The box or sign just written may not come again, nor a first corner that leaves only boxes written before."""
        *start, last = self.ids[self._finished :]
        known = self._repeats.setdefault(tuple(start), set())
        known.add(last)
        column, row = self._chain[0]
        if KINDS[self._kind] == "box" and len(known) == (GRID_SIZE - column) * (GRID_SIZE - row):
            self._repeats.setdefault(tuple(start[:-1]), set()).add(start[-1])

    def _following(self) -> int:
        """A bit for each kind that may come next."""
        first = max(self._kind, 0)
        return sum(
            1 << index
            for index, kind in enumerate(KINDS)
            if index >= first and self._kinds[index] and self._counts[index] < self._limits.elements(kind)
        )

    def _update(self) -> None:
        self._mask, self._forced = self._next()

    def _next(self) -> tuple[masks.Mask, int | None]:
        if self.done:
            return masks.of_tokens()
        if self._kind < 0:
            return masks.of_points(masks.NO_CELLS, 0, self._following(), False)
        kind, count = KINDS[self._kind], len(self._chain)
        if self._words < len(WORD_IDS[kind]):
            return masks.of_tokens(*WORD_IDS[kind][self._words])
        if kind == "drivable":
            return self._next_in_polygon(count)
        following = self._following() if count >= LEAST_POINTS[kind] else -1
        if count == self._limits.points(kind):
            return masks.of_points(masks.NO_CELLS, 0, following, False)
        if count == 0:
            return masks.of_points(masks.ANY_CELL, 0, following, False)
        column, row = self._chain[-1]
        if kind == "lane":
            return masks.of_points(masks.ROWS_UP_TO, row, following, False)
        return masks.of_points(masks.BOX_FROM, row * GRID_SIZE + column, following, False)

    def _next_in_polygon(self, count: int) -> tuple[masks.Mask, int | None]:
        gone = self._taken_back and count < LEAST_POINTS["drivable"]
        ends = self._closable or gone
        cells = masks.NO_CELLS if self._taken_back or count == self._limits.polygon_vertices else masks.ANY_CELL
        stuck = count >= LEAST_POINTS["drivable"] and not self._closable
        return masks.of_points(cells, 0, self._following() if ends else -1, stuck)
