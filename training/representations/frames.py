"""Frames: pictures at the model's size with their labels, on disk, so that every run of a table sees the very same ones.

A folder holds ``pictures.npy`` ``(N, H, W, 3)`` uint8 BGR and ``labels.jsonl``, a record of `training.datasets.jsonl` a line, in
pixels of the size that the world was rendered at. What a frozen vision tower makes of the pictures is kept beside them, in a
file named after the tower's weights: ``visual-HASH.npy`` ``(N, K, D)`` float16.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from getok_drive.errors import ConfigError
from getok_drive.preprocess import resize
from getok_drive.types import ImageBgr
from training.datasets import world
from training.datasets.jsonl import labels_of, record_of
from training.samples import Sample
from training.visual import Pixels, encode_pictures

_BATCH = 32


class Frames(Sequence[Sample]):
    """The frames of a folder. A sample's own picture is blank (only its size counts); see `picture`.

    Args:
        folder: as `write_frames` leaves it.

    Raises:
        ConfigError: it holds no frames.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._pictures: npt.NDArray[np.uint8] = np.load(folder / "pictures.npy", mmap_mode="r")
            lines = (folder / "labels.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError(
                f"{folder}: no frames here ({error}); write them with python -m training.representations frames"
            ) from error
        self._lines = lines[: len(self._pictures)]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        record = json.loads(self._lines[index])
        width, height = record["size_wh"]
        blank = np.broadcast_to(np.zeros(1, np.uint8), (height, width, 3))
        labels = labels_of(record, blank, self.folder)
        return Sample(
            blank, labels.lanes, labels.drivable, labels.boxes, labels.signs, labels.scene, labels.known, meta=labels.meta
        )

    def picture(self, index: int) -> ImageBgr:
        """``(H, W, 3)`` at the model's size."""
        return np.array(self._pictures[index])

    @property
    def image_size_wh(self) -> tuple[int, int]:
        """Size of the pictures, pixels."""
        return self._pictures.shape[2], self._pictures.shape[1]


def write_frames(folder: Path, seeds: range, image_size_wh: tuple[int, int], render_size_wh: tuple[int, int]) -> None:
    """Renders the world's frames of these seeds; goes on where an earlier call was stopped.

    Args:
        folder: created if need be.
        seeds: of the world.
        image_size_wh: the model's input, pixels.
        render_size_wh: size to render at, pixels.

    Raises:
        ConfigError: other frames are there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    width, height = image_size_wh
    shape = (len(seeds), height, width, 3)
    path, labels = folder / "pictures.npy", folder / "labels.jsonl"
    new = not path.is_file()
    pictures = np.lib.format.open_memmap(path, "w+" if new else "r+", np.uint8, shape if new else None)
    if pictures.shape != shape:
        raise ConfigError(f"{path}: holds frames of shape {pictures.shape}, asked for were {shape}; take another folder")
    lines = [] if new or not labels.is_file() else labels.read_text(encoding="utf-8").splitlines()
    if len(lines) >= len(seeds):
        return
    with labels.open("w", encoding="utf-8", buffering=1) as file:
        file.writelines(line + "\n" for line in lines)
        for index in tqdm(range(len(lines), len(seeds)), desc="frames", mininterval=5):
            sample = world.render(seeds[index], render_size_wh)
            pictures[index] = resize(sample.image_bgr, image_size_wh)
            file.write(json.dumps(record_of(sample, f"world:{seeds[index]}")) + "\n")
    pictures.flush()


@torch.no_grad()
def visual_tokens(frames: Frames, model: PreTrainedModel) -> npt.NDArray[np.float16]:
    """What the model's tower makes of all frames, ``(N, K, D)``: computed once, then read from the frames' folder.

    Args:
        frames: pictures of the size that the model takes.
        model: with the tower; its file is named after a hash of the tower's weights.
    """
    path = frames.folder / f"visual-{tower_hash(model)}.npy"
    if not path.is_file():
        partial, done = path.with_suffix(".partial.npy"), path.with_suffix(".done")
        first = int(done.read_text()) if done.is_file() and partial.is_file() else 0
        found: npt.NDArray[np.float16] | None = np.lib.format.open_memmap(partial, "r+") if first else None
        for start in tqdm(range(first, len(frames), _BATCH), desc="visual tokens", mininterval=5):
            pictures = [frames.picture(index) for index in range(start, min(start + _BATCH, len(frames)))]
            tokens = encode(model, pictures, frames.image_size_wh).numpy().astype(np.float16)
            if found is None:
                found = np.lib.format.open_memmap(partial, "w+", np.float16, (len(frames), *tokens.shape[1:]))
            found[start : start + len(tokens)] = tokens
            done.write_text(str(start + _BATCH))
        del found
        partial.rename(path)
        done.unlink()
    tokens_of_all: npt.NDArray[np.float16] = np.load(path, mmap_mode="r")
    return tokens_of_all


def encode(model: PreTrainedModel, pictures: Sequence[ImageBgr], image_size_wh: tuple[int, int]) -> Tensor:
    """Visual tokens ``(B, K, D)`` of pictures, through the runtime's own preprocessing."""
    preprocessor = Pixels.of(model.config).preprocessor(image_size_wh)
    pixels = torch.from_numpy(np.stack([preprocessor(picture)[0] for picture in pictures]))
    with torch.no_grad():
        return encode_pictures(model, pixels, preprocessor.grid_hw).tokens.float()


def tower_hash(model: PreTrainedModel) -> str:
    """Twelve hexadecimal digits that name the tower's weights."""
    digest = hashlib.sha256()
    state: dict[str, Any] = model.model.visual.state_dict()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(state[name].float().numpy()).tobytes())
    return digest.hexdigest()[:12]
