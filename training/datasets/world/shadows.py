"""Cast shadows as outlines on the ground; without sun only the dark patch under each vehicle."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.canvas import Canvas
from training.datasets.world.flanks import Flank, along
from training.datasets.world.things import Spot, Thing

F64 = npt.NDArray[np.float64]
_TURN = np.linspace(0, 2 * np.pi, 14)[:-1]
_CIRCLE = np.column_stack([np.cos(_TURN), np.sin(_TURN)])
_REACH_M = {
    "vehicle": 70.0,
    "rider": 40.0,
    "person": 30.0,
    "tree": 60.0,
    "lamp": 35.0,
    "mast": 35.0,
    "building": 90.0,
    "bridge": 150.0,
}
Shadow = tuple[npt.NDArray[np.floating], bool]  # outline in canvas pixels; whether light falls through it


def outlines(canvas: Canvas, placed: list[tuple[Thing, Spot, Spot | None]], flanks: list[Flank]) -> list[Shadow]:
    """Everything's shadow on the ground, ready to fill."""
    view, look = canvas.view, canvas.look
    stretch = min(1 / math.tan(look.sun[1]), 3.0) if look.shadow else 0.0
    azimuth = look.sun[0] - view.heading
    away = np.array([-math.cos(azimuth) * stretch, -math.sin(azimuth) * stretch])
    found, hulls = [], []
    for thing, spot, _ in placed:
        if spot.x < _REACH_M.get(thing.art, 0.0) and (outline := _outline(thing, spot, away, stretch)) is not None:
            found.append(outline)
            hulls.append(thing.art != "tree")
    if stretch:
        for flank in flanks:
            if flank.kind == "woods" and abs(away[1]) * flank.height_m > 2.0 and (away[1] < 0) == (flank.d_m > 0):
                found.append(_woods(canvas, flank, away))
                hulls.append(False)
    if not found:
        return []
    points = np.concatenate(found)
    x = np.maximum(points[:, 0], 1.3)
    row = view.cy + view.f * (view.height_m - view.ground_z(x)) / x
    row = np.maximum(np.minimum(row, view.clip_row(x) + 0.5), view.horizon)
    uv = np.column_stack([view.cx - view.f * points[:, 1] / x, row]).astype(np.float32)
    result, start = [], 0
    for outline, hull in zip(found, hulls, strict=True):
        stop = start + len(outline)
        if points[start:stop, 0].max() > 1.3:
            part = uv[start:stop]
            result.append((cv2.convexHull(part).reshape(-1, 2) if hull else part, not hull))
        start = stop
    return result


def _woods(canvas: Canvas, flank: Flank, away: F64) -> F64:
    """Shadow of a wall of trees: a strip beside it with a ragged rim, level frame."""
    view = canvas.view
    s = view.s_m + np.append(np.arange(0.0, 40.0, 2.5), np.arange(40.0, 110.0, 6.0))
    reach = flank.height_m * np.clip(0.75 + 0.3 * along(s, 12.0, flank.phase), 0.1, 1.3)
    reach[along(s, 90.0, flank.phase * 7) < flank.gap] = 0.0
    x, y, _ = view.place(s, np.full(len(s), flank.d_m))
    rim = np.column_stack([x + away[0] * reach, y + away[1] * reach])
    return np.concatenate([np.column_stack([x, y]), rim[::-1]])


def _outline(thing: Thing, spot: Spot, away: F64, stretch: float) -> F64 | None:
    """Ground points ``(N, 2)`` of one shadow in the level frame, or None."""
    length, width, height = thing.size_m
    if thing.art in ("vehicle", "rider", "person"):
        angle = spot.bearing + thing.heading
        return _slab(spot, angle, length * 0.49, (-width * 0.52, width * 0.52), away * height * 0.8, stretch)
    if thing.art == "bridge":
        points = np.array([(0, -60.0), (length, -60.0), (length, 60.0), (0, 60.0)]) + np.array((spot.x, 0.0))
        return points + (away * 5.0 if stretch else 0.0)
    if not stretch:
        return None
    if thing.art == "tree":
        wobble = 1 + 0.25 * np.sin(5 * _TURN + thing.index) + 0.15 * np.sin(9 * _TURN)
        return (
            np.array((spot.x, spot.y)) + away * height * 0.62 + _CIRCLE * (wobble * width * 0.42 * (1 + 0.2 * stretch))[:, None]
        )
    if thing.art in ("lamp", "mast"):
        at, across = np.array((spot.x, spot.y)), np.array([-away[1], away[0]]) / stretch * 0.08
        tip = at + away * height
        return np.array([at + across, tip + across, tip - across, at - across])
    if thing.art == "building":
        return _slab(spot, spot.bearing, length / 2, (0.0, width if thing.d > 0 else -width), away * height, stretch)
    return None


def _slab(spot: Spot, angle: float, reach: float, sides: tuple[float, float], away: F64, stretch: float) -> F64:
    """Corners of a block on the ground, ``reach`` before and behind the spot, and with sun of its upper side's shadow."""
    c, s = math.cos(angle), math.sin(angle)
    base = [(spot.x + c * a - s * b, spot.y + s * a + c * b) for a in (-reach, reach) for b in sides]
    if stretch:
        dx, dy = away.tolist()
        base += [(x + dx, y + dy) for x, y in base]
    return np.array(base)
