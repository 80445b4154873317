"""Masks as grid tokens for training: looked up in a finished `training.mask_tokens` run, else found by the greedy rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.tokens.codec import Ids, encode_points, from_text, px_to_norm
from getok_drive.tokens.vocab import GRID_SIZE
from getok_drive.types import ImageBgr
from training.mask_greedy import greedy_cells
from training.predictions import read_lines
from training.proposals import cached_proposals
from training.segmenters import Segmenter, open_segmenter

Mask = npt.NDArray[np.bool_]


class MaskCells:
    """The grid tokens of masks.

    Args:
        runs: ``tokens.jsonl`` files; their lines are keyed by picture and mask name.
        segmenter: name for `open_segmenter`; opened when first needed.
        tau: IoU at which the greedy rule stops.
        most_tokens: of one mask.
        cache: folder for proposals, None: keep none.
    """

    def __init__(self, runs: Sequence[str], segmenter: str, tau: float, most_tokens: int, cache: Path | None) -> None:
        self._known: dict[tuple[str, str], tuple[int, ...]] = {}
        for run in runs:
            for line in read_lines(Path(run)):
                try:
                    self._known |= {(line["key"], m["name"]): _grid(m["tokens"]) for m in line["masks"]}
                except (KeyError, TypeError) as error:
                    raise InputError(f"{line['_where']}: not a line of training.mask_tokens ({error})") from error
        self._name, self._tau, self._most, self._cache = segmenter, tau, most_tokens, cache
        self._segmenter: Segmenter | None = None

    def of(self, mask: Mask, image_bgr: ImageBgr, key: str = "", name: str = "") -> Ids:
        """The tokens of a mask, row by row (a set has no order of its own; this one is the same every time).

        A mask that no proposal fits (objects of a few pixels) is one token: the cell of its deepest point.

        Args:
            mask: ``(H, W)`` of the picture's size, not empty.
            image_bgr: ``(H, W, 3)``.
            key: the picture's name in a `training.mask_tokens` run.
            name: the mask's name there.
        """
        cells = self._known.get((key, name))
        if cells is None:
            self._segmenter = self._segmenter or open_segmenter(self._name)
            proposals = cached_proposals(self._segmenter, image_bgr, self._cache)
            cells = greedy_cells(mask, proposals, self._tau, self._most).cells
        return np.array(sorted(cells[: self._most]) or [deepest_cell(mask)], dtype=np.int32)


def deepest_cell(mask: Mask) -> int:
    """The cell of the point furthest from the mask's outside."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth_px = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth_px.argmax()), depth_px.shape)
    return int(encode_points(px_to_norm([[column, row]], (mask.shape[1], mask.shape[0])), 0)[0][0])


def _grid(text: str) -> tuple[int, ...]:
    return tuple(token for token in from_text(text) if 0 <= token < GRID_SIZE**2)
