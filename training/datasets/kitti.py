"""KITTI object detection and KITTI road, told apart by their label folders.

- **object**: ``image_2/ label_2/ calib/`` (also below ``training/``). 2D boxes of road users; the 3D boxes stay in ``meta``.
- **road**: ``image_2/um_000000.png`` and ``gt_image_2/um_road_000000.png``: red the labelled region, red + blue (magenta) the
  road.

KITTI publishes labels for its training part only, so this reader divides it: by raw drive where ``mapping/train_mapping.txt`` and
``train_rand.txt`` of the object devkit are there, else by stretches of picture numbers (object pictures are shuffled: without the
mapping, neighbours in time may fall into different parts).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import Box, ImageBgr
from training.datasets.masks import drivable_areas
from training.datasets.reading import (
    Found,
    Labels,
    SampleList,
    by_sequence,
    check_split,
    image_named,
    images_below,
    read_mask,
    read_text,
    same_size,
)

TERMS = "KITTI: CC BY-NC-SA 3.0, no commercial use"
CLASSES = {
    "Car": "car", "Van": "car", "Truck": "truck", "Tram": "bus", "Pedestrian": "pedestrian", "Person_sitting": "pedestrian",
    "Cyclist": "two_wheeler",
}  # fmt: skip
IGNORED = ("DontCare", "Misc")  # kept as meta["ignore_xyxy_px"]
STATES = {0: "fully_visible", 1: "partly_occluded", 2: "mostly_occluded"}  # 3: unknown
TRUNCATED_FROM = 0.15  # KITTI's own limit of "easy"


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Boxes of KITTI object, or drivable areas of KITTI road.

    Args:
        path: folder with ``image_2`` and ``label_2`` or ``gt_image_2``, or its parent with ``training``.
        split: ``train``, ``val``, ``test`` or ``all``.

    Raises:
        ConfigError: neither kind of labels is there.
    """
    check_split(split, "kitti")
    root = path / "training" if (path / "training").is_dir() else path
    skipped: list[tuple[str, str]] = []
    if (root / "label_2").is_dir():
        drives = _drives(path)
        found = []
        for label in sorted((root / "label_2").glob("*.txt")):
            image = image_named(root / "image_2", label.stem)
            if image is None:
                skipped.append((f"label_2/{label.name}", "no picture of this number in image_2"))
            else:
                found.append(Found(f"image_2/{image.name}", drives.get(label.stem, f"object-{label.stem[:4]}"), image, label))
        return SampleList("kitti", TERMS, by_sequence(found, split), _object, skipped)
    if (root / "gt_image_2").is_dir():
        found = []
        for label in images_below(root / "gt_image_2"):
            group, what, number = [*label.stem.split("_"), "", ""][:3]
            if what != "road":
                continue  # um_lane_*: the own lane, not the whole road
            image = image_named(root / "image_2", f"{group}_{number}")
            if image is None:
                skipped.append((f"gt_image_2/{label.name}", f"no {group}_{number} in image_2"))
            else:
                found.append(Found(f"image_2/{image.name}", f"road-{group}-{number[:5]}", image, label))
        return SampleList("kitti", TERMS, by_sequence(found, split), _road, skipped)
    raise ConfigError(f"kitti: neither label_2 (object) nor gt_image_2 (road) in {root}")


def _drives(path: Path) -> dict[str, str]:
    """Raw drive of each object picture, from the devkit's mapping; empty without it."""
    rand = next((p for p in (path / "mapping" / "train_rand.txt", path / "train_rand.txt") if p.exists()), None)
    if rand is None:
        return {}
    lines = read_text(rand.with_name("train_mapping.txt")).splitlines()
    order = [int(text) for text in read_text(rand).replace(",", " ").split()]
    if max(order, default=0) > len(lines):
        raise InputError(f"{rand}: names line {max(order)} of train_mapping.txt, which has {len(lines)}")
    return {f"{number:06d}": lines[line - 1].split()[1] for number, line in enumerate(order)}


def _object(item: Found, image: ImageBgr) -> Labels:
    height, width = image.shape[:2]
    boxes, ignored, boxes_3d = [], [], []
    for number, line in enumerate(read_text(item.label).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 15 or words[0] not in (*CLASSES, *IGNORED):
            raise InputError(f"{item.label}: line {number} is not a KITTI object of 15 fields: {line[:60]!r}")
        values = [float(word) for word in words[1:15]]
        xyxy = np.clip(np.array(values[3:7], np.float32), 0, [width - 1, height - 1] * 2)
        if words[0] in IGNORED:
            ignored.append(xyxy.tolist())
        elif xyxy[2] > xyxy[0] and xyxy[3] > xyxy[1]:
            attributes = {"truncated": "yes" if values[0] > TRUNCATED_FROM else "no"}
            if int(values[1]) in STATES:
                attributes["visible_state"] = STATES[int(values[1])]
            boxes.append(Box(xyxy, CLASSES[words[0]], attributes=attributes))
            boxes_3d.append({"size_hwl_m": values[7:10], "bottom_center_cam_m": values[10:13], "yaw_cam_rad": values[13]})
    meta: dict[str, Any] = {
        "ignore_xyxy_px": ignored,
        "boxes_3d": boxes_3d,
        "labelled_classes": {"boxes": tuple(dict.fromkeys(CLASSES.values()))},
    }
    calib = item.label.parent.parent / "calib" / item.label.name
    if calib.exists():
        meta["P"], meta["K"] = _calibration(calib)
    return Labels(("boxes",), boxes=tuple(boxes), meta=meta)


def _calibration(path: Path) -> tuple[list[list[float]], list[list[float]]]:
    """``P2`` (3, 4) of the left colour camera, rectified, and its ``K`` (3, 3)."""
    for line in read_text(path).splitlines():
        name, _, numbers = line.partition(":")
        if name == "P2":
            values = [float(word) for word in numbers.split()]
            if len(values) == 12:
                matrix = np.array(values).reshape(3, 4)
                return matrix.tolist(), matrix[:, :3].tolist()
    raise InputError(f"{path}: no line 'P2:' with 12 numbers; is it a KITTI object calibration?")


def _road(item: Found, image: ImageBgr) -> Labels:
    picture = read_mask(item.label)
    same_size(image, picture, item.label)
    if picture.ndim != 3:
        raise InputError(f"{item.label}: a grey picture; KITTI road labels are red and magenta")
    labelled, road = picture[..., 2] > 0, (picture[..., 0] > 0) & (picture[..., 2] > 0)
    if not labelled.any():
        raise InputError(f"{item.label}: no red at all; KITTI road labels are red and magenta")
    return Labels(
        ("drivable",), drivable=drivable_areas(road), masks={"semantic": road.astype(np.uint8)}, meta={"derived": ("drivable",)}
    )
