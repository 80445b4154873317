"""A run of one of the tables: `training.sft`'s trainer on frames whose visual tokens are computed already.

The loop, optimiser, schedule, averaging, checkpoints and log are `training.sft.Trainer`'s; what differs is where a batch comes
from and that a picture is not encoded again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch

from getok_drive.errors import ConfigError
from getok_drive.tokens.elements import ElementTokens
from training.auxiliary import UNLABELLED
from training.collate import Batch, Layout, text_batch
from training.lora import Tuning
from training.losses import Losses
from training.model import load_checkpoint
from training.presets import SftConfig, Stage
from training.recipes.classification import ClassificationRecipe
from training.recipes.conversation import Conversation
from training.recipes.settings import REGION_FORMS, RecipeConfig
from training.representations.forms import FORMS
from training.representations.frames import Frames, encode, visual_tokens
from training.representations.lanes import LaneRecipe, lane_elements
from training.representations.places import PlacedPositions, marks_of
from training.representations.reader import add_bins, fresh_decoder, reading_losses
from training.representations.regions import drawn_question, outlined_picture
from training.sft import Trainer

TASKS = {"lanes": tuple(FORMS), "regions": REGION_FORMS}


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What makes a run of a table, beside `SftConfig`.

    Attributes:
        task: ``lanes`` (table 5) or ``regions`` (table 4).
        form: of the coordinates, see `TASKS`.
        frames: folder of the training frames.
        tower: checkpoint or bundle whose vision tower is taken, frozen.
        reading: one of `training.representations.reader.READINGS`.
        layers: of the decoder; 0: as the tower's own model.
        position_rule: see `training.representations.places`.
    """

    task: str
    form: str
    frames: str
    tower: str
    reading: str = "rewritten"
    layers: int = 0
    position_rule: str = "image"

    def __post_init__(self) -> None:
        if self.form not in TASKS.get(self.task, ()):
            known = "; ".join(f"{task}: {', '.join(forms)}" for task, forms in TASKS.items())
            raise ConfigError(f"task {self.task!r}, form {self.form!r}: expected one of {known}")


def sft_config(settings: RunSettings, steps: int, seed: int, image_size_wh: tuple[int, int]) -> SftConfig:
    """The trainer's settings, equal for all forms of a task."""
    domain = "driving" if settings.task == "lanes" else "classification"
    return SftConfig(
        stages=(Stage(steps, image_size_wh),), tuning=Tuning(train_vision=False, train_merger=False), seed=seed,
        batch_size=16, accumulate=2, learning_rate=1.5e-3, warmup_steps=max(1, steps // 16), weight_decay=0.05, dense_weight=0.0,
        ema_decay=0.99, recipe=RecipeConfig(domain=domain), workers=0, threads=1, log_every=10, eval_every=0, save_every=50,
    )  # fmt: skip


class FrameTrainer(Trainer):
    """`Trainer` on frames.

    Args:
        settings: of the run.
        config: see `sft_config`.
        out: run folder; the decoder's first weights are written into ``start`` below it.

    Raises:
        ConfigError: more than one process.
    """

    def __init__(self, settings: RunSettings, config: SftConfig, out: Path) -> None:
        start = out / "start"
        if not (start / "config.json").is_file():
            write_start(settings, config.seed, start)
        super().__init__(config, out, start)
        if self.accelerator.num_processes > 1:
            raise ConfigError("the tables' runs take one process; start several runs side by side instead")
        self.settings, self.frames = settings, Frames(Path(settings.frames))
        model = self.plain.model
        grid_h, grid_w = self.encoder.layout.pixels.preprocessor(self.frames.image_size_wh).grid_hw
        merge = self.encoder.layout.pixels.merge_size
        layout = self.encoder.layout
        self.collate = FrameCollator(layout, (grid_h // merge, grid_w // merge), marks_of(self.tokenizer, layout.first_id))
        self._visual = None if settings.form == "drawn" else visual_tokens(self.frames, model)
        self._sample = lru_cache(maxsize=None)(self.frames.__getitem__)
        self._elements = lru_cache(maxsize=None)(lambda index: lane_elements(self._sample(index)))

    def batches(self) -> Iterator[tuple[int, Stage, Batch]]:
        """See `Trainer.batches`; a batch is a function of its number and the seed, the same for all forms."""
        for step in range(self.step, self.config.total_steps):
            size = self.config.batch_size
            rows = [self._example(number) for number in range(step * size, (step + 1) * size)]
            conversations, visual = zip(*rows, strict=True)
            yield step, self.config.stage_at(step), self.collate(conversations, torch.stack(visual))

    def losses(self, batch: Batch, stage: Stage, token_weight: torch.Tensor | None = None, dense_share: float = 1.0) -> Losses:
        """See `Trainer.losses`."""
        return reading_losses(self.plain.model, batch, batch.pixel_values, self.settings.reading, token_weight)

    @lru_cache(maxsize=2)  # noqa: B019 - one trainer a process
    def _order(self, epoch: int) -> list[int]:
        return np.random.default_rng((self.config.seed, 1, epoch)).permutation(len(self.frames)).tolist()

    def _example(self, number: int) -> tuple[Conversation, torch.Tensor]:
        """Example ``number`` of the run and its picture's tokens."""
        epoch, at = divmod(number, len(self.frames))
        index = self._order(epoch)[at]
        rng = np.random.default_rng((self.config.seed, 2, number))
        if self.settings.task == "lanes":
            elements: list[ElementTokens] = self._elements(index)
            return self._lanes.write(self._sample(index), elements, rng), self._tokens(index)
        sample = self._sample(index)
        question = drawn_question(sample, rng)
        assert question is not None  # every frame of the world has its surface and traffic labelled
        conversation = self._regions.write(sample, question)
        if self.settings.form != "drawn":
            return conversation, self._tokens(index)
        picture = outlined_picture(self.frames.picture(index), question, sample.size_wh)
        return conversation, encode(self.plain.model, [picture], self.frames.image_size_wh)[0]

    def _tokens(self, index: int) -> torch.Tensor:
        assert self._visual is not None
        return torch.from_numpy(np.array(self._visual[index], np.float32))

    @cached_property
    def _lanes(self) -> LaneRecipe:
        return LaneRecipe(self.encoder, FORMS[self.settings.form])

    @cached_property
    def _regions(self) -> ClassificationRecipe:
        return ClassificationRecipe(self.encoder, self.settings.form)


@dataclass(frozen=True, slots=True)
class FrameCollator:
    """`training.collate.Collator` for pictures that are encoded, and for forms whose numbers have places.

    Attributes:
        layout: fixed token ids.
        merged_hw: visual tokens along the height and the width.
        marks: see `training.representations.places.marks_of`.
    """

    layout: Layout
    merged_hw: tuple[int, int]
    marks: dict[int, str]

    def prefix(self) -> tuple[list[int], PlacedPositions, np.ndarray]:
        """Ids before the text (pads for the picture), the positions that follow, and those of the ids ``(3, P)``."""
        spec = self.layout.position_spec(self.merged_hw)
        ids = [*self.layout.before, *[self.layout.image_pad] * (self.merged_hw[0] * self.merged_hw[1])]
        return ids, PlacedPositions(spec, self.marks), spec.prefix()

    def __call__(self, conversations: Sequence[Conversation], visual: torch.Tensor) -> Batch:
        """The batch; ``visual`` ``(B, K, D)`` stands in the place of its pixels, and nothing is labelled for the dense loss."""
        spec = self.layout.position_spec(self.merged_hw)
        dense = torch.full((len(conversations), 1, 1), UNLABELLED, dtype=torch.uint8)
        return text_batch(conversations, self.layout, spec, lambda: PlacedPositions(spec, self.marks), visual, dense)


def write_start(settings: RunSettings, seed: int, folder: Path) -> None:
    """Writes a fresh decoder on the settings' tower as an ordinary checkpoint; it depends on the seed, not on the form."""
    tower, tokenizer = load_checkpoint(Path(settings.tower))
    tokenizer = add_bins(tokenizer)
    model = fresh_decoder(tower, tokenizer, seed, settings.layers, settings.position_rule)
    partial = folder.with_suffix(".partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)
