"""Labelled data sets by name, for evaluation: ``world:test``, ``world:val``, ``world:FIRST-LAST``, ``KIND:PATH``.

``world-crowd:SEEDS`` are the same scenes with more of what is rare in them.

``world-drive:SEEDS`` (``test``, ``val``, ``SEED`` or ``FIRST-LAST``) are continuous drives through the same worlds, 30 frames at
15 Hz each, ``world-drive:SEEDS:FRAMES`` so many frames each.

``KIND`` is a module of `training.datasets` with ``open_samples(path: Path, split: str) -> Sequence[Sample]``; its samples are
named by ``meta["source"]``.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from getok_drive.errors import ConfigError
from training import datasets
from training.samples import Sample

WORLDS = ("world", "world-crowd")  # still frames; the second with more of what is rare
DRIVE_FRAMES = 30  # of a drive of the world, unless its name says otherwise


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that is read one picture at a time.

    Attributes:
        name: as given on the command line.
        keys: a name for each picture, unique.
        read: the sample at an index.
    """

    name: str
    keys: Sequence[str]
    read: Callable[[int], Sample]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        """Name of the picture at ``index``."""
        return self.keys[index]

    def load(self, index: int) -> Sample:
        """The picture at ``index`` with its labels."""
        return self.read(index)


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """``"448x252"`` as (448, 252).

    Raises:
        ConfigError: another text; ``option`` is named.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ConfigError(f"{option}: expected WIDTHxHEIGHT such as 448x252, got {text!r}")
    return int(match[1]), int(match[2])


def _seeds(name: str, which: str) -> Sequence[int]:
    from training.datasets import world

    named = {"test": world.TEST_SEEDS, "val": world.VAL_SEEDS}
    numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", which)
    if which in named:
        return named[which]
    if numbers:
        return range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1)
    kind = name.partition(":")[0]
    raise ConfigError(f"--dataset {name}: expected {kind}:test, {kind}:val or {kind}:FIRST-LAST")


def _world(name: str, size: str, limit: int | None, masks: bool) -> Source:
    from training.datasets import world

    kind, _, which = name.partition(":")
    size_wh, seeds, crowded = parse_size(size), _seeds(name, which)[:limit], kind == "world-crowd"
    return Source(
        name,
        [f"{kind}:{seed}" for seed in seeds],
        lambda index: world.render(seeds[index], size_wh, masks=masks, crowded=crowded),
    )


def _drives(name: str, which: str, size: str, limit: int | None) -> Source:
    from training.datasets import world

    which, _, count = which.partition(":")
    if count and not (count.isdecimal() and int(count)):
        raise ConfigError(f"--dataset {name}: expected a number of frames after {which}:, got {count!r}")
    size_wh, frames = parse_size(size), int(count or DRIVE_FRAMES)
    places = [(seed, index) for seed in _seeds(name, which) for index in range(frames)][:limit]
    drive = lru_cache(maxsize=2)(lambda seed: world.Drive(seed, size_wh, frames=frames))  # pictures are asked for in order

    def read(number: int) -> Sample:
        seed, index = places[number]
        return drive(seed).frame(index)

    return Source(name, [f"world-drive:{seed}:{index}" for seed, index in places], read)


@cache
def readers() -> tuple[str, ...]:
    """Names of the modules of `training.datasets` that read data sets; the others there are their helpers."""
    names = [module.name for module in pkgutil.iter_modules(datasets.__path__)]
    return tuple(name for name in names if hasattr(importlib.import_module(f"training.datasets.{name}"), "open_samples"))


def open_source(name: str, split: str = "test", size: str = "448x252", limit: int | None = None, masks: bool = False) -> Source:
    """The data set of a name.

    Args:
        name: see the module.
        split: part of a ``KIND:PATH`` data set.
        size: WIDTHxHEIGHT of the world's pictures, pixels.
        limit: only the first N pictures.
        masks: also the world's label pictures (other readers give what they have).

    Raises:
        ConfigError: unknown kind, missing path, empty data set, or a limit below 1.
    """
    kind, _, rest = name.partition(":")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: expected 1 or more, got {limit}")
    if kind in WORLDS:
        source = _world(name, size, limit, masks)
    elif kind == "world-drive":
        source = _drives(name, rest, size, limit)
    else:
        if kind not in readers():
            others = ", ".join(readers())
            raise ConfigError(
                f"--dataset {name}: there is no reader for {kind!r}; use world, world-crowd or world-drive, or {others}"
            )
        module = importlib.import_module(f"training.datasets.{kind}")
        path = Path(rest)
        if not path.exists():
            raise ConfigError(f"--dataset {name}: {path} does not exist")
        samples: Sequence[Sample] = module.open_samples(path, split)
        count = len(samples) if limit is None else min(limit, len(samples))
        known = getattr(samples, "keys", None)  # readers that can name their pictures without opening them
        keys = list(known[:count]) if known else [str(samples[i].meta.get("source") or f"{kind}:{i}") for i in range(count)]
        source = Source(name, keys, samples.__getitem__)
    if not len(source):
        raise ConfigError(f"--dataset {name}: no pictures in it")
    return source
