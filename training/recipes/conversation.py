"""`Conversation`: one training example of any domain, and `Script`, with which a recipe writes it. No torch.

    Sample -> recipe (`training.recipes.*`) -> Conversation -> `training.collate.Collator` -> Batch

A conversation is what stands after the picture: tokens that are read, tokens that are taught, and how much each counts. What a
data set does not label is neither taught nor punished: its token is either read only, or has `alternatives`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from getok_drive.errors import ConfigError, InputError
from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.vocab import OFFSET_ROUNDS
from training.samples import Sample

IGNORE = -100


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weight of each kind of answer token in the language loss.

    Attributes:
        propose: of a proposal's tokens.
        offset: of each offset round's; later rounds move less, so they count less.
        kinds: factors on ``propose`` and ``offset`` for the words, places and offsets of each of
            `getok_drive.tokens.elements.KINDS` (driving only): what is rare or short is a small part of the text, and learnt
            late. The token that begins an element keeps its weight, so that how often each kind is written stays unbiased.

    Raises:
        ConfigError: a weight below zero, fewer than one for each offset round, or not one for each kind.
    """

    propose: float = 1.0
    offset: tuple[float, ...] = (0.5, 0.3, 0.2)
    kinds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        enough = len(self.kinds) == len(KINDS) and len(self.offset) >= OFFSET_ROUNDS
        if not enough or min(self.propose, *self.offset, *self.kinds) < 0:
            raise ConfigError(
                f"loss_weights: expected 0 or more everywhere, in offset one for each of {OFFSET_ROUNDS} rounds, "
                f"and in kinds one each for {', '.join(KINDS)}: {self}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Conversation:
    """A picture and the text after it.

    Attributes:
        sample: the picture, and what of it the dense loss may know (``sample.known``).
        ids: model token ids after the visual tokens.
        labels: for each of ``ids`` the token that belongs there (it may differ from what is read), `IGNORE` where none is taught.
        weights: of each label in the language loss.
        places: of each token, counted from 0 after the picture: its position in the text, which has gaps where text was left out.
        alternatives: index in ``ids`` -> *local* ids (of the token table) that are as right there as the label: the loss asks for
            any of them.
    """

    sample: Sample
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    weights: tuple[float, ...]
    places: tuple[int, ...]
    alternatives: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.labels), len(self.weights), len(self.places)}
        if len(lengths) != 1:
            raise InputError(f"conversation: ids, labels, weights and places differ in length: {sorted(lengths)}")
        if not any(label != IGNORE for label in self.labels):
            raise InputError("conversation: it teaches nothing; leave it out")
        if any(self.labels[index] == IGNORE for index in self.alternatives):
            raise InputError("conversation: alternatives to a token that is not taught")

    @property
    def length(self) -> int:
        """Tokens up to the last taught one: what costs compute."""
        return max(index for index, label in enumerate(self.labels) if label != IGNORE) + 1


@dataclass(slots=True)
class Script:
    """A conversation that is being written, token by token."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    alternatives: dict[int, frozenset[int]] = field(default_factory=dict)
    next_place: int = 0

    def read(self, ids: Sequence[int]) -> None:
        """Tokens that stand in the context and are not taught."""
        self.teach(ids, [IGNORE] * len(ids), 0.0)

    def teach(self, ids: Sequence[int], labels: Sequence[int] | None = None, weight: float | Sequence[float] = 1.0) -> None:
        """Tokens of an answer.

        Args:
            ids: what stands in the context.
            labels: what is taught in its place; by default ``ids`` itself.
            weight: one for all, or one for each.
        """
        count = len(ids)
        self.ids += ids
        self.labels += ids if labels is None else labels
        self.weights += [weight] * count if isinstance(weight, float) else list(weight)
        self.places += range(self.next_place, self.next_place + count)
        self.next_place += count

    def allow(self, ids: frozenset[int]) -> None:
        """Make local ``ids`` as right as the label of the token that is written next; none: nothing changes."""
        if ids:
            self.alternatives[len(self.ids)] = ids

    def leave_out(self, count: int) -> None:
        """Tokens that would stand here: they are not written, but what follows keeps its place."""
        self.next_place += count

    def conversation(self, sample: Sample) -> Conversation:
        """The finished conversation about a picture."""
        text = (tuple(self.ids), tuple(self.labels), tuple(self.weights), tuple(self.places))
        return Conversation(sample, *text, self.alternatives)
