"""Domain ``offset``: grid points are given in the user's turn, the assistant answers each with offsets or ``<DELETE>``.

The records are those of `training.offset_data` (algorithm 1 of the paper), read from its JSONL or made on the fly from the masks,
lanes and areas of any data set: another draw in every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.tokens import prompts
from getok_drive.tokens.codec import from_text, px_to_norm
from getok_drive.tokens.vocab import GRID_SIZE, OFFSET_ROUNDS, TABLE, TOKEN_ID
from getok_drive.types import DrivableArea, Lane
from training.object_masks import described_masks
from training.offset_answers import OffsetSettings, box_anchors, mask_anchors
from training.offset_data import conversation
from training.offset_shapes import polygon_anchors, polyline_anchors
from training.recipes.conversation import Conversation, LossWeights
from training.recipes.encoder import Encoder
from training.recipes.refining import Group, write_refinement
from training.samples import Sample


@dataclass(frozen=True, slots=True, eq=False)
class OffsetRecipe:
    """Grid points of one object, and the offsets to them.

    Attributes:
        encoder: of the model.
        weights: of the offsets.
        most_points: that are taught at once.
        settings: of records that are made on the fly.
    """

    encoder: Encoder
    weights: LossWeights
    most_points: int
    settings: OffsetSettings = field(default_factory=lambda: OffsetSettings(rounds=OFFSET_ROUNDS))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Conversation | None:
        """The conversation; ``rng`` draws the object, its points, and the part that is taught where there are too many."""
        turns = sample.meta.get("chat") or drawn_record(sample, self.settings, rng)
        if turns is None:
            return None
        question, answer = (str(turn["value"]) for turn in turns[:2])
        script = self.encoder.open(prompts.chat_segments(question.replace("<image>", "").strip()))
        groups = offset_groups(answer, str(sample.meta.get("source", "offset data")))
        write_refinement(script, groups, self.encoder.layout.first_id, self.weights.offset, self.most_points, rng)
        self.encoder.end(script)
        return script.conversation(sample)


def drawn_record(sample: Sample, settings: OffsetSettings, rng: np.random.Generator) -> Sequence[Mapping[str, Any]] | None:
    """The turns about one object of a sample, as `training.offset_data` writes them; None where it has none."""
    items: list[tuple[str, npt.NDArray[np.bool_]] | Lane | DrivableArea] = [
        *described_masks(sample),
        *sample.lanes,
        *sample.drivable,
    ]
    if not items:
        return None
    item = items[int(rng.integers(len(items)))]
    if isinstance(item, tuple):
        query, mask = item
        resized = cv2.resize(mask.astype(np.uint8), settings.size_wh, interpolation=cv2.INTER_NEAREST)
        if not resized.any():
            return None
        kind = "mask" if rng.random() < 0.5 else "box"
        anchors = (mask_anchors if kind == "mask" else box_anchors)(resized, settings, rng)
        return conversation("", query, kind, anchors)["conversations"]
    if isinstance(item, Lane):
        anchors = polyline_anchors(px_to_norm(item.points_px, sample.size_wh), settings.rounds, rng)
        return conversation("", f"{item.color} {item.type} lane", "lane", anchors)["conversations"]
    anchors = polygon_anchors(px_to_norm(item.polygon_px, sample.size_wh), settings.rounds, rng)
    return conversation("", "drivable area", "drivable", anchors)["conversations"]


def offset_groups(answer: str, where: str) -> list[Group]:
    """The grid points of a written refinement and the offsets to each, a group a point.

    Raises:
        InputError: a text that is not ``<offset>``, then grid tokens with offsets or ``<DELETE>``, ``</offset>``.
    """
    ids = from_text(answer)
    if len(ids) < 3 or ids[0] != TOKEN_ID["<offset>"] or ids[-1] != TOKEN_ID["</offset>"] or ids[1] >= GRID_SIZE**2:
        raise InputError(f"{where}: expected <offset> GRID OFFSETS ... </offset>, got {answer[:60]!r}")
    points: list[tuple[int, list[int]]] = []
    for token in ids[1:-1]:
        if 0 <= token < GRID_SIZE**2:
            points.append((token, []))
        elif TABLE.offset_base <= token <= TABLE.delete:
            points[-1][1].append(token)
        else:
            raise InputError(f"{where}: a token in <offset> that is neither a grid token nor an offset")
    if any(not answers for _, answers in points):
        raise InputError(f"{where}: a grid token without an answer")
    return [Group(np.array([cell], np.int32), np.array([answers], np.int32)) for cell, answers in points]
