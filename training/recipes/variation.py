"""A picture of a data set seen a little otherwise, with its labels: a window of it, its mirror image, other light and colours.

A few hundred photographs come round many times in a run; drawn pictures are endless and need none of this. Labels are cut where
the window cuts the picture. Nothing is turned or sheared: a road's camera stands upright.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from getok_drive.errors import InputError
from getok_drive.geometry.polyline import clip_polyline, length
from getok_drive.types import Box, DrivableArea, FloatArray, ImageBgr, Lane
from training.samples import Sample

LEAST_WINDOW = 0.6  # of the picture's width and height, at full strength
LEAST_SEEN = 0.3  # of a box: what is left of a thing beyond that is nothing that could be named
_LEAST_AREA = 0.003  # of the picture, as the driving world has it for a drivable region
_LEAST_LANE = 0.03  # of the picture's width and height together


def varied(sample: Sample, strength: float, rng: np.random.Generator) -> Sample:
    """The sample as another camera might have seen it.

    Args:
        sample: with labels of driving scenes; pictures of masks and phrases are left behind.
        strength: 0 leaves everything as it is but for the mirror, 1 is the most.
        rng: draws the window, the mirror and the light.

    Raises:
        InputError: a strength outside 0..1.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"varied: expected a strength in 0..1, got {strength}")
    width, height = sample.size_wh
    shares = 1 - strength * (1 - LEAST_WINDOW) * rng.random() * (0.8 + 0.2 * rng.random(2))
    size = np.maximum(np.round(shares * [width, height]), 2).astype(int)
    origin = np.round(rng.random(2) * ([width, height] - size)).astype(int)
    (x, y), (wide, high) = origin.tolist(), size.tolist()
    mirrored = bool(rng.random() < 0.5)
    image = sample.image_bgr[y : y + high, x : x + wide]
    image = other_light(image[:, ::-1] if mirrored else image, strength, rng)

    def moved(points_px: npt.NDArray[np.floating]) -> FloatArray:
        points: FloatArray = np.asarray(points_px, np.float32) - origin.astype(np.float32)
        return points * np.array([-1, 1], np.float32) + np.array([wide - 1, 0], np.float32) if mirrored else points

    def box(xyxy_px: npt.NDArray[np.floating]) -> FloatArray:
        corners = moved(np.asarray(xyxy_px).reshape(2, 2))
        return np.concatenate([corners.min(axis=0), corners.max(axis=0)])

    meta = {name: value for name, value in sample.meta.items() if name not in ("K", "D", "ego_SE3_cam")}
    if "ignore_xyxy_px" in meta:
        meta["ignore_xyxy_px"] = [box(np.asarray(one)).tolist() for one in meta["ignore_xyxy_px"]]
    return replace(
        sample,
        image_bgr=image,
        lanes=tuple(part for lane in sample.lanes for part in _lanes(lane, moved(lane.points_px), (wide, high))),
        drivable=tuple(a for area in sample.drivable for a in _areas(area, moved(area.polygon_px), (wide, high))),
        boxes=tuple(b for one in sample.boxes if (b := _box(one, box(one.xyxy_px), (wide, high))) is not None),
        signs=tuple(replace(s, point_px=p) for s in sample.signs if _inside(p := moved(s.point_px), (wide, high))),
        masks={},
        meta=meta,
        phrases=(),
    )


def other_light(image_bgr: ImageBgr, strength: float, rng: np.random.Generator) -> ImageBgr:
    """The picture with another exposure, contrast, gamma and white balance, sometimes a little blurred."""
    gamma = np.exp(strength * rng.normal(0, 0.2))
    contrast, shift = np.exp(strength * rng.normal(0, 0.12)), strength * rng.normal(0, 0.05)
    balance = np.exp(strength * rng.normal(0, 0.06, 3))
    levels = (np.arange(256)[:, None] / 255.0) ** gamma * balance
    table = np.clip(((levels - 0.5) * contrast + 0.5 + shift) * 255, 0, 255).round().astype(np.uint8)
    changed: Any = cv2.LUT(np.ascontiguousarray(image_bgr), table[None])
    if rng.random() < 0.2 * strength:
        changed = cv2.GaussianBlur(changed, (0, 0), float(rng.uniform(0.3, 1.0)) * image_bgr.shape[1] / 448)
    return np.ascontiguousarray(changed)


def _lanes(lane: Lane, points_px: FloatArray, size_wh: tuple[int, int]) -> list[Lane]:
    least = _LEAST_LANE * sum(size_wh)
    parts = [part for part in clip_polyline(points_px, size_wh) if length(part) >= least]
    return [replace(lane, points_px=part.astype(np.float32)) for part in parts]


def _areas(area: DrivableArea, polygon_px: FloatArray, size_wh: tuple[int, int]) -> list[DrivableArea]:
    width, height = size_wh
    window = shapely.box(-0.5, -0.5, width - 0.5, height - 0.5)
    cut = shapely.intersection(shapely.make_valid(shapely.polygons(polygon_px.astype(np.float64))), window)
    parts = [part for part in shapely.get_parts(cut) if part.geom_type == "Polygon" and part.area >= _LEAST_AREA * width * height]
    return [replace(area, polygon_px=shapely.get_coordinates(p.exterior)[:-1].astype(np.float32)) for p in parts]


def _box(box: Box, xyxy_px: FloatArray, size_wh: tuple[int, int]) -> Box | None:
    edges = np.array([*size_wh, *size_wh], np.float32)
    seen = np.clip(xyxy_px, -0.5, edges - 0.5)
    (wide, high), whole = seen[2:] - seen[:2], np.prod(xyxy_px[2:] - xyxy_px[:2])
    if min(wide, high) < 1 or wide * high < LEAST_SEEN * whole:
        return None
    cut = {"truncated": "yes"} if (seen != xyxy_px).any() else {}
    return replace(box, xyxy_px=seen, attributes={**box.attributes, **cut})


def _inside(point_px: FloatArray, size_wh: tuple[int, int]) -> bool:
    return bool(((point_px >= -0.5) & (point_px < np.array(size_wh, np.float32) - 0.5)).all())
