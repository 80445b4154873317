"""Answers to queries, and the JSON lines that hold them: ``answers.jsonl``, our own or anybody's.

One line a query. ``key`` (the picture), ``task`` and ``query`` (the number, as ``--write-queries`` lists them) say which; then
what the task wants, in pixels of the picture, integers at pixel centres:

| field | of tasks | meaning |
|---|---|---|
| ``word`` | classification | one of the choices |
| ``boxes_px`` | rec | ``[[x0, y0, x1, y1], ...]``; the first counts |
| ``rle`` | res, gres, reason | the mask, COCO's run lengths ``{"size": [h, w], "counts": [...] or "..."}`` |
| ``polygons_px`` | likewise | instead of ``rle``: ``[[[x, y], ...], ...]``, united |
| ``points_px`` | pointing | ``[[x, y], ...]`` |
| ``caption`` | caption | text |

``wall_ms``, ``truncated`` (bool), ``confidence`` (0..1) and ``issues`` (counts by name) are optional. No field, or an empty one,
is "nothing": no box, an empty mask, no caption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from training.datasets.shapes import decode_rle, encode_rle
from training.metrics.raster import fill_polygons
from training.prompted import TASKS

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
QueryId = tuple[str, str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was said to one query; see the module."""

    word: str = ""
    boxes_px: Points = field(default_factory=lambda: np.zeros((0, 4)))
    mask: Mask | None = None
    points_px: Points = field(default_factory=lambda: np.zeros((0, 2)))
    caption: str = ""
    confidence: float | None = None
    wall_ms: float | None = None
    truncated: bool = False
    issues: Mapping[str, int] = field(default_factory=dict)

    def to_json(self, key: str, task: str, number: int) -> dict[str, Any]:
        """One line of ``answers.jsonl``; empty fields are left out."""
        record: dict[str, Any] = {"key": key, "task": task, "query": number}
        record |= {name: value for name in ("word", "caption") if (value := getattr(self, name))}
        for name in ("boxes_px", "points_px"):
            if len(getattr(self, name)):
                record[name] = np.round(getattr(self, name), 2).tolist()
        if self.mask is not None and self.mask.any():
            record["rle"] = encode_rle(self.mask)
        if self.confidence is not None:
            record["confidence"] = round(self.confidence, 4)
        if self.wall_ms is not None:
            record["wall_ms"] = round(self.wall_ms, 3)
        if self.truncated:
            record["truncated"] = True
        return record | ({"issues": dict(self.issues)} if self.issues else {})


def query_id(record: Mapping[str, Any]) -> QueryId:
    """Which query a line answers.

    Raises:
        InputError: ``task`` or ``query`` is missing or not what it should be.
    """
    task, number = record.get("task"), record.get("query")
    if task not in TASKS or not isinstance(number, int):
        where = record.get("_where", "answer")
        raise InputError(f"{where}: expected task, one of {', '.join(TASKS)}, and query, a number; got {task!r}, {number!r}")
    return str(record.get("key") or record.get("source") or ""), str(task), number


def answer_from_json(record: Mapping[str, Any], size_wh: tuple[int, int]) -> Answer:
    """The answer of a line, for a picture of this size.

    Raises:
        InputError: says which field is malformed.
    """
    where = record.get("_where", "answer")
    name = ""
    try:
        name = "boxes_px"
        boxes = _finite(record.get(name) or [], 4)
        name = "points_px"
        points = _finite(record.get(name) or [], 2)
        name = "rle" if record.get("rle") else "polygons_px"
        mask = _mask(record, size_wh)
        name = "confidence, wall_ms, truncated or issues"
        confidence, wall_ms = (None if record.get(n) is None else float(record[n]) for n in ("confidence", "wall_ms"))
        issues = {str(issue): int(count) for issue, count in (record.get("issues") or {}).items()}
    except (InputError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: {name}: {error}") from error
    word, caption = str(record.get("word") or ""), str(record.get("caption") or "")
    return Answer(word, boxes, mask, points, caption, confidence, wall_ms, bool(record.get("truncated")), issues)


def _finite(values: Any, width: int) -> Points:
    array = np.asarray(values, dtype=np.float64)
    if array.size and (array.ndim != 2 or array.shape[1] != width or not np.isfinite(array).all()):
        raise ValueError(f"expected a list of {width} finite numbers each")
    return array.reshape(-1, width)


def _mask(record: Mapping[str, Any], size_wh: tuple[int, int]) -> Mask | None:
    if rle := record.get("rle"):
        if list(rle["size"]) != [size_wh[1], size_wh[0]]:
            raise ValueError(f"a mask of {list(rle['size'])} (height, width), the picture has {[size_wh[1], size_wh[0]]}")
        return decode_rle(rle["counts"], (size_wh[1], size_wh[0]))
    if polygons := record.get("polygons_px"):
        return fill_polygons([_finite(polygon, 2) for polygon in polygons], size_wh)
    return None
