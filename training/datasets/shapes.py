"""Shapes with free names (COCO, CVAT, Datumaro) -> labels, by what a name means in `training.datasets.classes`.

| meaning  | box | polygon, mask | polyline | point |
|----------|-----|---------------|----------|-------|
| boxes    | box | its extent    | -        | -     |
| signs    | its centre | its extent's centre | - | sign |
| drivable | -   | drivable area | -        | -     |
| lanes    | -   | paint: lane lines are derived from it | lane line | - |

What has no meaning here is left out and counted in ``meta["left_out"]``. All coordinates are pixels, integers at pixel centres:
readers of formats that count from the picture's corner subtract half a pixel first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.tokens.vocab import LANE_COLORS, LANE_TYPES, ROAD_BLOCKAGES, VISIBLE_STATES
from getok_drive.types import Box, ImageBgr, Lane, Sign
from training.datasets.boxes import center, clipped, joined_riders, state_attributes
from training.datasets.classes import Meaning, meaning_of, sign_color
from training.datasets.lamps import UNLIT, lamp_color
from training.datasets.masks import drivable_areas, mask_box
from training.datasets.paint import lane_look, lanes_from_paint
from training.datasets.reading import Labels
from training.metrics.raster import fill_polygons
from training.samples import KINDS


def labelled_classes(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Kind -> words, for the class names that a data set declares; what no name stands for is not labelled by it."""
    meanings = [meaning for name in names if (meaning := meaning_of(name))]
    return {
        kind: tuple(dict.fromkeys(m.word for m in meanings if m.kind == kind))
        for kind in KINDS
        if any(m.kind == kind for m in meanings)
    }


class Shapes:
    """Collects the shapes of one picture; `labels` gives what they amount to."""

    def __init__(self, image: ImageBgr, classes: Mapping[str, tuple[str, ...]]) -> None:
        self._image, self._classes = image, classes
        self._size_wh = (image.shape[1], image.shape[0])
        self._boxes: list[tuple[Box, str]] = []
        self._masks: list[npt.NDArray[np.bool_] | None] = []  # one for each box
        self._signs: list[Sign] = []
        self._lanes: list[Lane] = []
        self._road: npt.NDArray[np.uint8] | None = None
        self._paint: npt.NDArray[np.uint8] | None = None
        self._left_out: Counter[str] = Counter()
        self._ignored: list[list[float]] = []
        self._derived: set[str] = set()

    def ignore(self, xyxy_px: npt.ArrayLike) -> None:
        """A region in which objects are not labelled one by one."""
        self._ignored.append(np.asarray(xyxy_px, np.float64).reshape(4).tolist())

    def box(self, name: str, xyxy_px: npt.ArrayLike, attributes: Mapping[str, Any] | None = None) -> None:
        """A box ``(4,)``."""
        meaning = self._meaning(name, ("boxes", "signs"), "box")
        xyxy = clipped(xyxy_px, self._size_wh)
        if meaning is None:
            return
        if xyxy is None:
            self._left_out[f"{name} (box outside the picture or empty)"] += 1
        elif meaning.kind == "signs":
            self._sign(meaning, center(xyxy), xyxy, attributes or {})
        else:
            self._boxes.append((Box(xyxy, meaning.word, attributes=self._attributes(attributes or {})), name.strip().lower()))
            self._masks.append(None)

    def polygon(self, name: str, points_px: npt.ArrayLike, attributes: Mapping[str, Any] | None = None) -> None:
        """A polygon ``(N >= 3, 2)``."""
        points = np.asarray(points_px, np.float64).reshape(-1, 2)
        if len(points) < 3:
            raise InputError(f"{name}: a polygon of {len(points)} points; at least 3 are needed")
        self.mask(name, fill_polygons([points], self._size_wh), attributes, shape="polygon")

    def mask(
        self, name: str, mask: npt.NDArray[np.bool_], attributes: Mapping[str, Any] | None = None, shape: str = "mask"
    ) -> None:
        """A mask ``(H, W)``."""
        meaning = self._meaning(name, KINDS, shape)
        if meaning is None:
            return
        if meaning.kind == "drivable":
            self._road = mask.astype(np.uint8) if self._road is None else self._road | mask
            self._derived.add("drivable")
        elif meaning.kind == "lanes":
            self._paint = mask.astype(np.uint8) if self._paint is None else self._paint | mask
            self._derived.add("lanes")
        elif (extent := mask_box(mask)) is None:
            self._left_out[f"{name} (empty {shape})"] += 1
        else:
            before = len(self._boxes)
            self.box(name, extent, attributes)
            if len(self._boxes) > before:
                self._masks[-1] = mask

    def polyline(self, name: str, points_px: npt.ArrayLike, attributes: Mapping[str, Any] | None = None) -> None:
        """A polyline ``(N >= 2, 2)``; type and colour come from its name or attributes, else from the picture."""
        meaning = self._meaning(name, ("lanes",), "polyline")
        if meaning is None:
            return
        points = np.asarray(points_px, np.float32).reshape(-1, 2)
        if len(points) < 2:
            raise InputError(f"{name}: a polyline of {len(points)} points; at least 2 are needed")
        points = points if points[0, 1] >= points[-1, 1] else points[::-1]
        given = {str(value).strip().lower() for value in (attributes or {}).values()} | {meaning.word, meaning.color}
        kind = next((word for word in LANE_TYPES if word in given), None)
        color = next((word for word in LANE_COLORS if word in given), None)
        if kind is None or color is None:
            seen = lane_look(self._image, points)
            self._derived |= {"lane_type"} if kind is None else set()
            self._derived |= {"lane_color"} if color is None else set()
            kind, color = kind or seen[0], color or seen[1]
        self._lanes.append(Lane(points, kind, color))

    def point(self, name: str, point_px: npt.ArrayLike, attributes: Mapping[str, Any] | None = None) -> None:
        """A point ``(2,)``."""
        meaning = self._meaning(name, ("signs",), "point")
        if meaning is not None:
            self._sign(meaning, np.asarray(point_px, np.float32).reshape(2), None, attributes or {})

    def labels(self, masks: bool = True, meta: Mapping[str, Any] | None = None) -> Labels:
        """What has been collected; with ``masks`` the picture ``instance`` for boxes that came as polygons or masks."""
        lanes = [*self._lanes, *(lanes_from_paint(self._paint, self._image) if self._paint is not None else ())]
        boxes, places = joined_riders(self._boxes)
        pictures = {}
        if masks and any(mask is not None for mask in self._masks):
            instance = np.zeros(self._image.shape[:2], np.uint16)
            for place, mask in zip(places, self._masks, strict=True):
                if mask is not None:
                    instance[mask] = place + 1
            pictures["instance"] = instance
        found: dict[str, Any] = {
            "left_out": dict(self._left_out),
            "derived": tuple(sorted(self._derived)),
            "labelled_classes": {kind: words for kind, words in self._classes.items() if kind in ("boxes", "signs")},
        }
        if self._ignored:
            found["ignore_xyxy_px"] = self._ignored
        return Labels(
            tuple(self._classes),
            tuple(lanes),
            drivable_areas(self._road) if self._road is not None else (),
            boxes,
            tuple(self._signs),
            masks=pictures,
            meta={**found, **(meta or {})},
        )

    def _meaning(self, name: str, kinds: tuple[str, ...], shape: str) -> Meaning | None:
        meaning = meaning_of(name)
        if meaning is None or meaning.kind not in kinds or meaning.kind not in self._classes:
            self._left_out[name if meaning is None else f"{name} ({shape})"] += 1
            return None
        return meaning

    def _sign(self, meaning: Meaning, point: npt.NDArray[np.float32], xyxy: Any, attributes: Mapping[str, Any]) -> None:
        color = sign_color(str(attributes.get("color", "")), meaning.color)
        if meaning.word == "traffic_light" and color == UNLIT and xyxy is not None:
            color = lamp_color(self._image, xyxy)
            self._derived.add("sign_color")
        self._signs.append(Sign(point, meaning.word, color, attributes=self._attributes(attributes)))

    @staticmethod
    def _attributes(given: Mapping[str, Any]) -> dict[str, str]:
        attributes = state_attributes(given.get("occluded"), given.get("truncated"))
        for name, words in (("visible_state", VISIBLE_STATES), ("road_blockage", ROAD_BLOCKAGES)):
            if given.get(name) in words:
                attributes[name] = str(given[name])
        if given.get("track_id") is not None:
            attributes["track_id"] = str(given["track_id"])
        return attributes


def decode_rle(counts: str | list[int], size_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A mask from COCO's run lengths, as a list or in its compressed text form; runs go down the columns, first of zeros.

    Raises:
        InputError: lengths that do not add up to the picture.
    """
    runs = list(counts) if not isinstance(counts, str) else _rle_text(counts)
    height, width = size_hw
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise InputError(f"run lengths add up to {sum(runs)} pixels, the picture has {height * width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def encode_rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """A mask ``(H, W)`` as COCO's run lengths in a list: ``{"size": [h, w], "counts": [...]}``, the inverse of `decode_rle`."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask[-1, -1]]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0).tolist()}


def _rle_text(text: str) -> list[int]:
    """COCO's compressed counts: groups of 5 bits in characters from '0' on, sign-extended, each from the fourth on a difference
    to the count two before.
    """
    runs: list[int] = []
    at = 0
    while at < len(text):
        value = shift = 0
        more = True
        while more:
            if at >= len(text):
                raise InputError("run lengths end in the middle of a number; the text was cut off")
            code = ord(text[at]) - 48
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            at += 1
            shift += 5
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
