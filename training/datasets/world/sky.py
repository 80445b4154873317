"""What closes the view: sky and clouds, hills, tree lines and towns along the horizon."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world import textures
from training.datasets.world.canvas import BUILDING, VEGETATION, Canvas
from training.datasets.world.dice import Dice
from training.datasets.world.kernels import scenery as kernel

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


def backdrop(canvas: Canvas, layers: list[tuple[str, float, float, int]]) -> None:
    """Hills and tree lines along the horizon: ``(kind, height_rad, distance_m, phase)``, far to near."""
    view, look = canvas.view, canvas.look
    width = canvas.image.shape[1]
    columns = np.arange(width, dtype=np.float64)
    u = np.arange(0, width + 3, 3)
    turn = (view.heading + np.arctan2(view.cx - u, view.f)) * (4096 / (2 * np.pi))
    noise = textures.skyline_noise()
    for kind, height, distance, phase in layers:
        at = turn * (1 if kind == "hill" else 3) + phase
        rise = kernel.periodic(noise, at)
        if kind != "hill":
            rise = 0.5 * rise + 0.25 * np.abs(kernel.periodic(noise, np.mod(at, 4096) * 7)) + 0.4
        top = view.horizon + 1 - view.f * height * np.clip(0.55 + 0.35 * rise, 0.03, 2.5)
        base = {"hill": look.materials["dry" if phase % 2 else "grass"], "trees": (42, 68, 56), "town": (120, 125, 132)}[kind]
        color = np.array(canvas.lit(base, distance, 0, 0.8))
        k = math.exp(-distance / look.visibility_m) * (0.8 if kind == "trees" else 0.5) / 128
        kernel.horizon(
            canvas.image, canvas.owner, textures.foliage() if kind == "trees" else textures.terrain(), np.interp(columns, u, top),
            view.horizon + 2, int(view.heading * view.f) + phase, color * k, color * (1 - 128 * k),
            BUILDING if kind == "town" else VEGETATION,
        )  # fmt: skip
