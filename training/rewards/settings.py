"""Every constant and every weight of the rewards; a weight of 0 switches a reward off (it is still logged)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from getok_drive.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PlacementWeights:
    """Of the paper's stage 1; it names no weights, so all count alike but for the two that are nearly always right."""

    format: float = 0.5
    non_repetition: float = 0.5
    mask_iou: float = 1.0
    box: float = 1.0
    points: float = 1.0


@dataclass(frozen=True, slots=True)
class MovementWeights:
    """Of the paper's stage 2."""

    format: float = 0.5
    point_refinement: float = 1.0
    box_refinement: float = 1.0
    mask_gain: float = 1.0


@dataclass(frozen=True, slots=True)
class DrivingPlacementWeights:
    """Of a proposed scene. ``lane_closeness`` and ``box`` are dense companions of the two F1s, which are 0 until a hit."""

    format: float = 0.5
    non_repetition: float = 0.5
    lane_f1: float = 1.0
    lane_closeness: float = 0.5
    polygon_iou: float = 1.0
    detection_f1: float = 1.0
    box: float = 0.5
    sign_hits: float = 0.5


@dataclass(frozen=True, slots=True)
class DrivingMovementWeights:
    """Of a refined scene: what the movement mended (``*_refinement``, ``*_gain``), and what the scene is worth now."""

    format: float = 0.5
    point_refinement: float = 0.5
    point_closeness: float = 0.5
    lane_gain: float = 1.0
    polygon_gain: float = 1.0
    box_refinement: float = 1.0
    lane_f1: float = 1.0
    polygon_iou: float = 0.5
    detection_f1: float = 1.0
    sign_hits: float = 0.5


STAGES = ("placement", "movement", "driving_placement", "driving_movement")
Weights = PlacementWeights | MovementWeights | DrivingPlacementWeights | DrivingMovementWeights


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """Constants of the rewards.

    Attributes:
        l1_scale_px: tau_l1 of eq. 8, pixels of a picture of 840 x 840 (the paper's input size): 18.
        saturation_points: m0 of eq. 10: 5.
        hit_weight: w_H of eq. 10: 0.6.
        spread_weight: w_spr of eq. 10: 0.4.
        length_penalty: lambda_m of eq. 10: 0.02.
        spread_scale: rho_s of eq. 11: 0.30.
        gain_floor: least headroom that a gain is measured against, see `movement.relative_gain`.
        lane_thresholds: stroke IoUs at which lane F1 is taken; the mean counts.
        lane_limit: a lane further from every label than this share of the width has no label; also where closeness becomes 0.
        lane_radius: a lane's or outline's point counts as on it within this share of the width (CULane's half stroke: 15 / 1640).
        point_limit: share of the width at which the closeness of a lane's point becomes 0: a cell's.
        box_threshold: IoU of a detected box.
        box_min_height: labels shorter than this share of the height are ignored, and so are predictions. The headline metric has
            0.05; as a reward that would make small boxes free, so it is 0.
        duplicate_iou: two predicted boxes that overlap more are one box written twice.
        duplicate_distance: likewise two lanes or signs nearer than this share of the width.
        placement: weights.
        movement: weights.
        driving_placement: weights.
        driving_movement: weights.
    """

    l1_scale_px: float = 18.0
    saturation_points: float = 5.0
    hit_weight: float = 0.6
    spread_weight: float = 0.4
    length_penalty: float = 0.02
    spread_scale: float = 0.30
    gain_floor: float = 0.1
    lane_thresholds: tuple[float, ...] = (0.5, 0.75)
    lane_limit: float = 1 / 16
    lane_radius: float = 15 / 1640
    point_limit: float = 1 / 32
    box_threshold: float = 0.5
    box_min_height: float = 0.0
    duplicate_iou: float = 0.8
    duplicate_distance: float = 0.01
    placement: PlacementWeights = field(default_factory=PlacementWeights)
    movement: MovementWeights = field(default_factory=MovementWeights)
    driving_placement: DrivingPlacementWeights = field(default_factory=DrivingPlacementWeights)
    driving_movement: DrivingMovementWeights = field(default_factory=DrivingMovementWeights)

    def __post_init__(self) -> None:
        for name in (
            "l1_scale_px",
            "saturation_points",
            "spread_scale",
            "gain_floor",
            "lane_limit",
            "lane_radius",
            "point_limit",
        ):
            if not getattr(self, name) > 0:
                raise ConfigError(f"rewards.{name}: expected a number above 0, got {getattr(self, name)!r}")
        for stage in STAGES:
            for name, weight in dataclasses.asdict(getattr(self, stage)).items():
                if not 0 <= weight < float("inf"):
                    raise ConfigError(f"rewards.{stage}.{name}: expected a weight of 0 or more, got {weight!r}")


def in_every_stage(settings: Sequence[str]) -> list[str]:
    """``key=value`` settings with ``rewards.NAME=value`` written out for each stage that has a reward of this name.

    So ``rewards.box=0`` takes the box reward away wherever it is paid; everything else is left as it is.
    """
    known = RewardSettings()
    stages = {name: getattr(known, name) for name in STAGES}
    result = []
    for setting in settings:
        key, separator, value = setting.partition("=")
        name = key.removeprefix("rewards.")
        has = [stage for stage, weights in stages.items() if name != key and hasattr(weights, name)]
        result += [f"rewards.{stage}.{name}{separator}{value}" for stage in has] or [setting]
    return result


def weighted(rewards: dict[str, float], weights: Weights) -> dict[str, float]:
    """The rewards with ``overall``, their weighted mean; NaN rewards take no part, and with nothing to judge it is 0.

    Raises:
        ConfigError: a reward without a weight, or a weight without a reward.
    """
    of = dataclasses.asdict(weights)
    if of.keys() != rewards.keys():
        raise ConfigError(f"rewards {sorted(rewards)} do not fit the weights {sorted(of)}")
    names = [name for name, value in rewards.items() if np.isfinite(value)]
    total = sum(of[name] for name in names)
    return {"overall": sum(of[name] * rewards[name] for name in names) / total if total else 0.0, **rewards}
