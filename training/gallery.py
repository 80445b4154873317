"""Pictures of what GRPO drew: the labels, and the best and the worst answer of a group side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from getok_drive.types import ImageBgr, Scene
from getok_drive.views.overlay import draw
from training.rollout import Rollout
from training.samples import Sample
from training.tasks import Task

TILE_WIDTH_PX = 480


@dataclass(frozen=True, slots=True)
class Drawn:
    """One step's items, answers and rewards; an item's answers stand side by side."""

    items: Sequence[Any]
    rollouts: Sequence[Rollout]
    rewards: Sequence[dict[str, float]]


def contact_sheet(drawn: Drawn, task: Task, most: int = 4) -> ImageBgr:
    """A row for each of the first ``most`` pictures: labels, best answer, worst answer.

    Args:
        drawn: of one step.
        task: knows what to draw.
        most: rows.
    """
    group = len(drawn.rollouts) // len(drawn.items)
    rows = []
    for picture, item in enumerate(drawn.items[:most]):
        sample = task.sample(item)
        own = range(picture * group, (picture + 1) * group)
        ranked = sorted(own, key=lambda index: drawn.rewards[index]["overall"])
        tiles = [_tile(sample, task.scenes(item, None), "labels")]
        for name, index in (("best", ranked[-1]), ("worst", ranked[0])):
            answer = task.scenes(item, drawn.rollouts[index])
            tiles.append(_tile(sample, answer, f"{name} {drawn.rewards[index]['overall']:.3f}"))
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
