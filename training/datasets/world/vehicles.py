"""Draws vehicles: flat-shaded meshes with glass, lamps and plates; far away, pictures of those."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.canvas import SHIFT, Canvas
from training.datasets.world.dice import pick
from training.datasets.world.impostors import painted, seen
from training.datasets.world.look import Bgr, Look
from training.datasets.world.meshes import mesh, visible
from training.datasets.world.things import Spot, Thing

_IMPOSTOR_PX = 24.0  # height below which a picture is enough
_LEAST_PX2 = 0.8
_LAMPS = ("tail", "head")


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
    view = canvas.view
    height_px = thing.size_m[2] * view.f / max(spot.x, 1.0)
    if height_px < _IMPOSTOR_PX:
        _far(canvas, thing, spot, owner, lit)
        return
    model = mesh(thing.model)
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
    points = np.empty((len(u), 2), np.int32)
    points[:, 0] = u * 16
    points[:, 1] = v * 16
    colors = _Colors(canvas, thing, spot, lit)
    smooth = cv2.LINE_AA if height_px < 160 else cv2.LINE_8
    image, owners = canvas.image, canvas.owner
    starts, ends, materials, sides, fine = model.starts, model.ends, model.materials, model.sides, model.fine
    cv2.fillConvexPoly(owners, _under(canvas, thing, spot, cos, sin), owner, cv2.LINE_8, SHIFT)
    for i in visible(model, u, v, cos, _LEAST_PX2):
        shape = points[starts[i] : ends[i]]
        cv2.fillConvexPoly(image, shape, colors[materials[i], sides[i]], smooth, SHIFT)
        if not fine[i]:
            cv2.fillConvexPoly(owners, shape, owner, cv2.LINE_8, SHIFT)
        if lit and materials[i] in _LAMPS:
            at = shape.mean(0) / 16
            radius = max(0.16 * view.f / max(spot.x, 2.0), 0.7)
            canvas.glow.append((float(at[0]), float(at[1]), radius, colors[materials[i], sides[i]]))
    canvas.count(owner, float(u.min()), top, float(u.max()), bottom)


class _Colors(dict[tuple[str, str], Bgr]):
    """Lit colour of each ``(material, side)`` of one vehicle, worked out when first asked for."""

    def __init__(self, canvas: Canvas, thing: Thing, spot: Spot, lit: bool) -> None:
        super().__init__()
        look, near = canvas.look, max(spot.x - thing.size_m[0] / 2, 1.0)
        self._lit, self._sky = lit, look.sky_low
        self._paints = paints(thing.seed % 128, thing.braking, lit or thing.seed % 3 == 0)
        self._gain, self._offset = look.shade(near, spot.y)
        self._lamp_gain, _ = look.shade(near, spot.y, 2.5)
        self._light = _light(look, canvas.view.heading + spot.bearing + thing.heading)

    def __missing__(self, key: tuple[str, str]) -> Bgr:
        material, side = key
        c, shade, o = self._paints[material], self._light[side], self._offset
        if self._lit and material in _LAMPS:
            found = c
        else:
            if material == "glass":
                s, k, shade = self._sky, 0.22 if side != "top" else 0.33, 0.85
                c = (c[0] + k * s[0], c[1] + k * s[1], c[2] + k * s[2])
            g = self._lamp_gain if material in ("plate", "tail") else self._gain
            found = (c[0] * g[0] * shade + o[0], c[1] * g[1] * shade + o[1], c[2] * g[2] * shade + o[2])
        self[key] = found
        return found


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


def _far(canvas: Canvas, thing: Thing, spot: Spot, owner: int, lit: bool) -> None:
    """A vehicle of a few pixels, from its picture seen from the nearest angle."""
    view, look = canvas.view, canvas.look
    heading = spot.bearing + thing.heading
    turn = (heading - math.atan2(spot.y, spot.x) + math.pi) % (2 * math.pi) - math.pi
    picture = seen(thing.model, abs(turn), spot.x)
    behind = abs(turn) < math.pi / 2
    scale = view.f / spot.x
    u, v = view.uv(spot.x, spot.y, spot.z)
    colors = paints(thing.seed % 128, thing.braking, lit)
    gain, offset = look.shade(spot.x, spot.y)
    light = _light(look, view.heading + heading)
    end, flank, ahead = light["rear" if behind else "front"], light["left" if turn < 0 else "right"], abs(math.cos(turn))
    lamp = colors["tail" if behind else "head"]
    matrix = painted(
        colors["box" if thing.label == "truck" and behind else "body"], lamp, gain, end * ahead + flank * (1 - ahead), offset, lit
    )
    unit = scale * thing.scale
    nearest = spot.x - picture.reach_m * thing.scale
    base, top = v + (view.height_m - spot.z) * (view.f / nearest - scale), v - picture.above_m * unit
    canvas.sprite(picture.mips, u, base, picture.width_m * unit, base - top, spot.clip + 1, matrix, owner, turn < 0)
    if lit and ahead > 0.8:
        half = 0.4 * thing.size_m[1] * scale
        for sign in (-1, 1):
            canvas.glow.append((u + sign * half, v - 0.4 * thing.size_m[2] * scale, max(0.16 * scale, 0.7), lamp))


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
