"""What GRPO trains on: a task gives pictures with their labels, says what is asked and under which grammar, and judges.

`DrivingTask` is the scene; `training.grounding_task.GroundingTask` are the paper's tasks: boxes and masks of what a text names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from getok_drive.types import Scene
from training.collate import Layout
from training.datasets import world
from training.grpo_config import GrpoConfig
from training.pictures import Pictures, labels_at_cells
from training.rewards import Completion, driving_movement, driving_placement
from training.rewards.credit import placement_credit
from training.rewards.credit_movement import movement_credit
from training.rewards.driving import completed_scenes, placement_reward
from training.rewards.driving_movement import movement_reward, refined
from training.rewards.matching import FloatArray
from training.rollout import Rollout
from training.samples import Sample
from training.sampling import DRIVING, Dialogue, Sampling, until


class Task(Protocol):
    """Of one run; items are whatever the task wants, one a prompt."""

    layout: Layout

    def first(self, step: int) -> int:
        """Number in the run of the step's first item of this process."""

    def at(self, step: int) -> list[Any]:
        """The step's items of this process: a pure function of the step."""

    def validation(self, count: int) -> list[Any]:
        """Items to evaluate on, always the same."""

    def sample(self, item: Any) -> Sample:
        """The picture of an item."""

    def dialogue(self, item: Any) -> Dialogue:
        """What is asked about it, and under which grammars it is answered."""

    def rewards(self, items: Sequence[Any], rollouts: Sequence[Rollout]) -> list[dict[str, float]]:
        """Every reward of every answer, in order."""

    def scenes(self, item: Any, rollout: Rollout | None) -> Scene:
        """What to draw over the picture: an answer, or the labels for None."""


LABELLED = {"lane": "lanes", "drivable": "drivable", "box": "boxes", "sign": "signs"}  # what `Sample.known` calls each kind


@dataclass(slots=True)
class DrivingTask:
    """The whole scene of a picture.

    Attributes:
        config: settings.
        layout: fixed token ids.
        size_wh: of the world's pictures.
        pictures: of each step.
    """

    config: GrpoConfig
    layout: Layout
    size_wh: tuple[int, int]
    pictures: Pictures

    def first(self, step: int) -> int:
        """See `Task`."""
        return self.pictures.first(step)

    def at(self, step: int) -> list[Sample]:
        """See `Task`."""
        return self.pictures.at(step)

    def validation(self, count: int) -> list[Sample]:
        """Frames of the world's validation seeds."""
        return [world.render(seed, self.size_wh) for seed in list(world.VAL_SEEDS)[:count]]

    def sample(self, item: Sample) -> Sample:
        """The item itself."""
        return item

    def dialogue(self, item: Sample) -> Dialogue:
        """The scene's prompt, and the runtime's own grammars."""
        return DRIVING

    def rewards(self, items: Sequence[Sample], rollouts: Sequence[Rollout]) -> list[dict[str, float]]:
        """`driving_placement` or `driving_movement`."""
        batch = self._completions(items, rollouts)
        return (driving_placement if self.config.stage == "placement" else driving_movement)(batch, self.config.rewards)

    def judge(self, items: Sequence[Sample], rollouts: Sequence[Rollout]) -> tuple[list[dict[str, float]], list[FloatArray]]:
        """The rewards, and the advantage of each decision of each answer, for ``credit=element``."""
        batch, settings, group = self._completions(items, rollouts), self.config.rewards, self.config.group
        if self.config.stage == "placement":
            scenes, ious = completed_scenes(batch)
            rewards = [placement_reward(*own, settings) for own in zip(batch, scenes, ious, strict=True)]
            tokens, skip = placement_credit(batch, scenes, ious, group, settings), [0] * len(batch)
        else:
            judged = refined(batch, settings)
            rewards = [movement_reward(own, settings) for own in judged]
            tokens = movement_credit(judged, group, settings)
            skip = [len(r.propose_ids) + len(self.layout.refine_turn) for r in rollouts]
        own = zip(tokens, rollouts, skip, strict=True)
        return rewards, [values[np.array(r.places, dtype=np.int64) - before] for values, r, before in own]

    def _completions(self, items: Sequence[Sample], rollouts: Sequence[Rollout]) -> list[Completion]:
        placement = self.config.stage == "placement"
        at_cells = self.config.cell_labels and not self.config.sampling.refine_proposals
        labels = [labels_at_cells(item) if placement and at_cells else item for item in items]
        drawn = {LABELLED[kind] for kind in self.config.sampling.kinds}
        labels = [replace(item, known=tuple(kind for kind in item.known if kind in drawn)) for item in labels]
        return [completion(labels[r.picture], r, self.config.sampling) for r in rollouts]

    def scenes(self, item: Sample, rollout: Rollout | None) -> Scene:
        """See `Task`."""
        if rollout is None:
            return Scene(item.size_wh, item.lanes, item.drivable, item.boxes, item.signs)
        return completion(item, rollout, self.config.sampling).scene()


def completion(labels: Sample, rollout: Rollout, sampling: Sampling) -> Completion:
    """A rollout with its labels, as the rewards take it."""
    proposed = until(rollout.propose_ids, sampling.stops)
    return Completion(labels, proposed, rollout.refine_ids, rollout.truncated, sampling.rounds, sampling.limits)
