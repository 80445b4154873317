"""Answers against queries: rows of sums a picture, and the numbers of a set with their intervals; headlines first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError
from getok_drive.tokens.prompts import CLASSIFY_CHOICES
from training.metrics import classification, masks, points, referring
from training.metrics.captions import cider, tokenize
from training.metrics.frame import FrameScore
from training.metrics.headlines import share
from training.metrics.intervals import f1, precision, recall
from training.metrics.meteor import ROW, meteor_of, meteor_rows
from training.metrics.meteor_data import MeteorData
from training.metrics.summary import Numbers, RowSet, defined
from training.prompted.answers import Answer
from training.prompted.queries import Query

FloatArray = npt.NDArray[np.float64]
CaptionPair = tuple[str, list[str], list[list[str]]]  # the picture's key, the words said, the words of the references


def score_query(query: Query, answer: Answer, size_wh: tuple[int, int]) -> tuple[dict[str, FloatArray], float]:
    """Rows of one query, by name, and its quality 0..1; captions have no row before the whole set is known.

    Args:
        query: with what is right.
        answer: what was said.
        size_wh: of the picture.
    """
    if query.task == "classification":
        row = classification.confusion_row(query.word, answer.word or None, query.choices)
        right = float(answer.word == query.word)
        return {f"classification/{query.text}": row, "classification": np.array([right, 1.0])}, right
    if query.task == "rec":
        row = referring.rec_row(query.boxes_px[0], answer.boxes_px[0] if len(answer.boxes_px) else None)
        return {"rec": row}, float(row[0])
    if query.task in ("res", "gres", "reason"):
        assert query.mask is not None
        looked_at = np.ones_like(query.mask) if query.ignore is None else ~query.ignore
        said = np.zeros_like(query.mask) if answer.mask is None else answer.mask
        row = masks.referred_row(query.mask & looked_at, said & looked_at)
        boundary = masks.boundary_f(query.mask & looked_at, said & looked_at)
        return {query.task: row, f"{query.task}_boundary": np.array([boundary, 1.0])}, float(row[2])
    if query.task == "pointing":
        row = _pointing_row(query, answer, size_wh)
        total = 2 * row[0] + row[1] + row[2]
        return {"pointing": row}, float(2 * row[0] / total) if total else 1.0
    words, references = set(tokenize(answer.caption)), [set(tokenize(text)) for text in query.references]
    return {}, max((2 * len(words & r) / max(len(words) + len(r), 1) for r in references), default=0.0)


def _pointing_row(query: Query, answer: Answer, size_wh: tuple[int, int]) -> FloatArray:
    """``(TP, FP, FN)``: points in masks where the targets have masks, else within 2 % of the picture's width."""
    regions = [target.astype(bool) for target in query.targets if target.ndim == 2]
    if len(regions) == len(query.targets):
        return points.pointing_counts(regions, answer.points_px)
    centres = [_centre(target) if target.ndim == 2 else target for target in query.targets]
    return points.point_counts(np.asarray(centres), answer.points_px, points.SIGN_RADIUS * size_wh[0])


def _centre(mask: npt.NDArray[np.generic]) -> FloatArray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


def add_rows(total: dict[str, FloatArray], rows: Mapping[str, FloatArray]) -> None:
    """Add one query's rows to the picture's."""
    for name, row in rows.items():
        total[name] = total[name] + row if name in total else row


def score_captions(scores: Sequence[FrameScore], pairs: Sequence[CaptionPair]) -> tuple[list[FrameScore], str]:
    """The pictures' scores with rows ``cider`` and (where METEOR's data are) ``meteor``, and a note on what is missing.

    Args:
        scores: one for each picture with captions, among others.
        pairs: all captions of the set.
    """
    if not pairs:
        return list(scores), ""
    keys, said, references = (list(part) for part in zip(*pairs, strict=True))
    rows: dict[str, dict[str, FloatArray]] = defaultdict(dict)
    for key, value in zip(keys, cider(said, references), strict=True):
        add_rows(rows[key], {"cider": np.array([value, 1.0])})
    note = ""
    try:
        data = MeteorData.find()
        note = "" if data else "no METEOR: its data are not installed (pip install pycocoevalcap)"
        for key, row in zip(keys, meteor_rows(said, references, data) if data else np.zeros((0, ROW)), strict=bool(data)):
            add_rows(rows[key], {"meteor": row})
    except ConfigError as error:
        note = str(error)
    return [replace(s, rows={**s.rows, **rows[s.key]}) if "caption" in s.rows else s for s in scores], note


def _recall_of(index: int, rows: FloatArray) -> FloatArray:
    return classification.recalls(rows)[..., index]


def _precision_of(index: int, rows: FloatArray) -> FloatArray:
    return classification.precisions(rows)[..., index]


def _classification_numbers(of: RowSet) -> Numbers:
    numbers = {"accuracy": of.estimate("classification", share)}
    for attribute, choices in CLASSIFY_CHOICES.items():
        name = f"classification/{attribute}"
        if of.has(name):
            numbers[f"accuracy/{attribute}"] = of.estimate(name, classification.accuracy)
            numbers[f"balanced_accuracy/{attribute}"] = of.estimate(name, classification.balanced_accuracy)
            for index, word in enumerate(choices):
                numbers[f"recall/{attribute}/{word}"] = of.estimate(name, partial(_recall_of, index))
                numbers[f"precision/{attribute}/{word}"] = of.estimate(name, partial(_precision_of, index))
    return numbers


def _mask_numbers(of: RowSet, task: str) -> Numbers:
    numbers = {"giou": of.estimate(task, masks.g_iou), "ciou": of.estimate(task, masks.c_iou)}
    if task == "gres":
        numbers |= {"n_acc": of.estimate(task, masks.no_target_accuracy), "t_acc": of.estimate(task, masks.target_accuracy)}
    for threshold in (0.5, 0.7, 0.9):
        numbers[f"pr_{threshold}"] = of.estimate(task, partial(masks.precision_at, threshold=threshold))
    numbers["boundary_f"] = of.estimate(f"{task}_boundary", share)
    return numbers


def prompted_numbers(scores: Sequence[FrameScore]) -> dict[str, Numbers]:
    """All numbers by task; tasks without a single query are absent."""
    of = RowSet(scores)
    every: dict[str, Numbers] = {}
    if of.has("classification"):
        every["classification"] = _classification_numbers(of)
    if of.has("rec"):
        every["rec"] = {f"acc_{t}": of.estimate("rec", partial(referring.accuracy_at, threshold=t)) for t in referring.THRESHOLDS}
    every |= {task: _mask_numbers(of, task) for task in ("res", "gres", "reason") if of.has(task)}
    if of.has("cider"):
        every["caption"] = {"cider": of.estimate("cider", share)}
        if of.has("meteor"):
            every["caption"]["meteor"] = of.estimate("meteor", meteor_of)
    if of.has("pointing"):
        every["pointing"] = {
            name: of.estimate("pointing", statistic)
            for name, statistic in (("f1", f1), ("precision", precision), ("recall", recall))
        }
    return defined(every)
