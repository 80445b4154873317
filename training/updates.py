"""The update of GRPO: forward, backward and optimiser steps on one step's rollouts, in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from getok_drive.preprocess import Preprocessor
from training.collate import Layout
from training.distributed import autocast, clip_gradients, one_backward
from training.grpo_config import GrpoConfig
from training.policy import AdaptersOff, Answers, Policy, grpo_terms
from training.rollout import Rollout


@dataclass(slots=True)
class Updater:
    """What an update needs.

    Attributes:
        config: settings.
        accelerator: of the run.
        policy: prepared.
        reference: frozen, or None without a KL term.
        optimizer: prepared.
        scheduler: of its learning rate.
        preprocess: of the pictures.
        layout: fixed token ids.
        stop: saves a batch whose loss is not finite, and raises.
    """

    config: GrpoConfig
    accelerator: Accelerator
    policy: nn.Module
    reference: Policy | AdaptersOff | None
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    preprocess: Preprocessor
    layout: Layout
    stop: Callable[[str, float, Sequence[Rollout], Tensor], NoReturn]

    def __call__(
        self, rollouts: Sequence[Rollout], pixels: Tensor, advantages: Sequence[npt.NDArray[np.float64]]
    ) -> dict[str, float]:
        """The policy's update on one step's rollouts.

        Args:
            rollouts: a picture's ``group`` side by side.
            pixels: of the pictures.
            advantages: of each rollout's decisions.
        """
        config, merge = self.config, self.preprocess.merge_size
        merged_hw = (self.preprocess.grid_hw[0] // merge, self.preprocess.grid_hw[1] // merge)
        passes = []
        for first in range(0, config.prompts, config.prompts_per_pass):
            stop = min(first + config.prompts_per_pass, config.prompts)
            own = slice(first * config.group, stop * config.group)
            answers = Answers.of(rollouts[own], pixels[first:stop], self.layout, merged_hw, config.share_prefix)
            passes.append((answers, *self._targets(answers, rollouts[own], advantages[own]), own))
        totals = {"loss": 0.0, "kl": 0.0, "entropy": 0.0, "clip_fraction": 0.0, "grad_norm": 0.0}
        updates = 0
        for _ in range(config.epochs):
            for part in np.array_split(np.arange(len(passes)), config.minibatches):
                chosen = [passes[index] for index in part]
                counts = torch.tensor([len(answers.token) for answers, *_ in chosen], dtype=torch.float32).sum()
                count = max(1.0, float(self.accelerator.reduce(counts.to(self.accelerator.device), "sum")))
                for number, (answers, old, reference, advantage, own) in enumerate(chosen):
                    last = number == len(chosen) - 1
                    with one_backward(self.accelerator, self.policy, last):
                        log_probs, entropy = self.policy(answers, self.preprocess.grid_hw, config.sampling.temperature)
                        terms = grpo_terms(
                            log_probs, old, log_probs.detach() if reference is None else reference, advantage,
                            config.clip_low, config.clip_high, config.kl_weight,
                        )  # fmt: skip
                        loss = terms.loss.sum() * self.accelerator.num_processes / count
                        if not torch.isfinite(loss):
                            self.stop("the loss", float(loss.detach()), rollouts[own], answers.pixel_values)
                        self.accelerator.backward(loss)
                    share = self.accelerator.num_processes / count
                    totals["loss"] += float(loss.detach())
                    totals["kl"] += float(terms.kl.sum()) * share
                    totals["entropy"] += float(entropy.sum()) * share
                    totals["clip_fraction"] += float(terms.clipped.sum()) * share
                totals["grad_norm"] += clip_gradients(self.accelerator, self.policy, config.clip_norm)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                updates += 1
        self.scheduler.step()
        return {name: value / updates for name, value in totals.items()} | {"lr": self.scheduler.get_last_lr()[0]}

    @torch.no_grad()
    def _targets(
        self, answers: Answers, rollouts: Sequence[Rollout], advantages: Sequence[npt.NDArray[np.float64]]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Of each decision: log-probability when drawn, under the reference, and its advantage."""
        device = answers.ids.device
        old = torch.from_numpy(np.concatenate([r.log_probs for r in rollouts])).to(device)
        flat = np.concatenate(advantages).astype(np.float32)
        reference = None
        if self.reference is not None:
            with autocast(self.accelerator):
                reference, _ = self.reference(answers, self.preprocess.grid_hw, self.config.sampling.temperature)
        return old, reference, torch.from_numpy(flat).to(device)
