"""What stands beside and above the road: sky, hills, tree lines, buildings, barriers, poles, gantries, bridges."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world import textures
from training.datasets.world.canvas import BRIDGE, BUILDING, POLE, VEGETATION, WALL, Canvas, fixed
from training.datasets.world.look import Bgr
from training.datasets.world.things import Thing

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


def lit(canvas: Canvas, color: Bgr, x: float, y: float, shade: float = 1.0, lamp: float = 1.0) -> Bgr:
    """Colour of a surface at level-frame ``x, y`` after light and haze."""
    gain, offset = canvas.look.shade(x, y, lamp)
    return tuple(min(c * g * shade + o, 255.0) for c, g, o in zip(color, gain, offset, strict=True))  # type: ignore[return-value]


def sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """Gradient and clouds down to the horizon."""
    view, look = canvas.view, canvas.look
    height, width = view.horizon + 2, canvas.image.shape[1]
    t = np.clip((np.arange(height) - (view.horizon - 0.6 * view.f)) / (0.6 * view.f), 0, 1)[:, None] ** 0.8
    column = np.array(look.sky_top) * (1 - t) + np.array(look.sky_low) * t
    canvas.image[:height] = np.clip(column, 0, 255).astype(np.uint8)[:, None]
    shift = rng.integers(0, 256, 2)
    if look.cloud > 0.03:
        stretch = cv2.resize(textures.clouds()[shift[0] : shift[0] + 200, shift[1] : shift[1] + 256], (width, height))
        cover = np.clip((stretch.astype(np.float32) - 255 * (1 - look.cloud) + 40) / 110, 0, 1) * (
            0.9 - 0.4 * t.astype(np.float32)
        )
        white = (np.array((244, 242, 240)) * np.array(look.ambient)).astype(np.float32)
        area = canvas.image[:height]
        area[:] = (area + (white - area) * cover[..., None]).astype(np.uint8)


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
        atlas = textures.foliage() if kind == "trees" else textures.terrain()
        rows = np.arange(low, low + mask.shape[0]) % 512
        columns = (np.arange(width) + int(view.heading * view.f) + phase) % 512
        clear = float(np.exp(-distance / look.visibility_m))
        texture = (atlas[rows][:, columns].astype(np.float32) - 128) * (clear * (0.8 if kind == "trees" else 0.5) / 128) + 1
        layer = np.clip(color * texture[..., None], 0, 255).astype(np.uint8)
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
    glass = np.array([rng.uniform(50, 110), rng.uniform(45, 95), rng.uniform(40, 80)])
    for row in range(floors):
        y = row * h / floors
        ground = row == floors - 1
        for column in range(columns):
            x = column * w / columns
            cw, ch = w / columns, h / floors
            mx, my = (0.08, 0.12) if ground else (0.24, 0.22)
            box = [int(x + cw * mx), int(y + ch * my), int(x + cw * (1 - mx)), int(y + ch * (1 - my * 0.8))]
            cv2.rectangle(picture, (box[0] - 1, box[1] - 1), (box[2] + 1, box[3] + 1), tuple(base * 1.18), -1)
            cv2.rectangle(picture, (box[0], box[1]), (box[2], box[3]), tuple(glass * rng.uniform(0.6, 1.7)), -1)
            if not ground:
                cv2.line(picture, ((box[0] + box[2]) // 2, box[1]), ((box[0] + box[2]) // 2, box[3]), tuple(base), 1)
        if ground and rng.random() < 0.6:
            cv2.rectangle(picture, (0, int(y)), (w, int(y + 6)), tuple(rng.uniform(30, 220, 3)), -1)
    rough = 1 + 0.05 * textures.fractal(10, 0.8)[:h, :w, None]
    down = np.linspace(1.06, 0.9, h)[:, None, None]
    return np.clip(picture * rough * down, 0, 255).astype(np.uint8)


def building(canvas: Canvas, thing: Thing, x: float, y: float, bearing: float) -> None:
    """A block beside the road: the wall along the road and the gable that faces the camera."""
    view = canvas.view
    length, depth, height = thing.size_m
    side = 1.0 if thing.d > 0 else -1.0
    cos, sin = np.cos(bearing), np.sin(bearing)

    def corner(along: float, out: float) -> tuple[float, float]:
        return x + cos * along - sin * out * side, y + sin * along + cos * out * side

    ground = float(view.ground_z(max(x, 1.0)))
    near, far, back = corner(-length / 2, 0), corner(length / 2, 0), corner(-length / 2, depth)
    light = 0.62 + 0.35 * (thing.index % 5) / 4
    for a, b, shade, span in ((near, back, 0.8, depth), (far, near, 1.0, length)):
        a, b = (max(a[0], 1.0), a[1]), (max(b[0], 1.0), b[1])
        quad = view.project(np.array([(*a, ground + height), (*b, ground + height), (*b, ground - 0.5), (*a, ground - 0.5)]))
        quad[2:, 1] = np.minimum(quad[2:, 1], view.clip_row(np.array([b[0], a[0]])) + 1)
        low = np.clip(np.floor(quad.min(0)).astype(int), 0, None)
        high = np.minimum(np.ceil(quad.max(0)).astype(int) + 1, (canvas.image.shape[1], canvas.image.shape[0]))
        if (high <= low).any() or abs(quad[0, 0] - quad[1, 0]) < 1:
            continue
        texture = facade(thing.index)
        repeat = (max(1, round(span / 12)), max(1, round(height / 15)))
        source = np.array([(0, 0), (128 * repeat[0], 0), (128 * repeat[0], 160 * repeat[1]), (0, 160 * repeat[1])], np.float32)
        if max(repeat) > 1:
            texture = np.tile(texture, (repeat[1], repeat[0], 1))
        size = tuple((high - low).tolist())
        shrink = np.clip(min(size[0] / (128 * repeat[0]), size[1] / (160 * repeat[1])) * 1.5, 0.1, 1)
        if shrink < 0.7:
            texture = cv2.resize(texture, None, fx=float(shrink), fy=float(shrink), interpolation=cv2.INTER_AREA)
            source *= np.array(texture.shape[1::-1], np.float32) / (128 * repeat[0], 160 * repeat[1])
        warp = cv2.getPerspectiveTransform(source.astype(np.float32), (quad - low).astype(np.float32))
        patch = cv2.warpPerspective(texture, warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        gain, offset = canvas.look.shade((a[0] + b[0]) / 2, y)
        cv2.multiply(patch, (*(g * shade * light for g in gain), 0.0), dst=patch)
        cv2.add(patch, (*offset, 0.0), dst=patch)
        mask = np.zeros(patch.shape[:2], np.uint8)
        cv2.fillConvexPoly(mask, fixed(quad - low), 255, cv2.LINE_8, 4)
        area = (slice(low[1], high[1]), slice(low[0], high[0]))
        cv2.copyTo(patch, mask, canvas.image[area])
        canvas.owner[area][mask > 0] = BUILDING


def wall(canvas: Canvas, thing: Thing) -> None:
    """One piece of a barrier, guard rail, fence or hedge along the road."""
    view = canvas.view
    length, _, height = thing.size_m
    s = np.array([thing.s, thing.s + length])
    x, y, _ = view.place(np.clip(s, *view.s_range), np.full(2, thing.d))
    if x[1] < 1.0 or x[1] <= x[0]:
        return
    if x[0] < 1.0:
        t = (1.0 - x[0]) / (x[1] - x[0])
        x[0], y[0] = 1.0, y[0] + t * (y[1] - y[0])
    z = view.ground_z(x)

    def quad(low: float, high: float) -> F64:
        points = [(x[0], y[0], z[0] + low), (x[1], y[1], z[1] + low), (x[1], y[1], z[1] + high), (x[0], y[0], z[0] + high)]
        uv = view.project(np.array(points))
        uv[:, 1] = np.minimum(uv[:, 1], view.clip_row(x[[0, 1, 1, 0]]) + 0.5)
        return uv

    middle = float(x.mean())
    base = thing.color
    if thing.art == "rail":
        for along in (0.1, 0.9):
            foot = view.project(
                np.array([(x[0] + along * (x[1] - x[0]), y[0] + along * (y[1] - y[0]), z[0] + h) for h in (0.0, 0.7)])
            )
            canvas.line(foot[0], foot[1], 0.1 * view.f / middle, lit(canvas, (105, 108, 110), middle, float(y[0])), WALL)
        canvas.polygon(quad(0.42, 0.75), lit(canvas, base, middle, float(y[0])), WALL)
        canvas.polygon(quad(0.55, 0.6), lit(canvas, base, middle, float(y[0]), 0.65))
    elif thing.art == "fence":
        color = lit(canvas, base, middle, float(y[0]))
        top = quad(0.0, height)
        canvas.line(top[3], top[2], 0.05 * view.f / middle, color, WALL)
        canvas.line((top[0] + top[3]) / 2, (top[1] + top[2]) / 2, 0.04 * view.f / middle, color)
        canvas.line(top[0], top[3], 0.07 * view.f / max(float(x[0]), 2.0), color, WALL)
    else:
        canvas.polygon(quad(0.0, height), lit(canvas, base, middle, float(y[0])), VEGETATION if thing.art == "hedge" else WALL)
        canvas.polygon(quad(height * 0.88, height), lit(canvas, base, middle, float(y[0]), 1.15))
        canvas.polygon(quad(0.0, height * 0.3), lit(canvas, base, middle, float(y[0]), 0.85))


def pole(canvas: Canvas, x: float, y: float, height: float, width: float, color: Bgr, arm: float = 0.0) -> None:
    """A mast, with a lamp arm of ``arm`` metres to the left (negative: right)."""
    view = canvas.view
    ground = float(view.ground_z(x))
    foot, top, tip = view.project(np.array([(x, y, ground), (x, y, ground + height), (x, y + arm, ground + height + 0.3)]))
    foot[1] = min(foot[1], float(view.clip_row(x)) + 0.5)
    if top[1] >= foot[1]:
        return
    shade = lit(canvas, color, x, y)
    canvas.line(foot, top, width * view.f / x, shade, POLE)
    if arm:
        canvas.line(top, tip, 0.7 * width * view.f / x, shade, POLE)
        if canvas.look.time != "day":
            canvas.glow.append((tip[0], tip[1], max(0.25 * view.f / x, 1.0), (120, 200, 255)))


def bridge(canvas: Canvas, thing: Thing, x: float) -> None:
    """An overpass: deck from side to side with its piers."""
    view = canvas.view
    depth, _, height = thing.size_m
    z = float(view.ground_z(x)) + 5.2
    for distance, low, high, shade in ((x + depth, z, z + 0.3, 0.22), (x, z, z + height, 0.8)):
        quad = view.project(np.array([(distance, 80, low), (distance, -80, low), (distance, -80, high), (distance, 80, high)]))
        canvas.polygon(quad, lit(canvas, thing.color, distance, 0, shade), BRIDGE)
        if distance > x:
            under = view.project(np.array([(x, 80, z), (x, -80, z), (x + depth, -80, z), (x + depth, 80, z)]))
            canvas.polygon(under, lit(canvas, thing.color, x, 0, 0.25), BRIDGE)
    rail = view.project(np.array([(x, 80, z + height), (x, -80, z + height)]))
    canvas.line(rail[0], rail[1], 0.25 * view.f / x, lit(canvas, thing.color, x, 0, 1.1), BRIDGE)
    road = view.road
    for d in (road.outer_left_d + 1.2, road.outer_right_d - 1.2):
        _, y, _ = view.place(thing.s, d)
        pole(canvas, x + 0.5, float(y), 5.4, 1.1, tuple(c * 0.7 for c in thing.color))  # type: ignore[arg-type]
