"""Draws vehicles: flat-shaded meshes with glass, lamps and plates; a few rectangles where they are a few pixels."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.canvas import SHIFT, Canvas
from training.datasets.world.dice import pick
from training.datasets.world.look import Bgr, Look
from training.datasets.world.meshes import mesh
from training.datasets.world.things import Spot, Thing


@lru_cache(maxsize=1024)
def paints(number: int, braking: bool, lights: bool) -> dict[str, Bgr]:
    """Colours of every material of one vehicle; ``number`` below 128."""
    rng = np.random.Generator(np.random.PCG64([70, number]))
    if rng.random() < 0.62:
        grey = pick(rng, [22.0, 45.0, 85.0, 125.0, 165.0, 205.0, 232.0])
        body = np.clip(grey + rng.normal(0, 4, 3), 8, 250)
    else:
        palette = (
            (40, 30, 150),
            (140, 75, 35),
            (85, 45, 25),
            (50, 85, 40),
            (60, 140, 190),
            (110, 125, 140),
            (35, 35, 185),
            (175, 130, 70),
        )
        body = np.clip(np.array(pick(rng, palette)) + rng.normal(0, 12, 3), 8, 250)
    box = np.full(3, rng.uniform(150, 240)) if rng.random() < 0.7 else rng.uniform(40, 220, 3)
    plastic = rng.random() < 0.25
    found = {
        "body": body, "roof": body, "lower": body * 0.84, "bumper": (52, 52, 54) if plastic else body * 0.9,
        "glass": (52, 46, 42), "inside": (34, 31, 30), "tyre": (28, 28, 29), "hub": (104, 106, 110), "dark": (26, 26, 28),
        "trim": (50, 50, 52), "tail": (55, 45, 245) if braking else (32, 26, 135),
        "head": (250, 250, 245) if lights else (205, 205, 200),
        "plate": (205, 212, 214) if rng.random() < 0.75 else (60, 190, 225),
        "box": box, "livery": rng.uniform(40, 220, 3), "sign": (40, 150, 240),
    }  # fmt: skip
    return {name: (float(c[0]), float(c[1]), float(c[2])) for name, c in found.items()}


def draw(canvas: Canvas, thing: Thing, spot: Spot, owner: int, lit: bool) -> None:
    """Draw one vehicle; ``lit``: its lamps are on."""
    view, look = canvas.view, canvas.look
    height_px = thing.size_m[2] * view.f / max(spot.x, 1.0)
    if height_px < 9:
        _speck(canvas, thing, spot, owner, lit)
        return
    model = mesh(thing.model, height_px < 20)
    colors = paints(thing.seed % 128, thing.braking, lit or thing.seed % 3 == 0)
    heading = spot.bearing + thing.heading
    cos, sin = math.cos(heading) * thing.scale, math.sin(heading) * thing.scale
    px, py, pz = model.points
    x = np.maximum(cos * px - sin * py + spot.x, 0.5)
    scale = view.f / x
    u = view.cx - (sin * px + cos * py + spot.y) * scale
    v = view.cy + (view.height_m - spot.z - thing.scale * pz) * scale
    top, bottom = float(v.min()), float(v.max())
    if bottom > spot.clip + 1:
        if top > spot.clip:
            return
        v = np.minimum(v, spot.clip + 1)
    following = model.following
    shown = np.add.reduceat(u * v[following] - u[following] * v, model.starts) < 0
    order = shown.nonzero()[0].tolist()
    if model.parts and cos > 0:  # seen from behind: the cab first, then the box
        order.sort(key=lambda i: (model.part[i] != 0, -model.part[i]))
    points = np.empty((len(u), 2), np.int32)
    points[:, 0] = u * 16
    points[:, 1] = v * 16
    near = max(spot.x - thing.size_m[0] / 2, 1.0)
    gain, offset = look.shade(near, spot.y)
    lamp_gain, _ = look.shade(near, spot.y, 2.5)
    light = _light(look, view.heading + heading)
    smooth = cv2.LINE_AA if 16 < height_px < 160 else cv2.LINE_8
    image, owners, sky = canvas.image, canvas.owner, look.sky_low
    known: dict[tuple[str, str], Bgr] = {}
    cv2.fillConvexPoly(owners, _under(canvas, thing, spot, cos, sin), owner, cv2.LINE_8, SHIFT)
    for i in order:
        material, side = model.materials[i], model.sides[i]
        shape = points[model.starts[i] : model.ends[i]]
        color = known.get((material, side))
        if color is None:
            c = colors[material]
            if lit and material in ("tail", "head"):
                color = c
            else:
                shade = light[side]
                if material == "glass":
                    shade, k = 0.85, 0.22 if side != "top" else 0.33
                    c = (c[0] + k * sky[0], c[1] + k * sky[1], c[2] + k * sky[2])
                g = lamp_gain if material in ("plate", "tail") else gain
                color = (c[0] * g[0] * shade + offset[0], c[1] * g[1] * shade + offset[1], c[2] * g[2] * shade + offset[2])
            known[material, side] = color
        cv2.fillConvexPoly(image, shape, color, smooth, SHIFT)
        if not model.fine[i]:
            cv2.fillConvexPoly(owners, shape, owner, cv2.LINE_8, SHIFT)
        if lit and material in ("tail", "head"):
            at = shape.mean(0) / 16
            canvas.glow.append((float(at[0]), float(at[1]), max(0.16 * view.f / max(spot.x, 2.0), 0.7), color))
    canvas.count(owner, float(u.min()), top, float(u.max()), bottom)


def _under(canvas: Canvas, thing: Thing, spot: Spot, cos: float, sin: float) -> npt.NDArray[np.int32]:
    """Outline of the space below the body, which nobody calls drivable: from the ground between the wheels up to half a metre."""
    view = canvas.view
    corners = []
    for a in (-0.46, 0.46):
        for b in (-0.47, 0.47):
            forward, left = a * thing.size_m[0] / thing.scale, b * thing.size_m[1] / thing.scale
            x, y = max(spot.x + cos * forward - sin * left, 0.5), spot.y + sin * forward + cos * left
            for z in (0.0, 0.5):
                u, v = view.uv(x, y, spot.z + z)
                corners.append((u, min(v, spot.clip + 1)))
    return (cv2.convexHull(np.array(corners, np.float32)) * 16).astype(np.int32)


def _speck(canvas: Canvas, thing: Thing, spot: Spot, owner: int, lit: bool) -> None:
    """A vehicle of a few pixels: body, pane and lamps as upright rectangles, seen from behind, before or the side."""
    view, look = canvas.view, canvas.look
    scale = view.f / spot.x
    length, width, height = thing.size_m
    turn = abs(math.sin(spot.bearing + thing.heading - math.atan2(spot.y, spot.x)))
    half = (width * math.sqrt(max(1 - turn * turn, 0.0)) + length * turn) * scale / 2
    u, v = view.uv(spot.x, spot.y, spot.z)
    bottom, top = min(v, spot.clip + 1), v - height * scale
    if bottom - top < 1:
        return
    colors = paints(thing.seed % 128, thing.braking, lit)
    gain, offset = look.shade(spot.x, spot.y)

    def fill(u0: float, v0: float, u1: float, v1: float, material: str, shade: float) -> None:
        c = colors[material]
        color = tuple(a * g * shade + o for a, g, o in zip(c, gain, offset, strict=True))
        shape = np.array([(u0 * 16, v0 * 16), (u1 * 16, v0 * 16), (u1 * 16, v1 * 16), (u0 * 16, v1 * 16)]).astype(np.int32)
        cv2.fillConvexPoly(canvas.image, shape, color, cv2.LINE_AA, SHIFT)
        if material in ("body", "box"):
            cv2.fillConvexPoly(canvas.owner, shape, owner, cv2.LINE_8, SHIFT)

    tall = bottom - top
    fill(u - half, top, u + half, bottom - 0.12 * tall, "box" if thing.label == "truck" else "body", 0.8)
    fill(u - half, bottom - 0.2 * tall, u + half, bottom, "dark", 1.0)
    fill(u - 0.8 * half, top + 0.1 * tall, u + 0.8 * half, top + 0.42 * tall, "glass", 1.0)
    material = "tail" if math.cos(spot.bearing + thing.heading) > 0 else "head"
    if turn < 0.5:
        for sign in (-1, 1):
            fill(u + sign * 0.9 * half - 0.5, top + 0.5 * tall, u + sign * 0.9 * half + 0.5, top + 0.68 * tall, material, 1.0)
            if lit:
                canvas.glow.append((u + sign * 0.8 * half, top + 0.6 * tall, 0.7, colors[material]))
    canvas.count(owner, u - half, top, u + half, bottom)


def _light(look: Look, heading: float) -> dict[str, float]:
    """Brightness of each side of a box of this world heading: sky light plus sun."""
    azimuth, elevation = look.sun
    sunny = look.shadow
    flat, low = 0.78 - 0.25 * sunny, 0.75 * sunny * math.cos(elevation)
    ahead, aside = math.cos(azimuth - heading), math.sin(azimuth - heading)
    return {
        "front": flat + low * max(ahead, 0.0), "rear": flat + low * max(-ahead, 0.0), "left": flat + low * max(aside, 0.0),
        "right": flat + low * max(-aside, 0.0), "top": 1.0 + 0.35 * sunny * math.sin(elevation),
    }  # fmt: skip
