"""What the readers of phrases share: regions from masks and back, and phrases as plain values for our JSONL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from training.datasets.boxes import clipped
from training.datasets.masks import mask_box
from training.datasets.shapes import decode_rle, encode_rle
from training.metrics.raster import fill_polygons
from training.samples import Phrase, Region

Mask = npt.NDArray[np.bool_]
_REGION_FIELDS = {"xyxy_px", "point_px", "rle", "label"}
_PHRASE_FIELDS = {"task", "text", "answer", "regions", "ignore", "candidates", "attributes"}


def region_of_mask(mask: Mask, label: str = "", xyxy_px: npt.ArrayLike | None = None) -> Region | None:
    """The region that a mask covers; None for an empty mask.

    Args:
        mask: ``(H, W)``.
        label: what it is.
        xyxy_px: its box as labelled; without it, the extent of the mask.
    """
    box = mask_box(mask)
    if box is None:
        return None
    return Region(np.asarray(box if xyxy_px is None else xyxy_px, np.float32), rle=encode_rle(mask), label=label)


def region_of_box(xyxy_px: npt.ArrayLike, size_wh: tuple[int, int], label: str = "") -> Region | None:
    """The part of a box that lies in the picture; None when nothing does."""
    box = clipped(xyxy_px, size_wh)
    return None if box is None else Region(box, label=label)


def region_mask(region: Region) -> Mask | None:
    """``(H, W)`` mask of a region, None when it has none."""
    return None if region.rle is None else decode_rle(region.rle["counts"], (region.rle["size"][0], region.rle["size"][1]))


def union_mask(phrase: Phrase, size_wh: tuple[int, int]) -> Mask:
    """``(H, W)``: all of a phrase's masks together; empty when it has none."""
    union = np.zeros((size_wh[1], size_wh[0]), bool)
    for region in phrase.regions:
        mask = region_mask(region)
        if mask is not None:
            union |= mask
    return union


def coco_mask(segmentation: Any, size_wh: tuple[int, int]) -> Mask:
    """``(H, W)`` mask of COCO's ``segmentation``: run lengths, or polygons ``[x0, y0, x1, y1, ...]`` from the picture's corner.

    Raises:
        InputError: run lengths of another picture size.
    """
    if isinstance(segmentation, Mapping):
        size_hw = (int(segmentation["size"][0]), int(segmentation["size"][1]))
        if size_hw != (size_wh[1], size_wh[0]):
            raise InputError(f"a mask of {size_hw[1]}x{size_hw[0]} px in a picture of {size_wh[0]}x{size_wh[1]} px")
        return decode_rle(segmentation["counts"], size_hw)
    parts = [np.asarray(part, np.float64).reshape(-1, 2) - 0.5 for part in segmentation if len(part) >= 6]
    return fill_polygons(parts, size_wh)


def phrase_record(phrase: Phrase) -> dict[str, Any]:
    """A phrase as plain values; empty fields are left out."""
    record: dict[str, Any] = {"task": phrase.task, "text": phrase.text}
    if phrase.answer:
        record["answer"] = phrase.answer
    record["regions"] = [_region_record(region) for region in phrase.regions]
    if phrase.ignore is not None:
        record["ignore"] = dict(phrase.ignore)
    if phrase.candidates:
        record["candidates"] = [_region_record(region) for region in phrase.candidates]
    if phrase.attributes:
        record["attributes"] = dict(phrase.attributes)
    return record


def phrases_of(records: Sequence[Mapping[str, Any]]) -> tuple[Phrase, ...]:
    """The inverse of `phrase_record`, for a list.

    Raises:
        InputError: an unknown field, task or an impossible region; says in which phrase.
    """
    return tuple(_phrase(record, number) for number, record in enumerate(records))


def _phrase(record: Mapping[str, Any], number: int) -> Phrase:
    _only(record, _PHRASE_FIELDS, f"phrase {number}")
    try:
        return Phrase(
            str(record["task"]),
            str(record["text"]),
            str(record.get("answer", "")),
            tuple(_region(region) for region in record.get("regions", ())),
            record.get("ignore"),
            tuple(_region(region) for region in record.get("candidates", ())),
            {str(name): str(value) for name, value in record.get("attributes", {}).items()},
        )
    except InputError as error:
        raise InputError(f"phrase {number}: {error}") from error


def _region_record(region: Region) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name in ("xyxy_px", "point_px"):
        values = getattr(region, name)
        if values is not None:
            record[name] = np.round(values.astype(np.float64), 2).tolist()
    if region.rle is not None:
        record["rle"] = dict(region.rle)
    if region.label:
        record["label"] = region.label
    return record


def _region(record: Mapping[str, Any]) -> Region:
    _only(record, _REGION_FIELDS, "region")
    return Region(record.get("xyxy_px"), record.get("point_px"), record.get("rle"), str(record.get("label", "")))


def _only(record: Mapping[str, Any], fields: Iterable[str], what: str) -> None:
    if unknown := set(record) - set(fields):
        raise InputError(f"{what}: unknown field {', '.join(sorted(unknown))}; use {', '.join(sorted(fields))}")
