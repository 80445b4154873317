"""comma10k: ``imgs/*.png`` (or .jpg) and ``masks/*.png`` with five colours.

The mask tells road, lane paint, undrivable, movable things and the own car apart, not the kinds of movable things, so that
boxes are not known. Official validation pictures are those whose name ends in 9; there is no test part.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr
from training.datasets.masks import drivable_areas, from_colors
from training.datasets.paint import lanes_from_paint
from training.datasets.reading import Found, Labels, SampleList, check_split, image_named, images_below, read_mask, same_size

TERMS = "comma10k: MIT licence"
ROAD, PAINT, UNDRIVABLE, MOVABLE, OWN_CAR = range(5)
COLORS = {"402020": ROAD, "ff0000": PAINT, "808060": UNDRIVABLE, "00ff66": MOVABLE, "cc00ff": OWN_CAR}
MOST_UNKNOWN = 0.02  # share of pixels of other colours; a few come from anti-aliased edits


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Drivable areas and derived lanes of comma10k.

    Args:
        path: folder with ``imgs`` and ``masks``.
        split: ``train``, ``val`` (names ending in 9) or ``all``.

    Raises:
        ConfigError: a folder or the split is missing.
    """
    check_split(split, "comma10k")
    masks = images_below(path / "masks")
    if not masks:
        raise ConfigError(f"comma10k: no label pictures in {path / 'masks'}; give the folder that holds imgs and masks")
    if split == "test":
        raise ConfigError("comma10k: has no test part; use val, train or all")
    found, skipped = [], []
    for mask in masks:
        if split != "all" and (split == "val") != mask.stem.endswith("9"):
            continue
        image = image_named(path / "imgs", mask.stem)
        if image is None:
            skipped.append((mask.name, "no picture of this name in imgs"))
            continue
        drive = "_".join(mask.stem.split("_")[1:3]) or mask.stem  # NUMBER_DONGLE_DATE_SEGMENT_FRAME
        found.append(Found(f"imgs/{image.name}", drive, image, mask))
    return SampleList("comma10k", TERMS, found, _labels, skipped)


def _labels(item: Found, image: ImageBgr) -> Labels:
    picture = read_mask(item.label)
    same_size(image, picture, item.label)
    classes = from_colors(picture, COLORS)
    unknown = float((classes == 255).mean())
    if unknown > MOST_UNKNOWN:
        raise InputError(
            f"{item.label}: {unknown:.0%} of the pixels have none of comma10k's five colours; was it saved as JPEG or resized?"
        )
    return Labels(
        ("lanes", "drivable"),
        lanes=lanes_from_paint(classes == PAINT, image),
        drivable=drivable_areas(np.isin(classes, (ROAD, PAINT))),
        masks={"semantic": classes},
        meta={"derived": ("lanes", "drivable")},
    )
