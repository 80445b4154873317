"""The masks that a segmenter proposes at the grid points of one image: packed to bits, each different mask once, kept on disk."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.tokens.codec import Ids, cells_to_points_px
from getok_drive.tokens.vocab import GRID_SIZE
from getok_drive.types import ImageBgr
from training.segmenters import Segmenter

Words = npt.NDArray[np.uint64]


def pack(masks: npt.ArrayLike) -> Words:
    """``(N, H, W)`` bool as ``(N, ceil(H W / 64))`` words of 64 pixels, padded with zeros."""
    array = np.asarray(masks, dtype=bool)
    bits = np.packbits(array.reshape(len(array), -1), axis=1)
    return np.ascontiguousarray(np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))).view(np.uint64)


def unpack(words: Words, size_wh: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The inverse of `pack`."""
    width, height = size_wh
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, count=width * height)
    return bits.reshape(-1, height, width).astype(bool)


_ONES = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)


def count_ones(words: Words) -> npt.NDArray[np.int64]:
    """Number of set bits along the last axis."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        ones: npt.NDArray[np.uint8] = np.bitwise_count(words)
    else:
        ones = _ONES[np.ascontiguousarray(words).view(np.uint8)]
    return np.asarray(ones.sum(axis=-1, dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """What the segmenter says at some grid points.

    Attributes:
        size_wh: of the image, pixels.
        cells: ``(N,)`` int32, the prompted grid points.
        index: ``(N,)`` int32, the mask of each point in ``words``.
        words: ``(M, ...)`` the M <= N different masks, see `pack`.
        scores: ``(N,)`` float32, the segmenter's own guess of quality.
    """

    size_wh: tuple[int, int]
    cells: Ids
    index: Ids
    words: Words
    scores: npt.NDArray[np.float32]

    def mask(self, cell: int) -> npt.NDArray[np.bool_]:
        """``(H, W)`` mask of a prompted cell."""
        at = np.flatnonzero(self.cells == cell)
        if not len(at):
            raise InputError(f"proposals: cell {cell} was not prompted")
        return unpack(self.words[self.index[at[:1]]], self.size_wh)[0]


def from_batches(batches: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]], cells: npt.ArrayLike) -> Proposals:
    """Proposals from batches of masks ``(B, H, W)`` and scores ``(B,)``, in the order of ``cells (N,)``, which are ascending.

    Raises:
        InputError: no cell, cells that are not ascending, or another number of masks than of cells.
    """
    given = np.asarray(cells, dtype=np.int32)
    if not len(given) or (np.diff(given) <= 0).any():
        raise InputError("proposals: expected at least one cell, in ascending order")
    packed, scores, size_wh = [], [], (0, 0)
    for masks, quality in batches:
        array = np.asarray(masks, dtype=bool)
        size_wh = (array.shape[2], array.shape[1])
        packed.append(pack(array))
        scores.append(np.asarray(quality, dtype=np.float32))
    words, index = np.unique(np.concatenate(packed), axis=0, return_inverse=True)
    if index.size != len(given):
        raise InputError(f"proposals: {index.size} masks for {len(given)} cells")
    return Proposals(size_wh, given, index.reshape(-1).astype(np.int32), words, np.concatenate(scores))


def propose(
    segmenter: Segmenter, image_bgr: ImageBgr, cells: npt.ArrayLike | None = None, box_xyxy_px: npt.ArrayLike | None = None
) -> Proposals:
    """Prompt a segmenter at grid points (all ``n * n`` unless told) of one image, which it encodes once.

    Args:
        cells: ascending local grid ids.
        box_xyxy_px: a box that accompanies every point.
    """
    given = np.arange(GRID_SIZE**2) if cells is None else np.asarray(cells)
    points_px = cells_to_points_px(given, (image_bgr.shape[1], image_bgr.shape[0]))
    return from_batches(segmenter.propose(image_bgr, points_px, box_xyxy_px), given)


# --- on disk -----------------------------------------------------------------------------------------------------------


def cache_path(folder: Path, segmenter: Segmenter, image_bgr: ImageBgr) -> Path:
    """Where the proposals of all grid points are kept: named by the segmenter, the grid and the image's very pixels."""
    key = hashlib.sha256(f"{segmenter.name}|{GRID_SIZE}|{image_bgr.shape}|".encode())
    key.update(np.ascontiguousarray(image_bgr).tobytes())
    return folder / f"{key.hexdigest()[:32]}.npz"


def _read(path: Path, size_wh: tuple[int, int]) -> Proposals | None:
    """The proposals of a cache file, or None if it is missing, cut short or does not fit."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            found: dict[str, Any] = {name: stored[name] for name in ("cells", "index", "words", "scores")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    cells, index, words, scores = found["cells"], found["index"], found["words"], found["scores"]
    fits = (
        len(cells) == len(index) == len(scores) == GRID_SIZE**2
        and words.ndim == 2
        and words.dtype == np.uint64
        and words.shape[1] == -(-size_wh[0] * size_wh[1] // 64)
        and index.min() >= 0
        and index.max() < len(words)
    )
    return Proposals(size_wh, cells, index, words, scores) if fits else None


def cached_proposals(segmenter: Segmenter, image_bgr: ImageBgr, folder: Path | None) -> Proposals:
    """Proposals of all grid points, from the cache when it has them.

    A file is written under another name first, so that a run that is killed leaves no half file; a damaged one is made again.

    Args:
        folder: the cache; None: keep nothing.
    """
    if folder is None:
        return propose(segmenter, image_bgr)
    path = cache_path(folder, segmenter, image_bgr)
    kept = _read(path, (image_bgr.shape[1], image_bgr.shape[0]))
    if kept is not None:
        return kept
    made = propose(segmenter, image_bgr)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, cells=made.cells, index=made.index, words=made.words, scores=made.scores)
    temporary.replace(path)
    return made
