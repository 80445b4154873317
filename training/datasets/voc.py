"""Pascal VOC detection: ``annotations/*.xml`` and ``images/`` (or ``Annotations/`` and ``JPEGImages/``).

Made for the *road signs* set (speed limit, crosswalk, stop, traffic light), whose signs become centre points; any other VOC set
works through the names in `training.datasets.classes`. Boxes of unknown names are left out and listed in ``meta["left_out"]``.
The classes that occur anywhere in the set are in ``meta["labelled_classes"]``: others may be in the pictures, unlabelled.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import Box, ImageBgr, Sign
from training.datasets.boxes import center
from training.datasets.classes import meaning_of
from training.datasets.lamps import lamp_color
from training.datasets.reading import Found, Labels, SampleList, by_sequence, check_split, image_named, read_text

TERMS = "Pascal VOC folder of unstated terms (for the road signs set: unconfirmed, research use)"
MAX_XML_BYTES = 4_000_000
BLOCK = 10  # pictures of neighbouring numbers are often of one place: they stay in one split


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Boxes and sign points of a Pascal VOC folder.

    Args:
        path: folder with annotations and images.
        split: ``train``, ``val``, ``test`` from ``ImageSets/Main`` where it is there, else by a hash of the name; or ``all``.

    Raises:
        ConfigError: no annotations, or no list of the split.
    """
    check_split(split, "voc")
    folder = next((path / name for name in ("annotations", "Annotations") if (path / name).is_dir()), None)
    images = next((path / name for name in ("images", "JPEGImages") if (path / name).is_dir()), None)
    if folder is None or images is None:
        raise ConfigError(f"voc: {path} needs annotations/ and images/ (or Annotations/ and JPEGImages/)")
    lists = path / "ImageSets" / "Main"
    chosen: set[str] | None = None
    if split != "all" and lists.is_dir():
        file = lists / f"{split}.txt"
        if not file.exists():
            raise ConfigError(f"voc: no split {split!r}; {lists} has {', '.join(p.stem for p in sorted(lists.glob('*.txt')))}")
        chosen = {line.split()[0] for line in read_text(file).splitlines() if line.strip()}
    found, skipped = [], []
    names: set[str] = set()
    for label in sorted(folder.glob("*.xml")):
        names.update(re.findall(r"<name>([^<]*)</name>", read_text(label)))
        image = image_named(images, label.stem)
        if image is None:
            skipped.append((label.name, f"no picture of this name in {images.name}"))
        elif chosen is None or label.stem in chosen:
            found.append(Found(f"{images.name}/{image.name}", _block(label.stem), image, label))
    if not found and not skipped:
        raise ConfigError(f"voc: no .xml file in {folder}")
    meanings = [meaning for name in sorted(names) if (meaning := meaning_of(name))]
    classes = {kind: tuple(dict.fromkeys(m.word for m in meanings if m.kind == kind)) for kind in ("boxes", "signs")}
    label_of = partial(_labels, classes={kind: words for kind, words in classes.items() if words})
    return SampleList("voc", TERMS, found if chosen is not None else by_sequence(found, split), label_of, skipped)


def _block(stem: str) -> str:
    """Name of the block of neighbouring pictures that a picture belongs to."""
    match = re.fullmatch(r"(.*?)(\d+)", stem)
    return f"{match[1]}{int(match[2]) // BLOCK}x" if match else stem


def _labels(item: Found, image: ImageBgr, classes: dict[str, tuple[str, ...]]) -> Labels:
    text = read_text(item.label)
    if len(text) > MAX_XML_BYTES or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{item.label}: declares entities or is above {MAX_XML_BYTES} bytes; not an annotation file")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{item.label}: broken XML: {error}") from error
    height, width = image.shape[:2]
    stated = (_number(root, "size/width", item.label), _number(root, "size/height", item.label))
    if stated != (width, height):
        raise InputError(
            f"{item.label}: made for {stated[0]:g}x{stated[1]:g} px, the picture has {width}x{height} px; was it resized?"
        )
    boxes, signs, left_out = [], [], []
    for entry in root.iter("object"):
        name = (entry.findtext("name") or "").strip()
        meaning = meaning_of(name)
        if meaning is None or meaning.kind not in ("boxes", "signs"):
            left_out.append(name)
            continue
        corners = [_number(entry, f"bndbox/{side}", item.label) for side in ("xmin", "ymin", "xmax", "ymax")]
        xyxy = np.clip(np.array(corners, np.float32) - 1, 0, [width - 1, height - 1] * 2)  # VOC counts pixels from 1
        if not (xyxy[0] < xyxy[2] and xyxy[1] < xyxy[3]):
            raise InputError(f"{item.label}: {name} has an empty box {corners}; remove it or mend its corners")
        attributes = {"truncated": "yes"} if entry.findtext("truncated") == "1" else {"truncated": "no"}
        if meaning.kind == "boxes":
            boxes.append(Box(xyxy, meaning.word, attributes=attributes))
        else:
            color = lamp_color(image, xyxy) if name.lower() in ("trafficlight", "traffic_light") else meaning.color
            size = {"width_px": f"{xyxy[2] - xyxy[0]:g}", "height_px": f"{xyxy[3] - xyxy[1]:g}"}
            signs.append(Sign(center(xyxy), meaning.word, color, attributes={**attributes, **size}))
    meta = {"derived": ("sign_color",), "left_out": left_out, "labelled_classes": classes}
    return Labels(tuple(classes), boxes=tuple(boxes), signs=tuple(signs), meta=meta)


def _number(entry: ElementTree.Element, name: str, path: Path) -> float:
    text = entry.findtext(name)
    try:
        return float(text or "")
    except ValueError as error:
        raise InputError(f"{path}: {name} is {text!r}, expected a number") from error
