"""Datumaro JSON, with polylines: ``annotations/SUBSET.json`` and ``images/SUBSET/`` (or ``images/``).

Labels are named freely; `training.datasets.classes` says what they mean here, and ``categories`` says which kinds are known.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr
from training.datasets.reading import Found, Labels, SampleList, by_sequence, check_split, image_named, read_json
from training.datasets.shapes import Shapes, decode_rle, labelled_classes

TERMS = "your own annotations: set the terms of your pictures"


def open_samples(path: Path, split: str = "all") -> SampleList:
    """What a Datumaro project holds.

    Args:
        path: the folder with ``annotations`` and ``images``, or one of its ``.json``.
        split: a subset's name (``train``, ``val``, ``test``) where files are named so, else by sequence (folder); or ``all``.

    Raises:
        ConfigError: no annotation file.
        InputError: a file that is not Datumaro's.
    """
    check_split(split, "datumaro")
    files = [path] if path.is_file() else sorted((path / "annotations").glob("*.json"))
    if not files:
        raise ConfigError(f"datumaro: no .json file in {path / 'annotations'}")
    named = any(file.stem in ("train", "val", "test") for file in files)
    chosen = [file for file in files if split == "all" or not named or file.stem == split]
    if not chosen:
        raise ConfigError(f"datumaro: no subset {split!r}; there is {', '.join(file.stem for file in files)}")
    found: list[Found] = []
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    for file in chosen:
        record = read_json(file)
        try:
            labels = [str(label["name"]) for label in record["categories"]["label"]["labels"]]
            items = list(record["items"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{file}: lacks categories.label.labels or items; is it a Datumaro file?") from error
        names += labels
        for item in items:
            entry = _found(file, item, labels)
            if entry is None:
                skipped.append((f"{file.stem}/{item.get('id')}", f"no picture in {file.parent.parent / 'images'}"))
            else:
                found.append(entry)
    chosen_items = found if named or split == "all" else by_sequence(found, split)
    return SampleList("datumaro", TERMS, chosen_items, partial(_labels, classes=labelled_classes(names)), skipped)


def _found(file: Path, item: dict[str, Any], labels: list[str]) -> Found | None:
    base = file.parent.parent / "images"
    stated = (item.get("image") or item.get("media") or {}).get("path") or ""
    names = [name for name in (stated, f"{file.stem}/{stated}") if stated]
    image = next((base / name for name in names if (base / name).is_file()), None)
    image = image or image_named(base / file.stem, str(item["id"])) or image_named(base, str(item["id"]))
    if image is None:
        return None
    name = str(image.relative_to(base))
    folder = str(Path(str(item["id"])).parent)
    return Found(name, f"{file.stem}/{folder}" if folder != "." else name, image, (file, item, labels))


def _labels(item: Found, image: ImageBgr, classes: dict[str, tuple[str, ...]]) -> Labels:
    file, record, names = item.label
    shapes = Shapes(image, classes)
    scene: dict[str, str] = {}
    for annotation in record["annotations"]:
        kind = annotation["type"]
        label = annotation.get("label_id")
        if label is not None and not 0 <= label < len(names):
            raise InputError(f"{file}: {record['id']}: label_id {label} of a {kind}; there are {len(names)} labels")
        name = names[label] if label is not None else ""
        attributes = annotation.get("attributes") or {}
        try:
            if kind == "label":
                scene |= {key: str(value) for key, value in attributes.items() if key in ("surface_condition", "traffic_density")}
            elif kind == "bbox":
                x, y, w, h = annotation["bbox"]
                shapes.box(name, np.array([x, y, x + w, y + h]) - 0.5, attributes)
            elif kind == "mask":
                rle = annotation["rle"]
                shapes.mask(name, decode_rle(rle["counts"], tuple(rle["size"])), attributes)
            elif kind in ("polygon", "polyline", "points"):
                points = np.asarray(annotation["points"], np.float64).reshape(-1, 2) - 0.5
                if kind == "points":
                    for point in points:
                        shapes.point(name, point, attributes)
                else:
                    getattr(shapes, kind)(name, points, attributes)
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: {kind} {name!r} of {record['id']}: {type(error).__name__}: {error}") from error
    labels = shapes.labels()
    return Labels(labels.known, labels.lanes, labels.drivable, labels.boxes, labels.signs, scene, labels.masks, labels.meta)
