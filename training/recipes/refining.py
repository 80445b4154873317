"""The second turn of every domain: grid tokens come back one after the other, each is answered with offsets or ``<DELETE>``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from getok_drive.tokens.codec import Ids
from getok_drive.tokens.vocab import TABLE, TOKEN_ID
from training.recipes.conversation import IGNORE, Script


class Group(NamedTuple):
    """An element's points.

    Attributes:
        cells: ``(N,)`` as proposed.
        answers: ``(N, rounds)`` to them, which are taught; see `training.offset_data.Anchors`.
        read: what stands in the context in their place, the same shape; None: the answers themselves.
        weight: factor on the weights of its offsets.
        odds: how much likelier than others it is among those that are written.
    """

    cells: Ids
    answers: Ids
    read: Ids | None = None
    weight: float = 1.0
    odds: float = 1.0


def write_refinement(
    script: Script, groups: Sequence[Group], first_id: int, weights: Sequence[float], most_points: int, rng: np.random.Generator
) -> None:
    """The assistant's refinement, ``<offset> ... </offset>``; the grammar forces what is read, the offsets are taught.

    Args:
        script: ends where the assistant's turn begins; its end is the caller's to write.
        groups: one for each element, in the order of the proposal.
        first_id: model id of the table's first token.
        weights: of the offset in each round. A ``<DELETE>`` counts 1.
        most_points: at most so many points are written (whole groups, drawn at random, at least one); what is left out keeps its
            places, so that positions match those at run time.
        rng: draws the groups.
    """
    kept = _subset([len(group.cells) for group in groups], [group.odds for group in groups], most_points, rng)
    script.read([first_id + TOKEN_ID["<offset>"]])
    for index, (cells, answers, read, factor, _) in enumerate(groups):
        deleted = (answers[:, :1] == TABLE.delete).any(axis=1)
        lengths = np.where(deleted, 2, 1 + answers.shape[1])
        if index not in kept:
            script.leave_out(int(lengths.sum()))
            continue
        rows = (cells, answers, answers if read is None else read, lengths)
        for cell, answer, seen, length in zip(*(row.tolist() for row in rows), strict=True):
            tokens, taught = ([first_id + token for token in (cell, *given)][:length] for given in (seen, answer))
            scale = (
                (0.0, 1.0)
                if length == 2 and answer[0] == TABLE.delete
                else (0.0, *(factor * weight for weight in weights[: length - 1]))
            )
            script.teach(tokens, [IGNORE, *taught[1:]], scale)
    script.read([first_id + TOKEN_ID["</offset>"]])


def _subset(sizes: Sequence[int], odds: Sequence[float], most_points: int, rng: np.random.Generator) -> set[int]:
    kept: set[int] = set()
    points = 0
    waits = rng.exponential(size=len(sizes)) / np.asarray(odds)  # drawn without replacement, each next one by its odds
    for index in np.argsort(waits).tolist():
        if not kept or points + sizes[index] <= most_points:
            kept.add(index)
            points += sizes[index]
    return kept
