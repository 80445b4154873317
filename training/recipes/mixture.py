"""`Mixture`: example number e of a run, as a pure function of e.

Pools take turns in blocks of `BLOCK` examples: in each block every pool has its share to the nearest example, in a random order
of its own. How many examples a pool gave before number e is therefore known without counting, and so is which of its pictures is
next: each pool is gone through in a new random order every time (the driving world in the order of its seeds, which never ends).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from training.recipes.conversation import Conversation
from training.recipes.domains import Workshop
from training.recipes.pools import Pool, WorldSamples
from training.recipes.variation import varied
from training.samples import Sample

BLOCK = 1000
TRIES = 32  # pictures without an example for the domain (or broken ones) that are passed over in a row before a run gives up


class Mixture:
    """The examples of a run, or of its validation.

    Args:
        pools: with weights that sum to 1.
        workshop: makes their recipes.
        size_wh: at which the world renders, pixels.
        seed: of all orders.
        shuffle: False: pictures in the order of their data sets.
        vary: strength of `varied` for driving scenes that are not drawn.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        workshop: Workshop,
        size_wh: tuple[int, int],
        seed: int,
        shuffle: bool = True,
        vary: float = 0.0,
    ) -> None:
        self.pools, self.seed, self.shuffle, self.vary = list(pools), seed, shuffle, vary
        self._samples = [pool.open(size_wh) for pool in pools]
        self._recipes = [workshop.recipe(pool.domain) for pool in pools]
        self._counts = shares([pool.weight for pool in pools])
        self._told: set[tuple[int, int]] = set()
        self._block = lru_cache(maxsize=2)(self._drawn_block)
        self._order = lru_cache(maxsize=2 * len(self.pools))(self._drawn_order)

    @property
    def sizes(self) -> list[int]:
        """Number of pictures in each pool."""
        return [len(samples) for samples in self._samples]

    def place(self, number: int) -> tuple[int, int]:
        """Pool of an example, and how many examples that pool has given before."""
        block, at = divmod(number, BLOCK)
        order = self._block(block)
        pool = int(order[at])
        return pool, block * int(self._counts[pool]) + int((order[:at] == pool).sum())

    def conversation(self, number: int, rng: np.random.Generator) -> Conversation:
        """Example ``number``; ``rng`` makes the draws within it.

        A picture that has nothing for the domain, or a broken one (named on stderr, once), is passed over for the next.

        Raises:
            InputError: `TRIES` pictures in a row gave nothing.
        """
        pool, visit = self.place(number)
        problem = "nothing in them for this domain"
        for attempt in range(TRIES):
            index = self._index(pool, visit + attempt)
            try:
                found = self._recipes[pool](self._sample(pool, index, rng), rng)
            except InputError as error:
                problem = str(error)
                if (pool, index) not in self._told:
                    self._told.add((pool, index))
                    print(f"{self.pools[pool].name}: picture {index} is left out: {error}", file=sys.stderr)
                continue
            if found is not None:
                return found
        raise InputError(f"--data {self.pools[pool].name}: {TRIES} pictures in a row gave no example; the last: {problem}")

    def _sample(self, pool: int, index: int, rng: np.random.Generator) -> Sample:
        sample = self._samples[pool][index]
        if self.vary and self.pools[pool].domain == "driving" and not isinstance(self._samples[pool], WorldSamples):
            return varied(sample, self.vary, rng)
        return sample

    def _index(self, pool: int, visit: int) -> int:
        samples = self._samples[pool]
        epoch, at = divmod(visit, len(samples))
        if not self.shuffle or isinstance(samples, WorldSamples):
            return at
        return int(self._order(pool, epoch)[at])

    def _drawn_block(self, block: int) -> npt.NDArray[np.int64]:
        order = np.repeat(np.arange(len(self.pools)), self._counts)
        return order if len(self.pools) == 1 else np.random.default_rng((self.seed, 1, block)).permutation(order)

    def _drawn_order(self, pool: int, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self.seed, 2, pool, epoch)).permutation(len(self._samples[pool]))


def shares(weights: Sequence[float]) -> npt.NDArray[np.int64]:
    """``(N,)`` whole numbers that sum to `BLOCK`, in proportion to weights (largest remainders), none below 1."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * BLOCK
    counts = np.maximum(np.floor(exact), 1).astype(np.int64)
    for index in np.argsort(-(exact - counts), kind="stable").tolist():
        if counts.sum() < BLOCK:
            counts[index] += 1
    while counts.sum() > BLOCK:
        counts[int(counts.argmax())] -= 1
    return counts
