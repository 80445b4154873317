"""Houses beside the road: textured walls in perspective."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world import textures
from training.datasets.world.canvas import BUILDING, Canvas, Mips, Point
from training.datasets.world.kernels import scenery as kernel
from training.datasets.world.look import Bgr
from training.datasets.world.things import Spot, Thing
from training.datasets.world.view import View

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Wall = tuple[list[Point], float, float, float]  # corners on the canvas, brightness, length and distance in metres


@lru_cache(maxsize=32)
def facade(index: int) -> Mips:
    """A wall with rows of windows, shop fronts below; 128x160 px for about 12x15 m; and its halvings."""
    rng = np.random.Generator(np.random.PCG64([90, index]))
    w, h = 128, 160
    palette = (
        (120, 150, 175),
        (70, 85, 135),
        (165, 170, 175),
        (190, 205, 215),
        (95, 110, 130),
        (140, 135, 130),
        (205, 205, 200),
        (80, 95, 115),
    )
    base = np.array(palette[index % 8], np.float64) * rng.uniform(0.75, 1.1)
    picture = np.empty((h, w, 3), np.uint8)
    picture[:] = np.clip(base, 0, 255)
    floors, columns = int(rng.integers(3, 6)), int(rng.integers(3, 7))
    glass = np.array([88.0, 78.0, 68.0]) * rng.uniform(0.5, 1.15)
    for row in range(floors):
        y = row * h / floors
        ground = row == floors - 1
        for column in range(columns):
            x = column * w / columns
            cw, ch = w / columns, h / floors
            mx, my = (0.08, 0.12) if ground else (0.24, 0.22)
            box = [int(x + cw * mx), int(y + ch * my), int(x + cw * (1 - mx)), int(y + ch * (1 - my * 0.8))]
            cv2.rectangle(picture, (box[0] - 1, box[1] - 1), (box[2] + 1, box[3] + 1), tuple(base * 1.18), -1)
            cv2.rectangle(picture, (box[0], box[1]), (box[2], box[3]), tuple(glass * float(rng.uniform(0.6, 1.7))), -1)
            if not ground:
                cv2.line(picture, ((box[0] + box[2]) // 2, box[1]), ((box[0] + box[2]) // 2, box[3]), tuple(base), 1)
        if ground and rng.random() < 0.6:
            cv2.rectangle(picture, (0, int(y)), (w, int(y + 6)), tuple(rng.uniform(30, 220, 3)), -1)
    rough = 1 + 0.05 * textures.fractal(10, 0.8)[:h, :w, None]
    down = np.linspace(1.06, 0.9, h)[:, None, None]
    levels = [np.clip(picture * rough * down, 0, 255).astype(np.uint8)]
    for _ in range(4):
        last = levels[-1]
        levels.append(cv2.resize(last, (last.shape[1] // 2, last.shape[0] // 2), interpolation=cv2.INTER_AREA))
    return [cv2.cvtColor(level, cv2.COLOR_BGR2BGRA).view(np.uint32)[..., 0] for level in levels]


@lru_cache(maxsize=64)
def _mean(index: int) -> Bgr:
    """Mean colour of a facade."""
    return tuple(facade(index)[0].view(np.uint8).reshape(-1, 4)[:, :3].mean(0).tolist())


def walls(view: View, thing: Thing, spot: Spot) -> list[Wall]:
    """The gable that faces the camera and the wall along the road, as far as they lie in front of the camera."""
    length, depth, height = thing.size_m
    side = 1.0 if thing.d > 0 else -1.0
    cos, sin = math.cos(spot.bearing), math.sin(spot.bearing)
    along, out = length / 2, depth * side
    near, far = (spot.x - cos * along, spot.y - sin * along), (spot.x + cos * along, spot.y + sin * along)
    back = (near[0] - sin * out, near[1] + cos * out)
    light = 0.62 + 0.35 * (thing.index % 5) / 4
    found: list[Wall] = []
    for a, b, shade, span in ((near, back, 0.8, depth), (far, near, 1.0, length)):
        if a[0] < 1.0 and b[0] < 1.0:
            continue
        if min(a[0], b[0]) < 1.0:  # keep what lies in front of the camera
            share = (max(a[0], b[0]) - 1.0) / abs(a[0] - b[0])
            span *= share
            if a[0] < b[0]:
                a = (1.0, b[1] + (a[1] - b[1]) * share)
            else:
                b = (1.0, a[1] + (b[1] - a[1]) * share)
        u0, v0 = view.uv(*a, spot.z - 0.5)
        u1, v1 = view.uv(*b, spot.z - 0.5)
        top0, top1 = v0 - (height + 0.5) * view.f / a[0], v1 - (height + 0.5) * view.f / b[0]
        if abs(u0 - u1) >= 2:
            low = spot.clip + 1
            quad = [(u0, top0), (u1, top1), (u1, min(v1, low)), (u0, min(v0, low))]
            found.append((quad, shade * light, span, (a[0] + b[0]) / 2))
    return found


def draw(canvas: Canvas, thing: Thing, spot: Spot) -> None:
    """Draw the walls of one house."""
    width_px, height_px = canvas.image.shape[1], canvas.image.shape[0]
    for quad, light, span, distance in walls(canvas.view, thing, spot):
        us, vs = [p[0] for p in quad], [p[1] for p in quad]
        left, right, top, bottom = min(us), max(us), min(vs), max(vs)
        x0, x1 = max(math.floor(left), 0), min(math.ceil(right) + 1, width_px)
        y0, y1 = max(math.floor(top), 0), min(math.ceil(bottom) + 1, height_px)
        if x1 <= x0 or y1 <= y0:
            continue
        if x1 - x0 < 7 or y1 - y0 < 7:
            canvas.polygon(quad, canvas.lit(_mean(thing.index), spot.x, spot.y, light), BUILDING)
            continue
        wide, high = max(1, min(round(span / 12), 3)), max(1, min(round(thing.size_m[2] / 15), 2))
        ratio = min(128 * wide / max(right - left, 1.0), 160 * high / max(bottom - top, 1.0))
        texture = facade(thing.index)[max(0, min(int(math.log2(max(ratio, 1.0)) + 0.4), 4))]
        (u0, top0), (u1, top1), (_, low1), (_, low0) = quad
        g, offset = canvas.look.shade(distance, spot.y)
        gain = (g[0] * light, g[1] * light, g[2] * light)
        kernel.facade(
            canvas.image, canvas.owner, texture, u0, u1, top0, top1, low0, low1, wide, high, gain, offset, BUILDING
        )  # fmt: skip
