"""LISA++: questions about COCO pictures whose answers name regions; four data sets, told apart by the fields of their records.

- ``LISA_Plus_Instance_Seg``: ``img_path``, ``English Question``, ``ID`` (numbers), ``points``: a phrase to ``refer`` with a
  region for each instance.
- ``LISA_Plus_COT`` and ``LISA_Plus_Caption``: ``image_path``, ``English Question``, ``English Answer``, ``info``: a ``question``.
- ``LISA_Plus_Conversations``: ``img_pth``, ``output`` (``<person>: ... <robot>: ...``), ``info``: a ``question`` for each turn.

``points`` and ``info`` map a number to ``{"points" or "polygon": polygons, "label name"}`` or to the polygons alone: pairs, flat
lists as COCO's, or run lengths. Answers name regions as ``<123|dog>``, ``《123|dog》`` or ``[dog <123>, dog <456>]``; here all
become ``<region_K>``. A number without a mask leaves its word in the text.

A folder with ``LISA_Plus_*.json`` or ``LISA_Plus_*/data.json`` (or one such file) and COCO's pictures in ``train2017/``,
``coco/train2017/`` or ``../coco/train2017/``. No official split: divided by picture. The largest file (346 MB) is read whole.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr
from training.datasets.phrases import coco_mask, region_of_mask
from training.datasets.reading import Found, Labels, SampleList, by_sequence, check_split, read_json
from training.samples import Phrase, Region

TERMS = "LISA++: Apache-2.0 text made by GPT-4V, COCO pictures under their Flickr licences"
FOLDERS = ("train2017", "coco/train2017", "images", "val2017")
IMAGE_FIELDS = ("img_path", "image_path", "img_pth")
_MARK = re.compile(r"[<《](\d+)\s*\|\s*([^>》]*)[>》]|<(\d+)>")  # <123|dog>, 《123|dog》, <123>
_LIST = re.compile(r"\[([^\[\]]*)\]")
_TURN = re.compile(r"<(person|robot)>\s*:")


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Pictures with the questions about them.

    Args:
        path: the folder, or one of the JSON files.
        split: ``train``, ``val``, ``test`` or ``all``; by a hash of the picture's name.

    Raises:
        ConfigError: no such file, or an unknown split.
        InputError: a file that is not LISA++'s.
    """
    check_split(split, "lisa_plus")
    root = path.parent if path.is_file() else path
    files = [path] if path.is_file() else sorted([*root.glob("LISA_Plus_*.json"), *root.glob("LISA_Plus_*/data.json")])
    files = files or sorted(root.glob("data.json"))
    if not files:
        raise ConfigError(f"lisa_plus: no LISA_Plus_*.json, LISA_Plus_*/data.json or data.json in {path}")
    places = [base / folder for base in (root, root.parent) for folder in FOLDERS]
    by_picture: dict[str, list[tuple[Path, int, Mapping[str, Any]]]] = defaultdict(list)
    for file in files:
        records = read_json(file)
        if not isinstance(records, list):
            raise InputError(f"{file}: expected a list of records")
        for number, record in enumerate(records):
            name = next((record[field] for field in IMAGE_FIELDS if field in record), None) if isinstance(record, dict) else None
            if not name:
                raise InputError(f"{file}: record {number} has none of {', '.join(IMAGE_FIELDS)}; is it LISA++'s data.json?")
            by_picture[Path(str(name)).name].append((file, number, record))
    found, skipped = [], []
    for name, group in sorted(by_picture.items()):
        image = next((place / name for place in places if (place / name).exists()), None)
        if image is None:
            skipped.append((name, f"no such picture in {', '.join(FOLDERS[:2])}"))
        else:
            found.append(Found(name, name, image, group))
    return SampleList("lisa_plus", TERMS, by_sequence(found, split), _labels, skipped)


def _labels(item: Found, image: ImageBgr) -> Labels:
    size_wh = (image.shape[1], image.shape[0])
    phrases: list[Phrase] = []
    left_out: Counter[str] = Counter()
    for file, number, record in item.label:
        try:
            phrases += _phrases(record, size_wh, left_out)
        except (InputError, KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{file}: record {number}: {type(error).__name__}: {error}") from error
    return Labels((), meta={"left_out": dict(left_out)} if left_out else {}, phrases=tuple(phrases))


def _phrases(record: Mapping[str, Any], size_wh: tuple[int, int], left_out: Counter[str]) -> list[Phrase]:
    if "ID" in record:
        places = _Places(record["points"], size_wh)
        regions = [region for number in record["ID"] if (region := places.region(str(number))) is not None]
        if len(regions) < len(record["ID"]):
            left_out["instance without a mask"] += len(record["ID"]) - len(regions)
        if not regions:
            return []
        attributes = {"form": "question", "part": "instance_seg"}
        return [Phrase("refer", str(record["English Question"]).strip(), regions=tuple(regions), attributes=attributes)]
    if "output" in record:
        pieces = _TURN.split(str(record["output"]))[1:]
        turns = [(role, text.strip()) for role, text in zip(pieces[::2], pieces[1::2], strict=True)]
        pairs = [
            (question, answer)
            for (asks, question), (answers, answer) in pairwise(turns)
            if (asks, answers) == ("person", "robot")
        ]
        part = "conversations"
    else:
        pairs, part = [(str(record["English Question"]).strip(), str(record["English Answer"]).strip())], "cot_or_caption"
    phrases = []
    for turn, (question, answer) in enumerate(pairs):
        places = _Places(record.get("info") or {}, size_wh)
        texts = places.resolved(question), places.resolved(answer)
        if not all(texts):
            left_out["turn without text"] += 1
            continue
        attributes = {"part": part, **({"turn": str(turn)} if len(pairs) > 1 else {})}
        phrases.append(Phrase("question", *texts, regions=tuple(places.used), attributes=attributes))
    return phrases


class _Places:
    """The numbered regions of a record, and those that its text has used so far, in the order of their first use."""

    def __init__(self, info: Mapping[str, Any], size_wh: tuple[int, int]) -> None:
        self._info = {str(number): value for number, value in info.items()}
        self._size_wh = size_wh
        self._index: dict[str, int] = {}
        self.used: list[Region] = []

    def region(self, number: str, label: str = "") -> Region | None:
        """The region of a number, None when the record has no mask for it."""
        value = self._info.get(number)
        if not value:
            return None
        if isinstance(value, Mapping) and "counts" not in value:
            label = str(value.get("label name") or label)
            value = value.get("polygon") or value.get("points")
            if not value:
                return None
        return region_of_mask(_mask(value, self._size_wh), label)

    def resolved(self, text: str) -> str:
        """The text with every mark of a region as ``<region_K>``; lists of marks as an enumeration."""

        def listed(match: re.Match[str]) -> str:
            names = [self._reference(mark) for mark in _MARK.finditer(match[1])]
            if not names:
                return match[0]  # brackets of another kind
            names = [name for name in names if name]
            return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

        return _MARK.sub(self._reference, _LIST.sub(listed, text)).strip()

    def _reference(self, match: re.Match[str]) -> str:
        number, label = match[1] or match[3], (match[2] or "").strip()
        if number not in self._index:
            region = self.region(number, label)
            if region is None:
                return label
            self._index[number] = len(self.used)
            self.used.append(region)
        return f"<region_{self._index[number]}>"


def _mask(value: Any, size_wh: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Polygons as pairs, as nested pairs or as COCO's flat lists; or run lengths, one or several."""
    if isinstance(value, Mapping):
        return coco_mask(value, size_wh)
    parts: Sequence[Any] = value
    if isinstance(parts[0], Mapping):
        return np.any([coco_mask(part, size_wh) for part in parts], axis=0)
    if not isinstance(parts[0], list):
        parts = [parts]
    elif all(len(part) == 2 and not isinstance(part[0], list) for part in parts):
        parts = [np.asarray(parts, np.float64)]
    return coco_mask([np.asarray(part, np.float64).ravel() for part in parts], size_wh)
