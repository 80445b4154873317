"""HumanRef: expressions that mean one person, several or none, with all the people of the picture as candidates.

A folder with ``annotations.jsonl`` (or the file itself) and the pictures in ``images/``. One line an expression:

    {"id", "image_name", "referring", "domain", "sub_domain", "candidate_boxes": [[x0, y0, x1, y1], ...],
     "answer_boxes": [...], "answer_segmentations": [{"size": [h, w], "counts": COCO's run lengths}, ...]}

Boxes are in pixels from the picture's corner. ``domain`` is attribute, position, interaction, reasoning, celebrity or rejection;
a rejection means nobody. The benchmark is all there is in this layout, without an official split: it is divided by picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr
from training.datasets.phrases import coco_mask, region_of_box, region_of_mask
from training.datasets.reading import Found, Labels, SampleList, by_sequence, check_split, read_json_lines
from training.samples import Phrase, Region

TERMS = "HumanRef (IDEA-Research): research use, no commercial use; the people in the pictures did not agree to anything"
_NEEDED = {"image_name", "referring", "answer_boxes"}


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Pictures with the expressions about their people.

    Args:
        path: the folder, or its ``annotations.jsonl``.
        split: ``train``, ``val``, ``test`` or ``all``; by a hash of the picture's name.

    Raises:
        ConfigError: no annotation file, or an unknown split.
        InputError: lines that are not HumanRef's.
    """
    check_split(split, "humanref")
    file = path if path.is_file() else path / "annotations.jsonl"
    if not file.exists():
        raise ConfigError(f"humanref: no annotations.jsonl in {path}")
    by_picture: dict[str, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
    for number, record in enumerate(read_json_lines(file), 1):
        if not isinstance(record, dict) or (missing := _NEEDED - record.keys()):
            what = ", ".join(sorted(missing)) if isinstance(record, dict) else "everything"
            raise InputError(f"{file}: line {number} lacks {what}; is it HumanRef's annotations.jsonl?")
        by_picture[str(record["image_name"])].append((number, record))
    found, skipped = [], []
    for name, records in by_picture.items():
        image = file.parent / "images" / name
        if image.exists():
            found.append(Found(name, name, image, (file, records)))
        else:
            skipped.append((name, "no such picture in images/"))
    return SampleList("humanref", TERMS, by_sequence(found, split), _labels, skipped)


def _labels(item: Found, image: ImageBgr) -> Labels:
    file, records = item.label
    size_wh = (image.shape[1], image.shape[0])
    phrases = []
    for number, record in records:
        try:
            phrases.append(_phrase(record, size_wh))
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: line {number}: {type(error).__name__}: {error}") from error
    return Labels((), phrases=tuple(phrases))


def _phrase(record: Mapping[str, Any], size_wh: tuple[int, int]) -> Phrase:
    masks = record.get("answer_segmentations") or []
    boxes = _boxes(record["answer_boxes"])
    if masks and len(masks) != len(boxes):
        raise InputError(f"{len(boxes)} answer_boxes with {len(masks)} answer_segmentations")
    regions: list[Region | None] = [region_of_box(box, size_wh, "person") for box in boxes]
    for index, segmentation in enumerate(masks):
        region = regions[index]
        if region is not None:
            regions[index] = region_of_mask(coco_mask(segmentation, size_wh), "person", region.xyxy_px) or region
    candidates = [region_of_box(box, size_wh, "person") for box in _boxes(record.get("candidate_boxes") or ())]
    return Phrase(
        "refer",
        str(record["referring"]),
        regions=tuple(region for region in regions if region is not None),
        candidates=tuple(region for region in candidates if region is not None),
        attributes={name: str(record[name]) for name in ("id", "domain", "sub_domain") if name in record},
    )


def _boxes(boxes: Any) -> npt.NDArray[np.float64]:
    return np.asarray(boxes, np.float64).reshape(-1, 4) - 0.5  # from the corner
