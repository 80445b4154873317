"""Random scenes for the token tests."""

from __future__ import annotations

import numpy as np

from getok_drive.tokens.vocab import BOX_CLASSES, LANE_COLORS, LANE_TYPES, SIGN_CLASSES, SIGN_COLORS
from getok_drive.types import Box, DrivableArea, Lane, Sign

Scene = tuple[list[Lane], list[DrivableArea], list[Box], list[Sign]]


def random_scene(rng: np.random.Generator, size_wh: tuple[int, int], margin: float = 0.1) -> Scene:
    """A scene with every kind of element, partly outside the image by up to ``margin`` of its size."""
    size = np.array(size_wh, dtype=np.float64)

    def points(count: int) -> np.ndarray:
        return rng.uniform(-margin, 1 + margin, (count, 2)) * size

    lanes = []
    for _ in range(rng.integers(0, 5)):
        ends, bend = points(2), rng.normal(0, 0.1) * size[0]
        t = np.linspace(0, 1, int(rng.integers(2, 40)))[:, None]
        line = ends[0] * (1 - t) + ends[1] * t
        line[:, 0] += bend * (t * (1 - t))[:, 0]
        lanes.append(Lane(line, str(rng.choice(LANE_TYPES)), str(rng.choice(LANE_COLORS))))
    drivable = []
    for _ in range(rng.integers(0, 3)):
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 60))))
        radius = rng.uniform(0.05, 0.5, (len(angles), 1))
        drivable.append(DrivableArea((rng.uniform(0.2, 0.8, 2) + radius * np.stack([np.cos(angles), np.sin(angles)], 1)) * size))
    boxes = []
    for _ in range(rng.integers(0, 8)):
        low = points(1)[0]
        high = low + np.maximum(rng.exponential(0.1, 2) * size, 0.01)
        boxes.append(Box(np.concatenate([low, high]), str(rng.choice(BOX_CLASSES))))
    signs = [Sign(p, str(rng.choice(SIGN_CLASSES)), str(rng.choice(SIGN_COLORS))) for p in points(int(rng.integers(0, 6)))]
    return lanes, drivable, boxes, signs
