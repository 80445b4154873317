"""A scene and its element tokens: canonical order, canonical geometry, one text per scene.

The output format is written down in ARCHITECTURE.md. Everything here happens on the codec's lattice, in whole numbers: a scene
decoded from its text gives the same text again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from getok_drive.errors import InputError
from getok_drive.tokens import lattice
from getok_drive.tokens.codec import Ids, Points, decode_points, encode_points, px_to_norm
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.vocab import (
    BOX_CLASSES,
    GRID_SIZE,
    LANE_COLORS,
    LANE_TYPES,
    OFFSET_ROUNDS,
    SIGN_CLASSES,
    SIGN_COLORS,
    TOKEN_ID,
)  # fmt: skip
from getok_drive.types import Box, DrivableArea, Lane, Sign

KINDS = ("lane", "drivable", "box", "sign")  # in the order of the text

# The words that follow each kind token, one out of each tuple.
HEAD_WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "lane": (LANE_TYPES, LANE_COLORS),
    "drivable": (),
    "box": (BOX_CLASSES,),
    "sign": (SIGN_CLASSES, SIGN_COLORS),
}
LEAST_POINTS = {"lane": 2, "drivable": 3, "box": 2, "sign": 1}
WRITTEN_ONCE = ("box", "sign")  # a second one with the same words and cells would say nothing new

_IMAGE = shapely.box(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class ElementTokens:
    """One element as tokens.

    Attributes:
        kind: ``lane``, ``drivable``, ``box`` or ``sign``.
        head: local ids of the kind token and its words.
        cells: ``(N,)`` int32 local grid ids.
        offsets: ``(N, rounds)`` int32 local offset ids.
    """

    kind: str
    head: tuple[int, ...]
    cells: Ids
    offsets: Ids

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"element kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if len(self.cells) < LEAST_POINTS[self.kind] or len(self.offsets) != len(self.cells):
            raise InputError(f"{self.kind}: {len(self.cells)} cells and offsets of shape {self.offsets.shape} do not fit")

    @property
    def points_norm(self) -> Points:
        """``(N, 2)`` refined points, image fractions."""
        return decode_points(self.cells, self.offsets)


def _head(kind: str, *words: str) -> tuple[int, ...]:
    for word, allowed in zip(words, HEAD_WORDS[kind], strict=True):
        if word not in allowed:
            raise InputError(f"{kind}: {word!r} is not in the token table; expected one of {', '.join(allowed)}")
    return (TOKEN_ID[f"<{kind}>"], *(TOKEN_ID[f"<{word}>"] for word in words))


def _inside(points_norm: Points) -> bool:
    return bool(points_norm.min() >= 0.0 and points_norm.max() <= 1.0)


# --- one element on the lattice --------------------------------------------------------------------------------------


def _lane_points(points_norm: Points, rounds: int, most: int) -> lattice.Lattice | None:
    """A lane bottom to top: rows never go down, one point per cell, evenly thinned to ``most`` points."""
    if not _inside(points_norm):  # keep the longest part that the image shows
        parts = shapely.get_parts(shapely.intersection(shapely.linestrings(points_norm), _IMAGE))
        lengths = shapely.length(parts)
        if len(parts) == 0 or lengths.max() == 0.0:
            return None
        points_norm = shapely.get_coordinates(parts[int(lengths.argmax())])
    points = lattice.snap(points_norm, rounds)
    (x0, y0), (x1, y1) = points[0].tolist(), points[-1].tolist()
    if (-y0, x0) > (-y1, x1):
        points = points[::-1]
    points = points[points[:, 1] <= np.minimum.accumulate(points[:, 1])]
    cells = _cells(points, rounds)
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    if len(starts) < 2:
        return None
    starts[-1] = len(points) - 1  # the lane's far end, not where it enters the last cell
    first_visit = np.sort(np.unique(cells[starts], return_index=True)[1])
    points = points[starts[first_visit]]
    if len(points) < 2:
        return None
    if len(points) > most:
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
        nearest = np.abs(along[None, :] - np.linspace(0.0, along[-1], most)[:, None]).argmin(axis=1)
        points = points[np.unique(nearest)]
    return points


def _polygon_points(points_norm: Points, rounds: int, most: int) -> list[lattice.Lattice]:
    """The visible parts of a drivable area as representable, canonical polygons (usually one)."""
    outlines = [points_norm]
    if not _inside(points_norm):
        visible = shapely.intersection(shapely.make_valid(shapely.polygons(points_norm)), _IMAGE)
        parts = shapely.get_parts(visible)
        outlines = [shapely.get_coordinates(shapely.get_exterior_ring(p))[:-1] for p in parts if p.geom_type == "Polygon"]
    polygons = (lattice.representable_polygon(lattice.snap(o, rounds), lattice.cell_steps(rounds), most) for o in outlines)
    return [lattice.canonical_ring(polygon) for polygon in polygons if polygon is not None]


def _box_points(corners_norm: Points, rounds: int) -> lattice.Lattice | None:
    """Top-left and bottom-right corner at least one finest step apart, or None outside the image."""
    low, high = np.clip(corners_norm, 0.0, 1.0)
    if not (low < high).all():
        return None
    points = lattice.snap(np.stack([low, high]), rounds)
    most = lattice.cell_steps(rounds) * GRID_SIZE
    for axis in (0, 1):
        if points[0, axis] == points[1, axis]:  # thinner than a step: widen on the side where the truth lies
            middle = (low[axis] + high[axis]) / 2 * most
            points[0, axis] = min(int(middle), most - 1)
            points[1, axis] = points[0, axis] + 1
    return points


def _cells(points: lattice.Lattice, rounds: int) -> npt.NDArray[np.int64]:
    ij = np.minimum(points // lattice.cell_steps(rounds), GRID_SIZE - 1)
    cells: npt.NDArray[np.int64] = ij[:, 1] * GRID_SIZE + ij[:, 0]
    return cells


_Found = tuple[tuple[int, ...], tuple[int, ...], lattice.Lattice]  # sort key, head, points


def _sort_key(item: _Found) -> tuple[int, ...]:
    return item[0]


def _written(kind: str, found: list[_Found], rounds: int) -> list[_Found]:
    """What the text says of these, in its order."""
    ordered = sorted(found, key=_sort_key)
    if kind not in WRITTEN_ONCE:
        return ordered
    first: dict[tuple[int, ...], _Found] = {}
    for item in ordered:
        first.setdefault((*item[1], *_cells(item[2], rounds).tolist()), item)
    return list(first.values())


# --- the whole scene -------------------------------------------------------------------------------------------------


def canonical_elements(
    lanes: Iterable[Lane],
    drivable: Iterable[DrivableArea],
    boxes: Iterable[Box],
    signs: Iterable[Sign],
    size_wh: tuple[int, int],
    rounds: int = OFFSET_ROUNDS,
    limits: Limits | None = None,
) -> list[ElementTokens]:
    """The elements of a scene as tokens, in the one order that ARCHITECTURE.md defines.

    - Geometry outside the image is cut off; what then has no extent on the grid (a lane within one cell, an area of fewer than
      three cells, a box outside) is left out.
    - Lanes run bottom to top (left to right when level); points that would go down again and points in a cell already visited
      are left out. Sorted by their lowest point's x.
    - Areas are simple on the grid and on the lattice, clockwise on the screen from the lowest, then leftmost vertex. Sorted by
      that vertex's x.
    - Boxes are at least one finest step wide and high. Sorted by lower edge, nearest first, then by left edge.
    - Signs are sorted by x, then y.
    - Of boxes or signs with the same words and cells, which the grid cannot tell apart, the first is kept.
    - Every remaining tie is broken by the other coordinates and the words, so any order of the inputs gives the same result.
    - Above a limit the elements that come first are kept, lanes and areas are thinned.

    Args:
        lanes: in pixels, any direction, as dense as wished.
        drivable: in pixels, any direction and start.
        boxes: in pixels.
        signs: in pixels.
        size_wh: size of the image that the pixels belong to.
        rounds: number of offset rounds.
        limits: greatest numbers, `Limits()` by default.

    Returns:
        The elements; empty for an empty scene.

    Raises:
        InputError: on a class, type or colour outside the token table.
    """
    limits = limits or Limits()
    found: dict[str, list[_Found]] = {kind: [] for kind in KINDS}

    def add(kind: str, head: tuple[int, ...], points: lattice.Lattice | None, key: Sequence[int] = ()) -> None:
        if points is not None:
            flat = points.reshape(-1).tolist()
            found[kind].append(((*(key or (flat[0], -flat[1])), *flat, *head), head, points))

    for lane in lanes:
        head = _head("lane", lane.type, lane.color)
        add("lane", head, _lane_points(px_to_norm(lane.points_px, size_wh), rounds, limits.lane_points))
    for area in drivable:
        for polygon in _polygon_points(px_to_norm(area.polygon_px, size_wh), rounds, limits.polygon_vertices):
            add("drivable", _head("drivable"), polygon)
    for box in boxes:
        corners = _box_points(px_to_norm(box.xyxy_px.reshape(2, 2), size_wh), rounds)
        if corners is not None:
            add("box", _head("box", box.class_name), corners, key=(-int(corners[1, 1]), int(corners[0, 0])))
    for sign in signs:
        point = px_to_norm(sign.point_px.reshape(1, 2), size_wh)
        if _inside(point):
            add("sign", _head("sign", sign.class_name, sign.color), lattice.snap(point, rounds))

    kept = [(kind, *item[1:]) for kind in KINDS for item in _written(kind, found[kind], rounds)[: limits.elements(kind)]]
    if not kept:
        return []
    cells, offsets = encode_points(lattice.to_norm(np.concatenate([points for *_, points in kept]), rounds), rounds)
    ends = np.cumsum([len(points) for *_, points in kept])[:-1]
    parts = zip(kept, np.split(cells, ends), np.split(offsets, ends), strict=True)
    return [ElementTokens(kind, head, own_cells, own_offsets) for (kind, head, _), own_cells, own_offsets in parts]


def propose_ids(elements: Iterable[ElementTokens]) -> list[int]:
    """Local ids of the proposal: each element's head and cells, then ``</scene>``."""
    ids: list[int] = []
    for element in elements:
        ids += element.head
        ids += element.cells.tolist()
    return [*ids, TOKEN_ID["</scene>"]]


def refine_ids(elements: Iterable[ElementTokens]) -> list[int]:
    """Local ids of the refinement: ``<offset>``, then each grid token given back with its offsets, ``</offset>``."""
    ids: list[int] = [TOKEN_ID["<offset>"]]
    for element in elements:
        ids += np.concatenate([element.cells[:, None], element.offsets], axis=1).reshape(-1).tolist()
    return [*ids, TOKEN_ID["</offset>"]]
