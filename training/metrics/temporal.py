"""Consistency over a drive: how much results tremble, flicker and change their identity from frame to frame.

Definition. Elements of two frames, or of labels and predictions of one frame, are *paired* one to one, as many as possible and
then the nearest (`pair`): lanes by `polylines.lane_distances` and signs by the distance of their points, within `NEAR` of the
image width; boxes by 1 - IoU within `BOX_DISTANCE`, whatever their class. An element is *followed* if it is paired across two
consecutive frames.

- **jitter** (pixels): mean absolute second difference, over three frames, of the places of elements that are followed through
  all of them: of a lane the x at the image's rows, of a box its centre, of a sign its point. Steady motion does not raise it;
  what the labels themselves have is reported beside it.
- **flicker**: share of elements in frames 2..T-1 that are followed neither from the frame before nor to the one after.
- **identity switches**: times that a labelled track is paired with another predicted track than the last time that it was
  paired (CLEAR MOT; Bernardin and Stiefelhagen, 2008), per 100 pairs. A track is an element that is followed from frame to frame
  without a gap, unless the element says itself which track it belongs to (``attributes["track_id"]``): a detector without a
  tracker is asked how well the simplest one would do on it.

`training.metrics.drives` takes these from frames as they come.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.metrics.assignment import assign_within
from training.metrics.detection import box_ious
from training.metrics.polylines import lane_distances

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Elements = Sequence[npt.ArrayLike]  # lanes (N, 2), boxes (4,) or signs (2,), pixels

KINDS = ("lanes", "boxes", "signs")
NEAR = 0.04  # of the image width
BOX_DISTANCE = 0.7  # 1 - IoU
ROWS = 32  # of the image, evenly spaced, at which lanes are looked at


def x_at_rows(lane_px: npt.ArrayLike, rows_px: npt.ArrayLike) -> FloatArray:
    """x of a lane at image rows, NaN above and below it; of several crossings the lowest point of the lane wins."""
    lane = np.asarray(lane_px, dtype=np.float64).reshape(-1, 2)
    order = np.argsort(lane[:, 1], kind="stable")
    return np.asarray(np.interp(np.asarray(rows_px, dtype=np.float64), lane[order, 1], lane[order, 0], left=np.nan, right=np.nan))


def pair(kind: str, some: Elements, others: Elements, image_width_px: float) -> tuple[IntArray, IntArray]:
    """Indices of elements of one list and of the same elements in another.

    Args:
        kind: one of `KINDS`.
        some: elements of one frame, or labels.
        others: elements of the next frame, or predictions.
        image_width_px: width of the picture.
    """
    if not len(some) or not len(others):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if kind == "lanes":
        return assign_within(lane_distances(some, others), NEAR * image_width_px)
    a, b = np.asarray(some, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if kind == "boxes":
        return assign_within(1.0 - box_ious(a, b), BOX_DISTANCE)
    return assign_within(np.linalg.norm(a[:, None] - b[None], axis=2), NEAR * image_width_px)


def places_px(kind: str, element: npt.ArrayLike, image_height_px: int) -> FloatArray:
    """The coordinates whose steadiness is measured, NaN where the element is not; as many for every element of a kind."""
    if kind == "lanes":
        return x_at_rows(element, np.linspace(0, image_height_px - 1, ROWS))
    return np.asarray(element, dtype=np.float64).reshape(-1, 2).mean(axis=0)


def bends_px(kind: str, chains: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]], image_height_px: int) -> FloatArray:
    """Absolute second differences of all places of elements that were followed through three frames, where all three are."""
    each = [[places_px(kind, element, image_height_px) for element in chain] for chain in chains]
    bends = np.concatenate([np.zeros(0), *(np.abs(first - 2.0 * second + third) for first, second, third in each)])
    return bends[np.isfinite(bends)]
