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

    lanes: list[Lane] = []
    drivable: list[DrivableArea] = []
    boxes: list[Box] = []
    signs: list[Sign] = []
    for element in proposed:
        own = list(islice(answers, len(element.cells)))
        kept = [index for index, answer in enumerate(own) if not answer.deleted]
        least = LEAST_POINTS[element.kind]
        if len(kept) < least:
            deleted += 1
            continue
        points = _points(element, own, kept, rounds, refined, issues)
        if points is None:
            continue
        if element.kind == "drivable":
            points = lattice.canonical_ring(points)
        points_px = norm_to_px(lattice.to_norm(points, rounds), size_wh).astype(np.float32)
        confidence = _confidence(element, own, kept, token_probs)
        if calibration and element.kind in calibration:
            confidence = calibration[element.kind](confidence)
        words = [TOKENS[token][1:-1] for token in element.head[1:]]
        if element.kind == "lane":
            lanes.append(Lane(points_px, words[0], words[1], confidence))
        elif element.kind == "drivable":
            drivable.append(DrivableArea(points_px, confidence))
        elif element.kind == "box":
            boxes.append(Box(points_px.reshape(4), words[0], confidence))
        else:
            signs.append(Sign(points_px[0], words[0], words[1], confidence))
    report = DecodeReport(
        tokens=len(propose_ids) + len(refine),
        elements=len(lanes) + len(drivable) + len(boxes) + len(signs),
        deleted=deleted,
        issues=dict(issues),
    )
    return tuple(lanes), tuple(drivable), tuple(boxes), tuple(signs), report


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
