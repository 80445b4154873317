"""Boxes from data sets: clipped to the picture, and riders joined with what they ride."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from getok_drive.types import Box, FloatArray

RIDER = "rider"


def clipped(xyxy_px: npt.ArrayLike, size_wh: tuple[int, int]) -> FloatArray | None:
    """``(4,)`` corners within ``0 .. size - 1``; None when nothing of the box is left."""
    width, height = size_wh
    xyxy = np.clip(np.asarray(xyxy_px, np.float32).reshape(4), 0, np.array([width - 1, height - 1] * 2, np.float32))
    return xyxy if xyxy[0] < xyxy[2] and xyxy[1] < xyxy[3] else None


def center(xyxy_px: npt.ArrayLike) -> FloatArray:
    """``(2,)`` centre of a box."""
    xyxy = np.asarray(xyxy_px, np.float32)
    return np.asarray((xyxy[:2] + xyxy[2:]) / 2, np.float32)


def state_attributes(occluded: object = None, truncated: object = None) -> dict[str, str]:
    """``visible_state`` and ``truncated`` from yes/no flags as data sets write them; flags that are None are left out.

    How much of an occluded object is hidden is not said, so that it counts as partly occluded.
    """

    def yes(value: object) -> bool:
        return str(value).strip().lower() in ("1", "true", "yes")

    attributes = {}
    if occluded is not None:
        attributes["visible_state"] = "partly_occluded" if yes(occluded) else "fully_visible"
    if truncated is not None:
        attributes["truncated"] = "yes" if yes(truncated) else "no"
    return attributes


def join_riders(boxes: Sequence[tuple[Box, str]]) -> tuple[Box, ...]:
    """Each rider joined with the two-wheeler that covers most of it, one box for both; a rider alone is a two-wheeler.

    Args:
        boxes: ``(box, label)``, where the label ``rider`` marks people on a two-wheeler.
    """
    return joined_riders(boxes)[0]


def joined_riders(boxes: Sequence[tuple[Box, str]]) -> tuple[tuple[Box, ...], list[int]]:
    """`join_riders`, and for each of the given boxes the index of the one that it is, or is part of, now."""
    order = sorted(range(len(boxes)), key=lambda index: boxes[index][1] == RIDER)  # riders last, else as given
    joined: list[Box] = []
    places = [0] * len(boxes)
    for index in order:
        box, label = boxes[index]
        shares = [_overlap(box, other) if other.class_name == "two_wheeler" else 0.0 for other in joined]
        if label == RIDER and shares and max(shares) > 0.1:
            at = places[index] = int(np.argmax(shares))
            joined[at] = _union(box, joined[at], joined[at].attributes)
        else:
            places[index] = len(joined)
            joined.append(Box(box.xyxy_px, "two_wheeler", attributes=box.attributes) if label == RIDER else box)
    return tuple(joined), places


def _union(a: Box, b: Box, attributes: Mapping[str, str]) -> Box:
    low, high = np.minimum(a.xyxy_px, b.xyxy_px)[:2], np.maximum(a.xyxy_px, b.xyxy_px)[2:]
    return Box(np.concatenate([low, high]), b.class_name, attributes=attributes)


def _overlap(a: Box, b: Box) -> float:
    """Share of ``a`` that lies in ``b``."""
    size = np.minimum(a.xyxy_px[2:], b.xyxy_px[2:]) - np.maximum(a.xyxy_px[:2], b.xyxy_px[:2])
    return float(np.prod(np.maximum(size, 0)) / np.prod(a.xyxy_px[2:] - a.xyxy_px[:2]))
