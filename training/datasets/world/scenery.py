"""What stands beside and above the road: sky, hills, tree lines, buildings, barriers, poles, gantries, bridges."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world import textures
from training.datasets.world.canvas import (
    BRIDGE,
    BUILDING,
    POLE,
    VEGETATION,
    WALL,
    Canvas,
    fixed,
)
from training.datasets.world.look import Bgr
from training.datasets.world.things import Spot, Thing

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


def lit(canvas: Canvas, color: Bgr, x: float, y: float, shade: float = 1.0, lamp: float = 1.0) -> Bgr:
    """Colour of a surface at level-frame ``x, y`` after light and haze."""
    g, o = canvas.look.shade(x, y, lamp)
    return color[0] * g[0] * shade + o[0], color[1] * g[1] * shade + o[1], color[2] * g[2] * shade + o[2]


def sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """Gradient and clouds down to the horizon."""
    view, look = canvas.view, canvas.look
    height, width = view.horizon + 2, canvas.image.shape[1]
    t = np.maximum((np.arange(height) - (view.horizon - 0.6 * view.f)) / (0.6 * view.f), 0)[:, None] ** 0.8
    np.minimum(t, 1, out=t)
    column = (np.array(look.sky_top) * (1 - t) + np.array(look.sky_low) * t).astype(np.float32)
    shift = rng.integers(0, 256, 2)
    if look.cloud <= 0.03:
        cv2.resize(column.astype(np.uint8)[:, None], (width, height), dst=canvas.image[:height], interpolation=cv2.INTER_NEAREST)
        return
    small = (width // 5 + 1, height // 5 + 1)
    part = cv2.resize(textures.clouds()[shift[0] : shift[0] + 200, shift[1] : shift[1] + 256], small).astype(np.float32)
    part += 40 - 255 * (1 - look.cloud)
    cover = np.minimum(np.maximum(part, 0) * (1 / 110), 1) * (0.9 - 0.4 * cv2.resize(t.astype(np.float32), (1, small[1])))
    base = cv2.resize(column[:, None], (1, small[1]), interpolation=cv2.INTER_AREA).reshape(-1, 1, 3)
    white = np.array((244, 242, 240), np.float32) * np.array(look.ambient, np.float32)
    mixed = base + (white - base) * cover[..., None]
    cv2.resize(mixed.reshape(small[1], small[0], 3).astype(np.uint8), (width, height), dst=canvas.image[:height])


def _band(trees: bool, height: int, width: int, start: int) -> U8:
    """A piece of noise as a grey ``(height, width, 3)`` picture, starting at column ``start`` of the atlas."""
    atlas = _bands(trees)
    return cv2.copyMakeBorder(
        atlas[: min(height, 512), start : start + min(width, 512)],
        0,
        max(height - 512, 0),
        0,
        max(width - 512, 0),
        cv2.BORDER_WRAP,
    )


@lru_cache(maxsize=2)
def _bands(trees: bool) -> U8:
    return cv2.cvtColor(np.tile(textures.foliage() if trees else textures.terrain(), (1, 2)), cv2.COLOR_GRAY2BGR)


def backdrop(canvas: Canvas, layers: list[tuple[str, float, float, int]]) -> None:
    """Hills and tree lines along the horizon: ``(kind, height_rad, distance_m, phase)``, far to near."""
    view, look = canvas.view, canvas.look
    width = canvas.image.shape[1]
    u = np.arange(0, width + 3, 3)
    azimuth = view.heading + np.arctan2(view.cx - u, view.f)
    for kind, height, distance, phase in layers:
        noise = textures.skyline_noise()
        turn = np.mod(azimuth / (2 * np.pi) * 4096 * (1 if kind == "hill" else 3) + phase, 4096)
        curve = np.interp(turn, np.arange(4097), np.append(noise, noise[0]))
        if kind != "hill":
            fine = np.interp(np.mod(turn * 7, 4096), np.arange(4097), np.append(noise, noise[0]))
            curve = 0.5 * curve + 0.25 * np.abs(fine) + 0.4
        top = view.horizon + 1 - view.f * height * np.clip(0.55 + 0.35 * curve, 0.03, 2.5)
        low = int(max(top.min() - 1, 0))
        outline = np.column_stack([np.append(u, (u[-1], 0)), np.append(top, (view.horizon + 2, view.horizon + 2)) - low])
        mask = np.zeros((view.horizon + 2 - low, width), np.uint8)
        cv2.fillPoly(mask, [fixed(outline)], 255, cv2.LINE_AA, 4)
        base = {"hill": look.materials["dry" if phase % 2 else "grass"], "trees": (42, 68, 56), "town": (120, 125, 132)}[kind]
        color = np.array(lit(canvas, base, distance, 0, 0.8))
        start = int(view.heading * view.f) + phase
        clear = math.exp(-distance / look.visibility_m)
        gain = _band(kind == "trees", mask.shape[0], width, start % 512)
        k = clear * (0.8 if kind == "trees" else 0.5) / 128
        tint = np.column_stack([np.outer(color, (k / 3,) * 3), color * (1 - 128 * k)])
        layer = cv2.transform(gain, tint)
        cv2.copyTo(layer, mask, canvas.image[low : view.horizon + 2])
        canvas.owner[low : view.horizon + 2][mask > 0] = VEGETATION if kind != "town" else BUILDING


@lru_cache(maxsize=32)
def facade(index: int) -> U8:
    """A wall with rows of windows, shop fronts below; 128x160 px for about 12x15 m."""
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
    return np.clip(picture * rough * down, 0, 255).astype(np.uint8)


@lru_cache(maxsize=160)
def _front(index: int, wide: int, high: int, halvings: int) -> U8:
    """A facade repeated ``wide`` by ``high`` times and halved."""
    texture = np.tile(facade(index), (high, wide, 1))
    for _ in range(halvings):
        texture = cv2.resize(
            texture, (max(texture.shape[1] // 2, 2), max(texture.shape[0] // 2, 2)), interpolation=cv2.INTER_AREA
        )
    return texture


@lru_cache(maxsize=64)
def _mean(index: int) -> Bgr:
    """Mean colour of a facade."""
    return tuple(facade(index).reshape(-1, 3).mean(0).tolist())


def building(canvas: Canvas, thing: Thing, spot: Spot) -> None:
    """A block beside the road: the wall along the road and the gable that faces the camera."""
    view = canvas.view
    length, depth, height = thing.size_m
    side = 1.0 if thing.d > 0 else -1.0
    cos, sin = math.cos(spot.bearing), math.sin(spot.bearing)

    def corner(along: float, out: float) -> tuple[float, float]:
        return spot.x + cos * along - sin * out * side, spot.y + sin * along + cos * out * side

    near, far, back = corner(-length / 2, 0), corner(length / 2, 0), corner(-length / 2, depth)
    light = 0.62 + 0.35 * (thing.index % 5) / 4
    width_px, height_px = canvas.image.shape[1], canvas.image.shape[0]
    for a, b, shade, span in ((near, back, 0.8, depth), (far, near, 1.0, length)):
        if a[0] < 1.0 and b[0] < 1.0:
            continue
        share = 1.0
        if min(a[0], b[0]) < 1.0:  # keep what lies in front of the camera
            share = (max(a[0], b[0]) - 1.0) / abs(a[0] - b[0])
            if a[0] < b[0]:
                a = (1.0, b[1] + (a[1] - b[1]) * share)
            else:
                b = (1.0, a[1] + (b[1] - a[1]) * share)
        quad = [view.uv(*a, spot.z + height), view.uv(*b, spot.z + height), view.uv(*b, spot.z - 0.5), view.uv(*a, spot.z - 0.5)]
        quad[2:] = [(u, min(v, spot.clip + 1)) for u, v in quad[2:]]
        us, vs = [p[0] for p in quad], [p[1] for p in quad]
        x0, x1 = max(math.floor(min(us)), 0), min(math.ceil(max(us)) + 1, width_px)
        y0, y1 = max(math.floor(min(vs)), 0), min(math.ceil(max(vs)) + 1, height_px)
        if x1 <= x0 or y1 <= y0 or abs(us[0] - us[1]) < 2:
            continue
        if x1 - x0 < 7 or y1 - y0 < 7:
            canvas.polygon(quad, lit(canvas, _mean(thing.index), spot.x, spot.y, shade * light), BUILDING)
            continue
        wide, high = max(1, min(round(span * share / 12), 3)), max(1, min(round(height / 15), 2))
        ratio = min(128 * wide / max(max(us) - min(us), 1.0), 160 * high / max(max(vs) - min(vs), 1.0))
        texture = _front(thing.index, wide, high, max(0, min(int(math.log2(max(ratio, 1.0)) + 0.4), 4)))
        g, o = canvas.look.shade((a[0] + b[0]) / 2, spot.y)
        k = shade * light
        texture = cv2.transform(texture, np.array([(g[0] * k, 0, 0, o[0]), (0, g[1] * k, 0, o[1]), (0, 0, g[2] * k, o[2])]))
        w, h = texture.shape[1], texture.shape[0]
        source = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32)
        local = np.array([(u - x0, v - y0) for u, v in quad], np.float32)
        warp = cv2.getPerspectiveTransform(source, local)
        cv2.warpPerspective(
            texture,
            warp,
            (x1 - x0, y1 - y0),
            dst=canvas.image[y0:y1, x0:x1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_TRANSPARENT,
        )
        cv2.fillConvexPoly(canvas.owner[y0:y1, x0:x1], fixed(local), BUILDING, cv2.LINE_8, 4)


def wall(canvas: Canvas, thing: Thing, spot: Spot, end: Spot) -> None:
    """One piece of a barrier, guard rail or fence along the road, from ``spot`` to ``end``."""
    view = canvas.view
    height = thing.size_m[2]
    x0, y0, x1, y1 = spot.x, spot.y, end.x, end.y
    if x1 < 1.0 or x1 <= x0:
        return
    if x0 < 1.0:
        x0, y0 = 1.0, y0 + (1.0 - x0) / (x1 - x0) * (y1 - y0)
    row0, row1 = spot.clip + 0.5, end.clip + 0.5

    def quad(low: float, high: float) -> list[tuple[float, float]]:
        a, b, c, d = (
            view.uv(x0, y0, spot.z + low),
            view.uv(x1, y1, end.z + low),
            view.uv(x1, y1, end.z + high),
            view.uv(x0, y0, spot.z + high),
        )
        return [(a[0], min(a[1], row0)), (b[0], min(b[1], row1)), (c[0], min(c[1], row1)), (d[0], min(d[1], row0))]

    middle = (x0 + x1) / 2
    scale = view.f / middle
    if thing.art == "rail":
        if middle < 60:
            shade = lit(canvas, (105, 108, 110), middle, y0)
            for along in (0.1, 0.9):
                x, y, z = x0 + along * (x1 - x0), y0 + along * (y1 - y0), spot.z + along * (end.z - spot.z)
                canvas.line(view.uv(x, y, z), view.uv(x, y, z + 0.7), 0.1 * view.f / x, shade, WALL)
        canvas.polygon(quad(0.42, 0.75), lit(canvas, thing.color, middle, y0), WALL)
        if middle < 60:
            canvas.polygon(quad(0.55, 0.6), lit(canvas, thing.color, middle, y0, 0.65))
    elif thing.art == "fence":
        color = lit(canvas, thing.color, middle, y0)
        foot0, foot1, top1, top0 = quad(0.0, height)
        canvas.line(top0, top1, 0.05 * scale, color, WALL)
        canvas.line(
            ((foot0[0] + top0[0]) / 2, (foot0[1] + top0[1]) / 2),
            ((foot1[0] + top1[0]) / 2, (foot1[1] + top1[1]) / 2),
            0.04 * scale,
            color,
        )
        canvas.line(foot0, top0, 0.07 * view.f / max(x0, 2.0), color, WALL)
    else:
        canvas.polygon(quad(0.0, height), lit(canvas, thing.color, middle, y0), WALL)
        if middle < 90:
            canvas.polygon(quad(height * 0.88, height), lit(canvas, thing.color, middle, y0, 1.15))
            canvas.polygon(quad(0.0, height * 0.3), lit(canvas, thing.color, middle, y0, 0.85))


def pole(canvas: Canvas, spot: Spot, y: float, height: float, width: float, color: Bgr, arm: float = 0.0) -> None:
    """A mast at ``y``, with a lamp arm of ``arm`` metres to the left (negative: right)."""
    view = canvas.view
    foot, top = view.uv(spot.x, y, spot.z), view.uv(spot.x, y, spot.z + height)
    foot = (foot[0], min(foot[1], spot.clip + 0.5))
    if top[1] >= foot[1]:
        return
    shade = lit(canvas, color, spot.x, y)
    scale = view.f / spot.x
    canvas.line(foot, top, width * scale, shade, POLE)
    if arm:
        tip = view.uv(spot.x, y + arm, spot.z + height + 0.3)
        canvas.line(top, tip, 0.7 * width * scale, shade, POLE)
        if canvas.look.time != "day":
            canvas.glow.append((tip[0], tip[1], max(0.25 * scale, 1.0), (120, 200, 255)))


def gantry(canvas: Canvas, thing: Thing, spot: Spot) -> None:
    """Two masts and a double beam over the carriageway."""
    view = canvas.view
    width, height = thing.size_m[1], thing.size_m[2]
    for sign in (-1, 1):
        pole(canvas, spot, spot.y + sign * width / 2, height + 0.8, 0.4, thing.color)
    for up in (0.0, 0.8):
        z = spot.z + height + up
        ends = view.uv(spot.x, spot.y - width / 2, z), view.uv(spot.x, spot.y + width / 2, z)
        canvas.line(*ends, 0.22 * view.f / spot.x, lit(canvas, thing.color, spot.x, spot.y), POLE)


def bridge(canvas: Canvas, thing: Thing, spot: Spot) -> None:
    """An overpass: deck from side to side with its piers."""
    view, x = canvas.view, spot.x
    depth, _, height = thing.size_m
    z = spot.z + 5.2
    under = [view.uv(x, 80, z), view.uv(x, -80, z), view.uv(x + depth, -80, z), view.uv(x + depth, 80, z)]
    canvas.polygon(under, lit(canvas, thing.color, x, 0, 0.25), BRIDGE)
    deck = [view.uv(x, 80, z), view.uv(x, -80, z), view.uv(x, -80, z + height), view.uv(x, 80, z + height)]
    canvas.polygon(deck, lit(canvas, thing.color, x, 0, 0.8), BRIDGE)
    canvas.line(deck[3], deck[2], 0.25 * view.f / x, lit(canvas, thing.color, x, 0, 1.1), BRIDGE)
    dark = (thing.color[0] * 0.7, thing.color[1] * 0.7, thing.color[2] * 0.7)
    for d in (view.road.outer_left_d + 1.2, view.road.outer_right_d - 1.2):
        pole(canvas, spot, spot.y + d * math.cos(spot.bearing), 5.4, 1.1, dark)
