"""METEOR 1.5 of captions (Denkowski and Lavie, 2014), English, ranking parameters: the number that captioning papers print.

The reference is CMU's Java program as the COCO caption code runs it (``-l en -norm``). The program is not needed here, its data
are: function words, WordNet's synonyms and the paraphrase table, which `MeteorData.find` reads from an installed
``pycocoevalcap`` (or the folder in ``METEOR_DATA``). Without them there is no number: exact matches alone are another metric.

Definition. The words of a hypothesis h and a reference r are aligned by matches of four modules: equal words (weight 1), equal
stems (0.6), a common WordNet synset (0.8), an entry of the paraphrase table (0.6, of whole phrases). Of the alignments in which
no word is used twice the search keeps the one that covers most (each match counts floor(0.5 * length) per side, an exact one its
length: the program adds its weights to whole numbers), then the one of fewest chunks (runs contiguous in both), then of least
distance. Content words weigh 0.75, function words 0.25; P and R are the weighted matched shares of h and r, and

    F = 1 / (0.15 / P + 0.85 / R)      METEOR = F * (1 - 0.6 * (chunks / matches)^0.2)

with matches the mean of both sides' counts; a sentence that matches completely in one chunk pays no penalty. Of several
references the best counts. The set's number is the formula applied to the summed counts, not a mean, so rows of sums
(`meteor_rows`) can be resampled.

What may differ from the program: sentences are taken as lists of words; of its normalisation only the splitting of apostrophes
and hyphens is done; and stems are those of today's Snowball English stemmer (see README for the measured agreement).
"""

from __future__ import annotations

import gzip
import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError
from training.metrics.meteor_search import Match, search

FloatArray = npt.NDArray[np.float64]
Words = Sequence[str]
Phrases = Mapping[tuple[str, ...], Sequence[tuple[str, ...]]]

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = (1.0, 0.6, 0.8, 0.6)  # exact, stem, synonym, paraphrase
EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
ROW = 23  # lengths (2), function words (2), 4 modules x (content, function) x (h, r), chunks, matched words (2)

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
        folder = Path(spec.origin).parent / "meteor" if spec is not None and spec.origin else None
        return MeteorData.load(folder) if folder is not None and (folder / "meteor-1.5.jar").is_file() else None

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
        vocabulary, found = {word.encode() for word in words}, defaultdict(list)
        with gzip.open(self.paraphrases, "rb") as lines:
            for _, first, second in zip(lines, lines, lines, strict=False):
                # most entries fail at their first word, so look at that alone before splitting the rest
                if first.split(None, 1)[0] in vocabulary and vocabulary.issuperset(first.split() + second.split()):
                    found[tuple(first.decode().split())].append(tuple(second.decode().split()))
        return dict(found)


@cache
def _stemmer() -> Callable[[str], str]:
    try:
        import snowballstemmer
    except ImportError as error:
        raise ConfigError("METEOR: needs the package snowballstemmer; pip install snowballstemmer") from error
    stem: Callable[[str], str] = cache(snowballstemmer.stemmer("english").stemWord)
    return stem


def normalise(words: Words) -> list[str]:
    """Lower case; ``don't`` becomes two words at the apostrophe, ``black-and-white`` three, as the program's ``-norm`` does."""
    line = re.sub(r"(?<=[a-z])'(?=[a-z])", " '", " ".join(words).lower())
    return re.sub(r"(?<=[a-z0-9.])-(?=[a-z0-9])", " ", line).split()


def _pairs(h: Words, r: Words, module: int, same: Callable[[int, int], bool]) -> Iterable[Match]:
    return (Match(module, j, 1, i, 1) for j in range(len(r)) for i in range(len(h)) if same(i, j))


def _phrase_matches(words: Words, others: Words, phrases: Phrases) -> Iterable[tuple[int, int, int, int]]:
    """Start and length in ``words``, start and length in ``others``, of every entry whose first phrase is in ``words``."""
    longest = max((len(phrase) for phrase in phrases), default=0)
    for start in range(len(words)):
        for length in range(1, min(longest, len(words) - start) + 1):
            for other in phrases.get(tuple(words[start : start + length]), ()):
                for at in range(len(others) - len(other) + 1):
                    if tuple(others[at : at + len(other)]) == other:
                        yield start, length, at, len(other)


def _matches(h: Words, r: Words, data: MeteorData, phrases: Phrases) -> list[Match]:
    """Everything that the modules find, in their order; equal sentences need equal words only."""
    found = [*_pairs(h, r, EXACT, lambda i, j: h[i] == r[j])]
    if list(h) == list(r):
        return found
    stem = _stemmer()
    h_stems, r_stems = ([stem(word) for word in words] for words in (h, r))
    h_sets, r_sets = ([data.synsets_of(word) for word in words] for words in (h, r))
    found += _pairs(h, r, STEM, lambda i, j: h[i] != r[j] and h_stems[i] == r_stems[j])
    found += _pairs(h, r, SYNONYM, lambda i, j: h[i] != r[j] and not h_sets[i].isdisjoint(r_sets[j]))
    found += [Match(PARAPHRASE, *at) for at in _phrase_matches(r, h, phrases)]
    found += [Match(PARAPHRASE, start, length, other, count) for other, count, start, length in _phrase_matches(h, r, phrases)]
    return found


def _row(h: Words, r: Words, matches: Sequence[Match], data: MeteorData) -> FloatArray:
    function = [[word in data.function_words for word in words] for words in (h, r)]
    row = np.zeros(ROW)
    row[:4] = len(h), len(r), sum(function[0]), sum(function[1])
    chunks, end = 0, (-1, -1)
    for m in matches:
        chunks += end != (m.start, m.other_start)
        end = (m.start + m.length, m.other_start + m.other_length)
        at = 4 + 4 * m.module
        for side, first, length in ((1, m.start, m.length), (0, m.other_start, m.other_length)):
            for word in range(first, first + length):
                row[at + 2 * function[side][word] + side] += 1
    row[21:] = row[4:20:2].sum(), row[5:20:2].sum()
    complete = row[21] == len(h) and row[22] == len(r) and chunks == 1
    row[20] = 0 if complete else chunks
    return row


def meteor_of(rows: FloatArray) -> FloatArray:
    """METEOR of summed rows ``(..., 23)``: ``(...)``; 0 without a match."""
    rows = np.asarray(rows, dtype=np.float64)
    weights = np.kron(WEIGHTS, [DELTA, 1.0 - DELTA])
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = []
        for side in (0, 1):
            total, function = rows[..., side], rows[..., 2 + side]
            matched = rows[..., 4 + side : 20 : 2] @ weights
            shares.append(matched / (DELTA * (total - function) + (1.0 - DELTA) * function))
        mean = 1.0 / ((1.0 - ALPHA) / shares[0] + ALPHA / shares[1])
        penalty = GAMMA * (rows[..., 20] / ((rows[..., 21] + rows[..., 22]) / 2.0)) ** BETA
        return np.asarray(np.nan_to_num(np.maximum(mean * (1.0 - penalty), 0.0), nan=0.0))


def meteor_rows(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]], data: MeteorData) -> FloatArray:
    """One row of sums a caption, against its best reference: ``(N, 23)``, for `meteor_of`.

    Args:
        hypotheses: N lists of words.
        references: N lists of one or more lists of words.
        data: METEOR's data; the paraphrase table is read through once (half a minute).

    Raises:
        ValueError: another number of references than hypotheses, or a caption without any.
    """
    if len(hypotheses) != len(references) or any(not each for each in references):
        raise ValueError("METEOR: every caption needs one hypothesis and at least one reference")
    ours = [normalise(words) for words in hypotheses]
    theirs = [[normalise(words) for words in each] for each in references]
    phrases = data.phrases_within({word for each in [ours, *theirs] for words in each for word in words})
    result = np.zeros((len(ours), ROW))
    for index, (h, each) in enumerate(zip(ours, theirs, strict=True)):
        rows = [_row(h, r, search(_matches(h, r, data, phrases), len(h), len(r)), data) for r in each]
        result[index] = rows[int(np.argmax([meteor_of(row) for row in rows]))]
    return result
