r"""Which element earned it: advantages for single decisions instead of one number for a whole scene.

One scene is some ninety decisions about a dozen elements. An answer's reward says nothing about which lane was good, so plain
GRPO (one advantage an answer) pays a lane for a lucky box. Every reward of a scene is nearly a sum over its elements, and an
element is good or bad mostly by itself; so each *label* is taken as a prompt of its own, with the group's answers to it:

| symbol | here |
|---|---|
| q_e in 0..1 | quality of element e: its kind's rewards, for this element alone; 0 if no label is matched to it |
| D_k = 2 sum q / (P + L) over the step | the soft F1 of kind k: P elements written, L labelled |
| v_e = q_e - D_k / 2 | what it brings to write e, against not writing it |
| place_e = w_k (v_e - (1 / G) sum of v on the same label) | advantage of *where* e is: its points, its class, where it ends |
| start = w_k (v_e - mean v of the choices after the same label) | advantage of writing one more of the kind; v = 0 for none |

``v`` is the gradient of the pooled soft F1: one more element changes 2 sum q / (P + L) by (2 q - D) / (P + L), so a lane is worth
writing if its q is above half of the F1 (the common factor 1 / (P + L) is left out: all advantages are scaled together
afterwards). Not writing is worth 0, in both means. Elements without a label, after the same one, count as one thing that is not
there, so that what may be there and what may not are held against the group alike.

A kind's token says two things: that the lane before it ends, and that another begins. Only the second earns ``v``, and nearly
every ``v`` is above 0: were its mean not taken away, ending a lane early to begin the next would pay more than a further point.

What this leaves out: that a lane changes what is written after it, and that a copy can take a label from the original. Rewards of
whole scenes are still computed and logged, and are what evaluation reports. The paper gives one advantage an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

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
        written = [_written(item, quality, half_f1) for item, quality in zip(answers, own, strict=True)]
        credit = [np.zeros(len(item.propose_ids)) for item in answers]
        for kind in own[0]:
            choices = [_choices(elements, kind, len(tokens) - 1) for elements, tokens in zip(written, credit, strict=True)]
            _credit_starts(credit, choices, weights[kind])
            _credit_places(credit, choices, weights[kind])
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
        worth: v.
    """

    element: Proposed
    end: int
    label: int | None
    worth: float


@dataclass(frozen=True, slots=True)
class _Choice:
    """A choice to write one more element of a kind, or none.

    Attributes:
        after: label of the element before, or `FIRST`.
        at: place of its token.
        written: what was written; None for nothing.
    """

    after: int
    at: int
    written: _Written | None = None

    @property
    def worth(self) -> float:
        """v."""
        return self.written.worth if self.written else 0.0


def _written(item: Completion, qualities: dict[str, Quality], half_f1: dict[str, float]) -> list[_Written]:
    """The proposed elements of an answer, in the text's order."""
    result: list[_Written] = []
    each, seen = item.written(), Counter[str]()
    starts = [*(element.head_at[0] for element, _ in each), len(item.propose_ids) - 1]
    for (element, stays), end in zip(each, starts[1:], strict=True):
        label, worth = None, 0.0
        if stays and element.kind in qualities:
            quality, index = qualities[element.kind], seen[element.kind]
            label = quality.label[index]
            worth = 0.0 if label == UNKNOWN else quality.value[index] - half_f1[element.kind]
        seen[element.kind] += stays
        result.append(_Written(element, end, label, worth))
    return result


def _choices(elements: Sequence[_Written], kind: str, end: int) -> list[_Choice]:
    """An answer's choices of a kind, the last of which is to write no more."""
    after, result = FIRST, list[_Choice]()
    for one in elements:
        if KINDS.index(one.element.kind) > KINDS.index(kind):
            return [*result, _Choice(after, one.element.head_at[0])]
        if one.element.kind == kind and one.label is not None:
            result.append(_Choice(after, one.element.head_at[0], one))
            after = one.label
    return [*result, _Choice(after, end)]


def _credit_starts(credit: list[FloatArray], choices: list[list[_Choice]], weight: float) -> None:
    """Adds ``start`` of a group's choices of a kind."""
    worths: dict[int, list[float]] = {}
    for choice in chain.from_iterable(choices):
        worths.setdefault(choice.after, []).append(choice.worth)
    for tokens, own in zip(credit, choices, strict=True):
        for choice in own:
            tokens[choice.at] += weight * (choice.worth - float(np.mean(worths[choice.after])))


def _credit_places(credit: list[FloatArray], choices: list[list[_Choice]], weight: float) -> None:
    """Adds ``place`` of what a group wrote of a kind.

    Classes of boxes and signs, all points and the end of a lane or an outline belong to where an element is; what no reward looks
    at (a lane's type, a sign's colour) earns nothing.
    """
    earned: dict[tuple[int, int], float] = {}
    for choice in chain.from_iterable(choices):
        if choice.written and choice.written.label is not None:
            thing = _thing(choice.after, choice.written.label)
            earned[thing] = earned.get(thing, 0.0) + choice.worth / len(choices)
    for tokens, own in zip(credit, choices, strict=True):
        for choice in own:
            one = choice.written
            if one is None or one.label is None or one.label == UNKNOWN:
                continue
            place, head = weight * (one.worth - earned[_thing(choice.after, one.label)]), one.element.head_at
            if one.element.kind in ("box", "sign"):
                tokens[head[1]] += place
            tokens[head[-1] + 1 : one.end] += place
            if one.element.kind in ("lane", "drivable"):
                tokens[one.end] += place


def _thing(after: int, label: int) -> tuple[int, int]:
    """What an element stands for: its label, or something that is not there after another label."""
    return (label, 0) if label >= 0 else (label, after)
