"""What the model is taught to write for a `Sample`: thinned lanes, canonical elements, noise on its context, dense labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from getok_drive.tokens.codec import Ids, decode_points, encode_points, offsets_for, px_to_norm
from getok_drive.tokens.elements import ElementTokens, canonical_elements
from getok_drive.tokens.vocab import BOX_CLASSES, GRID_SIZE, SIGN_CLASSES, SIGN_COLORS, TABLE, TOKEN_ID
from getok_drive.types import FloatArray
from training.samples import Sample

LANE_ROW_STEP = 3  # grid rows between two points of a lane
LANE_BEND = 0.25  # grid rows: a lane is written by chords that are nowhere further from it
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


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise on the *context* that the model reads while it learns to write the truth, so that it can mend its own errors.

    Attributes:
        jitter: share of points whose proposed cell is replaced by a neighbour (the refinement then leads back).
        shift: share of elements that lie a cell off as a whole, as a model's own errors do: a line goes on where it was begun.
        phantoms: chance that an image gets a made-up box or sign in its context (the refinement then deletes it).
        slip: share of points whose first offset in the context is a step off (the later ones then lead back).
    """

    jitter: float = 0.25
    shift: float = 0.3
    phantoms: float = 0.25
    slip: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """One element as the model reads it, and what it should answer.

    Attributes:
        element: the truth.
        context_cells: ``(N,)`` cells that stand in the context, equal to ``element.cells`` but for noise.
        answers: ``(N, rounds)`` offset ids from the context cells to the truth; a phantom's first is ``<DELETE>``.
        phantom: whether the element is made up: its tokens are read, never taught.
    """

    element: ElementTokens
    context_cells: npt.NDArray[np.int32]
    answers: npt.NDArray[np.int32]
    phantom: bool = False


def thin_lane(points_px: FloatArray, height_px: int) -> FloatArray:
    """The few points by which a lane is written: its ends, its crossings of every third grid row, and where it bends in between.

    Rows are the same in every image, so that most next tokens are sure of their row and have to find the column only.

    Args:
        points_px: ``(N, 2)`` dense polyline, bottom to top; what goes down again is left out.
        height_px: image height.

    Returns:
        ``(M, 2)`` points, bottom to top.
    """
    lane = points_px[points_px[:, 1] <= np.minimum.accumulate(points_px[:, 1])]
    row_px = height_px / GRID_SIZE
    rows = (np.arange(GRID_SIZE - 1, -1, -LANE_ROW_STEP) + 0.5) * row_px - 0.5
    rows = rows[(rows < lane[0, 1] - 0.75 * row_px) & (rows > lane[-1, 1] + 0.75 * row_px)]
    crossings = np.stack([np.interp(-rows, -lane[:, 1], lane[:, 0]), rows], axis=1)
    parts = np.split(lane[1:-1], np.searchsorted(-lane[1:-1, 1], -rows))
    ends = np.concatenate([lane[:1], crossings, lane[-1:]])
    lines = [shapely.linestrings([a, *part, b]) for a, part, b in zip(ends[:-1], parts, ends[1:], strict=True)]
    kept = [shapely.get_coordinates(shapely.simplify(line, LANE_BEND * row_px))[:-1] for line in lines]
    return np.concatenate([*kept, lane[-1:]]).astype(np.float32)


def elements_of(sample: Sample) -> list[ElementTokens]:
    """The sample's labelled kinds as canonical element tokens."""
    height = sample.size_wh[1]
    lanes = [replace(lane, points_px=thin_lane(lane.points_px, height)) for lane in sample.lanes]
    return canonical_elements(lanes, sample.drivable, sample.boxes, sample.signs, sample.size_wh)


def noisy_targets(elements: Sequence[ElementTokens], noise: Noise | None, rng: np.random.Generator) -> list[Target]:
    """The elements with their context; without ``noise`` the context is the truth."""
    if noise is None:
        return [Target(e, e.cells, e.offsets) for e in elements]
    targets = [_moved(e, noise, rng) for e in elements]
    if rng.random() < noise.phantoms:
        for _ in range(int(rng.integers(1, 3))):
            targets.insert(_phantom_slot(targets, rng), _phantom(rng))
    return targets


def _moved(element: ElementTokens, noise: Noise, rng: np.random.Generator) -> Target:
    moved = rng.random(len(element.cells)) < noise.jitter
    steps = rng.integers(-1, 2, size=(len(element.cells), 2)) * moved[:, None]
    if rng.random() < noise.shift:
        steps = np.clip(steps + rng.integers(-1, 2, size=2), -1, 1)
    if not steps.any():
        return Target(element, element.cells, element.offsets)
    column = np.clip(element.cells % GRID_SIZE + steps[:, 0], 0, GRID_SIZE - 1)
    row = np.clip(element.cells // GRID_SIZE + steps[:, 1], 0, GRID_SIZE - 1)
    cells = (row * GRID_SIZE + column).astype(np.int32)
    truth = decode_points(element.cells, element.offsets)
    return Target(element, cells, offsets_for(cells, truth))


def slipped(target: Target, share: float, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Offsets to teach and to read, where some first offsets that are read are not those that are taught.

    A model that has read true offsets only has never seen its own errors, and loses by its later rounds what it does not see.

    Args:
        target: the element.
        share: of its points, see `Noise.slip`.
        rng: draws them.

    Returns:
        Taught and read, ``(N, rounds)`` each. The later rounds of a point that slipped lead back from where it is.
    """
    answers = target.answers
    moved = rng.random(len(answers)) < share
    if target.phantom or answers.shape[1] < 2 or not moved.any():
        return answers, answers
    steps = rng.integers(-1, 2, size=(len(answers), 2)) * moved[:, None]
    column, row = (answers[:, 0] - TABLE.offset_base) % 3, (answers[:, 0] - TABLE.offset_base) // 3
    column, row = np.clip(column + steps[:, 0], 0, 2), np.clip(row + steps[:, 1], 0, 2)
    first = (TABLE.offset_base + 3 * row + column).astype(answers.dtype)
    truth = decode_points(target.element.cells, target.element.offsets)
    read = offsets_for(target.context_cells, truth, answers.shape[1], first)
    taught = read.copy()
    taught[:, 0] = answers[:, 0]
    return taught, read


def _phantom(rng: np.random.Generator) -> Target:
    """A box or sign that is not in the picture, at a plausible size and place."""
    head: tuple[int, ...]
    if rng.random() < 0.6:
        size = np.exp(rng.uniform(np.log(0.03), np.log(0.25), size=2))
        centre = np.array([rng.uniform(0, 1), rng.uniform(0.35, 0.8)])
        points = np.clip(np.stack([centre - size / 2, centre + size / 2]), 0, 1)
        head = (TOKEN_ID["<box>"], TOKEN_ID[f"<{BOX_CLASSES[_skewed(rng, len(BOX_CLASSES))]}>"])
        kind = "box"
    else:
        points = rng.uniform([0.05, 0.1], [0.95, 0.6], size=(1, 2))
        head = (
            TOKEN_ID["<sign>"],
            TOKEN_ID[f"<{SIGN_CLASSES[rng.integers(len(SIGN_CLASSES))]}>"],
            TOKEN_ID[f"<{SIGN_COLORS[rng.integers(len(SIGN_COLORS))]}>"],
        )
        kind = "sign"
    cells, offsets = encode_points(points.astype(np.float32))
    answers = np.full_like(offsets, TABLE.delete)
    return Target(ElementTokens(kind, head, cells, offsets), cells, answers, phantom=True)


def _skewed(rng: np.random.Generator, count: int) -> int:
    """An index below ``count``, small ones more often (cars lead the class list)."""
    return int(count * rng.random() ** 2.5)


def _phantom_slot(targets: Sequence[Target], rng: np.random.Generator) -> int:
    """A place among the boxes and signs, which follow the lanes and areas."""
    first = sum(t.element.kind in ("lane", "drivable") for t in targets)
    return int(rng.integers(first, len(targets) + 1))


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
    dense = [shapely.get_coordinates(shapely.segmentize(shapely.linestrings(lane), _LANE_SPACING)) for lane in lanes]
    nothing = np.zeros((0, 2))
    return np.stack(
        [_ways(np.concatenate([nothing, *dense])), _ways(np.concatenate([nothing, *(lane[[0, -1]] for lane in lanes)]))], axis=2
    )


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
