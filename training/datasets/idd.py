"""IDD (Indian Driving Dataset), segmentation: *lite* and *full*, told apart by the label files.

- **lite**: ``leftImg8bit/SPLIT/DRIVE/*_image.jpg`` and ``gtFine/SPLIT/DRIVE/*_label.png`` with seven level-1 classes. Vehicles
  of every kind are one class, as are people and riders, so that boxes are not known unless `open_samples` is asked to guess.
- **full** (parts I and II): ``leftImg8bit/SPLIT/DRIVE/*_leftImg8bit.png`` (or .jpg) and
  ``gtFine/SPLIT/DRIVE/*_gtFine_polygons.json``, drawn in order: later polygons cover earlier ones.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import Box, ImageBgr
from training.datasets.boxes import joined_riders
from training.datasets.masks import component_boxes, drivable_areas, mask_box
from training.datasets.reading import Found, Labels, SampleList, images_below, official, read_json, read_mask, same_size

TERMS = "IDD (IIIT Hyderabad): research and education only, registration needed"

DRIVABLE, PEOPLE, VEHICLES = 0, 2, 3  # level 1 of IDD lite
IGNORE = 255
MIN_HEIGHT_SHARE = 0.024

# full: labels of the polygons
DRIVABLE_LABELS = ("road", "drivable fallback")
BOX_LABELS = {
    "car": "car", "autorickshaw": "car", "caravan": "car", "truck": "truck", "trailer": "truck", "bus": "bus",
    "motorcycle": "two_wheeler", "bicycle": "two_wheeler", "person": "pedestrian",
}  # fmt: skip
"""A rider is part of the two-wheeler it sits on: see `joined_riders`."""


def open_samples(path: Path, split: str = "all", guess_boxes: bool = False) -> SampleList:
    """Drivable areas of IDD; boxes too in the full set.

    Args:
        path: folder with ``leftImg8bit`` and ``gtFine``.
        split: ``train``, ``val``, ``test`` (images only as IDD publishes it) or ``all``.
        guess_boxes: for IDD lite, give component boxes with the commonest class of their group (``car``, ``two_wheeler``); they
            are marked ``attributes["class_is"] = "guessed"`` and serve class-agnostic uses only.

    Raises:
        ConfigError: no such folder or split.
    """
    labels = {part: path / "gtFine" / part for part in ("train", "val", "test")}
    found, skipped = [], []
    for folder in official(labels, split, "idd"):
        images = path / "leftImg8bit" / folder.name
        if not images.is_dir():
            raise ConfigError(f"idd: {folder} has no photographs in {images}")
        for image in images_below(images):
            place = folder / image.parent.relative_to(images)
            stem = image.stem.removesuffix("_image").removesuffix("_leftImg8bit")
            label = next((p for p in (place / f"{stem}_label.png", place / f"{stem}_gtFine_polygons.json") if p.exists()), None)
            name = str(image.relative_to(path))
            if label is None:
                skipped.append((name, f"no {stem}_label.png or {stem}_gtFine_polygons.json in {place}"))
            else:
                found.append(Found(name, image.parent.name, image, label))
    return SampleList("idd", TERMS, found, partial(_labels, guess_boxes=guess_boxes), skipped)


def _labels(item: Found, image: ImageBgr, guess_boxes: bool) -> Labels:
    if item.label.suffix == ".json":
        return _full(item.label, image)
    classes = read_mask(item.label)
    same_size(image, classes, item.label)
    if classes.ndim != 2 or (wrong := set(np.unique(classes).tolist()) - {*range(7), IGNORE}):
        what = f"classes {sorted(wrong)}" if classes.ndim == 2 else "colours"
        raise InputError(f"{item.label}: {what} in a label picture of IDD lite, which has 0..6 and 255")
    known: tuple[str, ...] = ("drivable",)
    boxes: tuple[Box, ...] = ()
    if guess_boxes:
        known = ("drivable", "boxes")
        boxes = tuple(
            Box(box.xyxy_px, word, attributes={**box.attributes, "class_is": "guessed"})
            for number, word in ((VEHICLES, "car"), (PEOPLE, "two_wheeler"))
            for box in component_boxes(classes == number, word)
        )
    return Labels(
        known, drivable=drivable_areas(classes == DRIVABLE), boxes=boxes, masks={"semantic": classes}, meta={"derived": known}
    )


def _full(path: Path, image: ImageBgr) -> Labels:
    record = read_json(path)
    height, width = image.shape[:2]
    if (record["imgWidth"], record["imgHeight"]) != (width, height):
        raise InputError(f"{path}: made for {record['imgWidth']}x{record['imgHeight']} px, the photograph has {width}x{height}")
    road = np.zeros((height, width), np.uint8)
    instance = np.zeros((height, width), np.int32)  # which object is seen, 0: none
    objects: list[tuple[str, int]] = []  # label, pixels when drawn
    for entry in record["objects"]:
        if entry.get("deleted"):
            continue
        polygon = np.rint(np.asarray(entry["polygon"], np.float64)).astype(np.int32).reshape(-1, 1, 2)
        if len(polygon) < 3:
            continue
        label = str(entry["label"])
        cv2.fillPoly(road, [polygon], 1 if label in DRIVABLE_LABELS else 0)
        number = 0
        if label in BOX_LABELS or label == "rider":
            number = len(objects) + 1
            objects.append((label, 0))
        cv2.fillPoly(instance, [polygon], number)
        if number:
            objects[-1] = (label, int((instance == number).sum()))
    seen = {n: box for n, (label, whole) in enumerate(objects, 1) if (box := _box(instance == n, label, whole)) is not None}
    boxes, places = joined_riders(list(seen.values()))
    number_of = np.zeros(len(objects) + 1, np.uint16)  # of an object: its box's, 0 where it is too small for one
    number_of[list(seen)] = np.array(places, np.uint16) + 1
    return Labels(
        ("drivable", "boxes"),
        drivable=drivable_areas(road),
        boxes=boxes,
        masks={"instance": number_of[instance]},
        meta={"derived": ("drivable", "boxes"), "labelled_classes": {"boxes": tuple(dict.fromkeys(BOX_LABELS.values()))}},
    )


def _box(mask: Any, label: str, whole_px: int) -> tuple[Box, str] | None:
    """Box of what is seen of an object; how much other objects hide of it gives its state."""
    extent = mask_box(mask)
    height, width = mask.shape
    if extent is None or extent[3] - extent[1] < MIN_HEIGHT_SHARE * height or extent[2] - extent[0] < 2:
        return None
    share = mask.sum() / max(whole_px, 1)
    state = "fully_visible" if share > 0.85 else "partly_occluded" if share >= 0.4 else "mostly_occluded"
    truncated = extent[0] <= 0 or extent[1] <= 0 or extent[2] >= width - 1 or extent[3] >= height - 1
    attributes = {"derived": "polygon", "visible_state": state, "truncated": "yes" if truncated else "no"}
    inside = np.clip(extent, 0, [width - 1, height - 1] * 2)
    return Box(inside, BOX_LABELS.get(label, "two_wheeler"), attributes=attributes), label
