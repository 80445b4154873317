"""Answers against labels: a row of sums for each picture, so that intervals can be drawn over pictures and over runs together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from getok_drive.errors import ConfigError
from getok_drive.tokens.codec import norm_to_px
from getok_drive.tokens.prompts import CLASSIFY_CHOICES
from getok_drive.tokens.vocab import TOKEN_ID
from training.collate import Layout
from training.metrics.assignment import assign_within
from training.metrics.culane import culane_counts
from training.metrics.polylines import TOLERANCE, lane_distances
from training.model import load_checkpoint
from training.recipes.classification import ClassificationRecipe
from training.recipes.conversation import IGNORE
from training.recipes.encoder import Encoder
from training.representations.answers import LaneAnswer, PictureConversations, converse, free_lanes, ruled_lanes
from training.representations.forms import FORMS
from training.representations.frames import Frames, encode, visual_tokens
from training.representations.places import marks_of
from training.representations.reader import picture_cache
from training.representations.regions import drawn_questions, outlined_picture
from training.representations.runs import FrameCollator, RunSettings
from training.samples import Sample

TOLERANCES = (TOLERANCE, 2 * TOLERANCE, 4 * TOLERANCE)
LANE_COLUMNS = (
    *(f"{name}@{t:g}" for t in TOLERANCES for name in ("tp", "fp", "fn")), "culane_tp", "culane_fp", "culane_fn",
    "lanes_written", "malformed", "pictures", "incomplete", "offsets_bad", "tokens", "miss_sum", "lanes",
)  # fmt: skip
FARTHEST = 0.25  # of the width: a labelled lane without any written one near counts as missed by so much
_BATCH = 50


def lane_row(sample: Sample, answer: LaneAnswer) -> list[float]:
    """One picture's sums, in the order of `LANE_COLUMNS`."""
    truth = [lane.points_px for lane in sample.lanes]
    said = [norm_to_px(lane, sample.size_wh) for lane in answer.lanes]
    distances = lane_distances(truth, said)
    row: list[float] = []
    for tolerance in TOLERANCES:  # as `training.metrics.polylines.polyline_counts`, the distances computed once
        hits = len(assign_within(distances, tolerance * sample.size_wh[0])[0])
        row += [hits, len(said) - hits, len(truth) - hits]
    row += culane_counts(truth, said, sample.size_wh, (0.5,))[0].tolist()
    written = len(said) + answer.malformed
    row += [written, answer.malformed, 1, not answer.complete, answer.bad_offsets, answer.tokens]
    misses = distances.min(axis=1, initial=FARTHEST * sample.size_wh[0]) / sample.size_wh[0]
    return [*row, float(misses.sum()), len(truth)]


class Examiner:
    """A finished run, and the frames that it is asked about.

    Args:
        settings: of the run.
        folder: its exported weights.
        frames: to ask about.
    """

    def __init__(self, settings: RunSettings, folder: Path, frames: Frames) -> None:
        self.settings, self.frames = settings, frames
        model, tokenizer = load_checkpoint(folder)
        self.model = model.eval().requires_grad_(False)
        self.encoder = Encoder(tokenizer, Layout.of(tokenizer, model.config))
        layout = self.encoder.layout
        rows, columns = layout.pixels.preprocessor(frames.image_size_wh).grid_hw
        merge = layout.pixels.merge_size
        self.collate = FrameCollator(layout, (rows // merge, columns // merge), marks_of(tokenizer, layout.first_id))

    def lanes(self, ruled: bool = False) -> list[list[float]]:
        """`lane_row` of every frame.

        Args:
            ruled: under the runtime's grammar, which only grid forms have.

        Raises:
            ConfigError: a grammar is asked for that there is not.
        """
        form = FORMS[self.settings.form]
        if ruled and not self.settings.form.startswith("grid"):
            raise ConfigError(f"form {self.settings.form}: there is no grammar for it, only for grid tokens")
        tokens = visual_tokens(self.frames, self.model)
        rows: list[list[float]] = []
        for start in range(0, len(self.frames), _BATCH):
            samples = [self.frames[index] for index in range(start, min(start + _BATCH, len(self.frames)))]
            visual = torch.from_numpy(np.array(tokens[start : start + len(samples)], np.float32))
            with torch.no_grad():
                conversations = PictureConversations(self.model, self.collate, visual, self.settings.reading)
            talks = [
                ruled_lanes(self.encoder, form, sample.size_wh) if ruled else free_lanes(self.encoder, form) for sample in samples
            ]
            answers = converse(conversations, talks)
            rows += [lane_row(sample, answer) for sample, answer in zip(samples, answers, strict=True)]
        return rows

    @torch.no_grad()
    def regions(self) -> list[dict[str, Any]]:
        """One question of each of the table's rows about each frame.

        Returns:
            Picture, row, right word, the likeliest of the choices, and whether the likeliest of all tokens is one of them.
        """
        recipe = ClassificationRecipe(self.encoder, self.settings.form)
        tokens = visual_tokens(self.frames, self.model)
        found: list[dict[str, Any]] = []
        for index in range(len(self.frames)):
            sample = self.frames[index]
            asked = drawn_questions(sample, np.random.default_rng((7, index)))
            plain = torch.from_numpy(np.array(tokens[index], np.float32))
            visual = torch.stack([self._visual(index, sample, question, plain) for question in asked.values()])
            batch = self.collate([recipe.write(sample, question) for question in asked.values()], visual)
            scores = self._first_scores(batch)
            for (row, question), own in zip(asked.items(), scores, strict=True):
                choices = CLASSIFY_CHOICES[question.attribute]
                ids = self.encoder.table([TOKEN_ID[f"<{word}>"] for word in choices])
                said = choices[int(own[ids].argmax())]
                found.append(
                    {"picture": index, "row": row, "right": question.answer, "said": said, "free": int(own.argmax()) in ids}
                )
        return found

    def _visual(self, index: int, sample: Sample, question: Any, plain: torch.Tensor) -> torch.Tensor:
        if self.settings.form != "drawn" or not len(question.points_px):
            return plain
        picture = outlined_picture(self.frames.picture(index), question, sample.size_wh)
        return encode(self.model, [picture], self.frames.image_size_wh)[0]

    def _first_scores(self, batch: Any) -> torch.Tensor:
        """Scores of the first taught token of each row, ``(B, vocabulary)``."""
        stop = batch.visual.stop
        embedded = self.model.get_input_embeddings()(batch.ids)
        prefix = torch.cat((embedded[:, : batch.visual.start], batch.pixel_values), dim=1)
        cache = picture_cache(self.model, prefix, batch.positions[:, :, :stop], self.settings.reading)
        hidden = self.model.model.language_model(
            inputs_embeds=embedded[:, stop:], position_ids=batch.positions[:, :, stop:], past_key_values=cache, use_cache=True
        ).last_hidden_state
        at = (batch.labels != IGNORE).int().argmax(1) - stop - 1
        return self.model.lm_head(hidden[torch.arange(len(at)), at]).float()
