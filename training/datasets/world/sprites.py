"""Upright pictures drawn once per process: trees, people, riders, obstacles; with mip levels, all deterministic."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world import textures
from training.datasets.world.canvas import Mips
from training.datasets.world.dice import pick
from training.datasets.world.kernels import sprite as kernel

U8 = npt.NDArray[np.uint8]
Bgr = tuple[float, float, float]
TREES, BUSHES, PEOPLE, RIDERS = 14, 6, 36, 24


def mips(picture: U8) -> Mips:
    """Levels of a BGRA picture; colour is weighted by its cover, so edges do not darken, and bleeds into what is transparent."""
    levels: Mips = []
    color, cover = kernel.weighted(picture)
    while True:
        levels.append(kernel.level(color, cover))
        if min(cover.shape) <= 8:
            return levels
        size = (cover.shape[1] // 2, cover.shape[0] // 2)
        color, cover = (cv2.resize(layer, size, interpolation=cv2.INTER_AREA) for layer in (color, cover))


def _rng(kind: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([kind, index]))


@lru_cache(maxsize=64)
def tree(index: int) -> Mips:
    """A tree of 192x256 px: trunk, branches and clumps of lit leaves; every fifth a conifer, every seventh bare."""
    rng = _rng(1, index)
    w, h = 192, 256
    picture = np.zeros((h, w, 4), np.uint8)
    bark = tuple(float(c) for c in rng.uniform(35, 70) * np.array([0.9, 1.0, 1.1]))
    conifer, bare = index % 5 == 4, index % 7 == 6
    cv2.line(picture, (w // 2, h), (w // 2 + int(rng.normal(0, 6)), h // 3), (*bark, 255), int(rng.integers(4, 9)), cv2.LINE_AA)
    for _ in range(26 if bare else 7):
        y = rng.uniform(0.3, 0.75) * h
        tip = (w / 2 + rng.normal(0, 42), y - rng.uniform(25, 85))
        cv2.line(picture, (w // 2, int(y)), (int(tip[0]), int(tip[1])), (*bark, 255), int(rng.integers(1, 4)), cv2.LINE_AA)
    if bare:
        for _ in range(150):
            x, y = rng.normal(w / 2, 36), rng.uniform(0.05, 0.55) * h
            cv2.line(
                picture, (int(x), int(y)), (int(x + rng.normal(0, 12)), int(y - rng.uniform(4, 22))), (*bark, 200), 1, cv2.LINE_AA
            )
        return mips(picture)
    mask, light = np.zeros((h, w), np.uint8), np.full((h, w), 0.45, np.float32)
    spots = []
    for _ in range(420):  # boughs from the back, dark, to the front, lit from above
        if conifer:
            y = rng.uniform(0.02, 0.92)
            spots.append((0.5 + rng.normal(0, 0.15) * y, y, rng.uniform(2, 7)))
        else:
            angle, r = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
            bulge = 1 + 0.22 * np.sin(3 * angle + index) + 0.12 * np.sin(7 * angle)
            spots.append((0.5 + 0.38 * r * bulge * np.cos(angle), 0.38 + 0.3 * r * bulge * np.sin(angle), rng.uniform(2.5, 8)))
    for depth, (x, y, radius) in enumerate(spots):
        center = (int(x * w), int(y * h))
        cv2.ellipse(mask, center, (int(radius * 1.15), int(radius * 0.8)), float(rng.uniform(-40, 40)), 0, 360, 255, -1)
        shade = 0.42 + 0.45 * depth / len(spots) + 0.35 * (0.55 - y) + 0.2 * rng.random()
        cv2.ellipse(light, center, (int(radius * 1.15), int(radius * 0.8)), 0.0, 0, 360, float(shade), -1)
    leaves = textures.foliage()[:h, :w][:: pick(rng, (-1, 1)), :: pick(rng, (-1, 1))].astype(np.float32) / 128
    fine = np.roll(textures.fractal(12, 0.15), 61 * index, 1)[:h, :w]
    mask[(fine > 1.1) & (cv2.blur(mask, (15, 15)) < 225)] = 0  # ragged rim
    mask[np.roll(fine, 40, 0) > 2.1] = 0  # sky between the leaves
    hue = np.array([38.0, 78.0, 64.0]) * rng.uniform(0.75, 1.2) + rng.normal(0, (5, 6, 12))
    color = np.clip(hue * (cv2.GaussianBlur(light, (3, 3), 0) * (0.35 + 0.65 * leaves) * (1 + 0.12 * fine))[..., None], 0, 255)
    picture[mask > 0, :3] = color[mask > 0].astype(np.uint8)
    picture[mask > 0, 3] = 255
    return mips(picture)


@lru_cache(maxsize=16)
def bush(index: int) -> Mips:
    """A bush or a piece of hedge, 128x80 px."""
    rng = _rng(2, index)
    w, h = 128, 80
    mask = np.zeros((h, w), np.uint8)
    light = np.zeros((h, w), np.float32)
    for depth in range(150):
        x, y, radius = rng.normal(w / 2, w * 0.19), h - abs(rng.normal(0, h * 0.36)), rng.uniform(3, 8)
        y = max(y, radius + 2)
        cv2.circle(mask, (int(x), int(y)), int(radius), 255, -1)
        cv2.circle(
            light, (int(x), int(y)), int(radius), float(0.5 + 0.4 * depth / 150 + 0.4 * (0.7 - y / h) + 0.2 * rng.random()), -1
        )
    leaves = 0.35 + 0.65 * np.roll(textures.foliage(), 37 * index, 1)[:h, :w].astype(np.float32) / 128
    hue = np.array([38.0, 80.0, 68.0]) * rng.uniform(0.8, 1.25) + rng.normal(0, (5, 6, 14))
    picture = np.zeros((h, w, 4), np.uint8)
    picture[..., :3] = np.clip(hue * (cv2.GaussianBlur(light, (5, 5), 0) * leaves)[..., None], 0, 255).astype(np.uint8)
    picture[..., 3] = mask
    return mips(picture)


_CLOTHS = ((35, 35, 38), (55, 50, 48), (85, 60, 45), (110, 75, 50), (75, 75, 78), (120, 118, 115), (205, 205, 205), (50, 70, 95),
           (45, 45, 150), (60, 95, 75), (130, 165, 190), (150, 110, 70), (40, 150, 200))  # fmt: skip


def _cloth(rng: np.random.Generator) -> Bgr:
    gain = float(rng.uniform(0.7, 1.15))
    return tuple(min(c * gain, 250.0) for c in pick(rng, _CLOTHS))  # type: ignore[return-value]


def _limb(picture: U8, points: list[tuple[float, float]], color: Bgr, width: float) -> None:
    path = np.round(np.array(points) * 8).astype(np.int32)
    cv2.polylines(picture, [path], False, (*color, 255), max(int(width), 1), cv2.LINE_AA, 3)


def _shade(picture: U8, rng: np.random.Generator) -> U8:
    """Light from one side and above, with a little noise, so that flat fills get a body."""
    h, w = picture.shape[:2]
    side = np.linspace(1.12, 0.84, w)[:: pick(rng, (-1, 1))][None, :, None]
    down = np.linspace(1.08, 0.88, h)[:, None, None]
    rough = 1 + 0.08 * textures.fractal(9, 0.7)[:h, :w, None]
    picture[..., :3] = np.clip(picture[..., :3] * side * down * rough, 0, 255).astype(np.uint8)
    return picture


@lru_cache(maxsize=64)
def person(index: int) -> Mips:
    """A standing or walking person, 80x160 px, feet on the lower edge."""
    rng = _rng(3, index)
    picture = np.zeros((160, 80, 4), np.uint8)
    skin = tuple(float(c) for c in rng.uniform(0.45, 1.0) * np.array([140, 170, 215]))
    coat, legs, shoe = _cloth(rng), _cloth(rng), (30.0, 30.0, 35.0)
    stride = float(rng.uniform(0, 18)) if index % 3 else 4.0
    hip, neck = 84.0, 34.0
    for sign in (-1, 1):
        foot = 40 + sign * (stride + 3)
        _limb(picture, [(40 + sign * 4, hip), (40 + sign * stride * 0.6 + 2, 120), (foot, 153)], legs, 11)
        _limb(picture, [(foot, 156), (foot + 5 * (1 if index % 2 else -1), 156)], shoe, 7)
    long_coat = rng.random() < 0.3
    hem = hip + (24 if long_coat else 6)
    torso = np.array([(29, neck + 2), (51, neck + 2), (53, hem), (27, hem)])
    cv2.fillConvexPoly(picture, np.round(torso * 8).astype(np.int32), (*coat, 255), cv2.LINE_AA, 3)
    swing = stride * 0.7
    for sign in (-1, 1):
        _limb(picture, [(40 + sign * 12, neck + 6), (40 + sign * (14 + swing * 0.3), 62), (40 + sign * (12 + swing), 84)],
              tuple(c * 0.88 for c in coat), 8)  # type: ignore[arg-type]  # fmt: skip
    if rng.random() < 0.3:
        cv2.ellipse(picture, (40 + int(pick(rng, (-14, 14))), 66), (8, 14), 0, 0, 360, (*_cloth(rng), 255), -1, cv2.LINE_AA)
    cv2.circle(picture, (40, 20), 11, (*skin, 255), -1, cv2.LINE_AA)
    hair = tuple(float(c) for c in rng.uniform(15, 90) * np.array([0.8, 0.95, 1.1]))
    cv2.ellipse(picture, (40, 17), (12, 11), 0, 180, 360, (*hair, 255), -1, cv2.LINE_AA)
    return mips(_shade(picture, rng))


@lru_cache(maxsize=64)
def rider(index: int) -> Mips:
    """A two-wheeler with its rider, 120x160 px; a third seen from the side, the others from behind or the front."""
    rng = _rng(4, index)
    picture = np.zeros((160, 120, 4), np.uint8)
    coat, legs, metal = _cloth(rng), _cloth(rng), _cloth(rng)
    black = (28.0, 28.0, 30.0)
    motor = index % 2 == 0
    skin = (130.0, 160.0, 200.0)
    helmet = _cloth(rng)
    if index % 3 == 0:
        for x in (24, 96):
            cv2.circle(picture, (x, 133), 23, (*black, 255), 8 if motor else 3, cv2.LINE_AA)
        _limb(picture, [(24, 133), (52, 104), (84, 104), (96, 133), (58, 133), (52, 104)], metal, 13 if motor else 4)
        _limb(picture, [(84, 104), (90, 86), (84, 82)], black, 4)
        _limb(picture, [(50, 96), (72, 112), (62, 140)], legs, 11)
        _limb(picture, [(50, 98), (62, 52)], coat, 24)
        _limb(picture, [(62, 58), (74, 78), (88, 84)], coat, 8)
        head = (68, 32)
    else:
        _limb(picture, [(60, 102), (60, 153)], black, 13 if motor else 6)
        if motor:
            cv2.ellipse(picture, (60, 110), (15, 20), 0, 0, 360, (*metal, 255), -1, cv2.LINE_AA)
            lamp = (40.0, 30.0, 210.0) if index % 3 == 1 else (235.0, 240.0, 245.0)
            cv2.circle(picture, (60, 106), 6, (*lamp, 255), -1, cv2.LINE_AA)
            cv2.rectangle(picture, (52, 118), (68, 127), (200, 215, 220, 255), -1)
        _limb(picture, [(38, 84), (82, 84)], black, 4)
        for sign in (-1, 1):
            _limb(picture, [(60 + sign * 8, 92), (60 + sign * 19, 112), (60 + sign * 13, 142)], legs, 12)
            _limb(picture, [(60 + sign * 15, 50), (60 + sign * 26, 68), (60 + sign * 21, 84)], coat, 9)
        torso = np.array([(43, 44), (77, 44), (74, 98), (46, 98)])
        cv2.fillConvexPoly(picture, np.round(torso * 8).astype(np.int32), (*coat, 255), cv2.LINE_AA, 3)
        head = (60, 28)
    cv2.circle(picture, head, 13, (*skin, 255), -1, cv2.LINE_AA)
    if motor or rng.random() < 0.5:
        cv2.ellipse(picture, head, (14, 14), 0, 150, 390, (*helmet, 255), -1, cv2.LINE_AA)
    return mips(_shade(picture, rng))
