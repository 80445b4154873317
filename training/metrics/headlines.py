"""THE headline of each kind and task: its name, its title, and how it follows from rows of sums, so that runs can be compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics import bdd100k, benchmarks, culane, drivable, drives, masks, referring, tusimple
from training.metrics.intervals import Statistic, f1, ratio

FloatArray = npt.NDArray[np.float64]

UNITS = ("jitter_px", "_per_100")  # how names of numbers end that are no shares


@dataclass(frozen=True, slots=True)
class Headline:
    """The one number that stands for a kind of elements or a task.

    Attributes:
        number: its name among the numbers of its kind.
        title: for people.
        row: name of the rows that it is computed from, see `training.metrics.frame` and `training.prompted.scoring`; empty if it
            is no function of summed rows, so that `training.compare` cannot compare it.
        statistic: from summed rows to the number.
        bounded: whether it lies in 0..1.
        lower_is_better: of two runs.
    """

    number: str
    title: str
    row: str
    statistic: Statistic
    bounded: bool = True
    lower_is_better: bool = False


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
    "tusimple": Headline("accuracy", "TuSimple accuracy, without its 200 ms rule", "tusimple", tusimple.accuracy),
    "culane": Headline("f1_50", "lanes, F1@50 by CLRNet's evaluator", "culane", benchmarks.clrnet_f1),
    "bdd100k_lanes": Headline("pixel_iou_8px", "BDD100K lane IoU of papers, 8 px wide", "bdd100k_lanes", bdd100k.pixel_iou),
    "bdd100k_drivable": Headline("miou", "BDD100K drivable mIoU of its toolkit", "bdd100k_drivable", bdd100k.drivable_miou),
    "openlane_v2": Headline("OLS", "OpenLane-V2 score (OLS) of road graphs", "", share),
    "nuscenes": Headline("NDS", "nuScenes detection score (NDS) of 3D boxes", "", share),
    "drive_lanes": Headline("jitter_px", "lanes over a drive, jitter in pixels", "drive_lanes", drives.jitter_px, False, True),
    "drive_boxes": Headline(
        "switches_per_100", "boxes over a drive, identity switches per 100", "drive_boxes", drives.switches_per_100, False, True
    ),
    "drive_signs": Headline(
        "switches_per_100", "signs over a drive, identity switches per 100", "drive_signs", drives.switches_per_100, False, True
    ),
    "classification": Headline("accuracy", "classification of given regions, accuracy", "classification", share),
    "rec": Headline("acc_0.5", "referred boxes, Acc@0.5", "rec", _rec),
    "res": Headline("giou", "referred masks, gIoU", "res", masks.g_iou),
    "gres": Headline("giou", "referred masks of any number of targets, gIoU", "gres", masks.g_iou),
    "reason": Headline("giou", "reasoned masks, gIoU", "reason", masks.g_iou),
    "caption": Headline("cider", "captions of regions, CIDEr", "cider", share, False),
    "pointing": Headline("f1", "pointing, F1", "pointing", f1),
}
