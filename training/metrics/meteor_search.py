"""The search of METEOR 1.5 for the best alignment: a beam of 40, from the first word of the reference to its last.

Every path decides for each word of the reference which match begins there, or none. Paths are ordered by coverage (falling),
chunks, distance, then age. Matches that nothing overlaps are fixed before the search. The order of ties, and that a path is
charged the distance of the alternatives tried before it, are the program's: they decide which of equally good alignments counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

BEAM = 40


class Match(NamedTuple):
    """Words ``start`` .. of the reference match words ``other_start`` .. of the hypothesis.

    Attributes:
        module: 0 exact, 1 stem, 2 synonym, 3 paraphrase.
        start: first word of the reference.
        length: how many words of it.
        other_start: first word of the hypothesis.
        other_length: how many words of it.
    """

    module: int
    start: int
    length: int
    other_start: int
    other_length: int


class _Step(NamedTuple):
    """A match as the search needs it.

    Attributes:
        match: the match.
        bits: the words of the reference that it uses.
        other_bits: those of the hypothesis.
        coverage: words covered on both sides; every two words of an inexact match count one.
        distance: between both sides' first words.
    """

    match: Match
    bits: int
    other_bits: int
    coverage: int
    distance: int

    @staticmethod
    def of(match: Match) -> _Step:
        module, start, length, other_start, other_length = match
        bits, other_bits = ((1 << length) - 1) << start, ((1 << other_length) - 1) << other_start
        coverage = length + other_length if module == 0 else length // 2 + other_length // 2
        return _Step(match, bits, other_bits, coverage, abs(start - other_start))


class _Path:
    """What is decided of the words before ``next``.

    Attributes:
        used: words of the reference, as bits.
        other_used: words of the hypothesis.
        coverage: of the matches taken.
        chunks: closed ones.
        distance: see the module.
        next: first word of the reference that is not decided.
        end: where the last match ended in the hypothesis, if the chunk is open, else -1.
        matches: those taken.
    """

    __slots__ = ("chunks", "coverage", "distance", "end", "matches", "next", "other_used", "used")

    def __init__(self, used: int, other_used: int) -> None:
        self.used, self.other_used = used, other_used
        self.coverage = self.chunks = self.distance = self.next = 0
        self.end = -1
        self.matches: tuple[Match, ...] = ()

    def order(self) -> tuple[int, int, int]:
        return -self.coverage, self.chunks, self.distance

    def branch(self, step: _Step) -> _Path:
        """This path with one more match."""
        new = _Path(self.used | step.bits, self.other_used | step.other_bits)
        new.coverage, new.chunks, new.distance = self.coverage, self.chunks, self.distance
        new.end, new.matches = self.end, self.matches
        new.take(step)
        return new

    def take(self, step: _Step) -> None:
        match = step.match
        self.coverage += step.coverage
        self.chunks += self.end not in (-1, match.other_start)
        self.next = match.start + match.length
        self.end = match.other_start + match.other_length
        self.matches += (match,)


def _fixed(by_start: dict[int, list[_Step]]) -> dict[int, _Step]:
    """Matches that are the only ones of all their words."""
    once = twice = other_once = other_twice = 0  # words that one match covers at least, or two
    for steps in by_start.values():
        for step in steps:
            twice |= once & step.bits
            once |= step.bits
            other_twice |= other_once & step.other_bits
            other_once |= step.other_bits
    return {
        start: steps[0]
        for start, steps in by_start.items()
        if len(steps) == 1 and not steps[0].bits & twice and not steps[0].other_bits & other_twice
    }


def _best(paths: list[_Path]) -> list[_Path]:
    return sorted(paths, key=_Path.order)[:BEAM] if len(paths) > 1 else paths


def search(found: Sequence[Match], count: int) -> tuple[Match, ...]:
    """The best alignment, its matches in the order of the reference.

    Args:
        found: all matches, in the order of the modules.
        count: words of the reference.
    """
    by_start: dict[int, list[_Step]] = defaultdict(list)
    for match in found:
        by_start[match.start].append(_Step.of(match))
    fixed = _fixed(by_start)
    used = other_used = 0
    for step in fixed.values():
        used |= step.bits
        other_used |= step.other_bits
    paths = [_Path(used, other_used)]
    for word in range(count):
        following: list[_Path] = []
        steps = by_start.get(word, ())
        for path in _best(paths):
            if path.used >> word & 1:
                if word < path.next:
                    following.append(path)
                elif path.next in fixed:
                    step = fixed[path.next]
                    path.take(step)
                    path.distance += step.distance
                    following.append(path)
                continue
            for step in steps:
                if not (path.used & step.bits or path.other_used & step.other_bits):
                    following.append(path.branch(step))
                    path.distance += step.distance
            path.chunks += path.end != -1
            path.end = -1
            path.next += 1
            following.append(path)
        paths = following or paths[:1]
    finished = _best(paths)
    for path in finished:
        path.chunks += path.end != -1
    return min(finished, key=_Path.order).matches
