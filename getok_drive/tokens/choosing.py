"""Which legal token to write: the likeliest word, but of places the one that is worth most.

A wrong word is wrong, whichever it is; a place beside the true one is nearly as good as the true one. The likeliest of a thousand
cells is then not the best bet: with one cell at 10 % alone and three neighbours at 8 % each, the middle of the three is. So

- the cells of lanes, boxes and signs are judged by the probability that the truth lies there or next to there (`NEAR`);
- an offset of a box's corner is the one nearest to the expected move, which is least squared error among the nine;
- ``<DELETE>`` has to be likelier than `DELETE_ABOVE`, not only likelier than each of nine offsets that share the rest. For the
  best F1 an element is kept if it is right with half of that F1 as probability (Lipton et al. 2014, arXiv 1402.1892): 0.1 at 0.2.

Areas take the likeliest cell and offset, lanes the likeliest offset: there expected moves or blurred cells gained nothing. The
numbers were chosen on validation frames of the world; what each rule brings is in training/LOG.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.tokens import lattice, masks
from getok_drive.tokens.proposing import ProposeGrammar
from getok_drive.tokens.refining import RefineGrammar
from getok_drive.tokens.vocab import GRID_SIZE, TABLE, TOKENS

if TYPE_CHECKING:
    from getok_drive.tokens.grammar import Grammar

Scores = npt.NDArray[np.floating]

# What the truth in the next column, and in the next row, is worth, where the truth in the cell itself is worth 1. The row of a
# lane's point is sure, but for bends (`training.targets.thin_lane`).
NEAR = {"lane": (0.3, 0.0), "box": (0.3, 0.3), "sign": (0.5, 0.5)}
DELETE_ABOVE = 0.9

_REJECTIONS = 8  # so many refused choices, then the exact mask decides
_LOWEST = float(np.finfo(np.float32).min)
_OFFSETS = slice(TABLE.offset_base, TABLE.offset_base + 9)
_MOVES = np.array([lattice.move(token) for token in range(_OFFSETS.start, _OFFSETS.stop)], dtype=np.float64)


def choose(grammar: Grammar, scores: Scores) -> int:
    """The legal token with the highest score.

    Args:
        grammar: not yet ``done``; it is not advanced.
        scores: ``(len(TOKENS),)`` logits of the table's tokens; NaN counts as lowest.

    Raises:
        InputError: when the grammar is done or the scores have another length.
    """
    forced = grammar.forced()
    if forced is not None:
        return forced
    if grammar.done or scores.shape != (len(TOKENS),):
        raise InputError(
            f"choose: expected {len(TOKENS)} scores and an unfinished grammar, got {scores.shape}, done={grammar.done}"
        )
    masked = np.where(grammar.allowed(), scores, -np.inf)
    for _ in range(_REJECTIONS):
        token = int(masked.argmax())
        if np.isnan(masked[token]) or not grammar.accepts(token):
            masked[token] = -np.inf
        else:
            return token
    finite = np.nan_to_num(scores, nan=_LOWEST, neginf=_LOWEST)
    return int(np.where(grammar.legal(), finite, -np.inf).argmax())


def decide(grammar: Grammar, scores: Scores) -> int:
    """The token that every decoder writes: `choose`, but places as this module's page says; arguments and errors as there."""
    token = choose(grammar, scores)
    if isinstance(grammar, ProposeGrammar) and token < masks.GRID_COUNT and grammar.kind in NEAR:
        return _cell(grammar, scores, token)
    if isinstance(grammar, RefineGrammar) and grammar.forced() is None and grammar.allowed()[_OFFSETS].any():
        return _answer(grammar, scores, token)
    return token


def _cell(grammar: ProposeGrammar, scores: Scores, likeliest: int) -> int:
    legal, (across, down) = grammar.legal()[: masks.GRID_COUNT], NEAR[grammar.kind]
    chances = np.where(legal, _chances(scores[: masks.GRID_COUNT]), 0).reshape(GRID_SIZE, GRID_SIZE)
    worth = _with_neighbours(_with_neighbours(chances, down).T, across).T.ravel()
    best = int(np.where(legal, worth, -1).argmax())
    return best if worth[best] > 0 else likeliest


def _answer(grammar: RefineGrammar, scores: Scores, likeliest: int) -> int:
    allowed = grammar.allowed()
    chances = _chances(np.where(allowed, scores, -np.inf))
    if allowed[TABLE.delete]:
        if chances[TABLE.delete] > DELETE_ABOVE * chances.sum() and grammar.accepts(TABLE.delete):
            return TABLE.delete
        if likeliest == TABLE.delete:
            keeping = scores.copy()
            keeping[TABLE.delete] = -np.inf
            likeliest = choose(grammar, keeping)
    moving = chances[_OFFSETS]
    if grammar.kind != "box" or likeliest == TABLE.delete or not moving.sum() > 0:
        return likeliest
    expected = moving @ _MOVES / moving.sum()
    for index in np.argsort(((_MOVES - expected) ** 2).sum(axis=1), kind="stable"):
        if grammar.accepts(nearest := _OFFSETS.start + int(index)):
            return nearest
    return likeliest


def _chances(scores: Scores) -> npt.NDArray[np.float64]:
    """Probabilities up to a factor; NaN counts as impossible."""
    finite = np.nan_to_num(scores.astype(np.float64), nan=-np.inf, posinf=-_LOWEST, neginf=-np.inf)
    highest = finite.max()
    return np.exp(finite - highest) if np.isfinite(highest) else np.zeros(len(finite))


def _with_neighbours(chances: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """Each row with ``share`` of the rows above and below it."""
    total = chances.copy()
    total[1:] += share * chances[:-1]
    total[:-1] += share * chances[1:]
    return total
