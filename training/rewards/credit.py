r"""Which element earned it: advantages for single decisions instead of one number for a whole scene.

One scene is some ninety decisions about a dozen elements. An answer's reward says nothing about which lane was good, so plain
GRPO (one advantage an answer) pays a lane for a lucky box. Every reward of a scene is nearly a sum over its elements, and an
element is good or bad mostly by itself; so each *label* is taken as a prompt of its own, with the group's answers to it:

| symbol | here |
|---|---|
| q_e in 0..1 | quality of element e: its kind's rewards, for this element alone; 0 if no label is matched to it |
| b_g = (1 / G) sum over the group of q of the element matched to label g | how well the group does on g; a miss counts 0 |
| place_e = w_k (q_e - b_g(e)) | advantage of *where* e was put: its points, its class, where it ends |
| D_k = 2 sum q / (P + L) over the step | the soft F1 of kind k: P elements written, L labelled |
| v = q_e - D_k / 2, or 0 if no more of the kind is written | what a choice brings, *whether* to write one more |
| start = w_k (v - mean v after the same label) | its advantage: against the group's choices after the element on the same label |

An element without a label has q = 0 and is held against the mean quality of its kind in the group. ``v`` is the gradient of the
pooled soft F1: one more element changes 2 sum q / (P + L) by (2 q - D) / (P + L), so a lane is worth writing if its q is
above half of the F1 (the common factor 1 / (P + L) is left out: all advantages are scaled together afterwards).

A kind's token says two things: that the lane before it ends, and that another begins. Only the second earns ``v``, and nearly
every ``v`` is above 0: were its mean not taken away, ending a lane early to begin the next would pay more than a further point.

What this leaves out: that a lane changes what is written after it, and that a copy can take a label from the original. Rewards of
whole scenes are still computed and logged, and are what evaluation reports. The paper gives one advantage an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.reading import Proposed
from getok_drive.types import Scene
from training.metrics.assignment import assign_within
from training.metrics.detection import box_ious
from training.metrics.frame import judged_scene
from training.metrics.points import SIGN_RADIUS, point_hits
from training.metrics.polylines import lane_distances
from training.rewards.driving import PAPER_SIZE_WH, Completion, polygon_iou
from training.rewards.matching import FloatArray, l1_scores, match
from training.rewards.settings import DrivingPlacementWeights, RewardSettings
from training.samples import Sample

UNKNOWN = -2  # no label, and none was to be expected: its class is not labelled, or it lies in an ignored region
FIRST = -3  # nothing of its kind has been written yet


@dataclass(frozen=True, slots=True)
class Quality:
    """Of one kind's elements in one answer, in the text's order.

    Attributes:
        label: of each element, the label that is matched to it; -1 for none; `UNKNOWN` where nobody can judge it.
        value: q of each element, 0..1.
        labels: how many there are.
    """

    label: list[int]
    value: list[float]
    labels: int


def kind_weights(weights: DrivingPlacementWeights) -> dict[str, float]:
    """Weight of each kind: the sum of its rewards' weights, so that a reward that is switched off weighs nothing here either."""
    return {
        "lane": weights.lane_f1 + weights.lane_closeness,
        "drivable": weights.polygon_iou,
        "box": weights.detection_f1 + weights.box,
        "sign": weights.sign_hits,
    }


def placement_qualities(labels: Sample, scene: Scene, ious: FloatArray, settings: RewardSettings) -> dict[str, Quality]:
    """Qualities of a proposed scene's elements, for the kinds that are labelled; ``ious`` as of `driving.lane_ious`."""
    weights, size_wh = settings.driving_placement, labels.size_wh
    result = {}
    if "lanes" in labels.known:
        result["lane"] = _lanes(labels, scene, ious, settings)
    if "drivable" in labels.known:
        iou = polygon_iou(labels, scene) if scene.drivable else 0.0
        count = len(scene.drivable)
        result["drivable"] = Quality([0 if labels.drivable else -1] * count, [iou] * count, len(labels.drivable))
    if "boxes" in labels.known:
        result["box"] = _boxes(labels, scene, settings)
    if "signs" in labels.known:
        truth, own = ([s.point_px for s in where.signs] for where in (labels, scene))
        words = [s.class_name for s in labels.signs], [s.class_name for s in scene.signs]
        hits = [int(hit) for hit in point_hits(truth, words[0], own, words[1], SIGN_RADIUS * size_wh[0])]
        result["sign"] = Quality(hits, [float(hit >= 0) for hit in hits], len(labels.signs))
    judged = judged_scene(labels, scene)
    for kind, elements, known in (("box", scene.boxes, judged.boxes), ("sign", scene.signs, judged.signs)):
        if kind in result and len(known) < len(elements):
            kept = {id(element) for element in known}
            label = [UNKNOWN if g < 0 and id(e) not in kept else g for g, e in zip(result[kind].label, elements, strict=True)]
            result[kind] = replace(result[kind], label=label)
    totals = kind_weights(weights)
    return {kind: quality for kind, quality in result.items() if totals[kind]}


def _lanes(labels: Sample, scene: Scene, ious: FloatArray, settings: RewardSettings) -> Quality:
    """Share of the thresholds that the stroke's IoU passes, and closeness, of lanes matched within ``lane_limit``."""
    weights = settings.driving_placement
    limit_px = settings.lane_limit * labels.size_wh[0]
    distances = lane_distances([lane.points_px for lane in labels.lanes], [lane.points_px for lane in scene.lanes])
    label, value = [-1] * len(scene.lanes), [0.0] * len(scene.lanes)
    for g, p in zip(*assign_within(distances, limit_px), strict=True):
        hits = float(np.mean([ious[g, p] > threshold for threshold in settings.lane_thresholds]))
        close = 1.0 - float(distances[g, p]) / limit_px
        label[p] = int(g)
        value[p] = (weights.lane_f1 * hits + weights.lane_closeness * close) / ((weights.lane_f1 + weights.lane_closeness) or 1.0)
    return Quality(label, value, len(labels.lanes))


def _boxes(labels: Sample, scene: Scene, settings: RewardSettings) -> Quality:
    """Whether the box counts as found, and the mean of IoU and corner score, matched within a class as in `box_closeness`."""
    weights = settings.driving_placement
    scale = np.tile(np.divide(PAPER_SIZE_WH, labels.size_wh), 2)
    own, truth = (
        np.array([b.xyxy_px for b in boxes], dtype=np.float64).reshape(-1, 4) * scale for boxes in (scene.boxes, labels.boxes)
    )
    ious, corners = box_ious(own, truth), l1_scores(own, truth, settings.l1_scale_px)
    same = np.array([[p.class_name == g.class_name for g in labels.boxes] for p in scene.boxes], dtype=bool).reshape(ious.shape)
    label, value = [-1] * len(own), [0.0] * len(own)
    for p, g in zip(*match(np.where(same, ious + corners, 0.0)), strict=True):
        found, close = float(ious[p, g] >= settings.box_threshold), float(ious[p, g] + corners[p, g]) / 2.0
        label[p] = int(g)
        value[p] = (weights.detection_f1 * found + weights.box * close) / ((weights.detection_f1 + weights.box) or 1.0)
    return Quality(label, value, len(labels.boxes))


def placement_credit(
    batch: Sequence[Completion], scenes: Sequence[Scene], ious: Sequence[FloatArray], group: int, settings: RewardSettings
) -> list[FloatArray]:
    """Advantages of every token of each proposal: ``(len(propose_ids),)`` each; 0 where a token has no say.

    Args:
        batch: answers, a picture's ``group`` side by side.
        scenes: of the answers, as of `driving.completed_scenes`.
        ious: of their lanes, likewise.
        group: answers a picture.
        settings: constants and weights.
    """
    weights = kind_weights(settings.driving_placement)
    qualities = [
        placement_qualities(item.labels, scene, own, settings) for item, scene, own in zip(batch, scenes, ious, strict=True)
    ]
    half_f1 = {kind: _soft_f1([q[kind] for q in qualities if kind in q]) / 2.0 for kind in KINDS}
    result = []
    for first in range(0, len(batch), group):
        answers, own = batch[first : first + group], qualities[first : first + group]
        written = [_written(item, quality) for item, quality in zip(answers, own, strict=True)]
        credit = [np.zeros(len(item.propose_ids)) for item in answers]
        for kind in own[0]:
            _credit_places(credit, written, [quality[kind] for quality in own], kind, weights[kind])
            _credit_choices(credit, written, kind, half_f1[kind], weights[kind])
        result += credit
    return result


def _soft_f1(qualities: Sequence[Quality]) -> float:
    total = sum(len(q.value) - q.label.count(UNKNOWN) + q.labels for q in qualities)
    return 2.0 * sum(sum(q.value) for q in qualities) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class _Written:
    """One proposed element of an answer, judged.

    Attributes:
        element: as it was proposed.
        end: place of the token that ends it: the next element's first, or the end of the text.
        label: as of `Quality`; None where the refinement deleted it, or its kind is not judged: as if it had not been written.
        value: q.
    """

    element: Proposed
    end: int
    label: int | None
    value: float


def _written(item: Completion, qualities: dict[str, Quality]) -> list[_Written]:
    """The proposed elements of an answer, in the text's order."""
    result: list[_Written] = []
    each, seen = item.written(), Counter[str]()
    starts = [*(element.head_at[0] for element, _ in each), len(item.propose_ids) - 1]
    for (element, stays), end in zip(each, starts[1:], strict=True):
        label, value = None, 0.0
        if stays and element.kind in qualities:
            quality, index = qualities[element.kind], seen[element.kind]
            label, value = quality.label[index], quality.value[index]
        seen[element.kind] += stays
        result.append(_Written(element, end, label, value))
    return result


def _credit_places(
    credit: list[FloatArray], written: list[list[_Written]], qualities: Sequence[Quality], kind: str, weight: float
) -> None:
    """Adds ``place`` of a group's elements of a kind.

    Classes of boxes and signs, all points and the end of a lane or an outline belong to where an element is; what no reward looks
    at (a lane's type, a sign's colour) earns nothing.
    """
    for own, elements in zip(credit, written, strict=True):
        for one in elements:
            if one.element.kind != kind or one.label in (None, UNKNOWN):
                continue
            place = weight * (one.value - _baseline(qualities, one.label))
            head = one.element.head_at
            if kind in ("box", "sign"):
                own[head[1]] += place
            own[head[-1] + 1 : one.end] += place
            if kind in ("lane", "drivable"):
                own[one.end] += place


def _baseline(peers: Sequence[Quality], label: int) -> float:
    """What the group earns on a label; of an element without one, the mean of all that the group wrote of its kind."""
    if label < 0:
        values = [value for q in peers for value, other in zip(q.value, q.label, strict=True) if other != UNKNOWN]
        return float(np.mean(values)) if values else 0.0
    if not any(q.labels for q in peers):
        return 0.0
    return sum(max((v for v, g in zip(q.value, q.label, strict=True) if g == label), default=0.0) for q in peers) / len(peers)


def _credit_choices(credit: list[FloatArray], written: list[list[_Written]], kind: str, half_f1: float, weight: float) -> None:
    """Adds ``start`` of a group's choices to write one more element of a kind, or none."""
    choices = [_choices(elements, kind, half_f1, len(own) - 1) for own, elements in zip(credit, written, strict=True)]
    earned: dict[int, list[float]] = {}
    for after, _, worth in (choice for own in choices for choice in own):
        earned.setdefault(after, []).append(worth)
    for own, chosen in zip(credit, choices, strict=True):
        for after, place, worth in chosen:
            own[place] += weight * (worth - float(np.mean(earned[after])))


def _choices(elements: Sequence[_Written], kind: str, half_f1: float, end: int) -> list[tuple[int, int, float]]:
    """An answer's choices of a kind: label of the element before (`FIRST`), place of the token, and what it brought."""
    after, result = FIRST, list[tuple[int, int, float]]()
    for one in elements:
        if KINDS.index(one.element.kind) > KINDS.index(kind):
            return [*result, (after, one.element.head_at[0], 0.0)]
        if one.element.kind == kind and one.label is not None:
            result.append((after, one.element.head_at[0], 0.0 if one.label == UNKNOWN else one.value - half_f1))
            after = one.label
    return [*result, (after, end, 0.0)]
