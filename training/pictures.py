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


class Pictures:
    """Pictures of step i: a pure function of i, the process's rank and the settings."""

    def __init__(self, config: GrpoConfig, size_wh: tuple[int, int], rank: int = 0, world_size: int = 1) -> None:
        self._config, self._size_wh, self._rank, self._world_size = config, size_wh, rank, world_size
        self._source = None if config.data == "world" else open_source(config.data, "train")
        self._orders: dict[int, npt.NDArray[np.int64]] = {}

    def first(self, step: int) -> int:
        """Number in the run of the step's first picture of this process."""
        return (step * self._world_size + self._rank) * self._config.prompts

    def at(self, step: int) -> list[Sample]:
        """The step's pictures of this process."""
        numbers = range(self.first(step), self.first(step) + self._config.prompts)
        if self._source is None:
            return [world.render(WORLD_SEEDS[self._config.seed * 10_000_000 + number], self._size_wh) for number in numbers]
        return [self._source.load(self._shuffled(number)) for number in numbers]

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
