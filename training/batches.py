"""The data of supervised training: batch number i of a run is a pure function of i, so a restarted run sees the same data."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from getok_drive.errors import ConfigError
from training.collate import Batch, Collator
from training.datasets import world
from training.presets import SftConfig, Stage
from training.recipes.conversation import Conversation, LossWeights
from training.recipes.domains import WITHOUT_DENSE, Workshop
from training.recipes.encoder import Encoder
from training.recipes.mixture import Mixture
from training.recipes.pools import Pool, absent_rows, pools_of, validation_pools

_VALIDATION_BATCH = 16


class RecipeBatches(Dataset[list[Batch]]):
    """Group number g of a stage's batches: a pure function of g, the process's rank and the settings.

    A group is ``recipe.length_group`` consecutive batches. With more than one, their rows are shared out again by length, so that
    rows of like length pad one another less; the batches then come in a random order.
    """

    def __init__(self, config: SftConfig, stage: Stage, encoder: Encoder, rank: int, world_size: int) -> None:
        self.config, self.rank, self.world_size = config, rank, world_size
        self.size_wh, self.encoder = config.render_size_wh or stage.image_size_wh, encoder
        self.collator = Collator(encoder.layout.pixels.preprocessor(stage.image_size_wh), encoder.layout)
        self._mixture: Mixture | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mixture": None}  # each worker opens the data itself

    def __len__(self) -> int:
        return -(-self.config.total_steps // self.config.recipe.length_group)

    def __getitem__(self, group: int) -> list[Batch]:
        count, size = self.config.recipe.length_group, self.config.batch_size
        rows = [self.example(number) for step in range(group * count, (group + 1) * count) for number in self._numbers(step)]
        if count == 1:
            return [self.collator(rows)]
        rows.sort(key=lambda row: row.length)
        order = np.random.default_rng((self.config.seed, 3, group, self.rank)).permutation(count).tolist()
        return [self.collator(rows[index * size : (index + 1) * size]) for index in order]

    def _numbers(self, step: int) -> range:
        first = (step * self.world_size + self.rank) * self.config.batch_size
        return range(first, first + self.config.batch_size)

    def example(self, number: int) -> Conversation:
        """Example ``number`` of the run, counted over all processes."""
        config = self.config
        if self._mixture is None:
            made = Workshop.of(self.encoder, config.recipe, config.loss_weights, config.noise, config.refine_points)
            self._mixture = Mixture(pools_of(config.recipe), made, self.size_wh, config.seed, vary=config.recipe.vary)
        # a generator for each picture, so that it is the same whatever number of processes share a step
        return self._mixture.conversation(number, np.random.default_rng((config.seed, world.TRAIN_SEEDS.start + number)))


def with_data(config: SftConfig, domain: str | None, data: Sequence[str], out: Path) -> SftConfig:
    """``config`` with the data of the command line, checked; says on stderr what is trained on.

    Args:
        config: its own ``recipe`` holds where nothing else is said.
        domain: ``--domain``.
        data: ``--data``.
        out: run folder; proposals of masks are kept in it, unless ``recipe.cache`` says where.

    Raises:
        ConfigError: see `pools_of`.
    """
    recipe = replace(config.recipe, cache=config.recipe.cache or str(out / "proposals"))
    recipe = replace(recipe, domain=domain or recipe.domain, data=tuple(data) or recipe.data)
    pools = pools_of(recipe)
    for pool in pools:
        pool.check()
        print(f"{pool.weight:6.1%}  {pool.domain} from {pool.kind}:{pool.path}", file=sys.stderr)
    if recipe.domain == "mix" and (absent := absent_rows(pools)):
        print(f"left out of the mixture: {'; '.join(absent)}", file=sys.stderr)
    stages = config.stages
    if all(pool.domain in WITHOUT_DENSE for pool in pools) and any(not stage.dense_only for stage in stages):
        stages = tuple(stage for stage in stages if not stage.dense_only)  # nothing is labelled for the auxiliary head
    return replace(config, recipe=recipe, stages=stages)


def batches(config: SftConfig, encoder: Encoder, start: int, accelerator: Accelerator) -> Iterator[tuple[int, Stage, Batch]]:
    """Steps from ``start`` on, each with its stage and batch."""
    count = config.recipe.length_group
    step = start
    while step < config.total_steps:
        stage = config.stage_at(step)
        stop = step
        while stop < config.total_steps and config.stage_at(stop) is stage:
            stop += 1
        data = RecipeBatches(config, stage, encoder, accelerator.process_index, accelerator.num_processes)
        groups = range(step // count, -(-stop // count))
        loader = DataLoader(
            data, batch_size=None, sampler=groups, num_workers=config.workers, worker_init_fn=_begin_worker,
            multiprocessing_context="spawn" if config.workers else None,  # a fork would inherit OpenCV's and OpenMP's locks
            prefetch_factor=max(1, 4 // count) if config.workers else None, pin_memory=accelerator.device.type == "cuda",
        )  # fmt: skip
        for group, found in zip(groups, loader, strict=True):
            for index, batch in enumerate(found, start=group * count):
                if step <= index < stop:
                    yield index, stage, batch
        step = stop


def validation_batches(config: SftConfig, stage: Stage, encoder: Encoder) -> Iterator[Batch]:
    """Validation examples without noise on the context: the same ones whenever they are asked for; none where no data has a part
    for validation."""
    size_wh = config.render_size_wh or stage.image_size_wh
    pools = [pool for pool in validation_pools(config.recipe) if _opens(pool, size_wh)]
    if not pools:
        return
    total = sum(pool.weight for pool in pools)
    made = Workshop.of(encoder, replace(config.recipe, jitter=0.0), LossWeights(), None, 24)
    mixture = Mixture([replace(p, weight=p.weight / total) for p in pools], made, size_wh, config.seed, shuffle=False)
    collator = Collator(encoder.layout.pixels.preprocessor(stage.image_size_wh), encoder.layout)
    for first in range(0, config.eval_images, _VALIDATION_BATCH):
        rng = np.random.default_rng(0)
        numbers = range(first, min(first + _VALIDATION_BATCH, config.eval_images))
        yield collator([mixture.conversation(number, rng) for number in numbers])


def _opens(pool: Pool, size_wh: tuple[int, int]) -> bool:
    try:
        pool.open(size_wh)
    except ConfigError as error:
        print(f"validation does without {pool.name}: {error}", file=sys.stderr)
        return False
    return True


def _begin_worker(_: int) -> None:
    # Ctrl-C in a terminal and torchrun's SIGTERM reach whole process groups; the trainer still needs its batches while it
    # finishes the step and saves. A worker whose trainer is gone ends by itself.
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(1)
