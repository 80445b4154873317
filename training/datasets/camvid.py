"""CamVid, both ways it is handed out, told apart by the label pictures.

- **12 classes** (SegNet): ``train/ trainannot/``, ``val/ valannot/``, ``test/ testannot/``, uint8 class numbers. Lane paint
  lies inside the road class, traffic lights inside signs, lorries and buses inside cars.
- **32 classes** (original): ``701_StillsRaw_full/*.png`` and ``LabeledApproved_full/*_L.png`` in colour; or ``train/
  train_labels/`` and so on with the same colours. Lane paint is a class of its own.

Beware: the official SegNet split takes its parts from the same drives (0016E5 is in train and in val, 0001TP in train and test).
``python -m training.data split`` divides by drive instead.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import Box, ImageBgr
from training.datasets.masks import component_boxes, drivable_areas, from_colors
from training.datasets.paint import lanes_from_paint
from training.datasets.reading import (
    Found,
    Labels,
    SampleList,
    by_sequence,
    check_split,
    images_below,
    official,
    read_mask,
    same_size,
)

TERMS = "CamVid: CC BY-NC 4.0 (this redistribution); research use, no commercial use"

# SegNet's numbers
ROAD_12 = 3
BOXES_12 = {8: "car", 9: "pedestrian", 10: "two_wheeler"}

COLORS_32 = {
    "Animal": "408040", "Archway": "c00080", "Bicyclist": "0080c0", "Bridge": "008040", "Building": "800000", "Car": "400080",
    "CartLuggagePram": "4000c0", "Child": "c08040", "Column_Pole": "c0c080", "Fence": "404080", "LaneMkgsDriv": "8000c0",
    "LaneMkgsNonDriv": "c00040", "Misc_Text": "808040", "MotorcycleScooter": "c000c0", "OtherMoving": "804040",
    "ParkingBlock": "40c080", "Pedestrian": "404000", "Road": "804080", "RoadShoulder": "8080c0", "Sidewalk": "0000c0",
    "SignSymbol": "c08080", "Sky": "808080", "SUVPickupTruck": "4080c0", "TrafficCone": "000040", "TrafficLight": "004040",
    "Train": "c04080", "Tree": "808000", "Truck_Bus": "c080c0", "Tunnel": "400040", "VegetationMisc": "c0c000", "Void": "000000",
    "Wall": "40c000",
}  # fmt: skip
NUMBER_32 = {name: number for number, name in enumerate(COLORS_32)}
SPOKEN_32 = (  # in the same order; what has no word of its own is not asked for
    "animal", "archway", "bicyclist", "bridge", "building", "car", "cart or pram", "child", "pole", "fence", "lane marking",
    "road marking", "text", "motorcycle", "", "parking block", "pedestrian", "road", "road shoulder", "pavement", "sign", "sky",
    "pickup truck", "traffic cone", "traffic light", "train", "tree", "truck or bus", "tunnel", "vegetation", "", "wall",
)  # fmt: skip
DRIVABLE_32 = ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv")
BOXES_32 = {
    "car": ("Car", "SUVPickupTruck"),
    "truck": ("Truck_Bus",),
    "two_wheeler": ("Bicyclist", "MotorcycleScooter"),
    "pedestrian": ("Pedestrian", "Child"),
    "cone": ("TrafficCone",),
}


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Drivable areas and component boxes of CamVid; lanes too where paint is a class of its own.

    Args:
        path: the folder described in the module's text.
        split: ``train``, ``val``, ``test`` or ``all``; the original layout without parts is divided by drive.

    Raises:
        ConfigError: neither layout is there, or not this split.
    """
    check_split(split, "camvid")
    original = path / "LabeledApproved_full"
    skipped: list[tuple[str, str]] = []
    if original.is_dir():
        folder = next((path / name for name in ("701_StillsRaw_full", "images") if (path / name).is_dir()), None)
        if folder is None:
            raise ConfigError(f"camvid: {original} has no 701_StillsRaw_full beside it")
        return SampleList("camvid", TERMS, by_sequence(_pairs(path, folder, original, skipped), split), _labels, skipped)
    suffix = "annot" if any((path / f"{part}annot").is_dir() for part in ("train", "val", "test")) else "_labels"
    folders = official({part: path / f"{part}{suffix}" for part in ("train", "val", "test")}, split, "camvid")
    found = [f for labels in folders for f in _pairs(path, path / labels.name.removesuffix(suffix), labels, skipped)]
    return SampleList("camvid", TERMS, found, _labels, skipped)


def _pairs(root: Path, images: Path, labels: Path, skipped: list[tuple[str, str]]) -> list[Found]:
    found = []
    for image in images_below(images):
        label = next((p for p in (labels / f"{image.stem}.png", labels / f"{image.stem}_L.png") if p.exists()), None)
        name = str(image.relative_to(root))
        if label is None:
            skipped.append((name, f"no label picture in {labels.name}"))
        else:
            drive = image.stem.rsplit("_", 1)[0] if "_" in image.stem else image.stem[:6]  # 0001TP_008520, Seq05VD_f00000
            found.append(Found(name, drive, image, label))
    return found


def _labels(item: Found, image: ImageBgr) -> Labels:
    picture = read_mask(item.label)
    same_size(image, picture, item.label)
    if picture.ndim == 3 and not (np.array_equal(picture[..., 0], picture[..., 1]) and picture.max() < 32):
        return _labels_32(item, image, picture)
    classes = picture if picture.ndim == 2 else picture[..., 0]
    if classes.max() > 11:
        raise InputError(f"{item.label}: class {int(classes.max())} in a grey label picture; SegNet's CamVid has 0..11")
    boxes = [box for number, word in BOXES_12.items() for box in component_boxes(classes == number, word)]
    return Labels(
        ("drivable", "boxes"),
        drivable=drivable_areas(classes == ROAD_12),
        boxes=tuple(boxes),
        masks={"semantic": classes},
        meta={"derived": ("drivable", "boxes"), "labelled_classes": {"boxes": tuple(BOXES_12.values())}},
    )


def _labels_32(item: Found, image: ImageBgr, picture: np.ndarray) -> Labels:
    classes = from_colors(picture, {color: NUMBER_32[name] for name, color in COLORS_32.items()})
    unknown = float((classes == 255).mean())
    if unknown > 0.02:
        raise InputError(
            f"{item.label}: {unknown:.0%} of the pixels have none of CamVid's 32 colours; was it saved as JPEG or resized?"
        )

    def of(*names: str) -> np.ndarray:
        return np.isin(classes, [NUMBER_32[name] for name in names])

    boxes: list[Box] = [box for word, names in BOXES_32.items() for box in component_boxes(of(*names), word)]
    return Labels(
        ("lanes", "drivable", "boxes"),
        lanes=lanes_from_paint(of("LaneMkgsDriv"), image),
        drivable=drivable_areas(of(*DRIVABLE_32)),
        boxes=tuple(boxes),
        masks={"semantic": classes},
        meta={
            "derived": ("lanes", "drivable", "boxes"),
            "labelled_classes": {"boxes": tuple(BOXES_32)},
            "semantic_classes": tuple(SPOKEN_32),
        },
    )
