"""Lanes as the benchmarks' own submissions.

- **TuSimple**: ``submission.json``, one JSON object a picture: ``raw_file``, ``lanes`` (a column for each of the picture's rows
  ``h_samples``, -2 where the lane is not) and ``run_time`` in milliseconds. Give it to the benchmark's ``lane.py``.
- **CULane**: a tree of ``driver_*/*.MP4/*.lines.txt``, a lane a line, ``x y x y ...`` in pixels of 1640x590, bottom to top. Give
  the folder to the benchmark's evaluator as the detections; pictures without lanes have an empty file, as it demands.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy.typing as npt

from getok_drive.errors import ConfigError
from getok_drive.types import Scene
from training.metrics.culane import PICTURE_WH, scale_points
from training.metrics.tusimple import MAX_RUN_TIME_MS, lanes_at
from training.samples import Sample
from training.sources import Source

FORMATS = ("tusimple", "culane")


class TuSimpleWriter:
    """See the module; ``h_samples`` come from the data set's labels (``meta["h_samples"]``)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "submission.json"
        self._lines: list[str] = []
        self._slow = self._untimed = 0

    def add(self, key: str, sample: Sample, scene: Scene, wall_ms: float | None) -> None:
        """One line; the time is 0 where it is not known."""
        h_samples = sample.meta.get("h_samples")
        if h_samples is None:
            raise ConfigError(f"--export tusimple: {key} has no h_samples; the format is for --dataset tusimple:PATH")
        lanes = lanes_at([lane.points_px for lane in scene.lanes], h_samples, sample.size_wh[0])
        self._slow += wall_ms is not None and wall_ms > MAX_RUN_TIME_MS
        self._untimed += wall_ms is None
        record = {"raw_file": _name(key), "lanes": lanes, "h_samples": list(h_samples), "run_time": round(wall_ms or 0.0, 3)}
        self._lines.append(json.dumps(record) + "\n")

    def finish(self) -> str:
        """Close the submission; what was written, and what to know about it."""
        self.path.write_text("".join(self._lines), encoding="utf-8")
        notes = [f"{self.path}: {len(self._lines)} pictures"]
        if self._slow:
            notes.append(f"{self._slow} took more than {MAX_RUN_TIME_MS:g} ms: lane.py scores them 0")
        if self._untimed:
            notes.append(f"{self._untimed} without a known time have run_time 0")
        return "; ".join(notes)


class CuLaneWriter:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pictures = self._lanes = 0

    def add(self, key: str, sample: Sample, scene: Scene, wall_ms: float | None) -> None:
        """One file beside the picture's place in the data set's tree."""
        path = (self.folder / _name(key)).with_suffix(".lines.txt")
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ConfigError(f"--export culane: {key} would be written outside of {self.folder}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_line(lane.points_px, sample.size_wh) for lane in scene.lanes), encoding="utf-8")
        self._pictures += 1
        self._lanes += len(scene.lanes)

    def finish(self) -> str:
        """Close the submission; what was written, and what to know about it."""
        return f"{self.folder}: {self._lanes} lanes of {self._pictures} pictures"


def _line(points_px: npt.ArrayLike, size_wh: tuple[int, int]) -> str:
    return " ".join(f"{x:.4f} {y:.4f}" for x, y in scale_points(points_px, size_wh, PICTURE_WH)) + "\n"


def _name(key: str) -> str:
    """The picture's path in its data set: keys of readers are ``KIND:PATH``."""
    return key.partition(":")[2] or key


def open_writer(name: str, folder: Path, source: Source) -> TuSimpleWriter | CuLaneWriter:
    """The writer of a format.

    Args:
        name: one of `FORMATS`.
        folder: where it writes.
        source: the data set, which must be the benchmark's own.

    Raises:
        ConfigError: an unknown format, or a data set of another benchmark.
    """
    if name not in FORMATS:
        raise ConfigError(f"--export: unknown format {name!r}; choose from {', '.join(FORMATS)}")
    if not source.name.startswith(f"{name}:"):
        raise ConfigError(f"--export {name}: needs --dataset {name}:PATH, whose pictures the benchmark knows; got {source.name}")
    return TuSimpleWriter(folder) if name == "tusimple" else CuLaneWriter(folder)
