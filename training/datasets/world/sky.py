"""What closes the view: sky and clouds, hills, tree lines and towns along the horizon."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world import textures
from training.datasets.world.canvas import BUILDING, VEGETATION, Canvas, fixed
from training.datasets.world.dice import Dice

U8 = npt.NDArray[np.uint8]


def sky(canvas: Canvas, rng: Dice) -> None:
    """Gradient and clouds down to the horizon."""
    view, look = canvas.view, canvas.look
    height, width = view.horizon + 2, canvas.image.shape[1]
    t = np.maximum((np.arange(height) - (view.horizon - 0.6 * view.f)) / (0.6 * view.f), 0)[:, None] ** 0.8
    np.minimum(t, 1, out=t)
    column = (np.array(look.sky_top) * (1 - t) + np.array(look.sky_low) * t).astype(np.float32)
    shift = rng.generator.integers(0, 256, 2)
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
        color = np.array(canvas.lit(base, distance, 0, 0.8))
        start = int(view.heading * view.f) + phase
        clear = math.exp(-distance / look.visibility_m)
        gain = _band(kind == "trees", mask.shape[0], width, start % 512)
        k = clear * (0.8 if kind == "trees" else 0.5) / 128
        tint = np.column_stack([np.outer(color, (k / 3,) * 3), color * (1 - 128 * k)])
        layer = cv2.transform(gain, tint)
        cv2.copyTo(layer, mask, canvas.image[low : view.horizon + 2])
        canvas.owner[low : view.horizon + 2][mask > 0] = VEGETATION if kind != "town" else BUILDING
