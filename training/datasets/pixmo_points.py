"""PixMo-Points: what to point at, and the points; every row a phrase to ``point``.

The published Parquet files (``data/train-*.parquet``), or the same rows as JSON lines (``*.jsonl``), one picture and label a row:

    {"image_url", "image_sha256", "points": [{"x", "y"}, ...], "count", "label", "collection_method": "pointing" | "counting"}

Coordinates are percents of the picture's width and height: so the code that Molmo was trained with reads them
(``point_scale=100``); the data set's own card says pixels. No points: nothing in the picture is meant. The pictures are not
published: fetch each ``image_url`` yourself into ``images/`` (or ``pixmo_images/``), named by the SHA-256 of the address, as
Molmo's downloader does, or by ``image_sha256``; with any suffix or none. A picture that is not the labelled one is refused.

No official split: divided by picture. Reading Parquet needs the package pyarrow.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr
from training.datasets.reading import Found, Labels, SampleList, by_sequence, check_split, read_json_lines
from training.samples import Phrase, Region

TERMS = "PixMo-Points: ODC-BY 1.0, pictures under the terms of their web pages"
FOLDERS = ("images", "pixmo_images")
_NEEDED = ("image_url", "points", "label")


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Pictures with what to point at in them.

    Args:
        path: the folder with ``data/*.parquet``, ``*.parquet`` or ``*.jsonl``, or one such file.
        split: ``train``, ``val``, ``test`` or ``all``; by a hash of the picture's address.

    Raises:
        ConfigError: no such file, an unknown split, or Parquet without pyarrow.
        InputError: rows that are not PixMo-Points'.
    """
    check_split(split, "pixmo_points")
    root = path.parent if path.is_file() else path
    files = [path] if path.is_file() else sorted([*root.glob("data/*.parquet"), *root.glob("*.parquet"), *root.glob("*.jsonl")])
    if not files:
        raise ConfigError(f"pixmo_points: no data/*.parquet, *.parquet or *.jsonl in {path}")
    there = {
        file.stem: file
        for base in (root, root.parent)
        for folder in FOLDERS
        if (base / folder).is_dir()
        for file in (base / folder).iterdir()
    }
    by_address: dict[str, list[tuple[Path, int, Mapping[str, Any]]]] = defaultdict(list)
    for file in files:
        for number, row in enumerate(_rows(file), 1):
            if missing := [name for name in _NEEDED if name not in row]:
                raise InputError(f"{file}: row {number} lacks {', '.join(missing)}; is it PixMo-Points?")
            by_address[str(row["image_url"])].append((file, number, row))
    found, skipped = [], []
    for address, rows in by_address.items():
        name = hashlib.sha256(address.encode()).hexdigest()
        image = there.get(name) or there.get(str(rows[0][2].get("image_sha256")))
        if image is None:
            skipped.append((address, f"not fetched: no {name[:12]}... in {FOLDERS[0]}/"))
        else:
            found.append(Found(name, name, image, rows))
    return SampleList("pixmo_points", TERMS, by_sequence(found, split), _labels, skipped)


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix != ".parquet":
        yield from read_json_lines(file)
        return
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{file}: Parquet needs the package pyarrow: pip install pyarrow") from error
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: not a Parquet file that can be read ({error}); download it again") from error


def _labels(item: Found, image: ImageBgr) -> Labels:
    expected = item.label[0][2].get("image_sha256")
    if expected and hashlib.sha256(item.image.read_bytes()).hexdigest() != expected:
        raise InputError(f"{item.image}: not the picture that was labelled (its SHA-256 differs); the web page has changed it")
    phrases = []
    for file, number, row in item.label:
        try:
            phrases.append(_phrase(row, (image.shape[1], image.shape[0])))
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: row {number}: {type(error).__name__}: {error}") from error
    return Labels((), meta={"image_url": item.label[0][2]["image_url"]}, phrases=tuple(phrases))


def _phrase(row: Mapping[str, Any], size_wh: tuple[int, int]) -> Phrase:
    if isinstance(row["points"], Mapping):
        raise InputError("points is one object with lists; these are rows of PixMo-Count, whose points are pixels")
    percent = np.array([(point["x"], point["y"]) for point in row["points"]], np.float64).reshape(-1, 2)
    if not ((percent >= -0.5) & (percent <= 100.5)).all():
        raise InputError(f"a point at {percent.max(axis=0).tolist()} of 100 %; points are percents of the picture")
    size = np.array(size_wh, np.float64)
    points_px = np.clip(percent / 100 * size - 0.5, 0, size - 1)
    return Phrase(
        "point",
        str(row["label"]).strip(),
        regions=tuple(Region(point_px=point.astype(np.float32)) for point in points_px),
        attributes={name: str(row[name]) for name in ("collection_method",) if row.get(name) is not None},
    )
