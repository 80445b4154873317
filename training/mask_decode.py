"""Tokens -> mask: grid points (and boxes) as prompts of any segmenter; the inverse of `training.mask_greedy`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from getok_drive.tokens.codec import decode_points, norm_to_px
from getok_drive.tokens.vocab import GRID_SIZE, TABLE, TOKEN_ID
from getok_drive.types import ImageBgr
from training.segmenters import Segmenter

Mask = npt.NDArray[np.bool_]


def points_to_mask(
    segmenter: Segmenter, image_bgr: ImageBgr, points_px: npt.ArrayLike, box_xyxy_px: npt.ArrayLike | None = None
) -> Mask:
    """Tokens -> mask: each point is a positive prompt (with the box, if given); the union of the masks.

    At grid points this is exactly the union that `greedy_cells` chose; after offsets, points may lie anywhere. Any segmenter
    serves, also another than the one that made the tokens.

    Args:
        segmenter: see `training.segmenters`.
        image_bgr: ``(H, W, 3)``.
        points_px: ``(N, 2)``; none and no box: an empty mask.
        box_xyxy_px: ``(4,)``, or None.

    Returns:
        ``(H, W)`` bool.
    """
    union = np.zeros(image_bgr.shape[:2], dtype=bool)
    points = np.asarray(points_px, dtype=np.float64).reshape(-1, 2)
    if len(points) or box_xyxy_px is not None:
        for masks, _ in segmenter.propose(image_bgr, points, box_xyxy_px):
            union |= masks.any(axis=0)
    return union


def segments_of(ids: Iterable[int]) -> tuple[list[npt.NDArray[np.float64]], Counter[str]]:
    """The points of every ``<seg> ... </seg>`` of a model's answer; never raises, whatever the ids.

    A grid token starts a point, offset tokens after it move it, ``<DELETE>`` takes it away; a set of tokens has no order, so a
    repeated point counts once.

    Returns:
        For each segment the points ``(N, 2)``, image fractions; and how often each fault was met: ``stray_token`` (outside a
        segment or unknown), ``repeated_point``, ``missing_end``.
    """
    segments: list[npt.NDArray[np.float64]] = []
    faults: Counter[str] = Counter()
    points: list[list[int]] | None = None  # cell, then offsets; an empty list is deleted

    def close() -> None:
        found = [decode_points([p[0]], [p[1:]])[0] if len(p) > 1 else decode_points([p[0]])[0] for p in points or [] if p]
        unique = list(dict.fromkeys((float(x), float(y)) for x, y in found))
        faults["repeated_point"] += len(found) - len(unique)
        segments.append(np.array(unique, dtype=np.float64).reshape(-1, 2))

    for value in ids:
        token = int(value)
        if token == TOKEN_ID["<seg>"]:
            if points is not None:
                faults["missing_end"] += 1
                close()
            points = []
        elif points is None:
            faults["stray_token"] += 1
        elif token == TOKEN_ID["</seg>"]:
            close()
            points = None
        elif 0 <= token < GRID_SIZE**2:
            points.append([token])
        elif TABLE.offset_base <= token < TABLE.delete and points and points[-1]:
            points[-1].append(token)
        elif token == TABLE.delete and points and points[-1]:
            points[-1] = []
        else:
            faults["stray_token"] += 1
    if points is not None:
        faults["missing_end"] += 1
        close()
    return segments, +faults


def tokens_to_masks(segmenter: Segmenter, image_bgr: ImageBgr, ids: Iterable[int]) -> tuple[list[Mask], Counter[str]]:
    """The mask of every segment of a model's answer, and the faults in it (see `segments_of`)."""
    segments, faults = segments_of(ids)
    size_wh = (image_bgr.shape[1], image_bgr.shape[0])
    return [points_to_mask(segmenter, image_bgr, norm_to_px(points, size_wh)) for points in segments], faults
