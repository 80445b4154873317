"""Consistency over a drive: how much results tremble, flicker and change their identity from frame to frame.

Definition. Consecutive frames' lanes are matched one to one (`polylines.lane_distances` within `FOLLOW` of the image width).

- **jitter** (pixels): mean absolute second difference of followed lanes' x at the image's rows, which steady motion does not
  raise;
- **flicker**: share of lanes in frames 2..T-1 that are neither in the frame before nor in the one after;
- **identity switches**: times that a labelled track is followed by another predicted track than the last time that it was
  followed (CLEAR MOT; Bernardin and Stiefelhagen, 2008), per 100 matched labels.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from training.metrics.assignment import assign_within
from training.metrics.polylines import lane_distances

FloatArray = npt.NDArray[np.float64]
Lanes = Sequence[npt.ArrayLike]

FOLLOW = 0.04  # of the image width


def x_at_rows(lane_px: npt.ArrayLike, rows_px: npt.ArrayLike) -> FloatArray:
    """x of a lane at image rows, NaN above and below it; of several crossings the lowest point of the lane wins."""
    lane = np.asarray(lane_px, dtype=np.float64).reshape(-1, 2)
    order = np.argsort(lane[:, 1], kind="stable")
    return np.asarray(np.interp(np.asarray(rows_px, dtype=np.float64), lane[order, 1], lane[order, 0], left=np.nan, right=np.nan))


def follow(before: Lanes, after: Lanes, image_width_px: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of lanes of one frame and of the same lanes in the next."""
    return assign_within(lane_distances(before, after), FOLLOW * image_width_px)


def jitter_px(frames: Sequence[Lanes], rows_px: npt.ArrayLike, image_width_px: float) -> float:
    """Mean absolute second difference of followed lanes' x at image rows, over three frames at a time; NaN if none is followed.

    Args:
        frames: the lanes of each frame, in order.
        rows_px: image rows to look at.
        image_width_px: width of the picture.
    """
    values = []
    for first, second, third in zip(frames, frames[1:], frames[2:], strict=False):
        ahead = dict(zip(*(side.tolist() for side in follow(second, third, image_width_px)), strict=True))
        for a, b in zip(*(side.tolist() for side in follow(first, second, image_width_px)), strict=True):
            if b in ahead:
                x0, x1, x2 = (x_at_rows(lane, rows_px) for lane in (first[a], second[b], third[ahead[b]]))
                bend = np.abs(x0 - 2.0 * x1 + x2)
                values.append(bend[np.isfinite(bend)])
    every = np.concatenate([np.zeros(0), *values])
    return float(every.mean()) if len(every) else float("nan")


def flicker(frames: Sequence[Lanes], image_width_px: float) -> float:
    """Share of lanes, first and last frame aside, that are followed neither from the frame before nor to the next."""
    alone = total = 0
    for first, second, third in zip(frames, frames[1:], frames[2:], strict=False):
        from_before = set(follow(first, second, image_width_px)[1].tolist())
        to_next = set(follow(second, third, image_width_px)[0].tolist())
        alone += len(set(range(len(second))) - from_before - to_next)
        total += len(second)
    return alone / total if total else float("nan")


def identity_switches(matches: Sequence[Sequence[tuple[Hashable, Hashable]]]) -> tuple[int, int]:
    """Identity switches, and matched labels in all.

    Args:
        matches: for each frame the matched (labelled track, predicted track) pairs.
    """
    last: dict[Hashable, Hashable] = {}
    switches = total = 0
    for pairs in matches:
        for label, track in pairs:
            total += 1
            switches += label in last and last[label] != track
            last[label] = track
    return switches, total
