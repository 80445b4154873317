"""METEOR's own data for English, as an installed ``pycocoevalcap`` brings them; nothing of it is run."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError

Phrases = Mapping[tuple[str, ...], Sequence[tuple[str, ...]]]

BLOCK_BYTES = 1 << 24  # of the paraphrase table at once

# WordNet's morphology: endings and what replaces them
_ENDINGS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
    ("er", ""), ("est", ""), ("er", "e"), ("est", "e"),
)  # fmt: skip


@dataclass(frozen=True)
class MeteorData:
    """METEOR's own data for English.

    Attributes:
        function_words: words that weigh less.
        synsets: word -> numbers of its WordNet synsets.
        bases: irregular form -> base forms.
        paraphrases: the table, gzipped: three lines an entry (probability, phrase, phrase).
    """

    function_words: frozenset[str]
    synsets: Mapping[str, frozenset[int]]
    bases: Mapping[str, tuple[str, ...]]
    paraphrases: Path

    @staticmethod
    def find() -> MeteorData | None:
        """The data of ``METEOR_DATA`` (a folder with meteor-1.5.jar and data/), else of an installed pycocoevalcap, else None.

        Raises:
            ConfigError: ``METEOR_DATA`` is set and holds no such files.
        """
        if named := os.environ.get("METEOR_DATA"):
            return MeteorData.load(Path(named))
        spec = find_spec("pycocoevalcap")
        # the package has no __init__.py, so its folder is all that there is of it
        folders = [Path(folder) / "meteor" for folder in (spec.submodule_search_locations or ())] if spec is not None else []
        found = next((folder for folder in folders if (folder / "meteor-1.5.jar").is_file()), None)
        return MeteorData.load(found) if found is not None else None

    @staticmethod
    def load(folder: Path) -> MeteorData:
        """The data of a folder with ``meteor-1.5.jar`` and ``data/paraphrase-en.gz``; nothing in the jar is run.

        Raises:
            ConfigError: a file is missing or not what it should be.
        """
        table = folder / "data" / "paraphrase-en.gz"
        try:
            with zipfile.ZipFile(folder / "meteor-1.5.jar") as jar:
                words, synsets, bases = (
                    jar.read(name).decode("utf-8").split("\n")
                    for name in ("function/english.words", "synonym/english.synsets", "synonym/english.exceptions")
                )
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"METEOR: {folder / 'meteor-1.5.jar'} cannot be read ({error}); pip install pycocoevalcap"
            ) from error
        if not table.is_file():
            raise ConfigError(
                f"METEOR: {table} is missing; pip install pycocoevalcap, or set METEOR_DATA to a folder that has it"
            )
        forms: dict[str, list[str]] = defaultdict(list)
        for base, derived in zip(bases[::2], bases[1::2], strict=False):
            for form in derived.split():
                forms[form].append(base)
        return MeteorData(
            frozenset(filter(None, words)),
            {word: frozenset(map(int, each.split())) for word, each in zip(synsets[::2], synsets[1::2], strict=False)},
            {form: tuple(each) for form, each in forms.items()},
            table,
        )

    def synsets_of(self, word: str) -> frozenset[int]:
        """Synsets of a word and of its base forms."""
        own = self.synsets.get(word, frozenset())
        bases = self.bases.get(word) or (self._base(word),)
        return own.union(*(self.synsets.get(base, frozenset()) for base in bases))

    def _base(self, word: str) -> str:
        if word.endswith("ss") or len(word) <= 2:
            return word
        candidates = (word[: len(word) - len(end)] + new for end, new in _ENDINGS if word.endswith(end))
        return next((base + ("ful" if word.endswith("ful") else "") for base in candidates if base in self.synsets), "")

    def phrases_within(self, words: Iterable[str]) -> Phrases:
        """The entries of the paraphrase table that these words can form, by their first phrase, in the table's order."""
        vocabulary = {word.encode() for word in words}
        known = np.zeros(1 << 16, dtype=bool)
        starts = np.cumsum([0, *(len(word) + 1 for word in vocabulary)])[:-1]
        known[_heads(b"\n".join(vocabulary), starts)] = True
        found = defaultdict(list)
        with gzip.open(self.paraphrases, "rb") as file:
            rest = b""
            while block := file.read(BLOCK_BYTES):
                block = rest + block
                lines = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
                entries = lines[: len(lines) // 3 * 3].reshape(-1, 3)
                rest = block[int(entries[-1, -1]) + 1 :] if len(entries) else block
                for column in (0, 1):  # most entries fail at a phrase's first word, so that is looked at for all at once
                    entries = entries[known[_heads(block, entries[:, column] + 1)]]
                for after, middle, end in entries.tolist():
                    first, second = block[after + 1 : middle].split(), block[middle + 1 : end].split()
                    if vocabulary.issuperset(first) and vocabulary.issuperset(second):
                        found[tuple(word.decode() for word in first)].append(tuple(word.decode() for word in second))
        return dict(found)


def _heads(text: bytes, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    """16 bits of the first four letters of the words that start at these places."""
    letters = np.frombuffer(text + b"    ", np.uint8)
    result, inside = np.zeros(len(starts), np.uint16), np.ones(len(starts), dtype=bool)
    for place in range(4):
        letter = letters[starts + place]
        inside &= letter > ord(" ")
        result = result * np.uint16(37) + letter * inside
    return result
