"""Faces of traffic signs and lights, and what each is called.

Colours follow the eye: the colour that fills the face, except that a yield sign and a prohibition count as red (their border is
what one sees), and a speed limit as white. A traffic light's colour is that of the lit lamp.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.canvas import Mips
from training.datasets.world.sprites import _rng, mips

U8 = npt.NDArray[np.uint8]
Bgr = tuple[float, float, float]
# (class, color) -> (width_m, height_m) of the face
FACES: dict[tuple[str, str], tuple[float, float]] = {
    ("stop", "red"): (0.8, 0.8), ("yield", "red"): (0.9, 0.8), ("speed_limit", "white"): (0.75, 0.75),
    ("prohibition", "red"): (0.7, 0.7), ("warning", "yellow"): (0.95, 0.95), ("warning", "white"): (0.9, 0.8),
    ("warning", "orange"): (1.05, 1.05), ("mandatory", "blue"): (0.7, 0.7), ("direction", "green"): (3.4, 2.0),
    ("direction", "blue"): (3.2, 1.9), ("direction", "white"): (1.5, 0.5), ("crosswalk", "blue"): (0.7, 0.7),
    ("crosswalk", "yellow"): (0.9, 0.9), ("traffic_light", "red"): (0.42, 1.1), ("traffic_light", "yellow"): (0.42, 1.1),
    ("traffic_light", "green"): (0.42, 1.1),
}  # fmt: skip
ODDS = dict(zip(FACES, (6, 6, 14, 8, 8, 6, 4, 7, 7, 4, 3, 6, 3, 12, 3, 11), strict=True))
VARIANTS = 6
WHITE, RED, BLACK = (240.0, 242.0, 242.0), (38.0, 30.0, 200.0), (28.0, 26.0, 26.0)
YELLOW, ORANGE, BLUE, GREEN = (20.0, 190.0, 245.0), (15.0, 115.0, 245.0), (165.0, 85.0, 20.0), (75.0, 105.0, 10.0)
LAMPS: dict[str, Bgr] = {"red": (50, 50, 255), "yellow": (60, 200, 255), "green": (170, 255, 60)}


def _ngon(count: int, radius: float, turn: float = 0.0, center: tuple[float, float] = (48, 48)) -> npt.NDArray[np.float64]:
    angle = np.arange(count) * 2 * np.pi / count + turn
    return np.column_stack([center[0] + radius * np.sin(angle), center[1] - radius * np.cos(angle)])


def _fill(picture: U8, points: npt.ArrayLike, color: Bgr) -> None:
    cv2.fillPoly(picture, [np.round(np.asarray(points) * 8).astype(np.int32)], (*color, 255), cv2.LINE_AA, 3)


def _disc(picture: U8, radius: float, color: Bgr) -> None:
    _fill(picture, _ngon(40, radius), color)


def _text(picture: U8, text: str, height: float, center: tuple[float, float], color: Bgr) -> None:
    scale = height / 21
    thick = max(int(height / 6), 1)
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    at = (int(center[0] - w / 2), int(center[1] + h / 2))
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (*color, 255), thick, cv2.LINE_AA)


def _symbol(picture: U8, rng: np.random.Generator, center: tuple[float, float], size: float, color: Bgr) -> None:
    """One of a few dark or white symbols: arrow, bend, figure, bar."""
    x, y = center
    which = int(rng.integers(4))
    if which == 0:
        _fill(picture, [(x - 3, y + size), (x - 3, y - size / 3), (x - 9, y - size / 3), (x, y - size), (x + 9, y - size / 3),
                        (x + 3, y - size / 3), (x + 3, y + size)], color)  # fmt: skip
    elif which == 1:
        path = np.array([(x - 6, y + size), (x - 6, y), (x + 6, y - size / 3), (x + 6, y - size)])
        cv2.polylines(picture, [np.round(path * 8).astype(np.int32)], False, (*color, 255), 5, cv2.LINE_AA, 3)
    elif which == 2:
        cv2.circle(picture, (int(x), int(y - size * 0.7)), int(size * 0.28), (*color, 255), -1, cv2.LINE_AA)
        _fill(picture, [(x - 7, y - size * 0.35), (x + 7, y - size * 0.35), (x + 4, y + size), (x - 4, y + size)], color)
    else:
        _fill(picture, [(x - 3.5, y - size), (x + 3.5, y - size), (x + 2.5, y + size * 0.4), (x - 2.5, y + size * 0.4)], color)
        cv2.circle(picture, (int(x), int(y + size * 0.8)), 3, (*color, 255), -1, cv2.LINE_AA)


@lru_cache(maxsize=128)
def face(name: str, color: str, index: int) -> Mips:
    """Sprite of a sign's face; ``index`` below `VARIANTS`."""
    rng = _rng(50 + list(FACES).index((name, color)), index)
    if name == "traffic_light":
        return _light(rng, color)
    if name == "direction":
        return _board(rng, name, color)
    picture = np.zeros((96, 96, 4), np.uint8)
    if name == "stop":
        _fill(picture, _ngon(8, 47, np.pi / 8), WHITE)
        _fill(picture, _ngon(8, 43, np.pi / 8), RED)
        _text(picture, "STOP", 21, (48, 48), WHITE)
    elif name == "yield" or (name, color) == ("warning", "white"):
        turn = np.pi if name == "yield" else 0.0
        middle = (48.0, 34.0 if turn else 62.0)
        _fill(picture, _ngon(3, 54, turn, middle), RED)
        _fill(picture, _ngon(3, 36, turn, middle), WHITE if index % 3 else YELLOW if name == "warning" else WHITE)
        if name == "warning":
            _symbol(picture, rng, (48, 62), 15, BLACK)
    elif name == "speed_limit":
        number = str(rng.choice(["30", "50", "60", "70", "80", "90", "100", "120", "25", "45"]))
        if index % 3 == 2:
            _fill(picture, [(12, 2), (84, 2), (84, 94), (12, 94)], WHITE)
            cv2.rectangle(picture, (16, 6), (80, 90), (*BLACK, 255), 2, cv2.LINE_AA)
            _text(picture, "LIMIT", 11, (48, 24), BLACK)
            _text(picture, number[:2], 34, (48, 62), BLACK)
        else:
            _disc(picture, 47, RED)
            _disc(picture, 36, WHITE)
            _text(picture, number, 28 if len(number) == 2 else 21, (48, 48), BLACK)
    elif name == "prohibition":
        _disc(picture, 47, RED)
        if index % 3 == 0:
            _fill(picture, [(16, 40), (80, 40), (80, 56), (16, 56)], WHITE)
        else:
            _disc(picture, 36, WHITE if index % 3 == 1 else BLUE)
            if index % 3 == 1:
                _symbol(picture, rng, (48, 48), 20, BLACK)
            _fill(picture, [(18, 24), (25, 17), (78, 71), (71, 78)], RED)
    elif name == "warning" or (name, color) == ("crosswalk", "yellow"):
        _fill(picture, _ngon(4, 47), BLACK)
        _fill(picture, _ngon(4, 44), ORANGE if color == "orange" else YELLOW)
        _symbol(picture, _rng(2, 2) if name == "crosswalk" else rng, (48, 48), 20, BLACK)
    elif name == "mandatory":
        _disc(picture, 47, WHITE)
        _disc(picture, 44, BLUE)
        _symbol(picture, rng, (48, 48), 24, WHITE)
    else:  # crosswalk, blue
        _fill(picture, [(2, 2), (94, 2), (94, 94), (2, 94)], BLUE)
        _fill(picture, _ngon(3, 44, 0.0, (48.0, 56.0)), WHITE)
        _symbol(picture, _rng(2, 2), (48, 58), 15, BLACK)
    return mips(picture)


def _light(rng: np.random.Generator, color: str) -> Mips:
    picture = np.zeros((126, 48, 4), np.uint8)
    housing: Bgr = BLACK if rng.random() < 0.75 else (25.0, 150.0, 200.0)
    if rng.random() < 0.4:
        _fill(picture, [(0, 0), (47, 0), (47, 125), (0, 125)], (18, 18, 18))
    _fill(picture, [(7, 3), (41, 3), (41, 123), (7, 123)], housing)
    for row, name in enumerate(("red", "yellow", "green")):
        lamp = LAMPS[name]
        shade = lamp if name == color else tuple(c * 0.16 + 14 for c in lamp)
        cv2.circle(picture, (24, 23 + 40 * row), 15, (*shade, 255), -1, cv2.LINE_AA)
        if name == color:
            cv2.circle(picture, (24, 23 + 40 * row), 8, (*(min(c * 0.5 + 128, 255.0) for c in lamp), 255), -1, cv2.LINE_AA)
    return mips(picture)


def _board(rng: np.random.Generator, name: str, color: str) -> Mips:
    width, height = FACES[(name, color)]
    w, h = int(96 * width / height), 96
    picture = np.zeros((h, w, 4), np.uint8)
    ground = {"green": GREEN, "blue": BLUE, "white": WHITE}[color]
    ink = BLACK if color == "white" else WHITE
    picture[:] = (*ink, 255)
    cv2.rectangle(picture, (3, 3), (w - 4, h - 4), (*ground, 255), -1)
    rows = 1 if color == "white" else 3
    for row in range(rows):
        y = int((row + 0.5) / rows * (h - 16)) + 10
        x = 14
        while x < w - 40 and rng.random() < 0.85:
            length = int(rng.integers(8, 34))
            cv2.rectangle(picture, (x, y - 6), (min(x + length, w - 34), y + 6), (*ink, 255), -1)
            x += length + 6
    _fill(picture, np.array([(-4, 16), (-4, 0), (-12, 0), (0, -16), (12, 0), (4, 0), (4, 16)]) + np.array((w - 20, h / 2)), ink)
    picture[..., :3] = np.where(rng.random((h, w, 1)) < 0.0, 0, picture[..., :3])
    return mips(picture)
