"""CULane: ``driver_*/*.MP4/*.jpg`` beside ``*.lines.txt`` (a line per lane: ``x y x y ...``) and the lists in ``list/``.

Lanes are labelled through cars that hide them, at most four of them. Type and colour are read from the picture and marked in
``meta["derived"]``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr, Lane
from training.datasets.paint import lane_look
from training.datasets.reading import Found, Labels, SampleList, check_split, read_text

TERMS = "CULane (CUHK): non-commercial research only"
LISTS = {"train": ("train_gt.txt", "train.txt"), "val": ("val_gt.txt", "val.txt"), "test": ("test.txt",)}


def open_samples(path: Path, split: str = "all") -> SampleList:
    """The lanes of CULane.

    Args:
        path: the root that holds ``list`` and the ``driver_*`` folders.
        split: ``train``, ``val``, ``test`` or ``all``; or a file of ``list/test_split`` such as ``test2_hlight``.

    Raises:
        ConfigError: no list for the split.
    """
    special = path / "list" / "test_split" / f"{split}.txt"
    if not special.exists():
        check_split(split, "culane")
    parts = [split] if split != "all" else list(LISTS)
    lists = [special] if special.exists() else []
    for part in [] if lists else parts:
        lists += [path / "list" / name for name in LISTS[part] if (path / "list" / name).exists()][:1]
    if not lists:
        raise ConfigError(f"culane: no list for split {split!r}; expected for example {path / 'list' / LISTS['train'][0]}")
    found, skipped = [], []
    for file in lists:
        for number, line in enumerate(read_text(file).splitlines(), 1):
            if not line.strip():
                continue
            name = line.split()[0].lstrip("/")
            image = path / name
            if image.suffix.lower() != ".jpg":
                raise InputError(f"{file}: line {number} does not start with the path of a .jpg: {line[:60]!r}")
            label = image.with_suffix(".lines.txt")
            if label.exists():
                found.append(Found(name, str(Path(name).parent), image, label))
            else:
                skipped.append((name, "no .lines.txt beside the picture"))
    return SampleList("culane", TERMS, found, _labels, skipped)


def _labels(item: Found, image: ImageBgr) -> Labels:
    lanes = []
    for number, line in enumerate(read_text(item.label).splitlines(), 1):
        values = np.array([float(word) for word in line.split()], np.float32)
        if len(values) % 2:
            raise InputError(f"{item.label}: line {number} has {len(values)} numbers; they come in pairs x y")
        points = values.reshape(-1, 2)
        points = points[points[:, 0] >= 0]
        if len(points) < 2:
            continue
        if points[0, 1] < points[-1, 1]:
            points = points[::-1]
        lanes.append(Lane(points, *lane_look(image, points)))
    return Labels(("lanes",), tuple(lanes), meta={"derived": ("lane_type", "lane_color")})
