"""How answers are drawn, what is asked, and the grammars of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from getok_drive.errors import ConfigError
from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.grammar import Grammar, ProposeGrammar, RefineGrammar
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.vocab import OFFSET_ROUNDS, TOKEN_ID


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        temperature: of the sampled turn; 0 takes the best token.
        proposal_temperature: of the proposal that the refinements of one group share; 0 takes the best token.
        propose_tokens: most tokens of a proposal.
        refine_tokens: most tokens of a refinement.
        rounds: offset rounds of the model.
        limits: greatest numbers of elements and points.
        last_kind: a scene is drawn, refined and judged up to this kind (``lane``, ``drivable``, ``box``, ``sign``: all of it);
            what would come later costs nothing and learns nothing.
        refine_proposals: drawn proposals are refined, with the best token each, before they are judged: they are worth what the
            scene is worth in the end.
    """

    temperature: float = 1.0
    proposal_temperature: float = 0.0
    propose_tokens: int = 512
    refine_tokens: int = 1024
    rounds: int = OFFSET_ROUNDS
    limits: Limits = field(default_factory=Limits)
    last_kind: str = KINDS[-1]
    refine_proposals: bool = False

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.proposal_temperature < 0 or min(self.propose_tokens, self.refine_tokens) < 1:
            raise ConfigError("sampling: temperatures must be 0 or more, token budgets 1 or more")
        if self.last_kind not in KINDS:
            raise ConfigError(f"sampling.last_kind={self.last_kind!r}: expected one of {', '.join(KINDS)}")

    @property
    def plain(self) -> bool:
        """Whether whole scenes are drawn, and nothing is done with them before they are judged."""
        return not self.stops and not self.refine_proposals

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of element that are drawn."""
        return KINDS[: KINDS.index(self.last_kind) + 1]

    @property
    def stops(self) -> frozenset[int]:
        """Local ids that end a proposal: the kind tokens after ``last_kind``."""
        return frozenset(TOKEN_ID[f"<{kind}>"] for kind in KINDS if kind not in self.kinds)


def until(propose_ids: Sequence[int], stops: frozenset[int]) -> list[int]:
    """A proposal's elements before the first token of ``stops``, and ``</scene>``."""
    for at, token in enumerate(propose_ids):
        if token in stops:
            return [*propose_ids[:at], TOKEN_ID["</scene>"]]
    return list(propose_ids)


class Dialogue(Protocol):
    """What one row is asked, and the grammars of its two turns."""

    @property
    def opening(self) -> tuple[int, ...]:
        """Model ids between the common prompt (`Layout.after`) and the answer."""

    def propose(self, sampling: Sampling) -> Grammar:
        """Of the first turn, fresh."""

    def refine(self, propose_ids: Sequence[int], sampling: Sampling) -> Grammar:
        """Of the second turn, fresh."""


@dataclass(frozen=True, slots=True)
class DrivingDialogue:
    """The scene: all rows are asked the same, so that nothing is left to read."""

    opening: tuple[int, ...] = ()

    def propose(self, sampling: Sampling) -> Grammar:
        """The runtime's own grammar."""
        return ProposeGrammar(sampling.limits)

    def refine(self, propose_ids: Sequence[int], sampling: Sampling) -> Grammar:
        """Likewise, of the kinds that are drawn."""
        return RefineGrammar(until(propose_ids, sampling.stops), sampling.rounds, sampling.limits)


DRIVING = DrivingDialogue()
