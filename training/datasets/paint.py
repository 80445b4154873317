"""Lane lines from a mask of road paint, and the look (type, colour) of a line labelled without it: derived labels.

Paint becomes strokes (runs of one row that continue in the next), strokes become lines where one continues the other, lines
become smooth polylines. Sizes are shares of the image height, so one setting serves all pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.geometry.polyline import points_at_rows, resample
from getok_drive.types import ImageBgr, Lane
from training.datasets.masks import Mask

F64 = npt.NDArray[np.float64]

MIN_STROKE_SHARE = 0.008  # rows of a stroke; shorter ones are specks
MIN_LINE_SHARE = 0.04  # length of a finished line
MAX_RUN_SHARE = 0.25  # width of a run; wider ones are stop lines
LEAST_SLOPE = 0.13  # rise over run of a stroke; flatter ones are stop lines and crossings
YELLOW_SATURATION = 60  # median of HSV's 0..255, above which paint of a yellow hue is yellow
DASHED_COVER = 0.72  # share of a line's rows that bear paint, below which it is dashed


@dataclass(frozen=True, slots=True)
class _Stroke:
    """Paint that goes up the picture without a gap: a row of ``(x, y, width)`` per image row, bottom to top."""

    rows: F64

    @property
    def low(self) -> F64:
        return self.rows[0, :2]

    @property
    def high(self) -> F64:
        return self.rows[-1, :2]


def lanes_from_paint(mask: Mask, image_bgr: ImageBgr) -> tuple[Lane, ...]:
    """Lane lines from paint.

    Args:
        mask: ``(H, W)``, true on lane paint.
        image_bgr: the photograph; gives the paint its colour.

    Returns:
        Lines bottom to top, from left to right; ``dashed`` when paint covers less than `DASHED_COVER` of the line, ``double``
        when two lines run side by side no further apart than two of their widths.
    """
    height = mask.shape[0]
    strokes = _strokes(np.asarray(mask != 0, dtype=np.uint8))
    if not strokes:
        return ()
    lines = [line for chain in _chains(strokes, height) if (line := _fitted(chain, height)) is not None]
    reach = max(int(0.008 * height), 2) * 2 + 1
    beside = cv2.dilate(np.asarray(mask != 0, dtype=np.uint8), np.ones((1, reach), np.uint8)).astype(bool) & (mask == 0)
    road_bgr = image_bgr[beside]
    lanes = []
    for points, rows, double in _paired(lines):
        cover = len(np.unique(rows[:, 1])) / max(points[0, 1] - points[-1, 1] + 1, 1)
        kind = "double" if double else "dashed" if cover < DASHED_COVER else "solid"
        at = np.rint(rows[:, :2]).astype(int)
        lanes.append(Lane(points.astype(np.float32), kind, _color(image_bgr[at[:, 1], at[:, 0]], road_bgr)))
    return tuple(sorted(lanes, key=lambda lane: float(lane.points_px[0, 0])))


def _strokes(paint: npt.NDArray[np.uint8]) -> list[_Stroke]:
    """Runs of paint, each joined with the one run that touches it in the row above; where paint forks, strokes end."""
    height = paint.shape[0]
    padded = np.pad(paint, ((0, 0), (1, 1))).astype(np.int8)
    edge_rows, edge_columns = np.nonzero(np.diff(padded, axis=1))
    starts, stops, rows = edge_columns[::2], edge_columns[1::2], edge_rows[::2]
    narrow = stops - starts <= MAX_RUN_SHARE * height
    starts, stops, rows = starts[narrow], stops[narrow], rows[narrow]
    first = np.searchsorted(rows, np.arange(height + 1))
    open_strokes: dict[int, list[int]] = {}  # index of a stroke's topmost run -> its runs
    done: list[list[int]] = []
    for row in range(height - 1, -1, -1):
        here = range(int(first[row]), int(first[row + 1]))
        touching = {
            run: [below for below in open_strokes if starts[run] <= stops[below] and starts[below] <= stops[run]] for run in here
        }
        claims: dict[int, int] = {}
        for below in (b for found in touching.values() for b in found):
            claims[below] = claims.get(below, 0) + 1
        following: dict[int, list[int]] = {}
        for run, candidates in touching.items():
            if len(candidates) == 1 and claims[candidates[0]] == 1:
                following[run] = [*open_strokes.pop(candidates[0]), run]
            else:
                following[run] = [run]
        done += open_strokes.values()
        open_strokes = following
    done += open_strokes.values()
    found = []
    for runs in done:
        index = np.array(runs)
        points = np.column_stack([(starts[index] + stops[index] - 1) / 2, rows[index], stops[index] - starts[index]]).astype(
            np.float64
        )
        rise, run_px = points[0, 1] - points[-1, 1] + 1, abs(points[0, 0] - points[-1, 0])
        if (
            len(points) >= max(MIN_STROKE_SHARE * height, 3)
            and rise >= LEAST_SLOPE * run_px
            and np.median(points[:, 2]) <= 4 * rise
        ):
            found.append(_Stroke(points))
    return found


def _chains(strokes: list[_Stroke], height: int) -> list[list[_Stroke]]:
    """Strokes that continue each other upwards, best matches first; every stroke is in one chain."""
    horizon = min(float(stroke.high[1]) for stroke in strokes)
    matches = []
    for below, a in enumerate(strokes):
        for above, b in enumerate(strokes):
            gap = a.high[1] - b.low[1]
            if below == above or gap < -0.01 * height or gap > 0.3 * height:
                continue
            depth = max(float(b.low[1]) - horizon, 0.0)
            tolerance = 0.012 * height + 0.12 * depth
            forth, back = _direction(a, upper=True), _direction(b, upper=False)
            miss = (
                max(abs(a.high[0] + forth * gap - b.low[0]), abs(b.low[0] - back * gap - a.high[0]))
                if gap > 0
                else abs(a.high[0] - b.low[0])
            )
            bend = abs(np.arctan(forth) - np.arctan(back))
            if miss < tolerance and bend < 0.45:
                matches.append((miss / tolerance + bend + 1.5 * max(gap, 0.0) / height, below, above))
    following: dict[int, int] = {}
    taken: set[int] = set()
    for _, below, above in sorted(matches):
        if below not in following and above not in taken:
            following[below] = above
            taken.add(above)
    chains = []
    for start in range(len(strokes)):
        if start not in taken:
            chain, at = [strokes[start]], start
            while at in following:
                at = following[at]
                chain.append(strokes[at])
            chains.append(chain)
    return chains


def _direction(stroke: _Stroke, upper: bool) -> float:
    """Pixels to the right per pixel upwards near one end of a stroke, from a straight fit of its last part."""
    rows = stroke.rows
    keep = max(len(rows) // 2, min(len(rows), 12))
    part = rows[-keep:] if upper else rows[:keep]
    y = part[:, 1] - part[:, 1].mean()
    return float(-(y * (part[:, 0] - part[:, 0].mean())).sum() / max((y**2).sum(), 1e-9))


def _fitted(chain: list[_Stroke], height: int) -> tuple[F64, F64] | None:
    """The smooth line through a chain, sampled every hundredth of the image height, and its rows of paint; None if too short."""
    rows = np.concatenate([stroke.rows for stroke in chain])
    rows = rows[np.argsort(-rows[:, 1], kind="stable")]
    bottom, top = rows[0, 1], rows[-1, 1]
    span = bottom - top
    if span < max(0.5 * MIN_LINE_SHARE * height, 4):
        return None
    degree = 1 if span < 0.06 * height else 2 if span < 0.2 * height else 3
    at = (rows[:, 1] - top) / span
    weights = 1 / np.maximum(rows[:, 2], 1.0)  # a wide run is near, or nearly level: its middle is less sure
    fit = np.polynomial.Polynomial.fit(at, rows[:, 0], degree, domain=[0.0, 1.0], w=weights)
    y = np.linspace(bottom, top, max(int(span / (0.01 * height)) + 1, 3))
    points = np.column_stack([fit((y - top) / span), y])
    if np.hypot(*np.diff(points, axis=0).T).sum() < MIN_LINE_SHARE * height:
        return None
    return points, rows


def _paired(lines: list[tuple[F64, F64]]) -> list[tuple[F64, F64, bool]]:
    """The lines, two that run side by side within two widths joined to one double line: ``(points, rows of paint, double)``."""
    rest = list(range(len(lines)))
    found = []
    while rest:
        i = rest.pop(0)
        points, rows = lines[i]
        partner = next((j for j in rest if _side_by_side(lines[i], lines[j])), None)
        if partner is None:
            found.append((points, rows, False))
            continue
        rest.remove(partner)
        other = np.interp(-points[:, 1], -lines[partner][0][:, 1], lines[partner][0][:, 0])
        middle = np.column_stack([(points[:, 0] + other) / 2, points[:, 1]])
        found.append((middle, np.concatenate([rows, lines[partner][1]]), True))
    return found


def _side_by_side(a: tuple[F64, F64], b: tuple[F64, F64]) -> bool:
    low, high = min(a[0][0, 1], b[0][0, 1]), max(a[0][-1, 1], b[0][-1, 1])
    longest = max(a[0][0, 1] - a[0][-1, 1], b[0][0, 1] - b[0][-1, 1])
    if low - high < 0.7 * longest:
        return False
    y = np.linspace(low, high, 12)
    gaps = np.abs(np.interp(-y, -a[0][:, 1], a[0][:, 0]) - np.interp(-y, -b[0][:, 1], b[0][:, 0]))
    width = (np.median(a[1][:, 2]) + np.median(b[1][:, 2])) / 2
    return bool(np.median(gaps) < 3 * width)


def _color(paint_bgr: npt.NDArray[np.uint8], road_bgr: npt.NDArray[np.uint8]) -> str:
    """``yellow`` or ``white`` from ``(N, 3)`` pixels of paint, balanced so that the road beside it, ``(M, 3)``, is grey."""
    road = np.median(road_bgr, axis=0) if len(road_bgr) else np.ones(3)
    gains = np.clip(road.mean() / np.maximum(road, 1.0), 0.6, 1.6)
    balanced = np.clip(np.median(paint_bgr, axis=0) * gains, 0, 255).astype(np.uint8)
    hue, saturation, _ = cv2.cvtColor(balanced.reshape(1, 1, 3), cv2.COLOR_BGR2HSV)[0, 0].tolist()
    return "yellow" if 12 <= hue <= 40 and saturation >= YELLOW_SATURATION else "white"


def lane_look(image_bgr: ImageBgr, points_px: npt.ArrayLike) -> tuple[str, str]:
    """Type and colour of a line that is labelled as a bare polyline, from the picture under it.

    A row bears paint where the line is brighter than the road on both sides of it. Only the nearer half is looked at: far away
    dashes melt together.

    Args:
        image_bgr: the photograph.
        points_px: ``(N >= 2, 2)`` bottom to top.

    Returns:
        ``(solid | dashed, white | yellow)``; a line without visible paint is ``dashed`` ``white``.
    """
    height, width = image_bgr.shape[:2]
    line = resample(points_px, step_px=2.0)
    bottom, top = line[0, 1], line[-1, 1]
    y = np.arange(np.floor(min(bottom, height - 1)), max(top, 0) + 0.5 * (bottom - top), -1.0)
    x = points_at_rows(line, y)
    good = np.isfinite(x) & (x >= 0) & (x <= width - 1)
    if good.sum() < 4:
        return "solid", "white"
    x, y = x[good], y[good]
    scale = width / 1280
    depth = (y - y[-1]) / max(height - y[-1], 1)
    reach = np.maximum((4 + 14 * depth) * scale, 2.0)  # half a stripe's width and the play of the label, pixels
    offsets = np.linspace(-3, 3, 25)
    columns = np.clip(np.rint(x[:, None] + offsets[None] * reach[:, None]), 0, width - 1).astype(int)
    colors = image_bgr[y.astype(int)[:, None], columns]
    light = colors.max(axis=2).astype(np.float64)
    inner = np.abs(offsets) <= 1.5
    peak = light[:, inner].max(axis=1)
    beside = np.maximum(np.median(light[:, offsets < -1.5], axis=1), np.median(light[:, offsets > 1.5], axis=1))
    painted = peak - beside > np.maximum(14.0, 0.12 * beside)
    if painted.mean() < 0.1:
        return "dashed", "white"
    best = np.flatnonzero(inner)[light[:, inner].argmax(axis=1)]
    paint = colors[np.arange(len(y)), best][painted]
    gap = _longest_gap(painted) / len(painted)
    return "dashed" if painted.mean() < 0.6 or gap > 0.25 else "solid", _color(paint, colors[:, ~inner].reshape(-1, 3))


def _longest_gap(painted: npt.NDArray[np.bool_]) -> int:
    """Length of the longest row of False."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], painted, [True]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0
