"""COCO instances: ``annotations/instances_train2017.json`` beside ``train2017/``, or any COCO file beside its pictures.

Boxes, polygons and run-length masks; crowds of what has boxes here become ``meta["ignore_xyxy_px"]``. A kind is known when one of
the file's ``categories`` means it (`training.datasets.classes`): COCO itself labels, of all signs, only stop signs and traffic
lights, which ``meta["labelled_classes"]`` says. COCO has no polylines: lane lines can only come as masks of paint.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr
from training.datasets.classes import meaning_of
from training.datasets.reading import Found, Labels, SampleList, by_sequence, check_split, read_json
from training.datasets.shapes import Shapes, decode_rle, labelled_classes
from training.metrics.raster import fill_polygons

TERMS = "COCO: annotations CC BY 4.0, pictures under their Flickr licences (see meta.license)"


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Everything of a COCO file that has a meaning for driving.

    Args:
        path: a COCO ``.json``, or a folder with ``annotations/``.
        split: ``train``, ``val``, ``test`` or ``all``; files named after splits are used as such, else pictures are divided by
            folder or, without folders, by name.

    Raises:
        ConfigError: no annotation file for the split.
        InputError: a file that is not COCO's.
    """
    check_split(split, "coco")
    root = path.parent if path.is_file() else path
    files = [path] if path.is_file() else sorted((path / "annotations").glob("*.json")) or sorted(path.glob("*.json"))
    instances = [file for file in files if file.stem.startswith("instances_")] or files
    named = {file: next((part for part in ("train", "val", "test") if part in file.stem), None) for file in instances}
    official = any(named.values()) and not path.is_file()
    chosen = [file for file in instances if split == "all" or not official or named[file] == split]
    if not chosen:
        have = ", ".join(file.name for file in instances) or "none"
        raise ConfigError(f"coco: no annotation file for split {split!r} in {root}; there is {have}")
    found: list[Found] = []
    classes: dict[str, tuple[str, ...]] = {}
    for file in chosen:
        entries, words = _listed(root, file)
        found += entries
        classes |= {kind: tuple(dict.fromkeys((*classes.get(kind, ()), *more))) for kind, more in words.items()}
    return SampleList("coco", TERMS, found if official else by_sequence(found, split), partial(_labels, classes=classes))


def _listed(root: Path, file: Path) -> tuple[list[Found], dict[str, tuple[str, ...]]]:
    record = read_json(file)
    if not isinstance(record, dict) or not {"images", "annotations", "categories"} <= record.keys():
        raise InputError(f"{file}: lacks images, annotations or categories; is it a COCO instances file?")
    names = {category["id"]: str(category["name"]) for category in record["categories"]}
    licenses = {entry["id"]: entry.get("name", "") for entry in record.get("licenses", ())}
    by_image = defaultdict(list)
    for annotation in record["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    folders = [f"{file.stem.removeprefix('instances_')}", "images", "."]
    base = root.parent if file.parent == root and root.name == "annotations" else root
    at = next(
        (base / name for name in folders if record["images"] and (base / name / record["images"][0]["file_name"]).exists()), base
    )
    found = []
    for image in record["images"]:
        name = str(image["file_name"])
        sequence = str(Path(name).parent) if len(Path(name).parts) > 1 else name
        label = (file, image, by_image[image["id"]], names, licenses.get(image.get("license"), ""))
        found.append(Found(str((at / name).relative_to(base)), sequence, at / name, label))
    return found, labelled_classes(names.values())


def _labels(item: Found, image: ImageBgr, classes: dict[str, tuple[str, ...]]) -> Labels:
    file, entry, annotations, names, license_name = item.label
    size_wh = (image.shape[1], image.shape[0])
    if (entry["width"], entry["height"]) != size_wh:
        raise InputError(
            f"{file}: {entry['file_name']} is {entry['width']}x{entry['height']} px there, {size_wh[0]}x{size_wh[1]} px on disk"
        )
    shapes = Shapes(image, classes)
    for annotation in annotations:
        try:
            _add(shapes, annotation, names[annotation["category_id"]], size_wh)
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: annotation {annotation.get('id')}: {type(error).__name__}: {error}") from error
    return shapes.labels(meta={"license": license_name})


def _add(shapes: Shapes, annotation: dict[str, Any], name: str, size_wh: tuple[int, int]) -> None:
    box = None
    if "bbox" in annotation:
        x, y, w, h = annotation["bbox"]
        box = np.array([x, y, x + w, y + h]) - 0.5  # COCO counts from the picture's corner
    if annotation.get("iscrowd"):
        meaning = meaning_of(name)
        if box is not None and meaning is not None and meaning.kind == "boxes":
            shapes.ignore(box)
        return
    attributes = annotation.get("attributes") or {}
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        shapes.mask(name, decode_rle(segmentation["counts"], tuple(segmentation["size"])), attributes)
    elif segmentation:
        polygons = [np.asarray(part, np.float64).reshape(-1, 2) - 0.5 for part in segmentation if len(part) >= 6]
        shapes.mask(name, fill_polygons(polygons, size_wh), attributes, shape="polygon")
    elif box is not None:
        shapes.box(name, box, attributes)
