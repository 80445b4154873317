"""THE decoder: token by token, constrained by the grammar, the same for every backend.

One conversation of two turns (see ARCHITECTURE.md). The model is asked only where the grammar leaves a choice: forced tokens
(given-back grid tokens, turn changes) wait and go into the same pass as the chosen token after them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from getok_drive.errors import BackendError, ConfigError
from getok_drive.runtime.backend import Backend
from getok_drive.tokens.confidence import TokenProbs, delete_probability, token_probability
from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.grammar import Grammar, ProposeGrammar, RefineGrammar, decide
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.vocab import OFFSET_ROUNDS, TABLE, TOKENS
from getok_drive.types import FloatArray

_TABLE_SIZE = len(TOKENS)


@dataclass(frozen=True, slots=True)
class Budget:
    """What one frame may cost; reaching it ends the frame with the elements finished so far and ``truncated`` set.

    Attributes:
        tokens: most tokens of both turns together, 2 or more.
        time_s: most seconds of decoding after the prefill, above 0.
    """

    tokens: int = 4096
    time_s: float = math.inf

    def __post_init__(self) -> None:
        if self.tokens < 2 or not self.time_s > 0:
            raise ConfigError(f"budget: expected 2 or more tokens and a time above 0 s, got {self.tokens} and {self.time_s}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The fixed parts of the conversation as model token ids.

    Attributes:
        before: text before the image.
        after: text between the image and the proposal.
        refine: text between ``</scene>`` and ``<offset>``.
        first_token_id: model id of the token table's first token.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    refine: tuple[int, ...]
    first_token_id: int


@dataclass(slots=True)
class Decoded:
    """What one image gave: local ids of both turns, a probability for each, and how it went.

    Attributes:
        propose_ids: the proposal; when truncated, without the unfinished element.
        refine_ids: the refinement; when truncated, without the unfinished element; None when there was none.
        propose_probs: see `TokenProbs.propose`.
        refine_probs: see `TokenProbs.refine`.
        passes: runs of the decoder, without the prefill.
        truncated: whether a budget was reached.
    """

    propose_ids: list[int] = field(default_factory=list)
    refine_ids: list[int] | None = None
    propose_probs: list[float] = field(default_factory=list)
    refine_probs: list[float] = field(default_factory=list)
    passes: int = 0
    truncated: bool = False

    @property
    def token_probs(self) -> TokenProbs:
        """The probabilities in the form that `parse` takes."""
        return TokenProbs(propose=self.propose_probs, refine=self.refine_probs)


class _Turns:
    """State of one conversation: tokens that the model has not seen yet, and what may still be spent."""

    def __init__(self, backend: Backend, first_token_id: int, budget: Budget) -> None:
        self.backend = backend
        self.first_id = first_token_id
        self.waiting: list[int] = []
        self.tokens_left = budget.tokens
        self.deadline_s = time.perf_counter() + budget.time_s
        self.passes = 0

    @property
    def late(self) -> bool:
        return time.perf_counter() >= self.deadline_s

    def scores(self, logits: FloatArray | None) -> FloatArray:
        """The table's logits after everything written so far; ``logits`` where the model has given them already."""
        if self.waiting or logits is None:
            logits = self.backend.step(self.waiting)
            self.passes += 1
            self.waiting.clear()
        return logits[self.first_id : self.first_id + _TABLE_SIZE]

    def write(self, grammar: Grammar, token: int) -> None:
        grammar.advance(token)
        self.waiting.append(self.first_id + token)
        self.tokens_left -= 1


def decode(
    backend: Backend,
    logits: FloatArray,
    prompt: Prompt,
    *,
    limits: Limits | None = None,
    budget: Budget | None = None,
    rounds: int = OFFSET_ROUNDS,
    decided_rounds: int | Mapping[str, int] | None = None,
    refine: bool = True,
    kinds: Collection[str] = KINDS,
) -> Decoded:
    """Propose and refine, after the prefill.

    Args:
        backend: has just done the prefill.
        logits: what `Backend.prefill` returned.
        prompt: the conversation's fixed parts.
        limits: greatest numbers of elements and points.
        budget: tokens and time.
        rounds: offset rounds of the model.
        decided_rounds: of these, how many the model is asked for, in all or by element kind; each point costs one pass a round.
            None: all.
        refine: whether to ask for the second turn.
        kinds: element kinds that may be proposed.

    Raises:
        BackendError: from the backend, or when the vocabulary does not hold the token table.
    """
    if not 0 <= prompt.first_token_id <= len(logits) - _TABLE_SIZE:
        raise BackendError(
            f"decode: a token table of {_TABLE_SIZE} from id {prompt.first_token_id} exceeds {len(logits)} logits; wrong bundle?"
        )
    turns = _Turns(backend, prompt.first_token_id, budget or Budget())
    propose = ProposeGrammar(limits, kinds)
    probs = _propose(turns, propose, logits)
    truncated = not propose.done
    ids = propose.finished_ids()
    result = Decoded(propose_ids=ids, propose_probs=[*probs[: len(ids) - 1], 1.0] if truncated else probs)

    if refine and len(ids) > 1 and not truncated:
        answers = RefineGrammar(ids, rounds, limits, decided_rounds)
        turns.waiting.extend(prompt.refine)
        probs = _refine(turns, answers)
        truncated = not answers.done
        if answers.done:
            result.refine_ids, result.refine_probs = answers.ids, probs
        elif len(finished := answers.finished_ids()) > 2:  # more than the turn's start and end
            result.refine_ids, result.refine_probs = finished, [*probs[: len(finished) - 1], 0.0]
    result.passes = turns.passes
    result.truncated = truncated
    return result


def _propose(turns: _Turns, grammar: ProposeGrammar, logits: FloatArray | None) -> list[float]:
    """Write the proposal; returns what `TokenProbs.propose` wants."""
    probs: list[float] = []
    while not grammar.done and turns.tokens_left > 0 and not turns.late:
        token = grammar.forced()
        if token is None:
            scores = turns.scores(logits)
            logits = None
            token = decide(grammar, scores)
            probs.append(token_probability(softmax(scores), token))
        else:
            probs.append(1.0)
        turns.write(grammar, token)
    return probs


def _refine(turns: _Turns, grammar: RefineGrammar) -> list[float]:
    """Write the refinement; returns what `TokenProbs.refine` wants."""
    probs: list[float] = []
    first = False  # whether the next choice is the first answer to a point
    while not grammar.done and turns.tokens_left > 0 and not turns.late:
        token = grammar.forced()
        if token is None:
            scores = turns.scores(None)
            token = decide(grammar, scores)
            probs.append(delete_probability(softmax(scores)) if first else 0.0)
        else:
            probs.append(float(first and token == TABLE.delete))
        first = token < TABLE.offset_base
        turns.write(grammar, token)
    return probs


def softmax(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Probabilities of the table's tokens, before any mask; NaN counts as impossible."""
    highest = float(scores.max())
    if not math.isfinite(highest):  # a broken model: no probability is worth anything
        return np.zeros(len(scores), np.float32)
    exponentials: npt.NDArray[np.float32] = np.exp(scores - np.float32(highest), dtype=np.float32)
    exponentials /= exponentials.sum()
    return exponentials
