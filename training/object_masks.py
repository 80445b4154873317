"""The masks of a `Sample`, one object each: what mask -> token conversion and offset-aware data start from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.phrases import region_mask
from training.samples import Sample

IGNORE = 255
MIN_AREA_SHARE = 0.001  # of the image; a cell of the 32 x 32 grid is about as large

# What the numbers of semantic pictures mean, by reader; a reader's own ``meta["semantic_classes"]`` comes first.
SEMANTIC_CLASSES = {
    "idd": ("drivable ground", "other ground", "person or rider", "vehicle", "roadside object", "building or tree", "sky"),
    "camvid": (
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ObjectMask:
    """One object or region.

    Attributes:
        name: unique in its picture, e.g. ``instance:3`` or ``class:2:0`` (class number: component, largest first).
        label: class name or number as text.
        mask: ``(H, W)`` bool.
    """

    name: str
    label: str
    mask: npt.NDArray[np.bool_]


def object_masks(sample: Sample, min_area_share: float = MIN_AREA_SHARE) -> Iterator[ObjectMask]:
    """Objects of the instance picture when there is one, else the connected components (8 neighbours) of each semantic class.

    Args:
        sample: with ``masks["instance"]`` (0: none, k: ``boxes[k - 1]``) or ``masks["semantic"]`` (255: ignored).
        min_area_share: smaller ones are left out.
    """
    least_px = min_area_share * sample.size_wh[0] * sample.size_wh[1]
    if "instance" in sample.masks:
        picture = np.asarray(sample.masks["instance"])
        for number in np.unique(picture).tolist():
            mask = picture == number
            if number and mask.sum() >= least_px:
                label = sample.boxes[number - 1].class_name if number <= len(sample.boxes) else "object"
                yield ObjectMask(f"instance:{number}", label, mask)
    elif "semantic" in sample.masks:
        classes = np.asarray(sample.masks["semantic"])
        for number in np.unique(classes).tolist():
            if number == IGNORE:
                continue
            _, components, stats, _ = cv2.connectedComponentsWithStats((classes == number).astype(np.uint8), connectivity=8)
            areas = stats[1:, cv2.CC_STAT_AREA]
            for rank, component in enumerate(np.argsort(-areas, kind="stable").tolist()):
                if areas[component] >= least_px:
                    yield ObjectMask(f"class:{number}:{rank}", str(number), components == component + 1)


def class_name(item: ObjectMask, sample: Sample) -> str:
    """The class of a mask as a phrase; empty where only a number is known."""
    if not item.label.isdigit():
        return item.label.replace("_", " ")
    names = sample.meta.get("semantic_classes") or SEMANTIC_CLASSES.get(str(sample.meta.get("dataset")), ())
    return str(names[int(item.label)]) if int(item.label) < len(names) else ""


def described_masks(sample: Sample) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """``(q, M_gt)`` of the paper's algorithm 1: what one object is called, and its mask ``(H, W)``.

    Expressions that mean one object with a mask, each (RefCOCO and its like, of which the paper makes its offset data), and the
    objects of label pictures by their class, or ``object`` where only a number is known.
    """
    for phrase in sample.phrases:
        mask = region_mask(phrase.regions[0]) if phrase.task == "refer" and len(phrase.regions) == 1 else None
        if mask is not None and mask.any():
            yield phrase.text, mask
    for item in object_masks(sample):
        yield class_name(item, sample) or "object", item.mask
