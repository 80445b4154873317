"""Optimisers, the learning rate's course, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from training.losses import TrainedModel
from training.muon import Muon
from training.presets import SftConfig
from training.sharding import local


def learning_rate_factor(step: int, config: SftConfig) -> float:
    """Linear warm-up, the peak, and over the last ``decay_steps`` a cosine down to ``final_lr_ratio``."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    decay_steps = config.decay_steps or config.total_steps - config.warmup_steps
    return config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine_tail(step, config.total_steps, decay_steps)


def cosine_tail(step: int, steps: int, decay_steps: int) -> float:
    """1, and over the last ``decay_steps`` of ``steps`` half a cosine down to 0."""
    progress = max(0.0, 1 - (steps - step) / max(1, decay_steps))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def build_optimizers(model: TrainedModel, config: SftConfig) -> list[torch.optim.Optimizer]:
    """AdamW (no decay on vectors and the table's rows), with Muon for the blocks' matrices when asked for."""
    named = list(_learning(model))
    muon = [p for name, p in named if (p.ndim == 2 and ".blocks." in name) or (".layers." in name and p.ndim == 2)]
    if config.optimizer != "muon":
        muon = []
    taken = {id(p) for p in muon}
    rest = [(name, p) for name, p in named if id(p) not in taken]
    rows = [p for name, p in rest if "trainable_tokens_delta" in name]  # the token table's, under LoRA
    rest = [(name, p) for name, p in rest if "trainable_tokens_delta" not in name]
    groups = [
        {"params": [p for _, p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for _, p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if rows:
        groups.append({"params": rows, "weight_decay": 0.0, "lr": config.learning_rate * config.tuning.rows_lr_ratio})
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)]
    if muon:
        optimizers.append(Muon(muon, lr=config.learning_rate, weight_decay=config.weight_decay))
    return optimizers


def _learning(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


class Averaged:
    """Exponential moving average of the weights, with a warm-up so that early weights fade."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = {name: p.detach().clone() for name, p in _learning(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards the model's weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own, new = zip(*((self.values[name], p.detach()) for name, p in _learning(model)), strict=True)
        torch._foreach_lerp_(list(own), list(new), 1 - decay)

    def state(self) -> tuple[int, dict[str, torch.Tensor]]:
        """What `restore` takes; of weights that are spread over processes this process's part."""
        return self.updates, {name: local(value) for name, value in self.values.items()}

    @torch.no_grad()
    def restore(self, state: tuple[int, dict[str, torch.Tensor]]) -> None:
        """Continues from another average's `state`."""
        self.updates = state[0]
        for name, value in self.values.items():
            local(value).copy_(state[1][name])

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """The model has the average's weights while this is open, and gets its own back."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, p in _learning(model):
            kept = p.detach().clone()
            p.copy_(self.values[name])
            self.values[name] = kept
