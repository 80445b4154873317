"""The pictures of GRPO's step i, and the labels that a proposal can be held against."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from getok_drive.tokens.elements import propose_ids
from getok_drive.tokens.parsing import parse
from training.datasets import world
from training.grpo_config import GrpoConfig
from training.samples import Sample
from training.sources import open_source
from training.targets import elements_of

WORLD_SEEDS = world.TRAIN_SEEDS[len(world.TRAIN_SEEDS) // 2 :]  # pictures that supervised training does not get to


_OTHER = 5_000_000  # so many pictures on is the other one of a curriculum's two


def _elements(sample: Sample) -> int:
    return len(sample.lanes) + len(sample.drivable) + len(sample.boxes) + len(sample.signs) + len(sample.phrases)


class Pictures:
    """Pictures of step i: a pure function of i, the process's rank and the settings."""

    def __init__(self, config: GrpoConfig, size_wh: tuple[int, int], rank: int = 0, world_size: int = 1) -> None:
        self._config, self._size_wh, self._rank, self._world_size = config, size_wh, rank, world_size
        self._source = None if config.data == "world" else open_source(config.data, "train", masks=config.task == "grounding")
        self._orders: dict[int, npt.NDArray[np.int64]] = {}

    def first(self, step: int) -> int:
        """Number in the run of the step's first picture of this process."""
        return (step * self._world_size + self._rank) * self._config.prompts

    def at(self, step: int) -> list[Sample]:
        """The step's pictures of this process."""
        numbers = range(self.first(step), self.first(step) + self._config.prompts)
        if step >= self._config.curriculum_steps:
            return [self._load(number) for number in numbers]
        return [min(self._load(number), self._load(number + _OTHER), key=_elements) for number in numbers]

    def _load(self, number: int) -> Sample:
        if self._source is None:
            seed = WORLD_SEEDS[self._config.seed * 10_000_000 + number]
            return world.render(seed, self._size_wh, masks=self._config.task == "grounding")
        return self._source.load(self._shuffled(number))

    def _shuffled(self, number: int) -> int:
        assert self._source is not None
        epoch, index = divmod(number, len(self._source))
        if epoch not in self._orders:
            self._orders[epoch] = np.random.default_rng((self._config.seed, epoch)).permutation(len(self._source))
        return int(self._orders[epoch][index])


def labels_at_cells(sample: Sample) -> Sample:
    """The sample with every known element where its own proposal says that it is: at its cells' centres.

    Labels are never cut to the sampling's limits: what the policy may not write would then earn it the reward for an empty scene.
    """
    lanes, drivable, boxes, signs, _ = parse(propose_ids(elements_of(sample)), size_wh=sample.size_wh)
    return replace(sample, lanes=lanes, drivable=drivable, boxes=boxes, signs=signs)
