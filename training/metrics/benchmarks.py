"""The numbers that a benchmark has of its own, wherever the data set brings what they need; beside those that every data set has.

| kind | needs | numbers |
|---|---|---|
| `tusimple` | ``meta["h_samples"]`` and ``["lane_columns"]`` | accuracy, FP, FN, F1, with and without the 200 ms rule |
| `culane` | ``meta["dataset"]``: ``culane`` | F1@50, F1@75, mF1 by CLRNet's evaluator; `lanes` has the benchmark's |
| `bdd100k_lanes` | ``meta["dataset"]``: ``bdd100k``; for F its masks | papers' pixel IoU, recall; official F at 1, 2, 5 px |
| `bdd100k_drivable` | the drivable masks of BDD100K | official IoU of the two classes, mIoU |

Our lanes know no kerbs, crossings and lines across the road, and our areas no difference between the ego's lane ("direct") and
the others ("alternative"): areas are all counted as direct, and the official numbers say what that costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from getok_drive.types import Scene
from training.metrics import bdd100k, culane, tusimple
from training.metrics.intervals import Estimate, ratio
from training.metrics.raster import fill_polygons
from training.samples import Sample

if TYPE_CHECKING:
    from training.metrics.summary import RowSet

FloatArray = npt.NDArray[np.float64]


# --- one picture -------------------------------------------------------------------------------------------------------


def benchmark_rows(sample: Sample, scene: Scene, asked: Sequence[str], wall_ms: float | None) -> dict[str, FloatArray]:
    """Rows of sums of one picture, by kind.

    Args:
        sample: the labels.
        scene: the prediction.
        asked: element kinds that are scored.
        wall_ms: time that the prediction took, milliseconds; None (unknown) breaks no rule.
    """
    rows: dict[str, FloatArray] = {}
    if "lanes" in asked:
        if "h_samples" in sample.meta and "lane_columns" in sample.meta:
            rows["tusimple"] = _tusimple_row(sample, scene, wall_ms)
        if sample.meta.get("dataset") == "culane":
            counts = culane.culane_counts(_points(sample), _points(scene), sample.size_wh, convention="clrnet")
            rows["culane"] = counts.astype(np.float64).ravel()
        if sample.meta.get("dataset") == "bdd100k":
            rows["bdd100k_lanes"] = _pixel_rows(sample, scene)
        if "bdd100k_lane" in sample.masks:
            said = bdd100k.lane_mask([(lane.points_px, lane.type, lane.color) for lane in scene.lanes], sample.size_wh)
            row = bdd100k.lane_row(np.asarray(sample.masks["bdd100k_lane"], dtype=np.uint8), said)
            rows["bdd100k_lane_f"] = np.append(row.ravel(), 1.0)
    if "drivable" in asked and "bdd100k_drivable" in sample.masks:
        area = fill_polygons([each.polygon_px for each in scene.drivable], sample.size_wh)
        truth = np.asarray(sample.masks["bdd100k_drivable"], dtype=np.uint8)
        rows["bdd100k_drivable"] = bdd100k.drivable_row(truth, np.where(area, 0, 2).astype(np.uint8))
    return rows


def _points(scene: Sample | Scene) -> list[npt.NDArray[np.float32]]:
    return [lane.points_px for lane in scene.lanes]


def _tusimple_row(sample: Sample, scene: Scene, wall_ms: float | None) -> FloatArray:
    """``(9,)``: `tusimple.Score.row` without and (its first three) with the run time; zeroed as too slow, for too many lanes."""
    h_samples = sample.meta["h_samples"]
    said = tusimple.lanes_at(_points(scene), h_samples, sample.size_wh[0])
    plain = tusimple.score_picture(sample.meta["lane_columns"], said, h_samples)
    timed = tusimple.score_picture(sample.meta["lane_columns"], said, h_samples, round(wall_ms or 0.0, 3))
    return np.array([*plain.row, *timed.row[:3], timed.rule == "too_slow", plain.rule == "too_many_lanes"], dtype=np.float64)


def _pixel_rows(sample: Sample, scene: Scene) -> FloatArray:
    """For each stroke `bdd100k.pixel_row`, the picture's IoU, and 1."""
    parts = []
    for width_px in bdd100k.STROKES_PX:
        masks = [bdd100k.lane_pixels(_points(each), sample.size_wh, width_px) for each in (sample, scene)]
        row = bdd100k.pixel_row(*masks)
        parts.append([*row, float(bdd100k.pixel_iou(row)), 1.0])
    return np.array(parts).ravel()


# --- the set -----------------------------------------------------------------------------------------------------------


def _column(rows: FloatArray, column: int, of: int) -> FloatArray:
    return ratio(rows[..., column], rows[..., of])


def _timed(rows: FloatArray) -> FloatArray:
    return rows[..., [4, 5, 6, 3]]


def _tusimple(of: RowSet) -> dict[str, Estimate]:
    number = partial(of.estimate, "tusimple")
    return {
        "accuracy": number(tusimple.accuracy),
        "fp": number(tusimple.false_positives),
        "fn": number(tusimple.false_negatives),
        "f1": number(tusimple.f1),
        "accuracy_under_200_ms": number(lambda rows: tusimple.accuracy(_timed(rows))),
        "fp_under_200_ms": number(lambda rows: tusimple.false_positives(_timed(rows))),
        "fn_under_200_ms": number(lambda rows: tusimple.false_negatives(_timed(rows))),
        "zeroed_as_slower_than_200_ms": number(partial(_column, column=7, of=3)),
        "zeroed_for_too_many_lanes": number(partial(_column, column=8, of=3)),
    }


def clrnet_f1(rows: FloatArray, index: int = 0) -> FloatArray:
    """F1 at one of CULane's thresholds, from summed `culane` rows."""
    return culane.f1_at(rows.reshape(*rows.shape[:-1], len(culane.THRESHOLDS), 3), index)


def _culane(of: RowSet) -> dict[str, Estimate]:
    number = partial(of.estimate, "culane")
    return {
        "f1_50": number(clrnet_f1),
        "f1_75": number(partial(clrnet_f1, index=5)),
        "mf1": number(lambda rows: culane.mean_f1(rows.reshape(*rows.shape[:-1], len(culane.THRESHOLDS), 3))),
    }


def _lane_f(rows: FloatArray, task: str, radius: int) -> FloatArray:
    """The official F, as a share, from summed rows of `bdd100k.lane_row` and 1."""
    means = rows[..., :-1] / rows[..., -1:]
    return bdd100k.lane_f1(means.reshape(*rows.shape[:-1], -1, len(bdd100k.RADII_PX)))[task][..., radius]


def _bdd100k_lanes(of: RowSet) -> dict[str, Estimate]:
    numbers = {}
    for place, width_px in enumerate(bdd100k.STROKES_PX):
        part = partial(lambda rows, at: rows[..., at : at + 5], at=5 * place)
        for name, statistic in (
            ("pixel_iou", bdd100k.pixel_iou),
            ("pixel_recall", bdd100k.pixel_recall),
            ("pixel_iou_mean_over_pictures", partial(_column, column=3, of=4)),
        ):
            numbers[f"{name}_{width_px}px"] = of.estimate(
                "bdd100k_lanes", partial(lambda rows, part, number: number(part(rows)), part=part, number=statistic)
            )
    for task in ("average", *(name for name, *_ in bdd100k.TASKS)):
        for index, radius_px in enumerate(bdd100k.RADII_PX):
            name = f"official_f_{radius_px}px" + ("" if task == "average" else f"/{task}")
            numbers[name] = of.estimate("bdd100k_lane_f", partial(_lane_f, task=task, radius=index))
    return numbers


def _bdd100k_drivable(of: RowSet) -> dict[str, Estimate]:
    number = partial(of.estimate, "bdd100k_drivable")
    ious = {
        f"iou_{name}": number(partial(lambda rows, index: bdd100k.drivable_ious(rows)[..., index], index=index))
        for index, name in enumerate(bdd100k.DRIVABLE)
    }
    return {"miou": number(bdd100k.drivable_miou), **ious}


def benchmark_numbers(of: RowSet) -> dict[str, dict[str, Estimate]]:
    """All numbers by kind, headline first; kinds that no picture had what they need for are absent."""
    makers = {
        "tusimple": _tusimple, "culane": _culane, "bdd100k_lanes": _bdd100k_lanes, "bdd100k_drivable": _bdd100k_drivable,
    }  # fmt: skip
    return {kind: make(of) for kind, make in makers.items() if of.has(kind)}
