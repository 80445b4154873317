"""``scenes.jsonl`` and ``predictions.jsonl``: one `Scene` a line, written by `Scene.to_json`, read back and checked here.

Files of other programs are welcome: only ``image_size_wh`` and the element lists are required, in the format of README's
``scenes.jsonl``; an element's confidence defaults to 1, further keys of boxes and signs become attributes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from getok_drive.errors import GetokError, InputError
from getok_drive.types import Box, DecodeReport, DrivableArea, Lane, Scene, Sign, Timings

_BOX_KEYS = {"xyxy_px", "class", "confidence"}
_SIGN_KEYS = {"point_px", "class", "color", "confidence"}


def _attributes(record: Mapping[str, Any], known: set[str]) -> dict[str, str]:
    return {name: str(value) for name, value in record.items() if name not in known}


def scene_from_json(record: Mapping[str, Any], where: str = "scene") -> Scene:
    """A scene from the plain values of `Scene.to_json`.

    Args:
        record: one decoded line.
        where: file and line, for messages.

    Raises:
        InputError: naming the element that is missing or malformed.
    """
    at = where
    try:
        at = f"{where}: image_size_wh"
        width, height = (int(value) for value in record["image_size_wh"])
        lanes, areas, boxes, signs = [], [], [], []
        for i, e in enumerate(record.get("lanes", ())):
            at = f"{where}: lanes[{i}]"
            lanes.append(Lane(e["points_px"], e.get("type", "solid"), e.get("color", "white"), float(e.get("confidence", 1.0))))
        for i, e in enumerate(record.get("drivable", ())):
            at = f"{where}: drivable[{i}]"
            areas.append(DrivableArea(e["polygon_px"], float(e.get("confidence", 1.0))))
        for i, e in enumerate(record.get("boxes", ())):
            at = f"{where}: boxes[{i}]"
            boxes.append(Box(e["xyxy_px"], e["class"], float(e.get("confidence", 1.0)), _attributes(e, _BOX_KEYS)))
        for i, e in enumerate(record.get("signs", ())):
            at = f"{where}: signs[{i}]"
            confidence = float(e.get("confidence", 1.0))
            signs.append(Sign(e["point_px"], e["class"], e.get("color", "white"), confidence, _attributes(e, _SIGN_KEYS)))
        at = f"{where}: decode_report, timings_ms or bundle"
        report, bundle = record.get("decode_report") or {}, record.get("bundle") or {}
        return Scene(
            image_size_wh=(width, height), lanes=tuple(lanes), drivable=tuple(areas), boxes=tuple(boxes), signs=tuple(signs),
            stamp_ns=int(record.get("stamp_ns", 0)), source=str(record.get("source", "")), index=int(record.get("frame", 0)),
            truncated=bool(record.get("truncated", False)), report=DecodeReport(**report),
            timings=Timings(**(record.get("timings_ms") or {})), bundle_name=str(bundle.get("name", "")),
            bundle_sha256=str(bundle.get("sha256", "")),
        )  # fmt: skip
    except KeyError as error:
        raise InputError(f"{at}: {error} is missing") from error
    except (GetokError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"{at}: {error}") from error


def read_lines(path: Path, repair: bool = False) -> Iterator[dict[str, Any]]:
    """The decoded lines of a JSONL file.

    Args:
        path: the file.
        repair: cut off a last line that an interrupted run left unfinished, instead of refusing the file.

    Raises:
        InputError: no such file, or a line that is not a JSON object.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if repair and content and not content.endswith(b"\n"):
        content = content[: content.rfind(b"\n") + 1]
        path.write_bytes(content)
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"{path}:{number}: expected a JSON object, got {type(record).__name__}")
        record["_where"] = f"{path}:{number}"
        yield record
