"""What is asked about a picture in each task, and what is right.

| task | asks about | right is |
|---|---|---|
| `classification` | labelled attributes of boxes, signs and the picture (`recipes.classification`), `classify` phrases | a word |
| `rec` | `refer` phrases of one region with a box | its box |
| `res` | `refer` phrases of regions with masks | the union of the masks |
| `gres` | all `refer` phrases whose regions have masks, those without a target too | likewise, possibly nothing |
| `reason` | `refer` and `question` phrases of regions with masks | likewise, without what is to be ignored |
| `caption` | each region that phrases describe (`caption`, `refer` of one region) | any of its phrases |
| `pointing` | `point` phrases; in pictures without any `refer` (HumanRef, RefCOCOg) | a point in (or near) each region |

Queries of a task are numbered in this order, from 0; the number names a query in files of answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.tokens import prompts
from getok_drive.tokens.codec import encode_points, px_to_norm
from training.datasets.phrases import region_mask, union_mask
from training.datasets.shapes import decode_rle
from training.prompted import TASKS
from training.samples import Phrase, Region, Sample

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
DOMAINS = {"rec": "referring", "res": "referring", "gres": "generalized", "reason": "reasoning", "pointing": "pointing"}


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One question about one picture.

    Attributes:
        task: one of `TASKS`.
        number: among the picture's queries of this task.
        text: the phrase, question or attribute.
        region_px: ``(N, 2)`` of the region that it is about: two corners, one point, or none.
        segments: the user's turn before and after the picture.
        word: the right word.
        choices: all words that may be said.
        boxes_px: ``(N, 4)`` right boxes.
        mask: ``(H, W)`` right mask.
        ignore: ``(H, W)`` pixels that count neither way, or None.
        targets: what points must hit: a mask, or a point where there is no more.
        references: right captions.
    """

    task: str
    number: int
    text: str
    segments: tuple[str, str]
    region_px: Points = field(default_factory=lambda: np.zeros((0, 2)))
    word: str = ""
    choices: tuple[str, ...] = ()
    boxes_px: Points = field(default_factory=lambda: np.zeros((0, 4)))
    mask: Mask | None = None
    ignore: Mask | None = None
    targets: tuple[Mask | Points, ...] = ()
    references: tuple[str, ...] = ()

    def to_json(self, key: str) -> dict[str, Any]:
        """What somebody has to know to answer it, without what is right: one line of ``--write-queries``."""
        record: dict[str, Any] = {"key": key, "task": self.task, "query": self.number, "text": self.text}
        if len(self.region_px):
            record["region_px"] = np.round(self.region_px, 2).tolist()
        return record | ({"choices": list(self.choices)} if self.choices else {})


def queries_of(sample: Sample, tasks: Sequence[str] = TASKS) -> list[Query]:
    """All queries of some tasks about a picture."""
    makers = {
        "classification": _classification, "rec": _rec, "res": _res, "gres": _gres, "reason": _reason, "caption": _caption,
        "pointing": _pointing,
    }  # fmt: skip
    found = []
    for task in TASKS:
        if task in tasks:
            found += [Query(task, number, **fields) for number, fields in enumerate(makers[task](sample))]
    return found


def _classification(sample: Sample) -> Iterator[dict[str, Any]]:
    from training.recipes.classification import questions  # brings the training libraries along

    asked = [(q.attribute, q.answer, q.points_px) for q in questions(sample)]
    asked += [
        (p.text, p.answer, _place_px(p.regions[0]))
        for p in sample.phrases
        if p.task == "classify" and p.answer in prompts.CLASSIFY_CHOICES.get(p.text, ())
    ]
    for attribute, answer, points in asked:
        yield {
            "text": attribute, "segments": prompts.classify_segments(attribute, _cells(points, sample)), "region_px": points,
            "word": answer, "choices": prompts.CLASSIFY_CHOICES[attribute],
        }  # fmt: skip


def _spoken(task: str, phrase: Phrase) -> dict[str, Any]:
    from training.recipes.phrases import spoken  # brings the training libraries along

    text = spoken(phrase.text, phrase.regions)
    return {"text": text, "segments": prompts.task_segments(DOMAINS[task], text)}


def _rec(sample: Sample) -> Iterator[dict[str, Any]]:
    for phrase in sample.phrases:
        if phrase.task == "refer" and len(phrase.regions) == 1 and phrase.regions[0].xyxy_px is not None:
            yield _spoken("rec", phrase) | {"boxes_px": np.asarray(phrase.regions[0].xyxy_px, np.float64).reshape(1, 4)}


def _masked(task: str, sample: Sample, asked: Sequence[str], empty: bool) -> Iterator[dict[str, Any]]:
    for phrase in sample.phrases:
        if phrase.task not in asked or not all(region.rle is not None for region in phrase.regions):
            continue
        if phrase.regions or empty:
            ignore = None if phrase.ignore is None else decode_rle(phrase.ignore["counts"], tuple(phrase.ignore["size"]))
            yield _spoken(task, phrase) | {"mask": union_mask(phrase, sample.size_wh), "ignore": ignore}


def _res(sample: Sample) -> Iterator[dict[str, Any]]:
    return _masked("res", sample, ("refer",), empty=False)


def _gres(sample: Sample) -> Iterator[dict[str, Any]]:
    return _masked("gres", sample, ("refer",), empty=True)


def _reason(sample: Sample) -> Iterator[dict[str, Any]]:
    return _masked("reason", sample, ("refer", "question"), empty=False)


def _caption(sample: Sample) -> Iterator[dict[str, Any]]:
    texts: dict[tuple[float, ...], list[str]] = defaultdict(list)
    for phrase in sample.phrases:
        if phrase.task in ("caption", "refer") and len(phrase.regions) == 1:
            texts[tuple(_place_px(phrase.regions[0]).ravel().tolist())].append(phrase.text)
    for place, references in texts.items():
        points = np.asarray(place).reshape(-1, 2)
        segments = prompts.task_segments("caption", region=_cells(points, sample))
        yield {"text": "caption", "segments": segments, "region_px": points, "references": tuple(dict.fromkeys(references))}


def _pointing(sample: Sample) -> Iterator[dict[str, Any]]:
    asked = [phrase for phrase in sample.phrases if phrase.task == "point"]
    for phrase in asked or [phrase for phrase in sample.phrases if phrase.task == "refer"]:
        yield _spoken("pointing", phrase) | {"targets": tuple(_target(region, sample.size_wh) for region in phrase.regions)}


def _target(region: Region, size_wh: tuple[int, int]) -> Mask | Points:
    mask = region_mask(region)
    if mask is not None:
        return mask
    if region.xyxy_px is None:
        return np.asarray(region.point_px, dtype=np.float64)
    inside = np.zeros((size_wh[1], size_wh[0]), dtype=bool)
    (x0, y0), (x1, y1) = (
        np.clip(edge, 0, None).astype(int) for edge in (np.ceil(region.xyxy_px[:2]), np.floor(region.xyxy_px[2:]) + 1)
    )
    inside[y0:y1, x0:x1] = True  # the pixels whose centres lie in the box
    return inside


def _place_px(region: Region) -> Points:
    """Two corners of a region's box (or of its mask's extent), or its point."""
    if region.xyxy_px is not None:
        return np.asarray(region.xyxy_px, dtype=np.float64).reshape(2, 2)
    mask = region_mask(region)
    if mask is None or not mask.any():
        return np.asarray(region.point_px, dtype=np.float64).reshape(-1, 2)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]], dtype=np.float64)


def _cells(points_px: Points, sample: Sample) -> list[int]:
    if not len(points_px):
        return []
    cells: list[int] = encode_points(np.clip(px_to_norm(points_px, sample.size_wh), 0.0, 1.0), 0)[0].tolist()
    return cells
