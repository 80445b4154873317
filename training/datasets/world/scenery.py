"""What stands beside and above the road: barriers, poles, gantries, bridges."""

from __future__ import annotations

import math

from training.datasets.world.canvas import BRIDGE, POLE, WALL, Canvas
from training.datasets.world.look import Bgr
from training.datasets.world.things import Spot, Thing


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
    near, far = view.f / x0, view.f / x1
    u0, v0 = view.cx - y0 * near, view.cy + (view.height_m - spot.z) * near
    u1, v1 = view.cx - y1 * far, view.cy + (view.height_m - end.z) * far

    def quad(low: float, high: float) -> list[tuple[float, float]]:
        """The piece between two heights, feet first."""
        return [
            (u0, min(v0 - low * near, row0)), (u1, min(v1 - low * far, row1)),
            (u1, min(v1 - high * far, row1)), (u0, min(v0 - high * near, row0)),
        ]  # fmt: skip

    middle = (x0 + x1) / 2
    gain, offset = canvas.look.shade(middle, y0)

    def lit(color: Bgr, shade: float = 1.0) -> Bgr:
        """Colour of a part of it after light and haze."""
        return (
            color[0] * gain[0] * shade + offset[0], color[1] * gain[1] * shade + offset[1], color[2] * gain[2] * shade + offset[2]
        )  # fmt: skip

    if thing.art == "rail":
        if middle < 60:
            for along in (0.1, 0.9):
                x, y, z = x0 + along * (x1 - x0), y0 + along * (y1 - y0), spot.z + along * (end.z - spot.z)
                canvas.line(view.uv(x, y, z), view.uv(x, y, z + 0.7), 0.1 * view.f / x, lit((105, 108, 110)), WALL)
        canvas.polygon(quad(0.42, 0.75), lit(thing.color), WALL)
        if middle < 60:
            canvas.polygon(quad(0.55, 0.6), lit(thing.color, 0.65))
    elif thing.art == "fence":
        color, scale = lit(thing.color), view.f / middle
        foot0, foot1, top1, top0 = quad(0.0, height)
        half0, half1 = ((foot0[0] + top0[0]) / 2, (foot0[1] + top0[1]) / 2), ((foot1[0] + top1[0]) / 2, (foot1[1] + top1[1]) / 2)
        canvas.line(top0, top1, 0.05 * scale, color, WALL)
        canvas.line(half0, half1, 0.04 * scale, color)
        canvas.line(foot0, top0, 0.07 * view.f / max(x0, 2.0), color, WALL)
    else:
        canvas.polygon(quad(0.0, height), lit(thing.color), WALL)
        if middle < 90:
            canvas.polygon(quad(height * 0.88, height), lit(thing.color, 1.15))
            canvas.polygon(quad(0.0, height * 0.3), lit(thing.color, 0.85))


def pole(canvas: Canvas, spot: Spot, y: float, height: float, width: float, color: Bgr, arm: float = 0.0) -> None:
    """A mast at ``y``, with a lamp arm of ``arm`` metres to the left (negative: right)."""
    view = canvas.view
    foot, top = view.uv(spot.x, y, spot.z), view.uv(spot.x, y, spot.z + height)
    foot = (foot[0], min(foot[1], spot.clip + 0.5))
    if top[1] >= foot[1]:
        return
    shade = canvas.lit(color, spot.x, y)
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
        canvas.line(*ends, 0.22 * view.f / spot.x, canvas.lit(thing.color, spot.x, spot.y), POLE)


def bridge(canvas: Canvas, thing: Thing, spot: Spot) -> None:
    """An overpass: deck from side to side with its piers."""
    view, x = canvas.view, spot.x
    depth, _, height = thing.size_m
    z = spot.z + 5.2
    under = [view.uv(x, 80, z), view.uv(x, -80, z), view.uv(x + depth, -80, z), view.uv(x + depth, 80, z)]
    canvas.polygon(under, canvas.lit(thing.color, x, 0, 0.25), BRIDGE)
    deck = [view.uv(x, 80, z), view.uv(x, -80, z), view.uv(x, -80, z + height), view.uv(x, 80, z + height)]
    canvas.polygon(deck, canvas.lit(thing.color, x, 0, 0.8), BRIDGE)
    canvas.line(deck[3], deck[2], 0.25 * view.f / x, canvas.lit(thing.color, x, 0, 1.1), BRIDGE)
    dark = (thing.color[0] * 0.7, thing.color[1] * 0.7, thing.color[2] * 0.7)
    for d in (view.road.outer_left_d + 1.2, view.road.outer_right_d - 1.2):
        pole(canvas, spot, spot.y + d * math.cos(spot.bearing), 5.4, 1.1, dark)
