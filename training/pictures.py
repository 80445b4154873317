"""The pictures of GRPO's step i, and the labels that a proposal can be held against."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.tokens.elements import propose_ids
from getok_drive.tokens.parsing import parse
from training.datasets import world
from training.grpo_config import GrpoConfig
from training.samples import Sample
from training.sources import open_source
from training.targets import elements_of

WORLD_SEEDS = world.TRAIN_SEEDS[len(world.TRAIN_SEEDS) // 2 :]  # pictures that supervised training does not get to


TRIES = 32  # pictures that may be of no use in a row before a run gives up
_OTHER = 5_000_000  # so many pictures on is the other one of a curriculum's two
_NEXT = 100_003  # and so many the one that takes the place of one that is of no use
Item = TypeVar("Item")


def _elements(sample: Sample) -> int:
    return len(sample.lanes) + len(sample.drivable) + len(sample.boxes) + len(sample.signs) + len(sample.phrases)


def _itself(sample: Sample, number: int) -> Any:
    return sample


class Pictures:
    """Pictures of step i: a pure function of i, the process's rank and the settings."""

    def __init__(self, config: GrpoConfig, size_wh: tuple[int, int], rank: int = 0, world_size: int = 1) -> None:
        self._config, self._size_wh, self._rank, self._world_size = config, size_wh, rank, world_size
        self._source = None if config.data == "world" else open_source(config.data, "train", masks=config.task == "grounding")
        self._orders: dict[int, npt.NDArray[np.int64]] = {}
        self._told: set[str] = set()

    def first(self, step: int) -> int:
        """Number in the run of the step's first picture of this process."""
        return (step * self._world_size + self._rank) * self._config.prompts

    def at(self, step: int, make: Callable[[Sample, int], Item] = _itself) -> list[Item]:
        """The step's pictures of this process.

        Args:
            step: number of the step.
            make: what becomes of a picture, from it and its number in the run. A picture that cannot be read, or of which
                nothing can be made (`InputError`), is named on stderr, once, and another one takes its place.

        Raises:
            InputError: `TRIES` pictures in a row gave nothing.
        """
        numbers = range(self.first(step), self.first(step) + self._config.prompts)
        return [self._made(number, step < self._config.curriculum_steps, make) for number in numbers]

    def _made(self, number: int, easier: bool, make: Callable[[Sample, int], Item]) -> Item:
        problem = ""
        for attempt in range(TRIES):
            at = number + attempt * _NEXT
            try:
                samples = [self._load(at), *([self._load(at + _OTHER)] if easier else [])]
                return make(min(samples, key=_elements), number)
            except InputError as error:
                problem = str(error)
                if problem not in self._told:
                    self._told.add(problem)
                    print(f"left out: {problem}", file=sys.stderr)
        raise InputError(f"data={self._config.data}: {TRIES} pictures in a row gave nothing; the last: {problem}")

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
