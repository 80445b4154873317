"""The data of supervised training: batch number i of a run is a pure function of i, so a restarted run sees the same data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from getok_drive.preprocess import Preprocessor
from training.collate import Batch, Collator, Layout
from training.datasets import world
from training.presets import SftConfig, Stage
from training.recipes.driving import DrivingRecipe


class WorldBatches(Dataset[Batch]):
    """Batch number i of a stage: a pure function of i, the process's rank and the settings."""

    def __init__(self, config: SftConfig, stage: Stage, layout: Layout, rank: int, world_size: int) -> None:
        self.config, self.rank, self.world_size = config, rank, world_size
        self.size_wh = config.render_size_wh or stage.image_size_wh
        self.collator = Collator(Preprocessor(stage.image_size_wh), layout)
        self.recipe = DrivingRecipe(layout, config.noise, config.refine_points, config.loss_weights)

    def __len__(self) -> int:
        return self.config.total_steps

    def __getitem__(self, index: int) -> Batch:
        first = (index * self.world_size + self.rank) * self.config.batch_size
        seeds = range(world.TRAIN_SEEDS.start + first, world.TRAIN_SEEDS.start + first + self.config.batch_size)
        # a generator for each picture, so that it is the same whatever number of processes share a step
        found = (self.recipe(world.render(seed, self.size_wh), np.random.default_rng((self.config.seed, seed))) for seed in seeds)
        return self.collator([conversation for conversation in found if conversation is not None])


def batches(config: SftConfig, layout: Layout, start: int, accelerator: Accelerator) -> Iterator[tuple[int, Stage, Batch]]:
    """Steps from ``start`` on, each with its stage and batch."""
    step = start
    while step < config.total_steps:
        stage = config.stage_at(step)
        stop = step
        while stop < config.total_steps and config.stage_at(stop) is stage:
            stop += 1
        data = WorldBatches(config, stage, layout, accelerator.process_index, accelerator.num_processes)
        loader = DataLoader(
            data, batch_size=None, sampler=range(step, stop), num_workers=config.workers, worker_init_fn=_one_thread,
            multiprocessing_context="spawn" if config.workers else None,  # a fork would inherit OpenCV's and OpenMP's locks
            prefetch_factor=4 if config.workers else None, pin_memory=accelerator.device.type == "cuda",
        )  # fmt: skip
        for index, batch in zip(range(step, stop), loader, strict=True):
            yield index, stage, batch
        step = stop


def validation_batches(config: SftConfig, stage: Stage, layout: Layout) -> Iterator[Batch]:
    """Validation frames without noise on the context: the same ones whenever they are asked for."""
    collator, recipe = Collator(Preprocessor(stage.image_size_wh), layout), DrivingRecipe(layout)
    seeds = list(world.VAL_SEEDS)[: config.eval_images]
    for first in range(0, len(seeds), 16):
        rng = np.random.default_rng(0)
        samples = [world.render(seed, config.render_size_wh or stage.image_size_wh) for seed in seeds[first : first + 16]]
        found = [recipe(sample, rng) for sample in samples]
        yield collator([conversation for conversation in found if conversation is not None])


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(1)
