"""One function over many pictures, in this process, in several, or on Ray: the one place that knows how.

Results come in the order of the pictures whatever the engine, so that what is written from them is the same byte by byte.

**Ray** (``pip install "ray[data]"``) is for more than one machine: where ``RAY_ADDRESS`` names a running cluster, Ray Data
spreads the work over it in ``jobs`` actors. Data set, output and working folder must then lie on storage that every machine sees
under the same path, and the project must be importable there. Without ``RAY_ADDRESS`` a Ray of this machine is started with
``jobs`` workers and stopped at the end.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from getok_drive.errors import ConfigError

ENGINES = ("local", "ray")
RAY_BLOCK = 16  # pictures that Ray hands out and gives back together
Work = Callable[[int], Any]

_work: Work | None = None


def ordered_map(
    worker: Callable[..., Work], args: tuple[Any, ...], indices: Sequence[int], jobs: int = 1, engine: str = "local"
) -> Iterator[Any]:
    """What ``worker(*args)(index)`` returns for every index, in order.

    Args:
        worker: makes the function that does the work, once in each process: opens the data set, loads the model. It and its
            arguments are sent to other processes by pickle: a module's own function or class.
        args: for it.
        indices: what to work on.
        jobs: processes, or Ray's actors.
        engine: one of `ENGINES`.

    Raises:
        ConfigError: ``jobs`` below 1, an unknown engine, or Ray without the package.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs: expected 1 or more, got {jobs}")
    if engine not in ENGINES:
        raise ConfigError(f"--engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "ray":
        yield from _on_ray(worker, args, indices, jobs)
    elif jobs == 1 or len(indices) < 2:
        yield from map(worker(*args), indices)
    else:
        with multiprocessing.get_context("spawn").Pool(min(jobs, len(indices)), _start, (worker, args)) as pool:
            yield from pool.imap(_one, indices, chunksize=max(1, min(4, len(indices) // jobs)))


def _start(worker: Callable[..., Work], args: tuple[Any, ...]) -> None:
    global _work
    cv2.setNumThreads(1)
    _work = worker(*args)


def _one(index: int) -> Any:
    assert _work is not None
    return _work(index)


class _Actor:
    """Ray's worker: rows with an index in, rows with the pickled result out (Arrow has no column for any Python value)."""

    def __init__(self, worker: Callable[..., Work], args: tuple[Any, ...], folder: str) -> None:
        os.chdir(folder)  # relative paths mean what they meant where the command was given
        cv2.setNumThreads(1)
        self._work = worker(*args)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": pickle.dumps(self._work(int(row["data"])))}


def _on_ray(worker: Callable[..., Work], args: tuple[Any, ...], indices: Sequence[int], jobs: int) -> Iterator[Any]:
    if not indices:
        return
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError('--engine ray: needs the package ray: pip install "ray[data]"') from error
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, jobs)
    try:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        parts = np.array_split(np.asarray(indices, np.int64), -(-len(indices) // RAY_BLOCK))
        data = ray.data.from_numpy(parts)  # a block for each part
        pool = ray.data.ActorPoolStrategy(size=min(jobs, len(parts)))
        for row in data.map(_Actor, fn_constructor_args=(worker, args, str(Path.cwd())), compute=pool).iter_rows():
            yield pickle.loads(row["result"])
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, jobs: int) -> None:
    """Join the cluster of ``RAY_ADDRESS``, or start one on this machine."""
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level="ERROR", log_to_driver=False)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        num_cpus=jobs,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        object_store_memory=256 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
