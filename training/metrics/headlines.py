"""THE headline of each kind and task: its name, its title, and how it follows from rows of sums, so that runs can be compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics import culane, drivable, masks, referring
from training.metrics.intervals import Statistic, f1, ratio

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Headline:
    """The one number that stands for a kind of elements or a task.

    Attributes:
        number: its name among the numbers of its kind.
        title: for people.
        row: name of the rows that it is computed from, see `training.metrics.frame` and `training.prompted.scoring`.
        statistic: from summed rows to the number.
        bounded: whether it lies in 0..1.
    """

    number: str
    title: str
    row: str
    statistic: Statistic
    bounded: bool = True


def share(rows: FloatArray) -> FloatArray:
    """The first column over the second, of summed rows."""
    return ratio(rows[..., 0], rows[..., 1])


def _lane_f1(rows: FloatArray) -> FloatArray:
    return culane.f1_at(rows.reshape(*rows.shape[:-1], len(culane.THRESHOLDS), 3), 0)


def _f1_of_classes(rows: FloatArray) -> FloatArray:
    return f1(rows.reshape(*rows.shape[:-1], -1, 3).sum(axis=-2))


def _rec(rows: FloatArray) -> FloatArray:
    return referring.accuracy_at(rows, referring.THRESHOLDS[0])


HEADLINES: dict[str, Headline] = {
    "lanes": Headline("f1_50", "lanes, CULane F1@50", "lanes", _lane_f1),
    "drivable": Headline("iou", "drivable area IoU, pooled", "drivable", drivable.pooled_iou),
    "boxes": Headline("f1", "boxes, F1 at IoU 0.5, taller than 5 % of the image", "boxes", _f1_of_classes),
    "signs": Headline("f1", "sign points, F1 at 2 % of the image width", "signs", _f1_of_classes),
    "classification": Headline("accuracy", "classification of given regions, accuracy", "classification", share),
    "rec": Headline("acc_0.5", "referred boxes, Acc@0.5", "rec", _rec),
    "res": Headline("giou", "referred masks, gIoU", "res", masks.g_iou),
    "gres": Headline("giou", "referred masks of any number of targets, gIoU", "gres", masks.g_iou),
    "reason": Headline("giou", "reasoned masks, gIoU", "reason", masks.g_iou),
    "caption": Headline("cider", "captions of regions, CIDEr", "cider", share, False),
    "pointing": Headline("f1", "pointing, F1", "pointing", f1),
}
