"""Random draws one at a time, at a fraction of what ``numpy.random.Generator`` costs for a single number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Single draws from a seeded PCG64 stream: ``uniform`` and ``normal`` give the generator's own bits, but as plain floats
    and without its checks of arguments, which cost more than a small scene's geometry.

    Attributes:
        generator: numpy's generator on the same stream, for arrays.
        random: a float in ``[0, 1)``.
    """

    __slots__ = ("_standard_normal", "generator", "random")

    def __init__(self, *seed: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.random = self.generator.random
        self._standard_normal = self.generator.standard_normal

    def uniform(self, low: float, high: float) -> float:
        """A float in ``[low, high)``."""
        return low + (high - low) * self.random()

    def normal(self, mean: float, deviation: float) -> float:
        """A float from the normal distribution."""
        return mean + deviation * self._standard_normal()

    def exponential(self, mean: float) -> float:
        """A float from the exponential distribution."""
        return mean * self.generator.standard_exponential()

    def poisson(self, mean: float) -> int:
        """A count from the Poisson distribution."""
        return int(self.generator.poisson(mean))

    def integers(self, low: int, high: int | None = None) -> int:
        """An integer in ``[low, high)``, in ``[0, low)`` without ``high``."""
        return int(self.generator.integers(low, high))


def pick(rng: Dice | np.random.Generator, items: Sequence[T], odds: Sequence[float] | None = None) -> T:
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
