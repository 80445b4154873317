r"""Stage 2 of the paper, movement: did the offsets mend anything? (supplement C.3, eq. 13)

| symbol | here |
|---|---|
| c_kp, c_kp^off | point p of instance k before and after the refinement |
| I_kp, I_kp^off | whether it lies in the instance's mask, before and after; a deleted point lies nowhere |
| N_3x3(c) | the places that an offset can reach from c |
| s_kp (13) | -1 moved out; +1 moved in, stayed in, or rightly deleted; 0 otherwise: `point_scores` |

Choices where the paper leaves room:

- N_3x3 is taken as in the hit test of its algorithm 1 (eq. 4): the nine points c + S delta, not nine pixels. With several
  offset rounds it is every point that the rounds can reach (`reachable_px`).
- Eq. 13's first case is read to cover a *deleted* inside point (its I^off is 0): -1.
- Eq. 13 gives a point that is inside and stays +1, so where all anchors are right, never moving is already perfect, and where
  they are wrong it earns 0. Box refinement and mask IoU gain (named, not defined) are therefore gains: no movement is worth
  exactly 0, see `relative_gain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics.detection import box_ious
from training.rewards.matching import BoolArray, FloatArray, Label, Predicted, inside, match, similarity_parts
from training.rewards.placement import format_reward
from training.rewards.settings import RewardSettings, weighted


@dataclass(frozen=True, slots=True)
class Refinement:
    """One answer of the refine turn, in pixels of one picture.

    Attributes:
        coarse: instances as proposed; ``mask`` is what a segmenter makes of the proposal.
        refined: the same instances, point for point, after the offsets (a deleted point's place does not matter).
        deleted: for each instance ``(m,)``: whether each *point* was deleted.
        box_deleted: for each instance: whether its box was deleted.
        labels: instances to be found.
        step_px: one offset of the first round, pixels along each axis: ``(W / m, H / m)``.
        rounds: offset rounds.
        well_formed: whether the text could be read to its end without a fault.
    """

    coarse: tuple[Predicted, ...]
    refined: tuple[Predicted, ...]
    deleted: tuple[BoolArray, ...]
    labels: tuple[Label, ...]
    step_px: tuple[float, float]
    rounds: int = 1
    box_deleted: tuple[bool, ...] = ()
    well_formed: bool = True


def point_scores(before: BoolArray, after: BoolArray, deleted: BoolArray, hopeless: BoolArray) -> FloatArray:
    """Eq. 13 for each point.

    Args:
        before: ``(m,)`` I, inside before.
        after: ``(m,)`` I^off, inside after; ignored for deleted points.
        deleted: ``(m,)`` answered with ``<DELETE>``.
        hopeless: ``(m,)`` no offset could have reached the mask.

    Returns:
        ``(m,)`` of -1, 0, +1.
    """
    stays = after & ~deleted
    scores = np.zeros(len(before))
    scores[before & ~stays] = -1.0
    scores[stays] = 1.0
    scores[~before & deleted & hopeless] = 1.0
    return scores


def reachable_px(points_px: FloatArray, step_px: tuple[float, float], rounds: int) -> FloatArray:
    """Every place that the offsets can bring each point to: ``(m, K, 2)``, K = (2**(rounds + 1) - 1)**2; 9 for one round."""
    most = 2**rounds - 1
    along = np.arange(-most, most + 1) / 2 ** (rounds - 1)
    moves = np.stack(np.meshgrid(along * step_px[0], along * step_px[1]), axis=-1).reshape(-1, 2)
    return np.asarray(points_px[:, None] + moves[None])


def point_refinement(
    coarse_px: FloatArray,
    refined_px: FloatArray,
    deleted: BoolArray,
    mask: BoolArray,
    step_px: tuple[float, float],
    rounds: int = 1,
) -> float:
    """Mean of eq. 13 over one instance's points; NaN for an instance without points."""
    if not len(coarse_px):
        return float("nan")
    around = reachable_px(coarse_px, step_px, rounds)
    hopeless = np.logical_not(np.any(inside(around.reshape(-1, 2), mask).reshape(around.shape[:2]), axis=1))
    return float(point_scores(inside(coarse_px, mask), inside(refined_px, mask), deleted, hopeless).mean())


def relative_gain(before: npt.ArrayLike, after: npt.ArrayLike, floor: float) -> FloatArray:
    """How much of the possible improvement was made: ``(after - before) / max(1 - before, floor)``, or of the possible loss.

    A loss is measured against ``max(before, floor)``. In -1..1 for scores in 0..1, and 0 without a change. Plain differences
    would hardly reward mending the last tenth, where most instances are; the floor keeps noise of an almost perfect score small.
    """
    was, now = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    change = now - was
    return np.where(change >= 0, change / np.maximum(1.0 - was, floor), change / np.maximum(was, floor))


def box_refinement(
    coarse_xyxy: FloatArray, refined_xyxy: FloatArray, deleted: BoolArray, label_xyxy: FloatArray, floor: float
) -> FloatArray:
    """Of each box ``(N, 4)``: relative IoU gain with its label; a label of NaN means that the box has none.

    Deleting a box that has a label: -1. Deleting one that has none: +1; keeping it: 0, wherever it goes.
    """
    none = np.asarray(np.isnan(label_xyxy).any(axis=1), dtype=bool)
    ious = [np.diagonal(box_ious(boxes, np.where(none[:, None], 0.0, label_xyxy))) for boxes in (coarse_xyxy, refined_xyxy)]
    gains = relative_gain(ious[0], ious[1], floor)
    return np.where(none, deleted.astype(np.float64), np.where(deleted, -1.0, gains))


def mask_gain(coarse: BoolArray | None, refined: BoolArray | None, label: BoolArray, floor: float) -> float:
    """Relative IoU gain of one instance's mask; a missing mask has IoU 0."""
    ious = [0.0 if m is None else float(np.sum(m & label)) / float(np.sum(m | label)) for m in (coarse, refined)]
    return float(relative_gain(ious[0], ious[1], floor))


def movement_rewards(batch: Sequence[Refinement], settings: RewardSettings | None = None) -> list[dict[str, float]]:
    """``format``, ``point_refinement``, ``box_refinement``, ``mask_gain`` and ``overall`` of each answer.

    Instances are matched by their *proposal* (eq. 9), so that the answer cannot choose its label. Each reward is the mean over
    the instances that it applies to: points and boxes of all (without a label the mask is empty), masks of the matched; or NaN.
    """
    settings = settings or RewardSettings()
    results = []
    for item in batch:
        pairs = match(similarity_parts(item.coarse, item.labels, settings.l1_scale_px).sum(axis=0))
        label_of = dict(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True))
        points, boxes, masks = [], [], []
        for k, (coarse, refined) in enumerate(zip(item.coarse, item.refined, strict=True)):
            label = item.labels[label_of[k]] if k in label_of else None
            shape = item.labels[0].mask.shape if item.labels else (1, 1)
            mask = label.mask if label else np.zeros(shape, dtype=bool)
            points.append(point_refinement(coarse.points_px, refined.points_px, item.deleted[k], mask, item.step_px, item.rounds))
            if coarse.box_xyxy_px is not None and refined.box_xyxy_px is not None:
                target = label.box_xyxy_px if label else np.full(4, np.nan)
                gone = np.array([bool(item.box_deleted) and item.box_deleted[k]])
                args = (coarse.box_xyxy_px[None], refined.box_xyxy_px[None], gone, target[None], settings.gain_floor)
                boxes.append(float(box_refinement(*args)[0]))
            if label:
                masks.append(mask_gain(coarse.mask, refined.mask, label.mask, settings.gain_floor))
        rewards = {
            "format": format_reward(item.well_formed),
            "point_refinement": _mean(points),
            "box_refinement": _mean(boxes),
            "mask_gain": _mean(masks),
        }
        results.append(weighted(rewards, settings.movement))
    return results


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
