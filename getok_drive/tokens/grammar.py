"""The grammar of the output format: what may come next (constrained decoding) and what it all means (parsing).

This page is the way in; the parts live in `proposing`, `refining`, `choosing`, `reading` and `parsing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from getok_drive.errors import ConfigError, InputError
from getok_drive.tokens import masks
from getok_drive.tokens.choosing import choose, decide
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.parsing import parse
from getok_drive.tokens.proposing import ProposeGrammar
from getok_drive.tokens.reading import ISSUES
from getok_drive.tokens.refining import RefineGrammar
from getok_drive.tokens.vocab import TOKEN_ID, TOKENS, WORDS

__all__ = ["ISSUES", "ClassifyGrammar", "Grammar", "Limits", "ProposeGrammar", "RefineGrammar", "choose", "decide", "parse"]


class Grammar(Protocol):
    """What a constrained decoder needs of a grammar; all ids are local ids."""

    ids: list[int]
    done: bool

    def allowed(self) -> masks.Mask:
        """``(len(TOKENS),)`` read-only mask of the tokens that fit, but for geometry."""

    def accepts(self, token: int) -> bool:
        """Whether ``token`` may come next, geometry included."""

    def legal(self) -> masks.Mask:
        """`accepts` for every token at once; never all False before ``done``."""

    def forced(self) -> int | None:
        """The only token that fits, if there is just one: it needs no decision."""

    def advance(self, token: int) -> None:
        """Append an accepted token."""

    def finished_ids(self) -> list[int]:
        """A complete text of the finished elements, for when a budget is reached."""


class ClassifyGrammar:
    """One word out of ``choices``: the answer to a classification prompt."""

    __slots__ = ("_forced", "_mask", "done", "ids")

    def __init__(self, choices: Sequence[str]) -> None:
        """Begin the turn.

        Args:
            choices: words of the token table, e.g. a value of `prompts.CLASSIFY_CHOICES`.

        Raises:
            ConfigError: on no choice or a word outside the table.
        """
        if not choices or (unknown := [word for word in choices if word not in WORDS]):
            raise ConfigError(f"choices: expected words of the token table, got {list(choices) if not choices else unknown}")
        self._mask, self._forced = masks.of_tokens(*(TOKEN_ID[f"<{word}>"] for word in choices))
        self.ids: list[int] = []
        self.done = False

    def allowed(self) -> masks.Mask:
        """``(len(TOKENS),)`` read-only mask of the choices."""
        return self._mask

    def legal(self) -> masks.Mask:
        """The same as `allowed`."""
        return self._mask

    def accepts(self, token: int) -> bool:
        """Whether ``token`` is one of the choices and none was made yet."""
        return 0 <= token < len(TOKENS) and bool(self._mask[token])

    def forced(self) -> int | None:
        """The only choice, if there is just one."""
        return self._forced

    def advance(self, token: int) -> None:
        """Make the choice.

        Raises:
            InputError: when the token is none of the choices.
        """
        if not self.accepts(token):
            raise InputError(f"classify grammar: token {token} is none of the choices")
        self.ids.append(token)
        self.done = True
        self._mask, self._forced = masks.of_tokens()

    def finished_ids(self) -> list[int]:
        """The choice, or nothing."""
        return list(self.ids)

    @property
    def word(self) -> str | None:
        """The chosen word."""
        return TOKENS[self.ids[0]][1:-1] if self.ids else None
