"""Data sets of phrases and what they mean: RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO and ReasonSeg.

They label no driving elements: ``known`` is empty. Every expression is a phrase to ``refer`` with a region, box and mask, for
each target; none for an expression without a target (gRefCOCO). ReasonSeg's one region is the whole mask, and its phrases say
where nothing is right or wrong.

- **RefCOCO family**: a folder with ``instances.json`` and ``refs(unc).p`` (or another ``refs(*).p``; gRefCOCO:
  ``grefs(unc).json``); COCO's train2014 pictures in ``train2014/``, ``images/`` or ``../images/mscoco/images/train2014/``. The
  ``.p`` files are pickles of plain lists: they are read by a loader that refuses everything else.
- **ReasonSeg**: ``train/ val/ test/`` with a ``.json`` beside each ``.jpg``.
"""

from __future__ import annotations

import io
import json
import pickle
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr
from training.datasets.phrases import coco_mask, region_of_mask
from training.datasets.reading import Found, Labels, SampleList, read_json
from training.datasets.shapes import encode_rle
from training.metrics.raster import fill_polygons
from training.samples import Phrase, Region

TERMS = "RefCOCO family: COCO pictures under their Flickr licences, phrases for research; ReasonSeg: research use"
SPLITS = ("train", "val", "test", "testA", "testB", "all")


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Pictures with the phrases about them.

    Args:
        path: the folder of one data set.
        split: ``train``, ``val``, ``test``, ``testA``, ``testB`` or ``all``; ``test`` means testA and testB where there are
        those.

    Raises:
        ConfigError: neither layout, or an unknown split.
        InputError: files that are not what they should be.
    """
    if split not in SPLITS:
        raise ConfigError(f"referring: unknown split {split!r}; use one of {', '.join(SPLITS)}")
    if any([*path.glob("refs(*).p"), *path.glob("grefs(*).json")]):
        found, skipped = found_references(path, split)
        return SampleList("referring", TERMS, found, _phrases, skipped)
    folders = [path / part for part in ("train", "val", "test") if (path / part).is_dir() and split in ("all", part)]
    if not folders:
        raise ConfigError(f"referring: {path} has neither refs(*).p or grefs(*).json nor the folder {split}")
    reasons: list[Found] = []
    missing: list[tuple[str, str]] = []
    for folder in folders:
        for label in sorted(folder.glob("*.json")):
            image = label.with_suffix(".jpg")
            if image.exists():
                reasons.append(Found(str(image.relative_to(path)), label.stem, image, label))
            else:
                missing.append((str(label.relative_to(path)), "no .jpg beside it"))
    return SampleList("referring", TERMS, reasons, _reason, missing)


# --- RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO ---------------------------------------------------------------------------


class _Plain(pickle.Unpickler):
    """Loads lists, dictionaries, text and numbers, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"holds {module}.{name}")


def _references(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        references = read_json(path)
    else:
        try:
            references = _Plain(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except Exception as error:  # a broken pickle can raise anything
            raise InputError(f"{path}: not a plain list of references ({error}); download the official file again") from error
    if not isinstance(references, list) or not all(isinstance(r, dict) and "sentences" in r for r in references):
        raise InputError(f"{path}: expected a list of references with sentences")
    return references


def found_references(root: Path, split: str) -> tuple[list[Found], list[tuple[str, str]]]:
    """The pictures of a folder of the RefCOCO family, each labelled ``(file, its references, number -> annotation)``, and
    ``(name, reason)`` of those left out. Of several reference files the last by name is read: ``umd`` rather than ``google``.
    """
    refs = sorted([*root.glob("refs(*).p"), *root.glob("grefs(*).json")])[-1]
    record = read_json(root / "instances.json")
    images = {image["id"]: image for image in record["images"]}
    annotations = {annotation["id"]: annotation for annotation in record["annotations"]}
    places = [root / "train2014", root / "images", root.parent / "images" / "mscoco" / "images" / "train2014", root]
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for reference in _references(refs):
        if split == "all" or reference["split"] == split or (split == "test" and reference["split"].startswith("test")):
            by_image[reference["image_id"]].append(reference)
    found, skipped = [], []
    for number, references in sorted(by_image.items()):
        if number not in images:
            raise InputError(f"{refs}: names picture {number}, which instances.json does not list")
        name = str(images[number]["file_name"])
        image = next((place / name for place in places if (place / name).exists()), None)
        if image is None:
            skipped.append((name, f"no such picture in {', '.join(str(place) for place in places[:3])}"))
        else:
            found.append(Found(name, name, image, (refs, references, annotations)))
    return found, skipped


def _phrases(item: Found, image: ImageBgr) -> Labels:
    refs, references, annotations = item.label
    size_wh = (image.shape[1], image.shape[0])
    phrases = []
    for reference in references:
        regions = target_regions(refs, reference, annotations, size_wh)
        phrases += [Phrase("refer", str(sentence["sent"]), regions=regions) for sentence in reference["sentences"]]
    return Labels((), phrases=tuple(phrases))


def target_regions(
    refs: Path, reference: Mapping[str, Any], annotations: Mapping[int, Any], size_wh: tuple[int, int]
) -> tuple[Region, ...]:
    """The regions that a reference means.

    Args:
        refs: the file that it stands in, for messages.
        reference: an entry of it.
        annotations: number -> COCO annotation.
        size_wh: of the picture.

    Raises:
        InputError: an annotation that is not there.
    """
    numbers = reference["ann_id"] if isinstance(reference["ann_id"], list) else [reference["ann_id"]]
    numbers = [number for number in numbers if number != -1]  # gRefCOCO: nothing in the picture is meant
    if unknown := [number for number in numbers if number not in annotations]:
        raise InputError(f"{refs}: reference {reference.get('ref_id')} names annotation {unknown[0]}, which is not there")
    regions = []
    for target in (annotations[number] for number in numbers):
        x, y, w, h = target["bbox"]
        mask = coco_mask(target["segmentation"], size_wh)
        box = np.array([x, y, x + w, y + h], np.float32) - np.float32(0.5)  # COCO counts from the picture's corner
        regions.append(region_of_mask(mask, xyxy_px=box) or Region(box))
    return tuple(regions)


# --- ReasonSeg -------------------------------------------------------------------------------------------------------


def _reason(item: Found, image: ImageBgr) -> Labels:
    data = item.label.read_bytes()
    try:
        record = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:  # some of the official files are in Windows' encoding
        record = json.loads(data.decode("cp1252"))
    size_wh = (image.shape[1], image.shape[0])
    shapes = [s for s in record["shapes"] if str(s["label"]).lower() != "flag"]
    drawn = [(str(s["label"]).lower(), fill_polygons([np.asarray(s["points"], np.float64)], size_wh)) for s in shapes]
    target, ignore = (np.zeros(image.shape[:2], bool) for _ in range(2))
    for label, mask in sorted(drawn, key=lambda entry: -int(entry[1].sum())):  # small shapes lie on top of large ones
        target = (target | mask) if label != "ignore" else target & ~mask
        ignore = (ignore | mask) if label == "ignore" else ignore & ~mask
    region = region_of_mask(target)
    phrases = [
        Phrase(
            "refer",
            str(text),
            regions=() if region is None else (region,),
            ignore=encode_rle(ignore) if ignore.any() else None,
            attributes={"form": "question" if record.get("is_sentence") else "phrase"},
        )
        for text in record["text"]
    ]
    return Labels((), phrases=tuple(phrases))
