"""Going through a data set picture by picture, in one or more processes; a bad picture is an entry of the report, not the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tqdm import tqdm

from getok_drive.errors import GetokError
from training.parallel import ordered_map
from training.samples import Sample
from training.sources import open_source

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Dataset:
    """An opened data set and how to open it again in another process.

    Attributes:
        name: ``KIND:PATH`` or ``world:WHICH``.
        split: part of it.
        size: WIDTHxHEIGHT of the driving world's pictures.
        keys: a name for each picture.
        read: the sample at an index.
        skipped: ``(name, reason)`` of what the reader left out.
        masks: whether the driving world's label pictures are drawn too.
    """

    name: str
    split: str
    size: str
    keys: Sequence[str]
    read: Callable[[int], Sample]
    skipped: Sequence[tuple[str, str]] = field(default_factory=list)
    masks: bool = False

    def __len__(self) -> int:
        return len(self.keys)


def open_dataset(name: str, split: str = "all", size: str = "448x252", limit: int | None = None, masks: bool = False) -> Dataset:
    """A data set by name; see `training.sources.open_source` for names, limits and errors."""
    source = open_source(name, split, size, limit, masks)
    samples = getattr(source.read, "__self__", None)
    return Dataset(name, split, size, list(source.keys), source.read, list(getattr(samples, "skipped", ())), masks)


class _Reader:
    """Reads the picture of an index and works on it; a picture that cannot be read gives its reason."""

    def __init__(self, dataset: Dataset, work: Callable[[int, str, Sample], Any]) -> None:
        self._dataset, self._work = dataset, work

    def __call__(self, index: int) -> tuple[int, Any, str | None]:
        try:
            return index, self._work(index, self._dataset.keys[index], self._dataset.read(index)), None
        except GetokError as error:
            return index, None, str(error)


def _reopened(name: str, split: str, size: str, limit: int, masks: bool, work: Callable[[int, str, Sample], Any]) -> _Reader:
    return _Reader(open_dataset(name, split, size, limit, masks), work)


def walk(
    dataset: Dataset,
    work: Callable[[int, str, Sample], Result],
    jobs: int = 1,
    title: str = "",
    indices: Sequence[int] | None = None,
    engine: str = "local",
) -> Iterator[tuple[str, Any, str | None]]:
    """What ``work(index, key, sample)`` returns for every picture, in order.

    Args:
        dataset: what to go through.
        work: a function that can be pickled when ``jobs`` is above 1: a module's own function, or a `functools.partial` of one.
        jobs: number of processes.
        title: of the progress bar.
        indices: only these pictures.
        engine: ``local`` or ``ray``; see `training.parallel`.

    Yields:
        ``(key, result, None)``, or ``(key, None, reason)`` for a picture that could not be read.

    Raises:
        ConfigError: ``jobs`` below 1, an unknown engine, or Ray without the package.
    """
    todo = range(len(dataset)) if indices is None else indices
    if engine == "local" and jobs == 1:
        results = ordered_map(_Reader, (dataset, work), todo)  # the data set that is open already
    else:
        again = (dataset.name, dataset.split, dataset.size, len(dataset), dataset.masks, work)
        results = ordered_map(_reopened, again, todo, jobs, engine)
    with tqdm(total=len(todo), desc=title, unit="picture", disable=not sys.stderr.isatty()) as bar:
        for index, result, error in results:
            yield dataset.keys[index], result, error
            bar.update()
