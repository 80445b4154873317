"""Road markings with exact pixel coverage: a line narrower than a pixel gets paler, never wider."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.canvas import SHIFT, Canvas, fixed
from training.datasets.world.dice import Dice
from training.datasets.world.kernels import paint as kernel
from training.datasets.world.road import Line

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
_DOUBLE_GAP_M = 0.12
_NOTHING = np.empty((0, 0), np.uint8)
_SEAM_M, _SEAM_DARK, _SEAM_REACH_M = 0.035, 0.45, 60.0


@dataclass(slots=True)
class DrawnLine:
    """A lane line as it lies on the canvas: its column in every ground row, and which rows it covers."""

    line: Line
    u: F64
    there: npt.NDArray[np.bool_]


def draw(canvas: Canvas, rng: Dice, rough: U8, drawn: list[DrawnLine]) -> None:
    """Paint lines, crossings, stop lines and arrows onto the ground rows; append the lane lines to ``drawn``.

    Only pixels that take paint are touched. ``rough`` is noise (0..255) at half the ground's size that eats away worn paint.
    """
    view, road = canvas.view, canvas.view.road
    wear = rng.uniform(0.0, 1.0)
    white = rng.uniform(195, 248) * (1 - 0.05 * rng.generator.random(3))
    colors = {"white": white, "yellow": rng.generator.uniform((40, 155, 205), (110, 195, 245))}
    scale = view.f / (view.row_x * view.row_cos)
    ground, marked = canvas.image[view.horizon :], canvas.paint[view.horizon :]
    if road.seams:
        _seams(canvas, ground, scale)
    stripes: list[tuple[F64, F64, F64, F64]] = []  # column, width, share, colour
    for line in road.lines:
        offset = line.at(view.row_s)
        at = view.row_s + offset * view.row_tan
        there = (at > line.start_m) & (at < line.end_m)
        if line.paint < 0.03 or not there.any():
            continue
        width_px, color = line.width_m * scale, colors[line.color]
        u = view.row_u(offset)
        if line.kind == "double":
            gap = (line.width_m + _DOUBLE_GAP_M) / 2
            second = _painted(line, at, view.row_ds, line.partner_dashed)
            stripes.append((view.row_u(offset - gap), width_px, second, color))
            stripes.append((view.row_u(offset + gap), width_px, _painted(line, at, view.row_ds, False), color))
        else:
            stripes.append((u, width_px, _painted(line, at, view.row_ds, line.kind == "dashed"), color))
        drawn.append(DrawnLine(line, u, there))
    if stripes:
        column, width, share, bgr = (np.array(part) for part in zip(*stripes, strict=True))
        kernel.stripes(ground, marked, rough, column, width, share, bgr, wear)
    if road.crossings or road.stop_lines or road.arrows:
        for top, layer in (*_across(canvas), *_arrows(canvas)):
            kernel.layer(ground, top, layer, rough, white, wear)


def _painted(line: Line, s: F64, ds: F64, dashed: bool) -> F64:
    """Share of each row's stretch ``s +- ds/2`` that is painted, 0..1."""
    dash = line.dash_m if dashed else 0.0
    share: F64 = kernel.painted(s, ds, line.paint, line.start_m, line.end_m, dash, line.period_m, line.phase_m)
    return share


def _seams(canvas: Canvas, ground: U8, scale: F64) -> None:
    """Dark joints of the paving between the lanes: they look like lines but are none."""
    view, road = canvas.view, canvas.view.road
    offsets = sorted({round(d + side * road.lane_width_m / 2, 1) for d in road.lane_d for side in (-1, 1)})
    column = np.array([view.row_u(d + 0.12) for d in offsets if abs(d) < 9])
    if len(column):
        width, share = _SEAM_M * scale, np.where(view.row_x < _SEAM_REACH_M, _SEAM_DARK, 0.0)
        width, share = (np.ascontiguousarray(np.broadcast_to(v, column.shape)) for v in (width, share))
        kernel.stripes(ground, _NOTHING, _NOTHING, column, width, share, np.zeros((len(column), 3)), 0.0)


def _across(canvas: Canvas) -> Iterator[tuple[int, F32]]:
    """Zebra crossings and stop lines, which lie across the road: first ground row and coverage of the rows around each."""
    view, road = canvas.view, canvas.view.road
    left, right = road.edges[0][1][0], road.edges[1][1][0]
    jobs = [(s0, s0 + length, left - 0.3, right + 0.3, True) for s0, length in road.crossings]
    jobs += [(s0, s0 + 0.4, high, low, False) for s0, high, low in road.stop_lines]
    for s0, s1, high, low, striped in jobs:
        margin = 6 * float(np.abs(view.row_tan).max())
        rows = np.flatnonzero((view.row_s > s0 - 1.5 - margin) & (view.row_s < s1 + 1.5 + margin))
        if not len(rows):
            continue
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        s, d = view.surface(part)
        ds = view.row_ds[part].astype(np.float32)[:, None]
        dd = (view.row_x[part] / view.f).astype(np.float32)[:, None]
        cover = np.clip((s - s0) / ds + 0.5, 0, 1) * np.clip((s1 - s) / ds + 0.5, 0, 0.95)
        cover *= np.clip((d - low) / dd + 0.5, 0, 1) * np.clip((high - d) / dd + 0.5, 0, 1)
        if striped:
            wave = np.abs(np.mod(d, 1.0) - 0.5)  # a stripe is where this is below a quarter metre
            cover *= np.clip((0.25 - wave) / dd + 0.5, 0, 1)
        yield part.start, cover


_ARROW = np.array([(0, 0.08), (2.6, 0.08), (2.6, 0.32), (4.0, 0), (2.6, -0.32), (2.6, -0.08), (0, -0.08)])
_TURN = np.array(
    [(0, 0.08), (2.2, 0.08), (2.2, 0.45), (1.7, 0.45), (2.6, 0.95), (3.4, 0.45), (2.8, 0.45), (2.8, -0.08), (0, -0.08)]
)


def _arrows(canvas: Canvas) -> Iterator[tuple[int, F32]]:
    """Arrows on the lanes: first ground row and coverage of the rows around each."""
    view = canvas.view
    for s, d, kind in view.road.arrows:
        outline = _ARROW if kind == "ahead" else _TURN * (1, 1 if kind == "left" else -1)
        uv = view.ground_uv(s + outline[:, 0], d + outline[:, 1] * 1.3)
        x, _, _ = view.place(np.array([s]), np.array([d]))
        if not 1.5 < float(x[0]) < 70:
            continue
        uv[:, 1] -= view.horizon
        top, stop = max(int(uv[:, 1].min()) - 1, 0), min(int(uv[:, 1].max()) + 2, len(view.rows))
        if stop > top:
            layer = np.zeros((stop - top, canvas.image.shape[1]), np.uint8)
            cv2.fillPoly(layer, [fixed(uv - (0, top))], 240, cv2.LINE_AA, SHIFT)
            yield top, layer.astype(np.float32) * np.float32(1 / 255)
