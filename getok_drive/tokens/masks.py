"""Cached boolean masks over the token table: what may come next. Read-only and one per case: a step costs a look-up."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from getok_drive.tokens.vocab import GRID_SIZE, KIND_TOKENS, TABLE, TOKEN_ID, TOKENS

Mask = npt.NDArray[np.bool_]

GRID_COUNT = GRID_SIZE**2
END = TOKEN_ID["</scene>"]
OFFSET_START, OFFSET_END = TOKEN_ID["<offset>"], TOKEN_ID["</offset>"]
KIND_IDS = tuple(TOKEN_ID[text] for text in KIND_TOKENS)

NO_CELLS, ANY_CELL, ROWS_UP_TO, BOX_FROM = range(4)


def _frozen(mask: Mask) -> tuple[Mask, int | None]:
    """The mask, read-only, and its token if it holds exactly one."""
    mask.setflags(write=False)
    tokens = np.flatnonzero(mask)
    return mask, int(tokens[0]) if len(tokens) == 1 else None


@lru_cache(maxsize=8192)
def of_tokens(*tokens: int) -> tuple[Mask, int | None]:
    """Exactly these tokens."""
    mask = np.zeros(len(TOKENS), dtype=bool)
    mask[list(tokens)] = True
    return _frozen(mask)


@lru_cache(maxsize=8192)
def of_points(cells: int, argument: int, kinds: int, delete: bool) -> tuple[Mask, int | None]:
    """Grid tokens, and what may follow an element.

    Args:
        cells: which cells: `NO_CELLS`, `ANY_CELL`, `ROWS_UP_TO` (rows 0..argument) or `BOX_FROM` (no further left or up than the
            cell ``argument``).
        argument: see ``cells``.
        kinds: -1 if the element may not end here, else a bit for each kind token that may follow; ``</scene>`` then may too.
        delete: whether ``<DELETE>`` is allowed.
    """
    mask = np.zeros(len(TOKENS), dtype=bool)
    grid = mask[:GRID_COUNT].reshape(GRID_SIZE, GRID_SIZE)  # [row, column]
    if cells == ANY_CELL:
        grid[:] = True
    elif cells == ROWS_UP_TO:
        grid[: argument + 1] = True
    elif cells == BOX_FROM:
        grid[argument // GRID_SIZE :, argument % GRID_SIZE :] = True
    mask[TABLE.delete] = delete
    if kinds >= 0:
        mask[END] = True
        for bit, token in enumerate(KIND_IDS):
            mask[token] = bool(kinds >> bit & 1)
    return _frozen(mask)
