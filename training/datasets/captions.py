"""Descriptions of regions: Visual Genome and RefCOCOg, told apart by their files; every description is a phrase to ``caption``.

- **Visual Genome**: ``region_descriptions.json``, ``[{"id", "regions": [{"region_id", "image_id", "phrase", "x", "y", "width",
  "height"}]}]``, with the pictures ``VG_100K/ID.jpg`` and ``VG_100K_2/ID.jpg``. Where ``image_data.json`` is beside it, the sizes
  of the pictures are checked (some copies are resized) and ``meta["coco_id"]`` says which COCO picture it is: about half of them
  are, so keep those out of what COCO, RefCOCO or LISA++ are tested on. No official split for descriptions: divided by picture.
- **RefCOCOg**: a folder of the RefCOCO family (see `training.datasets.referring`), read the other way round: from the object to
  its expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr
from training.datasets import referring
from training.datasets.phrases import region_of_box
from training.datasets.reading import Found, Labels, SampleList, by_sequence, check_split, read_json
from training.samples import Phrase

TERMS = "Visual Genome: CC BY 4.0, pictures of COCO and YFCC under their own licences"
REFCOCOG_TERMS = "RefCOCOg: expressions for research, COCO pictures under their Flickr licences"
FOLDERS = ("VG_100K", "VG_100K_2", "images", "images/VG_100K", "images/VG_100K_2", "images2/VG_100K_2")


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Pictures with the descriptions of their regions.

    Args:
        path: the folder of one data set.
        split: ``train``, ``val``, ``test`` or ``all``; official for RefCOCOg.

    Raises:
        ConfigError: neither layout, or an unknown split.
        InputError: files that are not what they should be.
    """
    check_split(split, "captions")
    file = path / "region_descriptions.json"
    if file.exists():
        return _visual_genome(path, file, split)
    if any(path.glob("refs(*).p")):
        found, skipped = referring.found_references(path, split)
        return SampleList("captions", REFCOCOG_TERMS, found, _refcocog, skipped)
    raise ConfigError(f"captions: {path} has neither region_descriptions.json (Visual Genome) nor refs(*).p (RefCOCOg)")


# --- Visual Genome ---------------------------------------------------------------------------------------------------


def _visual_genome(root: Path, file: Path, split: str) -> SampleList:
    entries = read_json(file)
    if not isinstance(entries, list) or not all(isinstance(e, dict) and {"id", "regions"} <= e.keys() for e in entries):
        raise InputError(f"{file}: expected a list of pictures with id and regions")
    about = root / "image_data.json"
    data: dict[int, Mapping[str, Any]] = {e.get("image_id", e.get("id")): e for e in read_json(about)} if about.exists() else {}
    found, skipped = [], []
    for entry in entries:
        name = f"{entry['id']}.jpg"
        image = next((root / folder / name for folder in FOLDERS if (root / folder / name).exists()), None)
        if image is None:
            skipped.append((name, f"no such picture in {', '.join(FOLDERS[:2])}"))
        else:
            found.append(Found(str(image.relative_to(root)), name, image, (file, entry, data.get(entry["id"], {}))))
    return SampleList("captions", TERMS, by_sequence(found, split), _regions, skipped)


def _regions(item: Found, image: ImageBgr) -> Labels:
    file, entry, data = item.label
    size_wh = (image.shape[1], image.shape[0])
    if data and (data["width"], data["height"]) != size_wh:
        raise InputError(
            f"{item.image}: {size_wh[0]}x{size_wh[1]} px, image_data.json says {data['width']}x{data['height']} px; it was "
            "resized, take the original"
        )
    phrases, left_out = [], 0
    for region in entry["regions"]:
        try:
            x, y, w, h = (float(region[name]) for name in ("x", "y", "width", "height"))
            text = str(region["phrase"]).strip()
        except (KeyError, TypeError, ValueError) as error:
            number = region.get("region_id") if isinstance(region, Mapping) else region
            raise InputError(f"{file}: region {number}: {type(error).__name__}: {error}") from error
        place = region_of_box(np.array([x, y, x + w, y + h]) - 0.5, size_wh)  # counted from the picture's corner
        if place is None or not text:
            left_out += 1
        else:
            phrases.append(Phrase("caption", text, regions=(place,)))
    meta: dict[str, Any] = {"left_out": {"region without text or outside the picture": left_out}} if left_out else {}
    if data.get("coco_id") is not None:
        meta["coco_id"] = data["coco_id"]
    return Labels((), meta=meta, phrases=tuple(phrases))


# --- RefCOCOg --------------------------------------------------------------------------------------------------------


def _refcocog(item: Found, image: ImageBgr) -> Labels:
    refs, references, annotations = item.label
    size_wh = (image.shape[1], image.shape[0])
    phrases = []
    for reference in references:
        regions = referring.target_regions(refs, reference, annotations, size_wh)
        phrases += [Phrase("caption", str(sentence["sent"]), regions=regions) for sentence in reference["sentences"] if regions]
    return Labels((), phrases=tuple(phrases))
