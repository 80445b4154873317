"""From token ids to the points they mean, one fault at a time: the tolerant half of the parser.

Any integers are read. What does not fit is left out and counted by reason; `ISSUES` names every reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from getok_drive.tokens import lattice, masks
from getok_drive.tokens.elements import KINDS, LEAST_POINTS, WRITTEN_ONCE
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.proposing import WORD_IDS
from getok_drive.tokens.vocab import GRID_SIZE, TABLE, TOKENS

ISSUES: Mapping[str, str] = MappingProxyType(
    {
        "unknown_token": "an id outside the token table",
        "stray_token": "a structure, offset or delete token where none belongs",
        "stray_word": "a word that the element's head has no place for",
        "stray_point": "a grid token outside an element",
        "surplus_point": "more points than the element may have",
        "repeated_point": "a cell that the lane or polygon already visited",
        "lane_goes_down": "a lane point below the one before",
        "head_incomplete": "an element without all its words",
        "lane_too_short": "a lane of fewer than two points",
        "drivable_too_short": "a polygon of fewer than three vertices",
        "box_too_short": "a box without its second corner",
        "sign_too_short": "a sign without its point",
        "box_inverted": "a box whose second corner lies left of or above the first",
        "repeated_element": "a box or sign with the words and cells of an earlier one",
        "box_empty": "a box that refinement left without area",
        "polygon_not_simple": "a polygon that crosses or touches itself",
        "too_many_lanes": "a lane above the limit",
        "too_many_polygons": "a polygon above the limit",
        "too_many_boxes": "a box above the limit",
        "too_many_signs": "a sign above the limit",
        "unfinished_element": "a lane or polygon that the text breaks off in",
        "missing_end": "no </scene> or </offset> at the end",
        "missing_start": "a refinement that does not begin with <offset>",
        "after_end": "a token after the end",
        "unknown_anchor": "a grid token given back that was not proposed there",
        "surplus_offset": "more offsets than rounds",
        "missing_offset": "a point with fewer offsets than rounds",
        "late_delete": "<DELETE> after an offset of the same point",
        "not_refined": "an element left at its cells' centres because an answer is missing",
    }
)

_TOO_MANY = dict(zip(KINDS, ("too_many_lanes", "too_many_polygons", "too_many_boxes", "too_many_signs"), strict=True))

_RESYNC_POINTS = 64  # how far ahead a given-back grid token is looked for when it is not the expected one


@dataclass(slots=True)
class Proposed:
    """One element as it was proposed; ``*_at`` are places in the proposal's ids."""

    kind: str
    head: list[int]
    head_at: list[int]
    cells: list[int] = field(default_factory=list)
    cells_at: list[int] = field(default_factory=list)
    taken_back: bool = False


@dataclass(slots=True)
class Answer:
    """What the refinement says about one point: ``at`` is the place of its first answer (-1: none)."""

    offsets: list[int] = field(default_factory=list)
    deleted: bool = False
    at: int = -1


class _ProposalReader:
    def __init__(self, limits: Limits, issues: Counter[str]) -> None:
        self.limits, self.issues = limits, issues
        self.elements: list[Proposed] = []
        self.deleted = 0
        self.counts = Counter[str]()
        self.written: set[tuple[int, ...]] = set()
        self.current: Proposed | None = None

    def point(self, cell: int, at: int) -> None:
        element = self.current
        if element is None:
            self.issues["stray_point"] += 1
        elif len(element.cells) >= self.limits.points(element.kind):
            self.issues["surplus_point"] += 1
        elif element.kind in ("lane", "drivable") and cell in element.cells:
            self.issues["repeated_point"] += 1
        elif element.kind == "lane" and element.cells and cell // GRID_SIZE > element.cells[-1] // GRID_SIZE:
            self.issues["lane_goes_down"] += 1
        else:
            element.cells.append(cell)
            element.cells_at.append(at)

    def take_back(self) -> None:
        if self.current is None or not self.current.cells:
            self.issues["stray_token"] += 1
            return
        self.current.cells.pop()
        self.current.cells_at.pop()
        self.current.taken_back = True

    def word(self, token: int, at: int) -> None:
        element = self.current
        slots = WORD_IDS[element.kind] if element else ()
        if element is None or element.cells or len(element.head) > len(slots) or token not in slots[len(element.head) - 1]:
            self.issues["stray_word"] += 1
            return
        element.head.append(token)
        element.head_at.append(at)

    def finish(self) -> None:
        element, self.current = self.current, None
        if element is None:
            return
        if len(element.head) <= len(WORD_IDS[element.kind]):
            self.issues["head_incomplete"] += 1
        elif len(element.cells) < LEAST_POINTS[element.kind]:
            if element.taken_back:
                self.deleted += 1
            else:
                self.issues[f"{element.kind}_too_short"] += 1
        elif element.kind == "box" and not _ordered(element.cells):
            self.issues["box_inverted"] += 1
        elif element.kind == "drivable" and not lattice.is_simple([(c % GRID_SIZE, c // GRID_SIZE) for c in element.cells]):
            self.issues["polygon_not_simple"] += 1
        elif element.kind in WRITTEN_ONCE and (*element.head, *element.cells) in self.written:
            self.issues["repeated_element"] += 1
        elif self.counts[element.kind] >= self.limits.elements(element.kind):
            self.issues[_TOO_MANY[element.kind]] += 1
        else:
            self.counts[element.kind] += 1
            self.written.add((*element.head, *element.cells))
            self.elements.append(element)


def _ordered(cells: Sequence[int]) -> bool:
    return cells[0] % GRID_SIZE <= cells[1] % GRID_SIZE and cells[0] // GRID_SIZE <= cells[1] // GRID_SIZE


def read_proposal(ids: Iterable[int], limits: Limits, issues: Counter[str]) -> tuple[list[Proposed], int]:
    """The elements of a proposal, in its order, and the number that it took back itself. Counts faults into ``issues``."""
    reader = _ProposalReader(limits, issues)
    ended = False
    for at, value in enumerate(ids):
        token = int(value)
        if ended:
            issues["after_end"] += 1
        elif not 0 <= token < len(TOKENS):
            issues["unknown_token"] += 1
        elif token < masks.GRID_COUNT:
            reader.point(token, at)
        elif token in masks.KIND_IDS:
            reader.finish()
            reader.current = Proposed(KINDS[masks.KIND_IDS.index(token)], [token], [at])
        elif token == masks.END:
            reader.finish()
            ended = True
        elif token == TABLE.delete:
            reader.take_back()
        elif token > masks.KIND_IDS[-1]:
            reader.word(token, at)
        else:
            issues["stray_token"] += 1
    if not ended:
        issues["missing_end"] += 1
        if reader.current is not None and reader.current.kind in ("lane", "drivable"):
            issues["unfinished_element"] += 1
        else:
            reader.finish()
    return reader.elements, reader.deleted


def read_refinement(ids: Iterable[int], anchors: Sequence[int], rounds: int, issues: Counter[str]) -> list[Answer]:
    """The answer to each of the given-back grid tokens ``anchors``. Counts faults into ``issues``."""
    answers = [Answer() for _ in anchors]
    current: Answer | None = None
    following, started, ended = 0, False, False
    for at, value in enumerate(ids):
        token = int(value)
        if ended:
            issues["after_end"] += 1
            continue
        if not started:
            started = True
            if token == masks.OFFSET_START:
                continue
            issues["missing_start"] += 1
        if not 0 <= token < len(TOKENS):
            issues["unknown_token"] += 1
        elif token < masks.GRID_COUNT:
            window = anchors[following : following + _RESYNC_POINTS]
            if token in window:
                following += window.index(token) + 1
                current = answers[following - 1]
            else:
                issues["unknown_anchor"] += 1
                current = None
        elif token == masks.OFFSET_END:
            ended = True
        elif TABLE.offset_base <= token <= TABLE.delete and current is not None:
            _answer(current, token, at, rounds, issues)
        else:
            issues["stray_token"] += 1
    if not started:
        issues["missing_start"] += 1
    if not ended:
        issues["missing_end"] += 1
    return answers


def _answer(answer: Answer, token: int, at: int, rounds: int, issues: Counter[str]) -> None:
    if answer.at < 0:
        answer.at = at
    if token == TABLE.delete:
        if answer.offsets or answer.deleted:
            issues["late_delete"] += 1
        else:
            answer.deleted = True
    elif answer.deleted or len(answer.offsets) >= rounds:
        issues["surplus_offset"] += 1
    else:
        answer.offsets.append(token)
