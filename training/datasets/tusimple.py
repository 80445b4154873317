"""TuSimple lane benchmark: ``label_data_*.json`` (one JSON object per line) beside ``clips/``.

Each line has ``raw_file`` (picture, relative to the root), ``h_samples`` (rows, pixels) and ``lanes`` (column per row, -2 where
the line is not there). Official training files are 0313 and 0601, 0531 is the usual validation file, ``test_label.json`` the
test; when only one of the training files is on disk, it is divided by stretches of its recording.

Lines are labelled without type and colour: both are read from the picture and marked in ``meta["derived"]``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr, Lane
from training.datasets.paint import lane_look
from training.datasets.reading import Found, Labels, SampleList, by_sequence, check_split, read_json_lines

TERMS = "TuSimple benchmark: repository Apache-2.0, terms of the pictures not stated; research use"
FILES = {
    "train": ("label_data_0313.json", "label_data_0601.json"),
    "val": ("label_data_0531.json",),
    "test": ("test_label.json",),
}
BLOCK = 1000  # file numbers of one stretch of a recording (50 s); neighbouring pictures of a stretch look alike


def open_samples(path: Path, split: str = "all") -> SampleList:
    """The lanes of TuSimple.

    Args:
        path: folder with the label files, or one label file beside ``clips/``.
        split: ``train``, ``val``, ``test`` or ``all``.

    Raises:
        ConfigError: no label file for the split.
        InputError: a label file that is not TuSimple's.
    """
    check_split(split, "tusimple")
    root = path.parent if path.is_file() else path
    there = {name: [root / file for file in files if (root / file).exists()] for name, files in FILES.items()}
    everything = [file for files in there.values() for file in files]
    if path.is_file():
        chosen, divide = [path], split != "all"
    elif sum(map(bool, there.values())) == 1 and not there["test"]:  # one training file alone: divide it
        chosen, divide = everything, split != "all"
    else:
        chosen, divide = everything if split == "all" else there[split], False
    if not chosen:
        wanted = ", ".join(FILES.get(split, FILES["train"]))
        raise ConfigError(f"tusimple: no label file for split {split!r} in {root}; expected {wanted}")
    found = [item for file in chosen for item in _listed(root, file)]
    return SampleList("tusimple", TERMS, by_sequence(found, split) if divide else found, _labels)


def _listed(root: Path, file: Path) -> list[Found]:
    found = []
    for number, record in enumerate(read_json_lines(file), 1):
        if not isinstance(record, dict) or not {"raw_file", "lanes", "h_samples"} <= record.keys():
            raise InputError(f"{file}: line {number} lacks raw_file, lanes or h_samples; is it a TuSimple label file?")
        name = str(record["raw_file"])
        parts = Path(name).parts
        stretch = int(parts[-2]) // BLOCK if len(parts) > 2 and parts[-2].isdigit() else 0
        found.append(Found(name, f"{'/'.join(parts[1:-2])}/{stretch}", root / name, (file, number, record)))
    return found


def _labels(item: Found, image: ImageBgr) -> Labels:
    file, number, record = item.label
    rows = np.asarray(record["h_samples"], np.float32)
    lanes = []
    for columns in record["lanes"]:
        if len(columns) != len(rows):
            raise InputError(f"{file}: line {number}: a lane of {len(columns)} columns for {len(rows)} rows (h_samples)")
        x = np.asarray(columns, np.float32)
        points = np.column_stack([x, rows])[x >= 0][::-1]
        if len(points) >= 2:
            lanes.append(Lane(points, *lane_look(image, points)))
    scored = {"h_samples": record["h_samples"], "lane_columns": record["lanes"]}  # by the benchmark's own metric
    return Labels(("lanes",), tuple(lanes), meta={"derived": ("lane_type", "lane_color"), **scored})
