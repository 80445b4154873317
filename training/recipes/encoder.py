"""Text and tokens of the table as one model's ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from getok_drive.tokens import prompts
from training.collate import Layout
from training.recipes.conversation import Script


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """What recipes need to know of a model: its tokenizer and the parts of every conversation that never change."""

    tokenizer: PreTrainedTokenizerFast
    layout: Layout

    def text(self, text: str) -> list[int]:
        """Model ids of a text as it is; special tokens and tokens of the table in it are those tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def outside(self, text: str) -> list[int]:
        """Model ids of a text from a data set: none of them is a special token or a token of the table."""
        return self.text(prompts.plain_text(text))

    def table(self, ids: Iterable[int]) -> list[int]:
        """Model ids of local ids of the token table."""
        return [self.layout.first_id + token for token in ids]

    def open(self, segments: tuple[str, str]) -> Script:
        """A script that has read the user's turn, from `getok_drive.tokens.prompts`."""
        script = Script()
        script.read(self.text(segments[1]))
        return script

    def refine_turn(self, script: Script) -> None:
        """Ends the assistant's turn, which is taught, and reads the user's request to refine."""
        script.teach(self.layout.refine_turn[:1], [self.layout.end])
        script.read(self.layout.refine_turn[1:])

    def end(self, script: Script) -> None:
        """Ends the assistant's turn and with it the conversation."""
        script.teach([self.layout.end])
