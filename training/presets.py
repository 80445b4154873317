"""Every setting of supervised training, in one dataclass; presets by name; ``key=value`` overrides from the command line."""

from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from getok_drive.errors import ConfigError
from training.auxiliary import DENSE_CHANNELS
from training.lora import Tuning
from training.recipes.conversation import LossWeights
from training.recipes.settings import RecipeConfig
from training.targets import Noise
from training.vocabulary import TOKEN_INITS

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of training at one image size.

    Attributes:
        steps: optimiser steps.
        image_size_wh: the model's input, pixels (multiples of a visual token: 32 for nano, 28 for Qwen2.5-VL, 32 for Qwen3-VL).
        dense_only: train the vision tower on the dense labels alone; several times cheaper than with the decoder.
        vision_gradient: scale of the language loss's gradient where it enters the vision tower; a short stage at 0 lets a fresh
            decoder catch up with a tower that is trained already.
    """

    steps: int
    image_size_wh: tuple[int, int]
    dense_only: bool = False
    vision_gradient: float = 1.0


@dataclass(frozen=True, slots=True)
class SftConfig:
    """Settings of ``python -m training.sft``.

    Attributes:
        size: shape of the model, a key of ``training.model.SIZES``; without meaning where ``base`` is given.
        base: released model to begin with, a local folder or a hub name (docs/base_models.md).
        tuning: which weights learn and how, see `training.lora.Tuning` (``tuning.NAME=value``).
        token_init: what the rows of the token table start from: ``spatial`` (neighbouring grid tokens alike) or ``random``.
        stages: run one after the other under one course of the learning rate.
        batch_size: images per process and optimiser step.
        accumulate: backward passes per optimiser step; a batch is cut into this many parts.
        learning_rate: peak, reached after ``warmup_steps``; over the last ``decay_steps`` (0: all the rest) it falls to
            ``final_lr_ratio`` of it. A run with a plateau can be prolonged from any checkpoint on it.
        optimizer: ``adamw``, or ``muon`` (`training.muon` on the blocks' matrices, AdamW on everything else).
        dense_weight: weight of the auxiliary loss on the visual tokens.
        dense_positive_weights: weight of occupied subcells in that loss, one for each of ``training.auxiliary.DENSE_CHANNELS``.
        dense_class_weight: in that loss, weight of a subcell at the centre of a box or sign, whose class is asked; an empty
            subcell's occupancy counts 1.
        dense_way_weights: in that loss, weight of a cell's way to a corner of a box and to a lane, see
            `training.auxiliary.corner_labels` and `lane_labels`.
        recipe: the data, see `training.recipes.settings.RecipeConfig` (``recipe.NAME=value``).
        ema_decay: of the averaged weights that are evaluated and shipped; 0 switches averaging off.
        render_size_wh: size at which the world renders training pictures; ``None``: the stage's image size.
        workers: processes that render and collate.
        threads: torch's threads on the CPU; 0 leaves torch's choice.
        compile: ``torch.compile`` for the blocks (pays on GPUs and in long runs).
    """

    size: str = "nano"
    base: str = ""
    tuning: Tuning = field(default_factory=Tuning)
    token_init: str = "spatial"
    stages: tuple[Stage, ...] = (Stage(1000, (512, 256)),)
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-3
    final_lr_ratio: float = 0.02
    warmup_steps: int = 200
    decay_steps: int = 0
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    optimizer: str = "adamw"
    dense_weight: float = 1.0
    dense_positive_weights: tuple[float, ...] = (8.0, 3.0, 5.0, 15.0, 15.0, 30.0, *[30.0] * 6)
    dense_class_weight: float = 0.0
    dense_way_weights: tuple[float, float] = (0.0, 0.0)
    ema_decay: float = 0.999
    noise: Noise = field(default_factory=Noise)
    loss_weights: LossWeights = field(default_factory=LossWeights)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    refine_points: int = 24
    render_size_wh: tuple[int, int] | None = None
    seed: int = 0
    workers: int = 1
    threads: int = 0
    compile: bool = False
    log_every: int = 20
    eval_every: int = 1000
    eval_images: int = 64
    save_every: int = 500

    def __post_init__(self) -> None:
        if self.batch_size % self.accumulate:
            raise ConfigError(f"accumulate={self.accumulate} must divide batch_size={self.batch_size}")
        if len(self.dense_positive_weights) != len(DENSE_CHANNELS):
            raise ConfigError(f"dense_positive_weights: expected one for each of {', '.join(DENSE_CHANNELS)}")
        if self.optimizer not in ("adamw", "muon"):
            raise ConfigError(f"optimizer={self.optimizer!r}: expected adamw or muon")
        if self.token_init not in TOKEN_INITS:
            raise ConfigError(f"token_init={self.token_init!r}: expected one of {', '.join(TOKEN_INITS)}")

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage in which this step (from 0) falls."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]


# Signs are a twentieth of a scene's text; boxes below 4 % of the height are a quarter of all boxes, and 7 rows of the input. A
# pedestrian is 6 px wide (median), half a cell: without exact offsets there is no box.
_FROM_SCRATCH = LossWeights(offset=(1.0, 0.8, 0.5), kinds=(1.0, 0.8, 1.7, 2.4))
_SCENES = RecipeConfig(least_box_height=0.04, refine_odds=(1.0, 0.7, 3.0, 0.7))

PRESETS: dict[str, SftConfig] = {
    "tiny": SftConfig(
        size="tiny", stages=(Stage(4, (112, 56), True), Stage(8, (112, 56))), batch_size=4, warmup_steps=2, workers=0,
        log_every=1, eval_every=0, save_every=4, eval_images=4, dense_class_weight=60.0,
    ),
    "nano": SftConfig(
        stages=(Stage(1500, (512, 256), True), Stage(100, (512, 256), False, 0.0), Stage(4000, (512, 256))),
        accumulate=4, learning_rate=8e-4, decay_steps=1500, ema_decay=0.995, render_size_wh=(448, 252), refine_points=32,
        dense_weight=4.0, dense_class_weight=60.0, dense_way_weights=(60.0, 25.0), noise=Noise(slip=0.15),
        loss_weights=_FROM_SCRATCH, recipe=_SCENES,
    ),
    "nano-gpu": SftConfig(
        stages=(
            Stage(3000, (512, 256), True), Stage(200, (512, 256), False, 0.0), Stage(7000, (512, 256)),
        ), batch_size=128, dense_weight=4.0, dense_class_weight=60.0, dense_way_weights=(60.0, 25.0), render_size_wh=(448, 252),
        refine_points=32, noise=Noise(slip=0.15), loss_weights=_FROM_SCRATCH, recipe=_SCENES,
        workers=14, compile=True, save_every=1000, eval_every=2000,
    ),
    # The paper's settings; where it is silent, those of ms-swift, which it used: alpha, weight decay, warm-up, a frozen tower.
    "qwen2.5-vl-7b": SftConfig(
        base="Qwen/Qwen2.5-VL-7B-Instruct",
        tuning=Tuning(64, train_vision=False, train_merger=False, dtype="bfloat16", gradient_checkpointing=True),
        stages=(Stage(10_000, (840, 840)),), batch_size=16, accumulate=8, learning_rate=1e-6, final_lr_ratio=0.0,
        warmup_steps=500, weight_decay=0.1, dense_weight=0.0, ema_decay=0.0, workers=8,
    ),
    # For embedded use: a small input, and the tower adapted to it; its rates are this project's choice.
    "qwen3-vl-2b": SftConfig(
        base="Qwen/Qwen3-VL-2B-Instruct",
        tuning=Tuning(64, lora_alpha=64, dtype="bfloat16", gradient_checkpointing=True, rows_lr_ratio=5.0),
        stages=(Stage(10_000, (640, 384)),), batch_size=32, accumulate=4, learning_rate=1e-4,
        warmup_steps=300, weight_decay=0.01, dense_weight=0.0, ema_decay=0.0, workers=8,
    ),
}  # fmt: skip


def override(config: ConfigT, settings: list[str]) -> ConfigT:
    """``config`` with ``key=value`` settings applied; ``a.b=value`` reaches nested dataclasses; values are Python literals.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type.
    """
    values: dict[str, str] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"{setting!r}: expected key=value")
        values[key] = text
    changed: ConfigT = _set(config, values)
    return changed


def _set(node: Any, values: dict[str, str], within: str = "") -> Any:
    """``node`` with all of its values changed at once: what they must fulfil together is checked when all are there."""
    names = [f.name for f in dataclasses.fields(node)]
    changed: dict[str, Any] = {}
    parts: dict[str, dict[str, str]] = {}
    for path, text in values.items():
        name, dot, rest = path.partition(".")
        if name not in names:
            raise ConfigError(f"unknown setting {within + path!r}; known here: {', '.join(names)}")
        if not dot:
            changed[name] = _value(getattr(node, name), text, within + path)
        elif dataclasses.is_dataclass(getattr(node, name)):
            parts.setdefault(name, {})[rest] = text
        else:
            raise ConfigError(f"{within + path!r}: {name} has no parts")
    for name, own in parts.items():
        changed[name] = _set(changed.get(name, getattr(node, name)), own, f"{within}{name}.")
    return replace(node, **changed)


def _value(old: Any, text: str, key: str) -> Any:
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ConfigError(f"{key}={text!r}: not a Python literal") from None
    if isinstance(old, tuple) and old and isinstance(old[0], Stage):
        try:
            return tuple(Stage(steps, tuple(size), *rest) for steps, size, *rest in value)
        except (TypeError, ValueError):
            raise ConfigError(f"{key}={text}: expected ((steps, (width, height), dense_only, vision_gradient), ...)") from None
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if old is not None and type(value) is not type(old):
        raise ConfigError(f"{key}={text}: expected {type(old).__name__}, got {type(value).__name__}")
    return value
