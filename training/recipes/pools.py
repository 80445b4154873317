"""``--data [DOMAIN=][WEIGHT*]KIND:PATH[#SPLIT]``: the pictures that a run draws from.

``KIND`` is a reader of `training.datasets`, ``world`` (``world:train``, ``world:val``, ``world:FIRST-LAST``), ``world-crowd``
(the same scenes with more of what is rare), ``chat`` (LLaVA's layout) or ``offset`` (JSONL of `training.offset_data`). The
split is ``train`` unless told; validation reads ``val``.

    --domain driving --data 2*world:train --data bdd100k:/data/bdd --data 0.5*tusimple:/data/tusimple
    --domain mix --data referring=referring:/data/refcoco --data generalized=referring:/data/grefcoco --data chat=chat:llava.json
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from getok_drive.errors import ConfigError
from training.datasets import world
from training.recipes.chat import ChatList
from training.recipes.domains import DOMAINS, TABLE_12, WITH_MASKS
from training.recipes.settings import RecipeConfig
from training.samples import Sample
from training.sources import WORLDS

_SPEC = re.compile(r"(?:(?P<domain>[a-z]+)=)?(?:(?P<weight>[0-9.]+)\*)?(?P<kind>[a-z0-9_-]+):(?P<path>[^#]+)(?:#(?P<split>\w+))?")
_WORLD = {"train": world.TRAIN_SEEDS, "val": world.VAL_SEEDS, "test": world.TEST_SEEDS}


@dataclass(frozen=True, slots=True)
class Pool:
    """One entry of ``--data``.

    Attributes:
        domain: whose recipe it feeds.
        weight: among all pools; not negative.
        kind: reader.
        path: its path, or the world's seeds.
        split: of the data set.
    """

    domain: str
    weight: float
    kind: str
    path: str
    split: str = "train"

    @property
    def name(self) -> str:
        """As it is written on the command line."""
        return f"{self.domain}={self.weight:g}*{self.kind}:{self.path}#{self.split}"

    def check(self) -> None:
        """Raise `ConfigError` for an unknown reader, a path that is not there, or seeds that are none; nothing is opened."""
        if self.kind in WORLDS:
            _seeds(self)
        elif not Path(self.path).exists():
            raise ConfigError(f"--data {self.name}: {self.path} does not exist")
        elif self.kind not in ("chat", "offset"):
            reader_of(self)

    def open(self, size_wh: tuple[int, int]) -> Sequence[Sample]:
        """Its pictures, read one at a time; opened once in a process.

        Args:
            size_wh: at which the world renders, pixels.

        Raises:
            ConfigError: no such reader, path or split, or nothing in it.
        """
        return _opened(self, size_wh)


@lru_cache(maxsize=128)
def _opened(pool: Pool, size_wh: tuple[int, int]) -> Sequence[Sample]:
    pool.check()
    if pool.kind in WORLDS:
        return WorldSamples(_seeds(pool), size_wh, pool.domain in WITH_MASKS, pool.kind == "world-crowd")
    path = Path(pool.path)
    samples: Sequence[Sample] = (
        ChatList(path) if pool.kind in ("chat", "offset") else reader_of(pool).open_samples(path, pool.split)
    )
    if not len(samples):
        raise ConfigError(f"--data {pool.name}: no pictures in it")
    return samples


class WorldSamples(Sequence[Sample]):
    """Frames of the driving world by number, rendered when asked for."""

    def __init__(self, seeds: range, size_wh: tuple[int, int], masks: bool, crowded: bool = False) -> None:
        self.seeds, self.size_wh, self.masks, self.crowded = seeds, size_wh, masks, crowded

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return world.render(self.seeds[index], self.size_wh, masks=self.masks, crowded=self.crowded)


def _seeds(pool: Pool) -> range:
    if pool.path in _WORLD:
        return _WORLD[pool.path]
    match = re.fullmatch(r"(\d+)-(\d+)", pool.path)
    if not match or int(match[1]) > int(match[2]):
        raise ConfigError(f"--data {pool.name}: expected {pool.kind}:train, val, test or FIRST-LAST")
    return range(int(match[1]), int(match[2]) + 1)


def reader_of(pool: Pool) -> Any:
    """The module of `training.datasets` that reads a pool; `ConfigError` when there is none."""
    found = importlib.util.find_spec(f"training.datasets.{pool.kind}")
    module = importlib.import_module(f"training.datasets.{pool.kind}") if found else None
    if not hasattr(module, "open_samples"):
        raise ConfigError(f"--data {pool.name}: there is no reader for {pool.kind!r} in training/datasets")
    return module


def parse_pool(text: str, default_domain: str) -> Pool:
    """One ``--data`` value.

    Raises:
        ConfigError: not of the form, an unknown domain, or (for a mixture) none.
    """
    match = _SPEC.fullmatch(text)
    if not match:
        raise ConfigError(f"--data {text}: expected [DOMAIN=][WEIGHT*]KIND:PATH[#SPLIT], e.g. 0.5*tusimple:/data/tusimple")
    domain = match["domain"] or default_domain
    if domain not in DOMAINS:
        raise ConfigError(f"--data {text}: say for which domain it is, e.g. referring={text}; known: {', '.join(DOMAINS)}")
    try:
        weight = float(match["weight"] or 1.0)
    except ValueError:
        raise ConfigError(f"--data {text}: {match['weight']} is not a number") from None
    return Pool(domain, weight, match["kind"], match["path"], match["split"] or "train")


def pools_of(config: RecipeConfig) -> list[Pool]:
    """The pools of a run, with weights that sum to 1.

    In a mixture the weights of one domain's pools share out that domain's weight in table 12 (1 for domains that are not in it).

    Raises:
        ConfigError: no data for a domain that the driving world cannot feed; rows of table 12 without data, unless
            ``allow_absent``; no positive weight.
    """
    mix = config.domain == "mix"
    pools = [parse_pool(text, config.domain) for text in config.data]
    if not mix and config.domain not in DOMAINS:
        raise ConfigError(f"--domain {config.domain}: expected one of {', '.join(DOMAINS)} or mix")
    if not pools and not mix:
        if config.domain not in ("driving", "classification", *WITH_MASKS):
            raise ConfigError(f"--domain {config.domain}: needs --data; the driving world has no phrases")
        pools = [Pool(config.domain, 1.0, "world", "train")]
    if mix:
        pools = _mixed(pools, config.allow_absent)
    total = sum(pool.weight for pool in pools)
    if total <= 0:
        raise ConfigError("--data: at least one weight must be above 0")
    return [replace(pool, weight=pool.weight / total) for pool in pools if pool.weight > 0]


def absent_rows(pools: Sequence[Pool]) -> list[str]:
    """The rows of table 12 that no pool feeds, with the data sets that would."""
    given = {pool.domain for pool in pools}
    return [f"{row.domain} ({row.sets})" for row in TABLE_12 if row.domain not in given]


def _mixed(pools: list[Pool], allow_absent: bool) -> list[Pool]:
    absent = absent_rows(pools)
    if absent and not allow_absent:
        raise ConfigError(
            f"--domain mix: no --data for {'; '.join(absent)}. Give some with DOMAIN=KIND:PATH, or leave them out with "
            "recipe.allow_absent=True"
        )
    weights = {row.domain: row.weight for row in TABLE_12}
    sums: dict[str, float] = {}
    for pool in pools:
        sums[pool.domain] = sums.get(pool.domain, 0.0) + pool.weight
    return [replace(p, weight=weights.get(p.domain, 1.0) * p.weight / sums[p.domain]) for p in pools if sums[p.domain] > 0]


def validation_pools(config: RecipeConfig) -> list[Pool]:
    """The same pools' validation parts (of a crowd the world's own); files of conversations have none."""
    kept = [pool for pool in pools_of(config) if pool.kind not in ("chat", "offset")]
    parts = [replace(p, kind="world", path="val") if p.kind in WORLDS else replace(p, split="val") for p in kept]
    weights: dict[Pool, float] = {}
    for pool in parts:
        alike = replace(pool, weight=0.0)
        weights[alike] = weights.get(alike, 0.0) + pool.weight
    return [replace(pool, weight=weight) for pool, weight in weights.items()]
