"""`parse`: any token ids in, elements and a `DecodeReport` out, never an exception for what the model wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from getok_drive.errors import InputError
from getok_drive.tokens import lattice
from getok_drive.tokens.codec import norm_to_px
from getok_drive.tokens.confidence import Calibration, TokenProbs, element_confidence
from getok_drive.tokens.elements import LEAST_POINTS
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.reading import Answer, Proposed, read_proposal, read_refinement
from getok_drive.tokens.vocab import GRID_SIZE, OFFSET_ROUNDS, TOKENS
from getok_drive.types import Box, DecodeReport, DrivableArea, Lane, Sign

Element = Lane | DrivableArea | Box | Sign
Elements = tuple[tuple[Lane, ...], tuple[DrivableArea, ...], tuple[Box, ...], tuple[Sign, ...], DecodeReport]


def parse(
    propose_ids: Sequence[int],
    refine_ids: Sequence[int] | None = None,
    *,
    size_wh: tuple[int, int],
    token_probs: TokenProbs | None = None,
    rounds: int = OFFSET_ROUNDS,
    limits: Limits | None = None,
    calibration: Mapping[str, Calibration] | None = None,
) -> Elements:
    """The elements that a proposal and its refinement describe.

    Deleting is no fault: ``<DELETE>`` removes a vertex of a lane or polygon, and a whole box or sign; a lane left with fewer
    than two or a polygon with fewer than three points goes entirely (`DecodeReport.deleted`). Everything else that cannot be
    used is counted in `DecodeReport.issues` under a key of `reading.ISSUES`. An element that lacks an answer stays at its
    cells' centres. A box whose corners share a column or row and are not refined takes the cell's own width or height.

    Args:
        propose_ids: local ids, any integers.
        refine_ids: local ids of the refinement turn, any integers; None when there was none.
        size_wh: size of the image that the points shall be in, pixels.
        token_probs: probabilities of the ids, for the confidences; without them every confidence is 1.
        rounds: number of offset rounds of the model, 1 or more.
        limits: greatest numbers, `Limits()` by default.
        calibration: for each kind (``lane``, ``drivable``, ``box``, ``sign``) that has one.

    Returns:
        ``(lanes, drivable, boxes, signs, report)``, each kind in the order of the text.

    Raises:
        InputError: never for the ids; when ``size_wh`` is not positive or ``token_probs`` does not fit the ids.
    """
    pairs, deleted, issues = parse_each(
        propose_ids, refine_ids, size_wh=size_wh, token_probs=token_probs, rounds=rounds, limits=limits, calibration=calibration
    )
    written = [element for _, element in pairs if element is not None]
    tokens = len(propose_ids) + (0 if refine_ids is None else len(refine_ids))
    report = DecodeReport(tokens=tokens, elements=len(written), deleted=deleted, issues=dict(issues))
    return (
        tuple(element for element in written if isinstance(element, Lane)),
        tuple(element for element in written if isinstance(element, DrivableArea)),
        tuple(element for element in written if isinstance(element, Box)),
        tuple(element for element in written if isinstance(element, Sign)),
        report,
    )


def parse_each(
    propose_ids: Sequence[int],
    refine_ids: Sequence[int] | None = None,
    *,
    size_wh: tuple[int, int],
    token_probs: TokenProbs | None = None,
    rounds: int = OFFSET_ROUNDS,
    limits: Limits | None = None,
    calibration: Mapping[str, Calibration] | None = None,
) -> tuple[list[tuple[Proposed, Element | None]], int, Counter[str]]:
    """What became of each element of a proposal; arguments and errors as of `parse`.

    Returns:
        The proposed elements in the text's order, each with what it is now, or None where it was deleted or cannot be used;
        the number of deleted ones, and that of each of `reading.ISSUES`.
    """
    norm_to_px(np.zeros((1, 2)), size_wh)  # a wrong size is the caller's fault and shall not depend on what the model saw
    if rounds < 1:
        raise InputError(f"rounds: expected 1 or more offset rounds, got {rounds}")
    refined = refine_ids is not None
    refine = refine_ids if refine_ids is not None else ()
    if token_probs is not None:
        _check_probs(token_probs, propose_ids, refine)
    issues = Counter[str]()
    proposed, deleted = read_proposal(propose_ids, limits or Limits(), issues)
    anchors = [cell for element in proposed for cell in element.cells]
    answers = iter(read_refinement(refine, anchors, rounds, issues) if refined else [Answer() for _ in anchors])

    result: list[tuple[Proposed, Element | None]] = []
    for one in proposed:
        own = list(islice(answers, len(one.cells)))
        kept = [index for index, answer in enumerate(own) if not answer.deleted]
        element = None
        if len(kept) < LEAST_POINTS[one.kind]:
            deleted += 1
        elif (points := _points(one, own, kept, rounds, refined, issues)) is not None:
            confidence = _confidence(one, own, kept, token_probs)
            if calibration and one.kind in calibration:
                confidence = calibration[one.kind](confidence)
            element = _element(one, points, rounds, size_wh, confidence)
        result.append((one, element))
    return result, deleted, issues


def _element(proposed: Proposed, points: lattice.Lattice, rounds: int, size_wh: tuple[int, int], confidence: float) -> Element:
    if proposed.kind == "drivable":
        points = lattice.canonical_ring(points)
    points_px = norm_to_px(lattice.to_norm(points, rounds), size_wh).astype(np.float32)
    words = [TOKENS[token][1:-1] for token in proposed.head[1:]]
    if proposed.kind == "lane":
        return Lane(points_px, words[0], words[1], confidence)
    if proposed.kind == "drivable":
        return DrivableArea(points_px, confidence)
    if proposed.kind == "box":
        return Box(points_px.reshape(4), words[0], confidence)
    return Sign(points_px[0], words[0], words[1], confidence)


def _check_probs(probs: TokenProbs, propose_ids: Sequence[int], refine: Sequence[int]) -> None:
    for name, values, ids in (("propose", probs.propose, propose_ids), ("refine", probs.refine, refine)):
        if len(values) not in ((0, len(ids)) if name == "refine" else (len(ids),)):
            raise InputError(f"token_probs.{name}: {len(values)} probabilities for {len(ids)} ids; record one for each token")


def _confidence(element: Proposed, answers: list[Answer], kept: list[int], probs: TokenProbs | None) -> float:
    if probs is None:
        return 1.0
    head = [float(probs.propose[at]) for at in element.head_at]
    masses = [float(probs.propose[element.cells_at[index]]) for index in kept]
    answered = [answers[index].at for index in kept] if len(probs.refine) else []
    return element_confidence(head, masses, [float(probs.refine[at]) for at in answered if at >= 0])


def _points(
    element: Proposed, answers: list[Answer], kept: list[int], rounds: int, refined: bool, issues: Counter[str]
) -> lattice.Lattice | None:
    """The kept points on the lattice, valid for the element's kind, or None."""
    steps = lattice.cell_steps(rounds)
    centers = [lattice.center(element.cells[index], steps) for index in kept]
    moves = [answers[index].offsets for index in kept]
    moved = refined and all(moves)
    if moved:
        centers = [_moved(point, offsets, steps) for point, offsets in zip(centers, moves, strict=True)]
        if short := sum(len(offsets) < rounds for offsets in moves):
            issues["missing_offset"] += short
    elif refined:
        issues["not_refined"] += 1
    points = np.array(centers, dtype=np.int64)
    if element.kind == "lane":
        return _lane(points, issues)
    if element.kind == "drivable":
        if not lattice.is_simple(points):
            issues["polygon_not_simple"] += 1
            return None
    elif element.kind == "box":
        if not moved:
            same = points[0] == points[1]
            points += np.outer((-1, 1), same) * (steps // 2)
        if not (points[0] < points[1]).all():
            issues["box_empty"] += 1
            return None
    return points


def _moved(point: lattice.Point, offsets: list[int], steps: int) -> lattice.Point:
    """Where the offsets lead from a cell's centre, at most to the image's border."""
    x, y = point
    for round_index, offset in enumerate(offsets, start=1):
        du, dv = lattice.move(offset)
        x, y = x + du * (steps >> round_index), y + dv * (steps >> round_index)
    return min(max(x, 0), steps * GRID_SIZE), min(max(y, 0), steps * GRID_SIZE)


def _lane(points: lattice.Lattice, issues: Counter[str]) -> lattice.Lattice | None:
    """Without the points that go down or stand still."""
    kept = [points[0]]
    for point in points[1:]:
        if point[1] > kept[-1][1]:
            issues["lane_goes_down"] += 1
        elif (point != kept[-1]).any():
            kept.append(point)
    if len(kept) < LEAST_POINTS["lane"]:
        issues["lane_too_short"] += 1
        return None
    return np.array(kept)
