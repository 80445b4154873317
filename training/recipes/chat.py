"""Conversations that are written already: LLaVA's layout (domain ``chat``), which `training.offset_data` writes, too.

A record has ``image`` and ``conversations``: ``{"from": "human" | "gpt", "value": text}`` in turns, ``<image>`` in the first.
Every answer is taught; nothing in these texts reads as a token of the table (``offset`` has a recipe of its own for that).

``image`` is a path below the file's folder, ``world:SEED``, or ``KIND:PATH`` as the readers name pictures, where the file lies in
that data set's folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from getok_drive.errors import InputError
from getok_drive.images import read_image
from getok_drive.tokens import prompts
from training.datasets import world
from training.datasets.reading import read_json, read_json_lines
from training.recipes.conversation import Conversation
from training.recipes.encoder import Encoder
from training.samples import Sample

_WORLD_SIZE_WH = (448, 252)


class ChatList(Sequence[Sample]):
    """The pictures of a file of conversations; each sample holds its record in ``meta["chat"]`` and labels nothing.

    Args:
        path: ``.jsonl``, a record a line, or ``.json``, a list of records.

    Raises:
        InputError: not such a file.
    """

    def __init__(self, path: Path) -> None:
        records = read_json_lines(path) if path.suffix == ".jsonl" else read_json(path)
        if not isinstance(records, list):
            raise InputError(f"{path}: expected a list of conversations")
        self._path, self._records = path, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        record = self._records[index]
        where = f"{self._path}: record {index + 1}"
        if not isinstance(record, dict) or not isinstance(record.get("image"), str):
            raise InputError(f"{where}: expected an object with image and conversations")
        turns = record.get("conversations")
        if not isinstance(turns, list) or not all(isinstance(t, dict) and {"from", "value"} <= t.keys() for t in turns):
            raise InputError(f"{where}: conversations must be a list of turns with from and value")
        if [turn["from"] for turn in turns] != ["human", "gpt"] * (len(turns) // 2) or not turns:
            raise InputError(f"{where}: turns must be human, gpt, human, gpt, ...")
        return Sample(self._image(record["image"], where), known=(), meta={"source": where, "chat": turns})

    def _image(self, name: str, where: str) -> Any:
        if match := re.fullmatch(r"world:(\d+)", name):
            return world.render(int(match[1]), _WORLD_SIZE_WH).image_bgr
        places = [self._path.parent / name, self._path.parent / name.partition(":")[2]]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise InputError(f"{where}: no picture {name!r} below {self._path.parent}; put the file into the data set's folder")
        return read_image(path)


@dataclass(frozen=True, slots=True, eq=False)
class ChatRecipe:
    """The conversation of a record, every answer taught.

    Attributes:
        encoder: of the model.
        weight: of the answers' tokens.
    """

    encoder: Encoder
    weight: float = 1.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Conversation | None:
        """The conversation; nothing is drawn."""
        turns = [prompts.plain_text(str(turn["value"]).replace("<image>", " ")) for turn in sample.meta["chat"]]
        script = self.encoder.open(prompts.chat_segments(turns[0]))
        for number in range(1, len(turns), 2):
            script.teach(self.encoder.text(turns[number]), weight=self.weight)
            if number + 1 < len(turns):
                following = self.encoder.text(prompts.next_turn(turns[number + 1]))
                script.teach(following[:1], weight=self.weight)  # the turn's end is the model's own to write
                script.read(following[1:])
        self.encoder.end(script)
        return script.conversation(sample)
