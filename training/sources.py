"""Labelled data sets by name, for evaluation: ``world:test``, ``world:val``, ``world:FIRST-LAST``, ``KIND:PATH``.

``KIND`` is a module of `training.datasets` with ``open_samples(path: Path, split: str) -> Sequence[Sample]``; its samples are
named by ``meta["source"]``.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from getok_drive.errors import ConfigError
from training import datasets
from training.samples import Sample


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


def parse_size(text: str) -> tuple[int, int]:
    """``"448x252"`` as (448, 252)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ConfigError(f"--size: expected WIDTHxHEIGHT such as 448x252, got {text!r}")
    return int(match[1]), int(match[2])


def _world(name: str, which: str, size: str, limit: int | None, masks: bool) -> Source:
    from training.datasets import world

    size_wh = parse_size(size)
    named = {"test": world.TEST_SEEDS, "val": world.VAL_SEEDS}
    numbers = re.fullmatch(r"(\d+)-(\d+)", which)
    if which in named:
        seeds: Sequence[int] = named[which]
    elif numbers:
        seeds = range(int(numbers[1]), int(numbers[2]) + 1)
    else:
        raise ConfigError(f"--dataset {name}: expected world:test, world:val or world:FIRST-LAST")
    seeds = seeds[:limit]
    return Source(name, [f"world:{seed}" for seed in seeds], lambda index: world.render(seeds[index], size_wh, masks=masks))


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
    if kind == "world":
        source = _world(name, rest, size, limit, masks)
    else:
        if kind not in readers():
            raise ConfigError(f"--dataset {name}: there is no reader for {kind!r}; use world or {', '.join(readers())}")
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
