"""The masks of a `Sample`, one object each: what mask -> token conversion and offset-aware data start from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.samples import Sample

IGNORE = 255
MIN_AREA_SHARE = 0.001  # of the image; a cell of the 32 x 32 grid is about as large


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
