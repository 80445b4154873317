"""CVAT XML 1.1, for images and for video, with polylines: ``annotations.xml`` beside ``images/``.

Labels are named freely; `training.datasets.classes` says what they mean here, and the label list in ``<meta>`` says which kinds
are known. A line's type and colour come from its label (``dashed_white``) or from attributes with those values.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr
from training.datasets.reading import Found, Labels, SampleList, by_sequence, check_split, image_named, read_text
from training.datasets.shapes import Shapes, labelled_classes

TERMS = "your own annotations: set the terms of your pictures"
SUBSETS = {"validation": "val", "training": "train"}  # as CVAT names the parts that are val and train here
SHAPES = ("box", "polygon", "polyline", "points", "mask")


def open_samples(path: Path, split: str = "all") -> SampleList:
    """What was annotated in CVAT.

    Args:
        path: an ``annotations.xml``, or a folder that holds one or more ``.xml``.
        split: by the ``subset`` of each picture where CVAT has one, else by sequence (folder, or the whole video).

    Raises:
        ConfigError: no such file.
        InputError: a file that is not CVAT's.
    """
    check_split(split, "cvat")
    files = [path] if path.is_file() else sorted(path.glob("*.xml"))
    if not files:
        raise ConfigError(f"cvat: no .xml file in {path}")
    found: list[Found] = []
    names: set[str] = set()
    skipped: list[tuple[str, str]] = []
    for file in files:
        root = _parsed(file)
        names |= {label.findtext("name") or "" for meta in root.iter("meta") for label in meta.iter("label")}
        names |= {str(shape.get("label")) for shape in root.iter() if shape.tag in (*SHAPES, "track") and shape.get("label")}
        found += _pictures(file, root, skipped)
    subsets = [item.label[2] for item in found]
    if split != "all" and any(subsets):
        found = [
            item for item, subset in zip(found, subsets, strict=True) if SUBSETS.get(subset.lower(), subset.lower()) == split
        ]
    else:
        found = by_sequence(found, split)
    return SampleList("cvat", TERMS, found, partial(_labels, classes=labelled_classes(sorted(names))), skipped)


def _parsed(file: Path) -> ElementTree.Element:
    text = read_text(file)
    if "<!DOCTYPE" in text[:2000] or "<!ENTITY" in text:
        raise InputError(f"{file}: declares entities; not a CVAT file")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{file}: broken XML: {error}") from error
    if root.tag != "annotations":
        raise InputError(f"{file}: the outer element is <{root.tag}>, expected <annotations> (export as 'CVAT for images 1.1')")
    return root


def _pictures(file: Path, root: ElementTree.Element, skipped: list[tuple[str, str]]) -> list[Found]:
    found = []
    for image in root.iter("image"):
        name = str(image.get("name"))
        folder = Path(name).parent
        sequence = str(folder) if str(folder) != "." else name
        shapes = [(shape.tag, _attributes(shape), shape) for shape in image if shape.tag in SHAPES]
        where = next(
            (p for p in (file.parent / "images" / name, file.parent / name) if p.exists()), file.parent / "images" / name
        )
        found.append(Found(f"{file.stem}/{name}", sequence, where, (file, shapes, image.get("subset") or "")))
    frames: dict[int, list[tuple[str, dict[str, Any], ElementTree.Element]]] = {}
    for track in root.iter("track"):
        for shape in track:
            if shape.tag in SHAPES and shape.get("outside") != "1":
                shape.set("label", str(track.get("label")))
                attributes = {**_attributes(shape), "track_id": track.get("id")}
                frames.setdefault(int(shape.get("frame") or 0), []).append((shape.tag, attributes, shape))
    size = next((int(text) for task in root.iter("task") if (text := task.findtext("size"))), 0)
    for number in sorted({*frames, *range(size)}) if frames else ():
        picture = image_named(file.parent / "images", f"frame_{number:06d}")
        if picture is None:
            skipped.append((f"{file.stem}/frame_{number:06d}", "no such picture in images/; export with 'save images'"))
        else:
            subset = next((text for task in root.iter("task") if (text := task.findtext("subset"))), "")
            sequence = f"{file.parent.name}/{file.stem}"
            found.append(Found(f"{file.stem}/{picture.name}", sequence, picture, (file, frames.get(number, []), subset)))
    return found


def _attributes(shape: ElementTree.Element) -> dict[str, Any]:
    attributes: dict[str, Any] = {str(child.get("name")): child.text or "" for child in shape.iter("attribute")}
    if shape.get("occluded") is not None:
        attributes["occluded"] = shape.get("occluded")
    return attributes


def _labels(item: Found, image: ImageBgr, classes: dict[str, tuple[str, ...]]) -> Labels:
    file, entries, _ = item.label
    shapes = Shapes(image, classes)
    for tag, attributes, shape in entries:
        name = str(shape.get("label"))
        try:
            if tag == "box":
                shapes.box(
                    name, np.array([float(shape.get(side) or "") for side in ("xtl", "ytl", "xbr", "ybr")]) - 0.5, attributes
                )
            elif tag == "mask":
                shapes.mask(name, _mask(shape, image), attributes)
            else:
                points = np.array([pair.split(",") for pair in str(shape.get("points")).split(";")], np.float64) - 0.5
                if tag == "points":
                    for point in points:
                        shapes.point(name, point, attributes)
                else:
                    getattr(shapes, tag)(name, points, attributes)
        except (InputError, TypeError, ValueError) as error:
            raise InputError(f"{file}: {tag} {name!r} of {item.name}: {error}") from error
    return shapes.labels()


def _mask(shape: ElementTree.Element, image: ImageBgr) -> np.ndarray:
    """CVAT's run lengths go along the rows of the mask's own box, first of zeros."""
    left, top, width, height = (int(float(shape.get(side) or "")) for side in ("left", "top", "width", "height"))
    runs = [int(word) for word in str(shape.get("rle")).split(",")]
    if sum(runs) != width * height:
        raise InputError(f"run lengths add up to {sum(runs)}, the mask has {width}x{height} pixels")
    mask = np.zeros(image.shape[:2], bool)
    mask[top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return mask
