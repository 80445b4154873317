"""What the model is taught to write for a `Sample`: thinned lanes, canonical elements, noise on its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import shapely

from getok_drive.tokens.codec import Ids, decode_points, encode_points, offsets_for
from getok_drive.tokens.elements import ElementTokens, canonical_elements
from getok_drive.tokens.vocab import BOX_CLASSES, GRID_SIZE, SIGN_CLASSES, SIGN_COLORS, TABLE, TOKEN_ID
from getok_drive.types import FloatArray
from training.samples import Sample

LANE_ROW_STEP = 3  # grid rows between two points of a lane
LANE_BEND = 0.25  # grid rows: a lane is written by chords that are nowhere further from it


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
