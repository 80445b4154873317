"""Road markings with exact pixel coverage: a line narrower than a pixel gets paler, never wider."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.canvas import SHIFT, Canvas, fixed
from training.datasets.world.dice import Dice
from training.datasets.world.road import Line

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
_DOUBLE_GAP_M = 0.12
_SEAM_M, _SEAM_DARK, _SEAM_REACH_M = 0.035, 0.45, 60.0


@dataclass(slots=True)
class DrawnLine:
    """A lane line as it lies on the canvas: its column in every ground row, and which rows it covers."""

    line: Line
    u: F64
    there: npt.NDArray[np.bool_]


@dataclass(slots=True)
class _Stripe:
    """One band of paint: what is painted of each ground row, 0..1, around column ``u``."""

    u: F64
    width_px: F64
    share: F64
    color: F64


def draw(canvas: Canvas, rng: Dice, rough: U8, drawn: list[DrawnLine]) -> None:
    """Paint lines, crossings, stop lines and arrows onto the ground rows; append the lane lines to ``drawn``.

    Only pixels that take paint are touched. ``rough`` is noise (0..255) at half the ground's size that eats away worn paint.
    """
    view, road = canvas.view, canvas.view.road
    wear = rng.uniform(0.0, 1.0)
    white = rng.uniform(195, 248) * (1 - 0.05 * rng.generator.random(3))
    colors = {"white": white, "yellow": rng.generator.uniform((40, 155, 205), (110, 195, 245))}
    scale = view.f / (view.row_x * view.row_cos)
    stripes: list[_Stripe] = []
    for line in road.lines:
        offset = line.at(view.row_s)
        at = view.row_s + offset * view.row_tan
        there = (at > line.start_m) & (at < line.end_m)
        if line.paint < 0.03 or not there.any():
            continue
        width_px, color = line.width_m * scale, colors[line.color]
        if line.kind == "double":
            gap = (line.width_m + _DOUBLE_GAP_M) / 2
            second = _painted(line, at, view.row_ds, line.partner_dashed)
            stripes.append(_Stripe(view.row_u(offset - gap), width_px, second, color))
            stripes.append(_Stripe(view.row_u(offset + gap), width_px, _painted(line, at, view.row_ds, False), color))
            drawn.append(DrawnLine(line, view.row_u(offset), there))
        else:
            u = view.row_u(offset)
            stripes.append(_Stripe(u, width_px, _painted(line, at, view.row_ds, line.kind == "dashed"), color))
            drawn.append(DrawnLine(line, u, there))
    width = canvas.image.shape[1]
    if road.seams:
        flat, cover, _ = _pixels(_seams(canvas, scale), width)
        _blend(canvas, flat, cover, np.zeros(3))
    if stripes:
        flat, cover, color = _pixels(stripes, width)
        canvas.paint[view.horizon :].reshape(-1)[flat[cover > 0.3]] = 255
        _blend(canvas, flat, cover * _kept(rough, flat, width, wear), color)
    if road.crossings or road.stop_lines or road.arrows:
        for top, layer in (*_across(canvas), *_arrows(canvas)):
            flat = np.flatnonzero(layer > 0.01)
            share = layer.reshape(-1)[flat]
            flat += top * width
            _blend(canvas, flat, share * _kept(rough, flat, width, wear), white)


def _painted(line: Line, s: F64, ds: F64, dashed: bool) -> F64:
    """Share of each row's stretch ``s +- ds/2`` that is painted, 0..1."""
    share = np.full(len(s), line.paint)
    if line.start_m > -1e8:
        share *= np.clip((s - line.start_m) / ds + 0.5, 0, 1)
    if line.end_m < 1e8:
        share *= np.clip((line.end_m - s) / ds + 0.5, 0, 1)
    if dashed:
        edges = np.stack([s - ds / 2, s + ds / 2]) - line.phase_m
        periods = np.floor(edges / line.period_m)
        total = periods * line.dash_m + np.minimum(edges - periods * line.period_m, line.dash_m)
        share *= (total[1] - total[0]) / ds
    return share


def _pixels(stripes: list[_Stripe], width: int) -> tuple[Index, F64, F64]:
    """Pixels that take paint: flat index into the ground rows, exact coverage 0..1, colour ``(N, 3)``."""
    u, w, share = (np.stack([getattr(stripe, name) for stripe in stripes]) for name in ("u", "width_px", "share"))
    low = np.maximum(np.ceil(u - w / 2 - 0.5), 0)
    count = np.minimum(np.floor(u + w / 2 + 0.5), width - 1) - low + 1
    which, row = ((count > 0) & (share > 0.01)).nonzero()
    u, w, share, low = u[which, row], w[which, row], share[which, row], low[which, row]
    count = count[which, row].astype(np.intp)
    span = np.repeat(np.arange(len(count)), count)
    column = np.arange(len(span)) - (np.cumsum(count) - count - low.astype(np.intp))[span]
    cover = np.minimum(np.maximum((w / 2 + 0.5)[span] - np.abs(column - u[span]), 0), np.minimum(w, 1.0)[span]) * share[span]
    color = np.stack([stripe.color for stripe in stripes])[which[span]]
    return (row * width)[span] + column, cover, color


def _kept(rough: U8, flat: Index, width: int, wear: float) -> F64:
    """How much of the paint the traffic has left at each pixel."""
    noise = rough[flat // width >> 1, flat % width >> 1].astype(np.float64)
    return np.asarray(np.minimum(np.maximum((noise - 75 * wear) / 40, 0.25), 1.0))


def _blend(canvas: Canvas, flat: Index, cover: F64, color: F64) -> None:
    """Mix ``color`` into the ground pixels ``flat``."""
    ground = canvas.image[canvas.view.horizon :].reshape(-1, 3)
    under = ground[flat].astype(np.float64)
    ground[flat] = under + (color - under) * cover[:, None]


def _seams(canvas: Canvas, scale: F64) -> list[_Stripe]:
    """Dark joints of the paving between the lanes: they look like lines but are none."""
    view, road = canvas.view, canvas.view.road
    share = np.where(view.row_x < _SEAM_REACH_M, _SEAM_DARK, 0.0)
    offsets = sorted({round(d + side * road.lane_width_m / 2, 1) for d in road.lane_d for side in (-1, 1)})
    return [_Stripe(view.row_u(d + 0.12), _SEAM_M * scale, share, np.zeros(3)) for d in offsets if abs(d) < 9]


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
