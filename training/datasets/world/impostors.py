"""Vehicles far away: pictures of their meshes from all round, drawn once per process and painted when pasted.

The three channels of such a picture are no colours: how much of the paint, how bright what is not painted (glass, tyres, plates),
and how much of a lamp shows. One matrix then paints and lights it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from training.datasets.world.canvas import SHIFT, Light, Mips
from training.datasets.world.look import Bgr
from training.datasets.world.meshes import Mesh, mesh, visible
from training.datasets.world.sprites import mips

HEIGHT_PX = 48
_STEP_RAD = math.radians(4.0)
_NEAREST_M, _BAND = 12.0, 1.7  # distances they are seen from: 12 m, 20 m, 35 m, 59 m
_CAMERA_M, _MARGIN_PX = 1.4, 2.0
_TOP_LIGHT = 1.25
# what is not painted: grey level
_GREY = {"glass": 74.0, "inside": 40.0, "tyre": 28.0, "hub": 104.0, "dark": 26.0, "trim": 50.0, "plate": 205.0, "sign": 150.0,
         "livery": 130.0}  # fmt: skip
_PAINT = {"body": 255.0, "roof": 255.0, "box": 255.0, "lower": 214.0, "bumper": 205.0}


@dataclass(frozen=True, slots=True)
class Impostor:
    """One view.

    Attributes:
        mips: channels paint, grey, lamp.
        width_m: of the picture, whose middle is the vehicle's; above_m: its upper edge over the ground there.
        reach_m: how much nearer than the middle it touches the ground; its lower edge is there.
    """

    mips: Mips
    width_m: float
    above_m: float
    reach_m: float


def painted(paint: Bgr, lamp: Bgr, gain: Bgr, shade: float, offset: Bgr, shining: bool) -> Light:
    """Light on an impostor's channels: ``shade`` dims painted and other surfaces, not a lit lamp."""
    k = shade / 255
    lamp_gain = (1 / 255, 1 / 255, 1 / 255) if shining else (gain[0] * k, gain[1] * k, gain[2] * k)
    return (
        (paint[0] * gain[0] * k, paint[1] * gain[1] * k, paint[2] * gain[2] * k),
        (gain[0] * shade, gain[1] * shade, gain[2] * shade),
        (lamp[0] * lamp_gain[0], lamp[1] * lamp_gain[1], lamp[2] * lamp_gain[2]),
        offset,
    )


def seen(model: str, turn_rad: float, distance_m: float) -> Impostor:
    """The view of a model that is turned by ``turn_rad``, 0 to pi, from driving straight away, at about ``distance_m``."""
    band = min(max(round(math.log(distance_m / _NEAREST_M) / math.log(_BAND)), 0), 3)
    return _view(model, round(turn_rad / _STEP_RAD), band)


@cache
def _view(model: str, turn: int, band: int) -> Impostor:
    shape = mesh(model)
    angle, distance = turn * _STEP_RAD, _NEAREST_M * _BAND**band
    cos, sin = math.cos(angle), math.sin(angle)
    px, py, pz = shape.points
    x = cos * px - sin * py + distance
    per_m = (HEIGHT_PX - 2 * _MARGIN_PX) / shape.size_m[2]
    scale = per_m * distance / x
    u, v = -(sin * px + cos * py) * scale, (_CAMERA_M - pz) * scale
    half, top = float(np.abs(u).max()) + _MARGIN_PX, float(v.min()) - _MARGIN_PX
    nearest = int(v.argmax())
    picture = np.zeros((math.ceil(v[nearest] - top), 2 * math.ceil(half), 4), np.uint8)
    points = np.column_stack([u + picture.shape[1] / 2 - 0.5, v - top - 0.5])
    low = points[_low(shape)]
    under = cv2.convexHull(np.concatenate([low, low - (0, 0.45 * per_m)]).astype(np.float32))
    cv2.fillConvexPoly(picture, (under * 16).astype(np.int32), (0, 22, 0, 255), cv2.LINE_AA, SHIFT)
    for i in visible(shape, u, v, cos):
        face = (points[shape.starts[i] : shape.ends[i]] * 16).astype(np.int32)
        cv2.fillConvexPoly(picture, face, (*_code(shape, i, cos > 0), 255), cv2.LINE_AA, SHIFT)
    above = _CAMERA_M - top / per_m
    return Impostor(mips(picture), picture.shape[1] / per_m, above, distance - float(x[nearest]))


def _low(shape: Mesh) -> list[int]:
    """Indices of the points on the ground."""
    return np.flatnonzero(shape.points[2] < 0.05).tolist()


def _code(shape: Mesh, face: int, behind: bool) -> tuple[float, float, float]:
    """Channels of one face: a truck's cab is painted only when seen from before, its box from behind."""
    material, light = shape.materials[face], _TOP_LIGHT if shape.sides[face] == "top" else 1.0
    if material in ("tail", "head"):
        return 0.0, 0.0, 255.0
    if shape.parts and material in _PAINT and (material == "box") != behind:
        return 0.0, 170.0 * light, 0.0
    if material in _PAINT:
        return min(_PAINT[material] * light / _TOP_LIGHT, 255.0), 0.0, 0.0
    return 0.0, min(_GREY[material] * light, 255.0), 0.0
