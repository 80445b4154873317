"""The project's own data set format: one JSON object per line and picture; the schema is written down in README.md beside this
file.

`record_of` and `labels_of` are inverse to each other up to the rounding of coordinates (0.01 px).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from getok_drive.tokens.vocab import BOX_CLASSES, LANE_COLORS, LANE_TYPES, SIGN_CLASSES, SIGN_COLORS
from getok_drive.types import Box, DrivableArea, ImageBgr, Lane, Sign
from training.datasets.phrases import phrase_record, phrases_of
from training.datasets.reading import Found, Labels, SampleList, by_sequence, check_split, read_json_lines, read_mask, same_size
from training.samples import KINDS, Sample

SCHEMA = "getok-drive/2"
KNOWN_SCHEMAS = ("getok-drive/1", SCHEMA)
"""2 added phrases; what 1 can say means the same in both."""
TERMS = "as stated in each line's meta.terms"
_FIELDS = {"schema", "image", "size_wh", "split", "known", *KINDS, "scene", "masks", "phrases", "meta"}
_NEEDED = {"schema", "image", "size_wh", "known"}


def open_samples(path: Path, split: str = "all") -> SampleList:
    """A data set in the project's own format.

    The split of a line is its ``split`` field; a file without such fields counts as the split that it is named after
    (``val.jsonl``), else it is divided by sequence.

    Args:
        path: a ``.jsonl`` file, or a folder of them.
        split: ``train``, ``val``, ``test`` or ``all``.

    Raises:
        ConfigError: no such file, or an unknown split.
        InputError: a line that is not of this schema; names file and line.
    """
    check_split(split, "jsonl")
    files = sorted(p for p in path.glob("*.jsonl") if p.name != "skipped.jsonl") if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"jsonl: no .jsonl file in {path}")
    named = [file for file in files if file.stem in ("train", "val", "test")]
    found = []
    for file in named or files:
        entries = [_found(file, number, record) for number, record in enumerate(read_json_lines(file), 1)]
        if any("split" in item.label[2] for item in entries):
            found += [item for item in entries if split in ("all", item.label[2].get("split"))]
        elif file in named:
            found += entries if split in ("all", file.stem) else []
        else:
            found += by_sequence(entries, split)
    return SampleList("jsonl", TERMS, found, _labels, prefix=False)


def _found(file: Path, number: int, record: Any) -> Found:
    where = f"{file}: line {number}"
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(record).__name__}")
    if record.get("schema") not in KNOWN_SCHEMAS:
        have = " and ".join(map(repr, KNOWN_SCHEMAS))
        raise InputError(f"{where}: schema is {record.get('schema')!r}, this reader knows {have}; convert the file again")
    if missing := _NEEDED - record.keys():
        raise InputError(f"{where}: lacks {', '.join(sorted(missing))}")
    if record["schema"] == "getok-drive/1" and "phrases" in record:
        raise InputError(f"{where}: phrases came with {SCHEMA!r}; give the line that schema")
    if unknown := record.keys() - _FIELDS:
        raise InputError(f"{where}: unknown field {', '.join(sorted(unknown))}; put your own data into meta")
    meta = record.get("meta", {})
    name = str(meta.get("source") or record["image"])
    return Found(name, str(meta.get("sequence") or name), file.parent / str(record["image"]), (file, number, record))


def _labels(item: Found, image: ImageBgr) -> Labels:
    file, number, record = item.label
    try:
        return labels_of(record, image, file.parent)
    except InputError as error:
        raise InputError(f"{file}: line {number}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: line {number}: not of schema {SCHEMA} ({type(error).__name__}: {error})") from error


def labels_of(record: Mapping[str, Any], image: ImageBgr, root: Path) -> Labels:
    """The labels in a record.

    Args:
        record: one line, parsed.
        image: its picture, whose size must be ``size_wh``.
        root: folder that the paths of masks start from.

    Raises:
        InputError: sizes, words or numbers that do not fit; says which.
    """
    width, height = record["size_wh"]
    if (width, height) != (image.shape[1], image.shape[0]):
        raise InputError(f"size_wh is {width}x{height}, the picture has {image.shape[1]}x{image.shape[0]} px; was it resized?")
    known = tuple(record["known"])
    if wrong := [kind for kind in known if kind not in KINDS]:
        raise InputError(f"known: {', '.join(map(str, wrong))} is no kind; use {', '.join(KINDS)}")
    lanes = [
        Lane(e["points_px"], _word(e["type"], LANE_TYPES, "lane type"), _word(e["color"], LANE_COLORS, "lane color"))
        for e in record.get("lanes", ())
    ]
    boxes = [
        Box(np.asarray(e["xyxy_px"], np.float32), _word(e["class"], BOX_CLASSES, "box class"), attributes=_attributes(e))
        for e in record.get("boxes", ())
    ]
    signs = [
        Sign(
            np.asarray(e["point_px"], np.float32),
            _word(e["class"], SIGN_CLASSES, "sign class"),
            _word(e["color"], SIGN_COLORS, "sign color"),
            attributes=_attributes(e),
        )
        for e in record.get("signs", ())
    ]
    masks = {}
    for name, relative in record.get("masks", {}).items():
        masks[name] = read_mask(root / relative, wide=True)
        same_size(image, masks[name], root / relative)
    meta = {**record.get("meta", {}), **({"split": record["split"]} if "split" in record else {})}
    return Labels(
        known,
        tuple(lanes),
        tuple(DrivableArea(e["polygon_px"]) for e in record.get("drivable", ())),
        tuple(boxes),
        tuple(signs),
        dict(record.get("scene", {})),
        masks,
        meta,
        phrases_of(record.get("phrases", ())),
    )


def _word(value: Any, allowed: tuple[str, ...], what: str) -> str:
    if value not in allowed:
        raise InputError(f"{what} {value!r} is not in the token table; use one of {', '.join(allowed)}")
    return str(value)


def _attributes(element: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in element.get("attributes", {}).items()}


def record_of(sample: Sample, image: str, masks: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A sample as one record.

    Args:
        sample: what to write.
        image: path of its picture, relative to the file that the record goes into.
        masks: paths of its label pictures, likewise.
    """

    def xy(points: npt.NDArray[np.float32]) -> list[Any]:
        return np.round(points.astype(np.float64), 2).tolist()  # type: ignore[no-any-return]

    record: dict[str, Any] = {"schema": SCHEMA, "image": image, "size_wh": list(sample.size_wh), "known": list(sample.known)}
    if "lanes" in sample.known:
        record["lanes"] = [{"points_px": xy(e.points_px), "type": e.type, "color": e.color} for e in sample.lanes]
    if "drivable" in sample.known:
        record["drivable"] = [{"polygon_px": xy(e.polygon_px)} for e in sample.drivable]
    if "boxes" in sample.known:
        record["boxes"] = [
            {"xyxy_px": xy(e.xyxy_px), "class": e.class_name, "attributes": dict(e.attributes)} for e in sample.boxes
        ]
    if "signs" in sample.known:
        record["signs"] = [
            {"point_px": xy(e.point_px), "class": e.class_name, "color": e.color, "attributes": dict(e.attributes)}
            for e in sample.signs
        ]
    if sample.scene:
        record["scene"] = dict(sample.scene)
    if masks:
        record["masks"] = dict(masks)
    if sample.phrases:
        record["phrases"] = [phrase_record(phrase) for phrase in sample.phrases]
    record["meta"] = plain({key: value for key, value in sample.meta.items() if key != "image_path"})
    return record


def plain(value: Any) -> Any:
    """A value of ``meta`` as JSON can hold it: arrays and tuples become lists, everything unknown its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
