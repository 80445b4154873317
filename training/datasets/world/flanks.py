"""Woods and banks along the road: walls of foliage or grass, one column of the picture at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.datasets.world import textures
from training.datasets.world.canvas import VEGETATION, Canvas
from training.datasets.world.dice import Dice, pick
from training.datasets.world.kernels import flanks as kernel
from training.datasets.world.kernels.scenery import periodic
from training.datasets.world.road import Road

F64 = npt.NDArray[np.float64]
_TEXELS_M = 9.0
_AHEAD_M = np.append(np.geomspace(1.0, 60.0, 24), np.arange(64.0, 240.0, 8.0))


@dataclass(slots=True)
class Flank:
    """A row of trees or a slope at offset ``d_m``: ``kind`` ``woods`` or ``bank``, missing where noise is below ``gap``."""

    kind: str
    d_m: float
    height_m: float
    gap: float
    phase: float
    tint: float


def sample(rng: Dice, road: Road) -> list[Flank]:
    """Flanks of a country road or highway, far ones first."""
    found: list[Flank] = []
    if road.kind in ("urban", "residential"):
        return found
    for side in (1.0, -1.0):
        base = abs(road.verge_d(side))
        behind = road.other is not None and road.other[0][1][0] * side > 0
        bank = rng.random() < 0.3
        hedge = not behind and rng.random() < 0.12
        wanted: list[
            tuple[str, float, float, tuple[float, ...], float]
        ] = []  # kind, distance from the verge, height, gap choices, tints
        if hedge:
            wanted.append(("woods", rng.uniform(1.2, 3), rng.uniform(0.8, 2.2), (-3.0, -0.5), rng.uniform(0.8, 1.3)))
        if rng.random() < 0.5:
            setback = rng.uniform(3, 22) + (4.0 if bank else 0.0)
            wanted.append(("woods", setback, rng.uniform(5, 15), (-3.0, -0.6, 0.1), rng.uniform(0.6, 1.15)))
        if bank:
            wanted.append(("bank", rng.uniform(2, 6), rng.uniform(1.0, 6), (-3.0, -0.4), rng.uniform(0.85, 1.1)))
        for kind, distance, height, gaps, tint in wanted:
            found.append(Flank(kind, side * (base + distance), height, pick(rng, gaps), rng.uniform(0, 4096), tint))
    return sorted(found, key=lambda flank: -abs(flank.d_m))


def along(s: F64, metres: float, phase: float) -> F64:
    """Noise over ``s`` with features of about ``metres``."""
    return np.asarray(periodic(textures.skyline_noise(), s * (40.0 / metres) + phase))


def draw(canvas: Canvas, flank: Flank) -> None:
    """Draw one flank from the horizon to the picture's edge; nearer columns hide farther ones."""
    view, look = canvas.view, canvas.look
    width = canvas.image.shape[1]
    s = _AHEAD_M + view.s_m
    s = s[s < view.s_range[1]]
    if len(s) < 4:
        return
    x, y, _ = view.place(s, np.full(len(s), flank.d_m))
    front = x > 1.0
    s, x, y = s[front], x[front], y[front]
    if len(s) < 4:
        return
    u = view.cx - view.f * y / x
    u = np.maximum.accumulate(u) if flank.d_m > 0 else np.minimum.accumulate(u)  # from near to far: what is nearer hides
    low, high = max(int(np.ceil(u.min())), 0), min(int(u.max()), width - 1)
    if high - low < 2:
        return
    order = slice(None) if flank.d_m > 0 else slice(None, None, -1)
    path = (np.ascontiguousarray(part[order]) for part in (u, x, s))
    woods = flank.kind == "woods"
    column_x, base, rise, scale, texels, along_px = kernel.outline(
        textures.skyline_noise(), low, high, *path, view.ground, view.crest, view.eye,
        (flank.height_m, flank.gap, flank.phase, _TEXELS_M), woods,
    )  # fmt: skip
    if woods:
        color = np.array((40.0, 74.0, 62.0)) * flank.tint
    else:
        color = np.array(look.materials["dry" if int(flank.phase) % 2 else "grass"]) * flank.tint
    gain, offset = look.shade(min(float(column_x[len(column_x) // 2]), 90.0), flank.d_m * 0.5)
    kernel.draw(
        canvas.image, canvas.owner, textures.foliage() if woods else textures.terrain(), low, base, rise, scale, texels,
        along_px, woods, color * gain / 128, np.array(offset), VEGETATION,
    )  # fmt: skip
