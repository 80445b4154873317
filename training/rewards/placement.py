r"""Stage 1 of the paper, placement: are the grid tokens at the right places? (supplement C.3)

| symbol | here |
|---|---|
| M | matched pairs (p, g) of `matching.match` |
| m_p | number of points of prediction p |
| S(m) = 1 - exp(-m / m0) | saturation, discourages too few points; m0 = `RewardSettings.saturation_points` |
| H_pg | share of p's points inside the mask of g |
| d_p (11) | mean distance of p's points to their nearest other point, `nearest_spacing` |
| r_g | object scale: the square root of the mask's area, pixels |
| Spread_pg (11) | clip(d_p / (rho_s r_g), 0, 1) |
| F_pg (10) | S(m_p) (w_H H_pg + w_spr Spread_pg) - lambda_m m_p |
| T (12) | clip(sum over M of m_p F_pg / sum over all p of max(1, m_p), 0, 1), `semantic_points` |

Departures and choices:

- r_g is not defined in the paper; the square root of the area needs no shape assumption. A single point has no neighbour: d = 0.
- T divides by the *predicted* points only, so a prediction of one object out of five could reach its maximum; mask IoU and box
  therefore divide by max(P, G), which counts missed labels and surplus predictions alike.
- format, non-repetition, mask IoU and box are named in the paper without a formula; see the functions.
- An answer without any instance, where there is something to find, earns nothing, not even for not repeating itself. Where there
  is nothing to find, it earns everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.metrics.detection import box_ious
from training.rewards.matching import FloatArray, IntArray, Label, Predicted, inside, l1_scores, match, similarity_parts
from training.rewards.settings import RewardSettings, weighted

Pairs = tuple[IntArray, IntArray]


@dataclass(frozen=True, slots=True)
class Grounding:
    """One answer of the propose turn and its labels, in pixels of one picture (840 x 840 for the paper's tau_l1).

    Attributes:
        predicted: instances in the order written.
        labels: instances to be found; empty: the expression names nothing.
        well_formed: whether the text could be read to its end without a fault.
    """

    predicted: tuple[Predicted, ...]
    labels: tuple[Label, ...]
    well_formed: bool = True


def format_reward(well_formed: bool) -> float:
    """1 for a text that could be read to its end without a fault, else 0."""
    return float(well_formed)


def non_repetition(predicted: Sequence[Predicted], expected: int) -> float:
    """Share of what was written for the first time: points within their instance, and instances as a whole.

    The product of distinct points / points and distinct instances / instances. Without any instance: 1 if none is expected.
    """
    if not predicted:
        return float(expected == 0)
    points = sum(len(instance.points_px) for instance in predicted)
    distinct = sum(len(np.unique(instance.points_px, axis=0)) for instance in predicted if len(instance.points_px))
    kinds = {
        (tuple(sorted(map(tuple, p.points_px.tolist()))), None if p.box_xyxy_px is None else tuple(p.box_xyxy_px.tolist()))
        for p in predicted
    }
    return (distinct / points if points else 1.0) * len(kinds) / len(predicted)


def mask_iou(predicted: Sequence[Predicted], labels: Sequence[Label], pairs: Pairs) -> float:
    """Sum of the matched masks' IoU over max(P, G); 1 where there is nothing and nothing was said."""
    if not predicted and not labels:
        return 1.0
    total = 0.0
    for p, g in zip(*pairs, strict=True):
        mask = predicted[p].mask
        if mask is not None:
            total += float(np.sum(mask & labels[g].mask)) / float(np.sum(mask | labels[g].mask))
    return total / max(len(predicted), len(labels))


def box_reward(predicted_xyxy: FloatArray, label_xyxy: FloatArray, count: int, l1_scale_px: float) -> float:
    """Mean of IoU (eq. 6) and corner score (eq. 8) of matched boxes ``(N, 4)``, summed and divided by ``count``."""
    if not len(predicted_xyxy):
        return 0.0
    ious = np.diagonal(box_ious(predicted_xyxy, label_xyxy))
    corners = np.diagonal(l1_scores(predicted_xyxy, label_xyxy, l1_scale_px))
    return float((ious + corners).sum() / 2.0 / count)


def nearest_spacing(points_px: FloatArray) -> float:
    """Eq. 11: mean distance to the nearest other point, pixels; 0 for fewer than two points."""
    if len(points_px) < 2:
        return 0.0
    distances = np.linalg.norm(points_px[:, None] - points_px[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).mean())


def point_quality(points_px: FloatArray, label: Label, settings: RewardSettings) -> float:
    """Eq. 10, F of one matched pair; negative when the list is long for what it hits."""
    count = len(points_px)
    if not count:
        return 0.0
    saturation = 1.0 - np.exp(-count / settings.saturation_points)
    scale_px = np.sqrt(float(label.mask.sum()))
    spread = min(nearest_spacing(points_px) / (settings.spread_scale * scale_px), 1.0)
    hits = float(inside(points_px, label.mask).mean())
    quality = saturation * (settings.hit_weight * hits + settings.spread_weight * spread)
    return float(quality - settings.length_penalty * count)


def semantic_points(predicted: Sequence[Predicted], labels: Sequence[Label], pairs: Pairs, settings: RewardSettings) -> float:
    """Eq. 12, T; without any prediction 1 if nothing is labelled, else 0."""
    if not predicted:
        return float(not labels)
    total = sum(
        len(predicted[p].points_px) * point_quality(predicted[p].points_px, labels[g], settings)
        for p, g in zip(*pairs, strict=True)
    )
    return float(np.clip(total / sum(max(1, len(instance.points_px)) for instance in predicted), 0.0, 1.0))


def placement_rewards(batch: Sequence[Grounding], settings: RewardSettings | None = None) -> list[dict[str, float]]:
    """``format``, ``non_repetition``, ``mask_iou``, ``box``, ``points`` and ``overall`` of each answer."""
    settings = settings or RewardSettings()
    results = []
    for item in batch:
        pairs = match(similarity_parts(item.predicted, item.labels, settings.l1_scale_px).sum(axis=0))
        boxed = [(p, g) for p, g in zip(*pairs, strict=True) if item.predicted[p].box_xyxy_px is not None]
        own = np.array([item.predicted[p].box_xyxy_px for p, _ in boxed]).reshape(-1, 4)
        truth = np.array([item.labels[g].box_xyxy_px for _, g in boxed]).reshape(-1, 4)
        nothing = not item.predicted and not item.labels
        rewards = {
            "format": format_reward(item.well_formed),
            "non_repetition": non_repetition(item.predicted, len(item.labels)),
            "mask_iou": mask_iou(item.predicted, item.labels, pairs),
            "box": 1.0 if nothing else box_reward(own, truth, max(len(item.predicted), len(item.labels)), settings.l1_scale_px),
            "points": semantic_points(item.predicted, item.labels, pairs, settings),
        }
        results.append(weighted(rewards, settings.placement))
    return results
