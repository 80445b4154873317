"""Road markings with exact pixel coverage: a line narrower than a pixel gets paler, never wider."""

from __future__ import annotations

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
_BLOCK_ROWS = 48
_DOUBLE_GAP_M = 0.12


@dataclass(slots=True)
class DrawnLine:
    """A lane line as it lies on the canvas: its column in every ground row, and which rows it covers."""

    line: Line
    u: F64
    there: npt.NDArray[np.bool_]


def _painted(line: Line, s: F64, ds: F64, dashed: bool) -> F64:
    """Share of each row's stretch ``s +- ds/2`` that is painted, 0..1."""
    share = np.clip((s - line.start_m) / ds + 0.5, 0, 1) * np.clip((line.end_m - s) / ds + 0.5, 0, 1)
    if dashed:
        low, high = s - ds / 2 - line.phase_m, s + ds / 2 - line.phase_m
        total = [
            np.floor(e / line.period_m) * line.dash_m + np.minimum(np.mod(e, line.period_m), line.dash_m) for e in (low, high)
        ]
        share = share * (total[1] - total[0]) / ds
    return np.asarray(share * line.paint)


def _stripe(alpha: F32, u: F64, width_px: F64, strength: F64) -> None:
    """Add one stripe's coverage to ``alpha`` (0..1); all per ground row."""
    full = alpha.shape[1]
    at, weight = u.astype(np.float32)[:, None], strength.astype(np.float32)[:, None]
    half, most = (width_px / 2 + 0.5).astype(np.float32)[:, None], np.minimum(width_px, 1.0).astype(np.float32)[:, None]
    lows, highs = (u - width_px - 1).tolist(), (u + width_px + 2).tolist()
    shown = (strength > 0.01).nonzero()[0]
    if not len(shown):
        return
    for start in range(int(shown[0]), int(shown[-1]) + 1, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, int(shown[-1]) + 1)
        low, high = max(int(min(lows[start:stop])), 0), min(int(max(highs[start:stop])), full)
        if high <= low:
            continue
        cover = np.abs(np.arange(low, high, dtype=np.float32) - at[start:stop])
        np.subtract(half[start:stop], cover, out=cover)
        np.minimum(np.maximum(cover, 0, out=cover), most[start:stop], out=cover)
        cover *= weight[start:stop]
        part = alpha[start:stop, low:high]
        np.maximum(part, cover, out=part)


def draw(canvas: Canvas, rng: Dice, s: F32, d: F32, rough: U8, drawn: list[DrawnLine]) -> None:
    """Paint lines, crossings, stop lines and arrows onto the ground rows; append the lane lines to ``drawn``.

    ``rough`` is noise (0..255) that eats away worn paint.
    """
    view, road = canvas.view, canvas.view.road
    shape = (len(view.rows), canvas.image.shape[1])
    alphas: dict[str, F32] = {}
    scale = view.f / (view.row_x * view.row_cos)
    for line in road.lines:
        offset = line.at(view.row_s)
        at = view.row_s + offset * view.row_tan
        there = (at > line.start_m) & (at < line.end_m)
        if not there.any() or line.paint < 0.03:
            continue
        alpha = _layer(alphas, line.color, shape)
        width_px = line.width_m * scale
        u = view.row_u(offset)
        if line.kind == "double":
            gap = (line.width_m + _DOUBLE_GAP_M) / 2
            _stripe(alpha, view.row_u(offset + gap), width_px, _painted(line, at, view.row_ds, False))
            second = _painted(line, at, view.row_ds, line.partner_dashed)
            _stripe(alpha, view.row_u(offset - gap), width_px, second)
        else:
            _stripe(alpha, u, width_px, _painted(line, at, view.row_ds, line.kind == "dashed"))
        drawn.append(DrawnLine(line, u, there))
    for alpha in alphas.values():
        canvas.paint[view.horizon :][alpha > 0.3] = 255
    if road.crossings or road.stop_lines or road.arrows:
        white = _layer(alphas, "white", shape)
        _across(canvas, s, d, white)
        _arrows(canvas, white)
    wear = rng.uniform(0.0, 1.0)
    colors = {
        "white": rng.uniform(195, 248) * (1 - 0.05 * rng.random(3)),
        "yellow": rng.generator.uniform((40, 155, 205), (110, 195, 245)),
    }
    if not alphas:
        return
    kept = cv2.addWeighted(rough, 255 / 40, rough, 0, -75 * wear * 255 / 40)  # saturates
    kept = cv2.max(kept, 64)
    ground = canvas.image[view.horizon :]
    for name in sorted(alphas):
        wide = cv2.cvtColor(cv2.multiply(cv2.convertScaleAbs(alphas[name], alpha=255), kept, scale=1 / 255), cv2.COLOR_GRAY2BGR)
        cv2.multiply(ground, cv2.bitwise_not(wide), dst=ground, scale=1 / 255)
        cv2.add(ground, cv2.transform(wide, np.diag(colors[name] / 255)), dst=ground)


def seams(canvas: Canvas, gain: F32) -> None:
    """Dark joints of the paving between the lanes: they look like lines but are none."""
    view, road = canvas.view, canvas.view.road
    dark = np.zeros(gain.shape, np.float32)
    scale = view.f / (view.row_x * view.row_cos)
    reach = np.where(view.row_x < 60, 0.45, 0.0)
    for d in sorted({round(d + side * road.lane_width_m / 2, 1) for d in road.lane_d for side in (-1, 1)}):
        if abs(d) < 9:
            _stripe(dark, view.row_u(d + 0.12), 0.035 * scale, reach)
    gain -= dark


def _layer(layers: dict[str, F32], color: str, shape: tuple[int, int]) -> F32:
    """The coverage picture of one colour, made when first needed."""
    if color not in layers:
        layers[color] = np.zeros(shape, np.float32)
    return layers[color]


def _across(canvas: Canvas, s: F32, d: F32, alpha: F32) -> None:
    """Zebra crossings and stop lines, which lie across the road: only the rows around them are touched."""
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
        ds = view.row_ds[part].astype(np.float32)[:, None]
        dd = (view.row_x[part] / view.f).astype(np.float32)[:, None]
        cover = np.clip((s[part] - s0) / ds + 0.5, 0, 1) * np.clip((s1 - s[part]) / ds + 0.5, 0, 1)
        cover *= np.clip((d[part] - low) / dd + 0.5, 0, 1) * np.clip((high - d[part]) / dd + 0.5, 0, 1)
        if striped:
            wave = np.abs(np.mod(d[part], 1.0) - 0.5)  # a stripe is where this is below a quarter metre
            cover *= np.clip((0.25 - wave) / dd + 0.5, 0, 1)
        np.maximum(alpha[part], cover * 0.95, out=alpha[part])


_ARROW = np.array([(0, 0.08), (2.6, 0.08), (2.6, 0.32), (4.0, 0), (2.6, -0.32), (2.6, -0.08), (0, -0.08)])
_TURN = np.array(
    [(0, 0.08), (2.2, 0.08), (2.2, 0.45), (1.7, 0.45), (2.6, 0.95), (3.4, 0.45), (2.8, 0.45), (2.8, -0.08), (0, -0.08)]
)


def _arrows(canvas: Canvas, alpha: F32) -> None:
    view = canvas.view
    for s, d, kind in canvas.view.road.arrows:
        outline = _ARROW if kind == "ahead" else _TURN * (1, 1 if kind == "left" else -1)
        uv = view.ground_uv(s + outline[:, 0], d + outline[:, 1] * 1.3)
        x, _, _ = view.place(np.array([s]), np.array([d]))
        if not 1.5 < float(x[0]) < 70:
            continue
        uv[:, 1] -= view.horizon
        layer = np.zeros(alpha.shape, np.uint8)
        cv2.fillPoly(layer, [fixed(uv)], 240, cv2.LINE_AA, SHIFT)
        low, high = np.clip(uv.min(0).astype(int) - 1, 0, None), uv.max(0).astype(int) + 2
        box = (slice(low[1], max(high[1], 0)), slice(low[0], max(high[0], 0)))
        np.maximum(alpha[box], layer[box].astype(np.float32) * np.float32(1 / 255), out=alpha[box])
