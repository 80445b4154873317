"""Pictures of what GRPO drew: the labels, and the best and the worst answer of a group side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from getok_drive.tokens.limits import Limits
from getok_drive.types import ImageBgr, Scene
from getok_drive.views.overlay import draw
from training.rewards import Completion
from training.rollout import Rollout
from training.samples import Sample

TILE_WIDTH_PX = 480


@dataclass(frozen=True, slots=True)
class Drawn:
    """One step's pictures, answers and rewards; a picture's answers stand side by side."""

    samples: Sequence[Sample]
    rollouts: Sequence[Rollout]
    rewards: Sequence[dict[str, float]]


def contact_sheet(drawn: Drawn, rounds: int, limits: Limits, most: int = 4) -> ImageBgr:
    """A row for each of the first ``most`` pictures: labels, best answer, worst answer.

    Args:
        drawn: of one step.
        rounds: offset rounds of the model.
        limits: greatest numbers of elements and points.
        most: rows.
    """
    group = len(drawn.rollouts) // len(drawn.samples)
    rows = []
    for picture, sample in enumerate(drawn.samples[:most]):
        own = range(picture * group, (picture + 1) * group)
        ranked = sorted(own, key=lambda index: drawn.rewards[index]["overall"])
        labels = Scene(sample.size_wh, sample.lanes, sample.drivable, sample.boxes, sample.signs)
        tiles = [_tile(sample, labels, "labels")]
        for name, index in (("best", ranked[-1]), ("worst", ranked[0])):
            rollout = drawn.rollouts[index]
            answer = Completion(sample, rollout.propose_ids, rollout.refine_ids, rollout.truncated, rounds, limits)
            tiles.append(_tile(sample, answer.scene(), f"{name} {drawn.rewards[index]['overall']:.3f}"))
        rows.append(np.concatenate(tiles, axis=1))
    width_px = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width_px - row.shape[1]), (0, 0))) for row in rows]
    return np.ascontiguousarray(np.concatenate(padded, axis=0))


def _tile(sample: Sample, scene: Scene, title: str) -> ImageBgr:
    picture = draw(sample.image_bgr, scene, labels=False)
    height_px = max(1, round(picture.shape[0] * TILE_WIDTH_PX / picture.shape[1]))
    tile = cv2.resize(picture, (TILE_WIDTH_PX, height_px), interpolation=cv2.INTER_AREA)
    cv2.putText(tile, title, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.putText(tile, title, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(tile, dtype=np.uint8)
