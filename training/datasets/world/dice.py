"""Quick weighted choice; ``Generator.choice`` costs more than the rest of a small scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def pick(rng: np.random.Generator, items: Sequence[T], odds: Sequence[float] | None = None) -> T:
    """One of ``items``, with probability proportional to ``odds`` (all alike without)."""
    if odds is None:
        return items[min(int(rng.random() * len(items)), len(items) - 1)]
    left = rng.random() * sum(odds)
    for item, share in zip(items, odds, strict=True):
        left -= share
        if left < 0:
            return item
    return items[-1]


def clamp(value: float, low: float, high: float) -> float:
    """``value`` kept within ``low..high``."""
    return min(max(float(value), low), high)
