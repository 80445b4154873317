"""What the auxiliary heads are taught for a `Sample`: where things are, what they are, which way their corners and lanes lie."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from getok_drive.tokens.codec import px_to_norm
from getok_drive.tokens.vocab import BOX_CLASSES, GRID_SIZE, SIGN_CLASSES
from getok_drive.types import FloatArray
from training.samples import Sample

_BOXES = ("vehicle", "vulnerable", "obstacle")
_CORNERS = tuple(f"{name}_{corner}" for corner in ("first", "second") for name in _BOXES)  # upper left, lower right
DENSE_CHANNELS = ("lane", "drivable", *_BOXES, "sign", *_CORNERS)
DENSE_CLASSES = BOX_CLASSES + SIGN_CLASSES  # what the last dense picture names
UNLABELLED = 255  # in dense labels
_VEHICLES = ("car", "truck", "bus")
_VULNERABLE = ("two_wheeler", "pedestrian")
_BOX_CLASSES_OF = {
    "vehicle": _VEHICLES,
    "vulnerable": _VULNERABLE,
    "obstacle": tuple(name for name in BOX_CLASSES if name not in _VEHICLES + _VULNERABLE),
}
_LEAST_CORNERED = 2  # subcells: corners of lower boxes lie in one another
_LEAST_CORNERED_NORM = 1 / 32  # of the picture's height, the same for cells
_LANE_SPACING = 0.125  # cells: how dense the points are that a lane's nearest one is found among
_AROUND = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2)


def dense_labels(sample: Sample, size_wh: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Pictures for the auxiliary loss on the visual tokens: where things are, and what they are.

    Args:
        sample: labels in pixels of its own image.
        size_wh: size of the label picture; one pixel per subcell.

    Returns:
        ``(len(DENSE_CHANNELS) + 1, H, W)`` uint8. Occupancy first, 0 or 1, of boxes also that of their two corners, a subcell
        each. Channels of unlabelled kinds are `UNLABELLED` (ignored); so is, in the boxes' channels, what lies in
        ``meta["ignore_xyxy_px"]`` and is not labelled. The last picture holds indices into `DENSE_CLASSES` at the centres of
        boxes (near ones over far ones) and signs, else `UNLABELLED`.
    """
    scale = np.array(size_wh, dtype=np.float64) / np.array(sample.size_wh)
    shift = 8  # cv2's fixed-point fraction bits
    picture = np.zeros((len(DENSE_CHANNELS) + 1, size_wh[1], size_wh[0]), np.uint8)

    def fixed(points_px: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
        return np.round(((points_px + 0.5) * scale - 0.5) * (1 << shift)).astype(np.int32)

    for area in sample.drivable:
        cv2.fillPoly(picture[1], [fixed(area.polygon_px)], 1, shift=shift)
    for lane in sample.lanes:
        cv2.polylines(picture[0], [fixed(lane.points_px)], False, 1, 1, shift=shift)

    for box in sample.boxes:
        corner, opposite = (tuple(map(int, p)) for p in fixed(box.xyxy_px.reshape(2, 2)))
        name = next(name for name, classes in _BOX_CLASSES_OF.items() if box.class_name in classes)
        cv2.rectangle(picture[_channel(name)], corner, opposite, 1, -1, shift=shift)
        ends = (box.xyxy_px.reshape(2, 2) + 0.5) * scale
        if ends[1, 1] - ends[0, 1] >= _LEAST_CORNERED:
            for which, (x, y) in zip(("first", "second"), np.clip(ends.astype(int), 0, np.array(size_wh) - 1), strict=True):
                picture[_channel(f"{name}_{which}"), y, x] = 1
    for sign in sample.signs:
        _dot(picture[_channel("sign")], sign.point_px, scale, 1)
    boxes = {name: [_channel(part) for part in (name, f"{name}_first", f"{name}_second")] for name in _BOXES}
    all_boxes = [channel for own in boxes.values() for channel in own]
    for kind, channels in (("lanes", [0]), ("drivable", [1]), ("boxes", all_boxes), ("signs", [_channel("sign")])):
        if kind not in sample.known:
            picture[channels] = UNLABELLED
    labelled = sample.meta.get("labelled_classes", {})  # a kind may be labelled in some of its classes only
    for name, classes in _BOX_CLASSES_OF.items():
        if not set(classes) <= set(labelled.get("boxes", classes)):
            picture[boxes[name]] = UNLABELLED
    if not set(SIGN_CLASSES) <= set(labelled.get("signs", SIGN_CLASSES)):
        picture[_channel("sign")] = UNLABELLED
    for region in np.asarray(sample.meta.get("ignore_xyxy_px", ()), dtype=np.float64).reshape(-1, 2, 2):
        (x0, y0), (x1, y1) = np.clip(np.round((region + 0.5) * scale), 0, size_wh).astype(int)
        for channel in all_boxes:
            unknown = picture[channel, y0:y1, x0:x1]
            unknown[unknown == 0] = UNLABELLED
    _name_centres(picture[-1], sample, scale)
    return picture


def corner_labels(sample: Sample) -> FloatArray:
    """Where the corners of boxes lie from the centres of the grid's cells, for a cell's own auxiliary loss.

    Args:
        sample: labels in pixels of its own image.

    Returns:
        ``(GRID_SIZE, GRID_SIZE, 2, 2)`` float32: for each cell, row by row, the way to the nearest upper left and lower right
        corner of a labelled box, ``(x, y)`` in cells; NaN where none is in the cell or a neighbour. Boxes lower than a cell are
        left out.
    """
    boxes = [box.xyxy_px.reshape(2, 2) for box in sample.boxes if "boxes" in sample.known]
    ends = px_to_norm(np.concatenate([np.zeros((0, 2)), *boxes]), sample.size_wh).reshape(-1, 2, 2)
    ends = ends[ends[:, 1, 1] - ends[:, 0, 1] >= _LEAST_CORNERED_NORM] * GRID_SIZE
    return np.stack([_ways(ends[:, 0]), _ways(ends[:, 1])], axis=2)


def lane_labels(sample: Sample) -> FloatArray:
    """Where lanes, and where their ends, lie from the centres of the grid's cells; as `corner_labels`.

    Args:
        sample: labels in pixels of its own image.

    Returns:
        ``(GRID_SIZE, GRID_SIZE, 2, 2)`` float32: the way to the nearest point of a labelled lane, and to the nearest end of one.
    """
    lanes = [px_to_norm(lane.points_px, sample.size_wh) * GRID_SIZE for lane in sample.lanes if "lanes" in sample.known]
    along = shapely.get_coordinates(shapely.segmentize([shapely.linestrings(lane) for lane in lanes], _LANE_SPACING))
    ends = np.concatenate([np.zeros((0, 2)), *(lane[[0, -1]] for lane in lanes)])
    return np.stack([_ways(along), _ways(ends)], axis=2)


def _ways(points: npt.NDArray[np.floating]) -> FloatArray:
    """``(GRID_SIZE, GRID_SIZE, 2)``: the way from each cell's centre to the nearest point in it or in a neighbour, in cells."""
    told = np.full((GRID_SIZE, GRID_SIZE, 2), np.nan, np.float32)
    cells = (np.floor(points[:, None]) + _AROUND).reshape(-1, 2)
    ways = np.repeat(points, len(_AROUND), axis=0) - (cells + 0.5)
    inside = ((cells >= 0) & (cells < GRID_SIZE)).all(axis=1)
    (columns, rows), ways = cells[inside].astype(int).T, ways[inside]
    nearest_last = np.argsort(-np.hypot(ways[:, 0], ways[:, 1]), kind="stable")
    told[rows[nearest_last], columns[nearest_last]] = ways[nearest_last]
    return told


def _name_centres(picture: npt.NDArray[np.uint8], sample: Sample, scale: FloatArray) -> None:
    """The class of each labelled box and sign at its centre; far boxes first, so that near ones cover them."""
    picture[:] = UNLABELLED
    if "boxes" in sample.known:
        for box in sorted(sample.boxes, key=lambda box: float(box.xyxy_px[3])):
            _dot(picture, box.xyxy_px.reshape(2, 2).mean(axis=0), scale, DENSE_CLASSES.index(box.class_name))
    if "signs" in sample.known:
        for sign in sample.signs:
            _dot(picture, sign.point_px, scale, DENSE_CLASSES.index(sign.class_name))


def _dot(picture: npt.NDArray[np.uint8], centre_px: npt.NDArray[np.floating], scale: FloatArray, value: int) -> None:
    x, y = np.round((centre_px + 0.5) * scale - 0.5).astype(int)
    cv2.circle(picture, (int(x), int(y)), 1, value, -1)


def _channel(name: str) -> int:
    return DENSE_CHANNELS.index(name)
