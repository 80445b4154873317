"""Rollouts: several answers to each picture, sampled under the runtime's own grammar, side by side in one batch.

A picture and its prompt are encoded once; the cache of keys and values is then forked for the group (``G`` answers a
picture), see `training.conversations`.

The policy is the model *restricted to what the grammar allows*, at the sampling temperature: probabilities are a softmax over the
exactly legal tokens. Each decision keeps that mask, so `training.policy` computes the same distribution; with temperature 0 the
choice is the runtime's own (`getok_drive.tokens.grammar.decide`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from getok_drive.errors import GetokError
from getok_drive.tokens.grammar import Grammar, decide
from getok_drive.tokens.vocab import TOKEN_ID, TOKENS
from training.collate import Layout
from training.conversations import Conversations
from training.sampling import DRIVING, Dialogue, Sampling

_TABLE_SIZE = len(TOKENS)
NOTHING = (TOKEN_ID["</scene>"],)


@dataclass(slots=True)
class Turn:
    """What one row wrote in one turn.

    Attributes:
        ids: local ids, forced ones too.
        places: indices into ``ids`` of the decisions.
        log_probs: of each decision under the policy, nats.
        legal: for each decision the legal tokens, packed bits.
        cut: whether it ended at a token of ``stops``.
    """

    ids: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    legal: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer to one picture.

    Attributes:
        picture: index of the picture in the batch.
        propose_ids: local ids as the runtime would hand them over.
        refine_ids: likewise; None for the propose turn alone.
        truncated: whether a budget was reached.
        ids: *model* ids after the prompt, up to the last decision: what training feeds; empty without decisions.
        places: indices into ``ids`` of the sampled decisions.
        log_probs: ``(D,)`` of the decisions when they were drawn, nats.
        legal: ``(D, bytes)`` packed masks of the legal tokens.
    """

    picture: int
    propose_ids: list[int]
    refine_ids: list[int] | None
    truncated: bool
    ids: list[int]
    places: list[int]
    log_probs: npt.NDArray[np.float32]
    legal: npt.NDArray[np.uint8]


def rollout_of(
    picture: int,
    propose_ids: list[int],
    refine_ids: list[int] | None,
    truncated: bool,
    context: Sequence[int],
    turn: Turn,
    first_id: int,
) -> Rollout:
    """A `Rollout` of what was written.

    Args:
        picture: see `Rollout`, as the next three.
        propose_ids: likewise.
        refine_ids: likewise.
        truncated: likewise.
        context: model ids between the prompt and the turn.
        turn: the turn with the decisions.
        first_id: model id of the table's first token.
    """
    written = turn.ids[: turn.places[-1] + 1] if turn.places else []
    ids = [*context, *(first_id + token for token in written)] if written else []
    legal = np.array(turn.legal, dtype=np.uint8).reshape(len(turn.places), -(-_TABLE_SIZE // 8))
    return Rollout(
        picture, propose_ids, refine_ids, truncated, ids, [len(context) + place for place in turn.places],
        np.array(turn.log_probs, dtype=np.float32), legal,
    )  # fmt: skip


def pick(
    scores: npt.NDArray[np.float32], legal: npt.NDArray[np.bool_], temperature: float, rng: np.random.Generator
) -> tuple[int, float]:
    """A token drawn from the softmax of ``scores / temperature`` over the legal tokens, and its log-probability."""
    logits = np.where(legal, scores.astype(np.float64) / temperature, -np.inf)
    logits -= logits.max()
    cumulative = np.cumsum(np.exp(logits))
    token = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    token = min(token, int(np.flatnonzero(legal)[-1]))
    return token, float(logits[token] - np.log(cumulative[-1]))


def log_prob_of(scores: npt.NDArray[np.float32], legal: npt.NDArray[np.bool_], token: int) -> float:
    """Log-probability of a token at temperature 1 over the legal tokens."""
    logits = np.where(legal, scores.astype(np.float64), -np.inf)
    logits -= logits.max()
    return float(logits[token] - np.log(np.exp(logits).sum()))


def write(
    rows: Conversations,
    grammars: Sequence[Grammar],
    first_id: int,
    budget: int,
    temperature: float,
    rngs: Sequence[np.random.Generator],
    last_turn: bool,
    stops: frozenset[int] = frozenset(),
) -> list[Turn]:
    """Let every row write one turn to its end.

    Args:
        rows: as many as grammars.
        grammars: fresh; advanced to ``done`` unless the budget is reached.
        first_id: model id of the table's first token.
        budget: most tokens of a turn.
        temperature: 0 takes the best token.
        rngs: one a row, so that a row's draws depend on nothing else.
        last_turn: finished rows may be dropped from the batch.
        stops: local ids that end a turn as soon as one is chosen; the row reads that the scene ends instead.

    Raises:
        GetokError: a logit is not finite: the model has diverged.
    """
    turns = [Turn() for _ in grammars]
    row_of = {index: index for index in range(len(grammars))}
    live = list(row_of)

    def put(index: int, token: int) -> None:
        grammars[index].advance(token)
        turns[index].ids.append(token)
        rows.waiting[row_of[index]].append(first_id + token)

    while True:
        for index in live:
            while not turns[index].cut and len(turns[index].ids) < budget and (token := grammars[index].forced()) is not None:
                put(index, token)
        live = [index for index in live if not (grammars[index].done or turns[index].cut) and len(turns[index].ids) < budget]
        if not live:
            return turns
        if last_turn and 2 * len(live) <= len(rows):
            rows.keep([row_of[index] for index in live])
            row_of = {index: row for row, index in enumerate(live)}
        scores = rows.scores()
        for index in live:
            own, turn, grammar = scores[row_of[index]], turns[index], grammars[index]
            if not np.isfinite(own).all():
                raise GetokError(f"rollout: a logit is not finite after {len(turn.ids)} tokens; the model has diverged")
            legal = grammar.legal()
            if temperature:
                token, log_prob = pick(own, legal, temperature, rngs[index])
            else:
                token = decide(grammar, own)
                log_prob = log_prob_of(own, legal, token)
            turn.places.append(len(turn.ids))
            turn.log_probs.append(log_prob)
            turn.legal.append(np.packbits(legal))
            put(index, token)
            if token in stops:
                turn.cut = True
                rows.waiting[row_of[index]][-1] = first_id + NOTHING[0]  # what a refinement shall read is a scene that ends here


class Sampler:
    """Draws answers; holds no state but the model.

    Args:
        model: any Qwen2.5-VL whose vision tower attends to the whole image.
        layout: fixed token ids.
        grid_hw: patches along the height and the width.
        sampling: how to draw.
    """

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, layout: Layout, grid_hw: tuple[int, int], sampling: Sampling
    ) -> None:
        self._model, self._layout, self._grid_hw, self.sampling = model, layout, grid_hw, sampling

    @torch.no_grad()
    def place(
        self, pixel_values: Tensor, group: int, seed: int, first: int = 0, dialogues: Sequence[Dialogue] = ()
    ) -> list[Rollout]:
        """``group`` proposals for each picture, a picture's side by side; refined with `Sampling.refine_proposals`.

        Args:
            pixel_values: ``(B, patches, patch_dim)`` on the model's device.
            group: answers a picture.
            seed: of the run.
            first: number of the first picture in the run. An answer's draws depend on the seed, its picture's number and its own
                number in the group alone, so they do not change with the number of processes.
            dialogues: one a picture; without any, the driving scene of each.
        """
        sampling = self.sampling
        rows, asked = self._opened(pixel_values, dialogues)
        rows.fork(group)
        grammars = [one.propose(sampling) for one in asked for _ in range(group)]
        drawn = sampling.propose_tokens, sampling.temperature, (seed, 1), first, group
        turns = self._write(rows, grammars, *drawn, sampling.stops, last_turn=not sampling.refine_proposals)
        whole = [own.done or turn.cut for turn, own in zip(turns, grammars, strict=True)]
        refined: list[list[int] | None] = [None] * len(turns)
        if sampling.refine_proposals:
            answers = self._refined(rows, turns, grammars, [one for one in asked for _ in range(group)], seed, first, group)
            refined = [own.finished_ids() for own in answers]
            whole = [both and own.done for both, own in zip(whole, answers, strict=True)]
        return [
            rollout_of(
                i // group, own.finished_ids(), refined[i], not whole[i], asked[i // group].opening, turn, self._layout.first_id
            )
            for i, (turn, own) in enumerate(zip(turns, grammars, strict=True))
        ]

    def _refined(
        self, rows: Conversations, turns: Sequence[Turn], proposals: Sequence[Grammar], asked: Sequence[Dialogue],
        seed: int, first: int, group: int,
    ) -> list[Grammar]:  # fmt: skip
        """The rows' proposals, refined with the best tokens: the grammars of the second turn."""
        sampling, layout = self.sampling, self._layout
        for waiting in rows.waiting:
            waiting += layout.refine_turn
        grammars = [
            one.refine(own.ids if own.done or turn.cut else NOTHING, sampling)
            for one, own, turn in zip(asked, proposals, turns, strict=True)
        ]
        self._write(rows, grammars, sampling.refine_tokens, 0.0, (seed, 2), first, group)
        return grammars

    @torch.no_grad()
    def move(
        self, pixel_values: Tensor, group: int, seed: int, first: int = 0, dialogues: Sequence[Dialogue] = ()
    ) -> list[Rollout]:
        """One proposal for each picture, and ``group`` refinements of it; arguments as of `place`.

        A proposal that reached its budget is not refined (as at run time): its rollouts hold no decision.
        """
        sampling, layout = self.sampling, self._layout
        rows, asked = self._opened(pixel_values, dialogues)
        proposals = [one.propose(sampling) for one in asked]
        drawn = sampling.propose_tokens, sampling.proposal_temperature, (seed, 0), first, 1
        written = self._write(rows, proposals, *drawn, last_turn=False)
        for waiting in rows.waiting:
            waiting += layout.refine_turn
        rows.fork(group)
        grammars = [
            one.refine(own.ids if own.done else NOTHING, sampling)
            for one, own in zip(asked, proposals, strict=True)
            for _ in range(group)
        ]
        turns = self._write(rows, grammars, sampling.refine_tokens, sampling.temperature, (seed, 1), first, group)
        rollouts = []
        for index, (turn, grammar) in enumerate(zip(turns, grammars, strict=True)):
            before, own = written[index // group], proposals[index // group]
            context = [*asked[index // group].opening, *(layout.first_id + token for token in before.ids), *layout.refine_turn]
            truncated = not (own.done and grammar.done)
            ids = own.finished_ids(), grammar.finished_ids()
            rollouts.append(rollout_of(index // group, *ids, truncated, context, turn, layout.first_id))
        return rollouts

    def _opened(self, pixel_values: Tensor, dialogues: Sequence[Dialogue]) -> tuple[Conversations, Sequence[Dialogue]]:
        """A row for each picture that has read what it is asked."""
        rows = Conversations(self._model, self._layout, pixel_values, self._grid_hw)
        asked = dialogues or [DRIVING] * len(rows)
        for waiting, one in zip(rows.waiting, asked, strict=True):
            waiting += one.opening
        return rows, asked

    def _write(
        self, rows: Conversations, grammars: Sequence[Grammar], budget: int, temperature: float,
        seed: tuple[int, int], first: int, group: int, stops: frozenset[int] = frozenset(), last_turn: bool = True,
    ) -> list[Turn]:  # fmt: skip
        """One turn of all rows, ``group`` of them a picture."""
        rngs = [np.random.default_rng((*seed, first + index // group, index % group)) for index in range(len(rows))]
        return write(rows, grammars, self._layout.first_id, budget, temperature, rngs, last_turn, stops)
