"""METEOR 1.5 of captions (Denkowski and Lavie, 2014), English, ranking parameters: the number that captioning papers print.

The reference is CMU's Java program as the COCO caption code runs it (``-l en -norm``). The program is not needed here, its data
are: function words, WordNet's synonyms and the paraphrase table, which `meteor_data` reads from an installed
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

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError
from training.metrics.meteor_data import MeteorData, Phrases
from training.metrics.meteor_search import Match, search

FloatArray = npt.NDArray[np.float64]
Words = Sequence[str]

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = (1.0, 0.6, 0.8, 0.6)  # exact, stem, synonym, paraphrase
EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
ROW = 23  # lengths (2), function words (2), 4 modules x (content, function) x (h, r), chunks, matched words (2)


@cache
def _stemmer() -> Callable[[str], str]:
    try:
        import snowballstemmer
    except ImportError as error:
        raise ConfigError("METEOR: needs the package snowballstemmer; pip install snowballstemmer") from error
    stem: Callable[[str], str] = cache(snowballstemmer.stemmer("english").stemWord)
    return stem


def normalise(words: Words) -> tuple[str, ...]:
    """Lower case; ``don't`` becomes two words at the apostrophe, ``black-and-white`` three, as the program's ``-norm`` does."""
    line = re.sub(r"(?<=[a-z])'(?=[a-z])", " '", " ".join(words).lower())
    return tuple(re.sub(r"(?<=[a-z0-9.])-(?=[a-z0-9])", " ", line).split())


class _Matcher:
    """Finds all matches of two sentences; what it learns of a word or a sentence is kept for the next pair."""

    def __init__(self, data: MeteorData, phrases: Phrases) -> None:
        self._phrases = phrases
        self._lengths = sorted({len(phrase) for phrase in phrases})
        self._stem = _stemmer()
        self._synsets = cache(data.synsets_of)
        self._other_ways = cache(self._find_other_ways)

    def matches(self, h: tuple[str, ...], r: tuple[str, ...]) -> list[Match]:
        """Everything that the modules find, in their order; equal sentences need equal words only."""
        places: dict[str, list[int]] = defaultdict(list)
        for i, word in enumerate(h):
            places[word].append(i)
        found = [Match(EXACT, j, 1, i, 1) for j, word in enumerate(r) for i in places.get(word, ())]
        if h == r:
            return found
        stems: dict[str, list[int]] = defaultdict(list)
        sets: dict[int, list[int]] = defaultdict(list)
        for i, word in enumerate(h):
            stems[self._stem(word)].append(i)
            for number in self._synsets(word):
                sets[number].append(i)
        found += [Match(STEM, j, 1, i, 1) for j, word in enumerate(r) for i in stems.get(self._stem(word), ()) if h[i] != word]
        found += [
            Match(SYNONYM, j, 1, i, 1)
            for j, word in enumerate(r)
            for i in sorted({i for number in self._synsets(word) if number in sets for i in sets[number] if h[i] != word})
        ]
        found += [
            Match(PARAPHRASE, start, length, at, len(other))
            for start, length, other in self._other_ways(r)
            for at in _find(other, h)
        ]
        found += [
            Match(PARAPHRASE, at, len(other), start, length)
            for start, length, other in self._other_ways(h)
            for at in _find(other, r)
        ]
        return found

    def _find_other_ways(self, words: tuple[str, ...]) -> list[tuple[int, int, tuple[str, ...]]]:
        """Start and length of each phrase in a sentence that the table has another for, and that other."""
        return [
            (start, length, other)
            for start in range(len(words))
            for length in self._lengths
            if start + length <= len(words)
            for other in self._phrases.get(words[start : start + length], ())
        ]


def _find(phrase: tuple[str, ...], words: tuple[str, ...]) -> list[int]:
    """Where a phrase begins in a sentence."""
    first, length = phrase[0], len(phrase)
    return [at for at, word in enumerate(words) if word == first and words[at : at + length] == phrase] if first in words else []


def _row(h: Words, r: Words, matches: Sequence[Match], data: MeteorData) -> list[int]:
    function = [[word in data.function_words for word in words] for words in (h, r)]
    row = [len(h), len(r), sum(function[0]), sum(function[1])] + [0] * (ROW - 4)
    chunks, end = 0, (-1, -1)
    for module, start, length, other_start, other_length in matches:
        chunks += end != (start, other_start)
        end = (start + length, other_start + other_length)
        at = 4 + 4 * module
        for word in range(start, end[0]):
            row[at + 2 * function[1][word] + 1] += 1
        for word in range(other_start, end[1]):
            row[at + 2 * function[0][word]] += 1
    row[21:] = sum(row[4:20:2]), sum(row[5:20:2])
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
        data: METEOR's data; the paraphrase table is read through once (seconds).

    Raises:
        ValueError: another number of references than hypotheses, or a caption without any.
    """
    if len(hypotheses) != len(references) or any(not each for each in references):
        raise ValueError("METEOR: every caption needs one hypothesis and at least one reference")
    pairs = [(normalise(h), normalise(r)) for h, each in zip(hypotheses, references, strict=True) for r in each]
    if not pairs:
        return np.zeros((0, ROW))
    matcher = _Matcher(data, data.phrases_within({word for pair in pairs for words in pair for word in words}))
    rows = np.array([_row(h, r, search(matcher.matches(h, r), len(r)), data) for h, r in pairs], dtype=np.float64)
    scores, ends = meteor_of(rows), np.cumsum([len(each) for each in references]).tolist()
    return rows[[start + int(np.argmax(scores[start:end])) for start, end in pairwise([0, *ends])]]
