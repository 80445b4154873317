r"""Which point's answers earned it: advantages for the single decisions of a refinement, see `training.rewards.credit`.

All answers of a group refine one proposal, so they have its elements and points in common, and each is a prompt of its own:

| symbol | here |
|---|---|
| Q_e | what element e is worth after its answers: the rewards of its kind, for this element alone |
| s_p | eq. 13 of point p, -1, 0 or +1 (lanes, outlines, signs), and a lane point's closeness |
| A_p = (Q_e - mean Q_e) + w (s_p - mean s_p), means over the group | advantage of the answers to point p of element e |

The weights are those of the scene's rewards. Unlike in the propose turn nothing is left out but that an earlier element's answers
are read by later ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from getok_drive.tokens.limits import Limits
from getok_drive.tokens.reading import read_proposal, read_refinement
from training.rewards.driving import Completion, polygon_iou
from training.rewards.driving_movement import Refined, stroke_gain
from training.rewards.matching import FloatArray
from training.rewards.settings import RewardSettings


def movement_credit(batch: Sequence[Refined], group: int, settings: RewardSettings) -> list[FloatArray]:
    """Advantages of every token of each refinement: ``(len(refine_ids),)`` each; 0 where a token has no say.

    Args:
        batch: refinements, a picture's ``group`` of one proposal side by side.
        group: answers a picture.
        settings: constants and weights.
    """
    result = []
    for first in range(0, len(batch), group):
        own = batch[first : first + group]
        worths = np.stack([_worth_of_points(refinement, settings) for refinement in own])
        for refinement, advantages in zip(own, worths - worths.mean(axis=0), strict=True):
            result.append(_on_answers(refinement.item, advantages))
    return result


def _worth_of_points(own: Refined, settings: RewardSettings) -> FloatArray:
    """Q_e + w s_p + w' c_p of every given-back point, in order."""
    weights, result = settings.driving_movement, [np.zeros(0)]
    for k, (element, worth) in enumerate(zip(own.elements, _worth_of_elements(own, settings), strict=True)):
        points = np.full(len(element.before_px), worth)
        weight = weights.point_refinement + (weights.sign_hits if element.kind == "sign" else 0.0)
        for each, scores in ((weight, own.points[k]), (weights.point_closeness, own.closeness[k])):
            points += each * scores if len(scores) else 0.0
        result.append(points)
    return np.concatenate(result)


def _worth_of_elements(own: Refined, settings: RewardSettings) -> list[float]:
    labels, weights, elements = own.item.labels, settings.driving_movement, own.elements
    worths = [0.0] * len(elements)
    for k, ious in own.strokes.items():
        hits = np.mean([ious[1] > threshold for threshold in settings.lane_thresholds]) if ious else 0.0
        worths[k] = weights.lane_f1 * float(hits) + weights.lane_gain * stroke_gain(elements[k], ious, settings.gain_floor)
    gain = own.polygon_gain(settings.gain_floor)
    if np.isfinite(gain):
        area = weights.polygon_gain * gain + weights.polygon_iou * polygon_iou(labels, own.scene)
        worths = [area if element.kind == "drivable" else worth for element, worth in zip(elements, worths, strict=True)]
    boxes = [k for k, element in enumerate(elements) if element.kind == "box"] if "boxes" in labels.known else []
    for k, value in zip(boxes, own.boxes, strict=True):
        worths[k] = weights.box_refinement * float(value)
    return worths


def _on_answers(item: Completion, advantages: FloatArray) -> FloatArray:
    """The points' advantages on their answers' tokens."""
    result = np.zeros(len(item.refine_ids or ()))
    proposed, _ = read_proposal(item.propose_ids, item.limits or Limits(), Counter())
    anchors = [cell for element in proposed for cell in element.cells]
    answers = read_refinement(item.refine_ids or (), anchors, item.rounds, Counter())
    for answer, advantage in zip(answers, advantages, strict=True):
        if answer.at >= 0:
            result[answer.at : answer.at + max(1, len(answer.offsets))] = advantage
    return result
