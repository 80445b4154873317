"""The search of METEOR 1.5 for the best alignment: a beam of 40, from the first word of the reference to its last.

Every path decides for each word of the reference which match begins there, or none. Paths are ordered by coverage (falling),
chunks, distance, then age. Matches that nothing overlaps are fixed before the search. The order of ties, and that a path is
charged the distance of the alternatives tried before it, are the program's: they decide which of equally good alignments counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
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

    @property
    def bits(self) -> tuple[int, int]:
        """The words that it uses as bits: of the reference, of the hypothesis."""
        return ((1 << self.length) - 1) << self.start, ((1 << self.other_length) - 1) << self.other_start

    @property
    def coverage(self) -> int:
        """Words covered on both sides; every two words of an inexact match count one."""
        return self.length + self.other_length if self.module == 0 else self.length // 2 + self.other_length // 2


@dataclass(slots=True)
class _Path:
    used: int = 0  # words of the reference, as bits
    other_used: int = 0  # words of the hypothesis
    coverage: int = 0
    chunks: int = 0
    distance: int = 0
    next: int = 0  # first word of the reference that is not decided
    end: int = -1  # where the last match ended in the hypothesis, if the chunk is open
    matches: tuple[Match, ...] = ()

    @property
    def order(self) -> tuple[int, int, int]:
        return -self.coverage, self.chunks, self.distance

    def take(self, match: Match) -> None:
        self.coverage += match.coverage
        self.chunks += self.end not in (-1, match.other_start)
        self.next = match.start + match.length
        self.end = match.other_start + match.other_length
        self.matches += (match,)


def _fixed(by_start: dict[int, list[Match]], found: Sequence[Match], count: int, other_count: int) -> dict[int, Match]:
    """Matches that are the only ones of all their words."""
    covering, other_covering = [0] * count, [0] * other_count
    for match in found:
        for word in range(match.start, match.start + match.length):
            covering[word] += 1
        for word in range(match.other_start, match.other_start + match.other_length):
            other_covering[word] += 1
    alone = {}
    for start, (match, *others) in by_start.items():
        words, other_words = covering[start : start + match.length], other_covering[match.other_start :][: match.other_length]
        if not others and set(words) == set(other_words) == {1}:
            alone[start] = match
    return alone


def search(found: Sequence[Match], other_count: int, count: int) -> tuple[Match, ...]:
    """The best alignment, its matches in the order of the reference.

    Args:
        found: all matches, in the order of the modules.
        other_count: words of the hypothesis.
        count: words of the reference.
    """
    by_start: dict[int, list[Match]] = defaultdict(list)
    for match in found:
        by_start[match.start].append(match)
    fixed = _fixed(by_start, found, count, other_count)
    first = _Path()
    for match in fixed.values():
        bits, other_bits = match.bits
        first.used |= bits
        first.other_used |= other_bits
    paths = [first]
    for word in range(count):
        following: list[_Path] = []
        for path in sorted(paths, key=lambda p: p.order)[:BEAM]:
            if path.used >> word & 1:
                if word < path.next:
                    following.append(path)
                elif path.next in fixed:
                    match = fixed[path.next]
                    path.take(match)
                    path.distance += abs(match.start - match.other_start)
                    following.append(path)
                continue
            for match in by_start.get(word, ()):
                bits, other_bits = match.bits
                if path.used & bits or path.other_used & other_bits:
                    continue
                branch = replace(path, used=path.used | bits, other_used=path.other_used | other_bits)
                branch.take(match)
                path.distance += abs(match.start - match.other_start)
                following.append(branch)
            path.chunks += path.end != -1
            path.end = -1
            path.next += 1
            following.append(path)
        paths = following or paths[:1]
    finished = sorted(paths, key=lambda p: p.order)[:BEAM]
    for path in finished:
        path.chunks += path.end != -1
    return min(finished, key=lambda p: p.order).matches
