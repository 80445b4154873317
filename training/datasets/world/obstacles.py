"""Sprites of static obstacles: cones, barriers, debris, fallen trees, road works."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.canvas import Mips
from training.datasets.world.sprites import _rng, _shade, mips

U8 = npt.NDArray[np.uint8]
# class -> (width_m, height_m) of the whole sprite
SIZE_M = {"cone": (0.42, 0.75), "barrier": (2.2, 1.0), "debris": (0.9, 0.4), "fallen_tree": (6.5, 1.4), "works": (2.6, 2.4)}
VARIANTS = {"cone": 4, "barrier": 6, "debris": 8, "fallen_tree": 4, "works": 5}


def _poly(picture: U8, points: Sequence[tuple[float, float]], color: tuple[float, ...]) -> None:
    cv2.fillPoly(picture, [np.round(np.array(points) * 8).astype(np.int32)], (*color, 255), cv2.LINE_AA, 3)


def _stripes(picture: U8, x0: int, y0: int, x1: int, y1: int, a: tuple[float, ...], b: tuple[float, ...], step: int = 18) -> None:
    """A board with slanted stripes."""
    cv2.rectangle(picture, (x0, y0), (x1, y1), (*a, 255), -1)
    board = picture[y0 : y1 + 1, x0 : x1 + 1]
    for x in range(-(y1 - y0), x1 - x0 + step, 2 * step):
        h = y1 - y0 + 1
        cv2.fillConvexPoly(
            board, np.array([(x, h), (x + step, h), (x + step + h, 0), (x + h, 0)], np.int32), (*b, 255), cv2.LINE_AA
        )


@lru_cache(maxsize=64)
def obstacle(kind: str, index: int) -> Mips:
    """Sprite of one obstacle class; ``index`` below ``VARIANTS[kind]``."""
    rng = _rng(5 + list(SIZE_M).index(kind), index)
    white, red, orange = (235.0, 238.0, 240.0), (35.0, 30.0, 205.0), (20.0, 105.0, 245.0)
    if kind == "cone":
        picture = np.zeros((96, 56, 4), np.uint8)
        body = orange if index % 2 == 0 else (30.0, 45.0, 225.0)
        _poly(picture, [(2, 95), (2, 87), (54, 87), (54, 95)], (40, 45, 60) if index % 2 else body)
        _poly(picture, [(10, 88), (24, 4), (32, 4), (46, 88)], body)
        for y0, y1 in ((26, 44), (58, 70)) if index < 2 else ((32, 54),):
            inset = [(28 - 4 - 0.166 * (y - 4), y) for y in (y0, y1)] + [(28 + 4 + 0.166 * (y - 4), y) for y in (y1, y0)]
            _poly(picture, inset, white)
    elif kind == "barrier":
        picture = np.zeros((100, 220, 4), np.uint8)
        if index % 3 == 2:  # concrete or plastic block
            block = (165.0, 170.0, 172.0) if index == 2 else (30.0, 60.0, 220.0) if rng.random() < 0.5 else white
            _poly(picture, [(4, 99), (4, 74), (18, 58), (22, 12), (198, 12), (202, 58), (216, 74), (216, 99)], block)
        else:
            dark = red if index % 2 else orange
            for x in (24, 196):
                _poly(picture, [(x - 5, 99), (x - 5, 10), (x + 5, 10), (x + 5, 99)], (120, 122, 125))
                _poly(picture, [(x - 16, 99), (x - 16, 93), (x + 16, 93), (x + 16, 99)], (90, 92, 95))
            _stripes(picture, 4, 12, 216, 40, white, dark, 20)
            if index % 2 == 0:
                _stripes(picture, 4, 54, 216, 76, white, dark, 20)
    elif kind == "debris":
        picture = np.zeros((64, 140, 4), np.uint8)
        color = tuple(float(c) for c in rng.uniform(25, 190, 3))
        if index % 4 == 0:  # tyre or its tread
            cv2.ellipse(picture, (70, 46), (56, 17), 0, 0, 360, (32, 32, 34, 255), -1, cv2.LINE_AA)
            cv2.ellipse(picture, (70, 42), (28, 7), 0, 0, 360, (70, 70, 72, 255), -1, cv2.LINE_AA)
        elif index % 4 == 1:  # box
            cardboard = (95.0, 140.0, 175.0)
            _poly(picture, [(22, 63), (22, 18), (88, 12), (88, 63)], cardboard)
            _poly(picture, [(88, 63), (88, 12), (120, 20), (120, 58)], tuple(c * 0.7 for c in cardboard))
        else:
            for _ in range(5):
                cx, cy = rng.uniform(20, 115), rng.uniform(38, 58)
                points = [(cx + rng.normal(0, 17), min(cy + rng.normal(0, 9), 62)) for _ in range(5)]
                hull = cv2.convexHull(np.array(points, np.float32)).reshape(-1, 2)
                _poly(picture, [tuple(p) for p in hull], tuple(c * rng.uniform(0.6, 1.3) for c in color))
    elif kind == "fallen_tree":
        picture = np.zeros((96, 448, 4), np.uint8)
        bark = (52.0, 66.0, 82.0)
        _poly(picture, [(4, 92), (6, 68), (300, 76), (440, 82), (440, 88), (300, 92)], bark)
        for depth in range(420):
            shade = (0.45 + 0.5 * depth / 420) * rng.uniform(0.7, 1.3)
            center = (int(rng.uniform(140, 440)), int(max(90 - abs(rng.normal(0, 26)), 8)))
            axes, turn = (int(rng.uniform(2, 8)), int(rng.uniform(2, 5))), float(rng.uniform(0, 180))
            cv2.ellipse(picture, center, axes, turn, 0, 360, (38 * shade, 84 * shade, 66 * shade, 255), -1)
        for _ in range(16):
            foot = int(rng.uniform(20, 420))
            tip = (int(foot + rng.normal(0, 30)), int(rng.uniform(5, 60)))
            cv2.line(picture, (foot, 82), tip, (*bark, 255), 3, cv2.LINE_AA)
        cv2.circle(picture, (8, 80), 12, (110, 150, 180, 255), -1, cv2.LINE_AA)
    else:
        picture = _works(rng, index, white, red, orange)
    return mips(_shade(picture, rng))


def _works(
    rng: np.random.Generator, index: int, white: tuple[float, ...], red: tuple[float, ...], orange: tuple[float, ...]
) -> U8:
    """Road works: a digger, or a trailer with an arrow board."""
    picture = np.zeros((220, 240, 4), np.uint8)
    yellow = (25.0, 170.0, 235.0) if index % 2 else (20.0, 130.0, 240.0)
    if index < 3:
        _poly(picture, [(20, 218), (12, 200), (20, 184), (190, 184), (200, 200), (190, 218)], (45, 45, 48))
        _poly(picture, [(30, 184), (30, 130), (180, 130), (188, 184)], yellow)
        _poly(picture, [(50, 130), (56, 60), (116, 60), (120, 130)], yellow)
        _poly(picture, [(60, 122), (64, 70), (108, 70), (110, 122)], (90, 75, 60))
        cv2.polylines(picture, [np.array([(130, 130), (175, 30), (222, 90)], np.int32)], False, (*yellow, 255), 14, cv2.LINE_AA)
        _poly(picture, [(205, 85), (238, 95), (230, 130), (200, 120)], (60, 62, 66))
    else:
        _poly(picture, [(30, 200), (30, 186), (210, 186), (210, 200)], (70, 72, 75))
        for x in (64, 176):
            cv2.circle(picture, (x, 200), 17, (30, 30, 32, 255), -1, cv2.LINE_AA)
        _poly(picture, [(24, 186), (24, 10), (216, 10), (216, 186)], (40, 40, 42) if index == 3 else yellow)
        arrow = [(180, 60), (110, 60), (110, 36), (52, 78), (110, 120), (110, 96), (180, 96)]
        _poly(picture, arrow if rng.random() < 0.5 else [(240 - x, y) for x, y in arrow], (40, 190, 250) if index == 3 else white)
        _stripes(picture, 24, 140, 216, 172, white, red)
    return picture
