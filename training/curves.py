"""``python -m training.curves NAME=RUN ... --plot reward/overall,kl --out curves.png``: logs of runs as one picture.

A panel for each quantity, a line for each run: the single steps faint, their running mean over ``--window`` steps in full. Reads
``log.jsonl`` of ``training.grpo`` and ``training.sft``; where a step was logged twice (a resumed run), the later line counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import GetokError, InputError
from getok_drive.types import ImageBgr
from training.pages import COLORS

FloatArray = npt.NDArray[np.float64]
_PANEL_WH, _MARGIN_LTRB, _FONT = (460, 260), (58, 30, 14, 26), cv2.FONT_HERSHEY_SIMPLEX
_INK, _FAINT = (70, 64, 60), (225, 220, 216)


def read_log(run: Path, name: str) -> FloatArray:
    """``(N, 2)`` steps and finite values of one quantity, by step.

    Raises:
        InputError: there is no log.
    """
    path = run / "log.jsonl"
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a log: {error}") from None
    values = {record["step"]: record[name] for record in records if isinstance(record.get(name), (int, float))}
    return np.array(sorted(values.items()), dtype=np.float64).reshape(-1, 2)


def running_mean(points: FloatArray, window: int) -> FloatArray:
    """The mean of each value and of up to ``window - 1`` before it."""
    sums = np.concatenate([[0.0], np.cumsum(points[:, 1])])
    stop = np.arange(1, len(points) + 1)
    start = np.maximum(stop - window, 0)
    return np.stack([points[:, 0], (sums[stop] - sums[start]) / (stop - start)], axis=1)


def panel(title: str, lines: Sequence[tuple[FloatArray, tuple[int, int, int]]], window: int) -> ImageBgr:
    """One quantity: ``(N, 2)`` points of each run and its colour, blue green red."""
    width, height = _PANEL_WH
    left, top, right, bottom = _MARGIN_LTRB
    image = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(image, title, (left, 18), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
    every = np.concatenate([np.zeros((0, 2)), *(points for points, _ in lines)])
    if not len(every):
        cv2.putText(image, "not logged", (left, height // 2), _FONT, 0.45, _FAINT, 1, cv2.LINE_AA)
        return image
    low, high = every.min(axis=0), every.max(axis=0)
    high = np.where(high > low, high, low + 1.0)

    def px(points: FloatArray) -> npt.NDArray[np.int32]:
        share = (points - low) / (high - low)
        x = left + share[:, 0] * (width - left - right)
        y = height - bottom - share[:, 1] * (height - top - bottom)
        return np.rint(np.stack([x, y], axis=1)).astype(np.int32)[:, None]

    for value in np.linspace(low[1], high[1], 4):
        (_, y), (end, _) = px(np.array([[low[0], value]]))[0, 0], px(high[None])[0, 0]
        cv2.line(image, (left, int(y)), (int(end), int(y)), _FAINT, 1)
        cv2.putText(image, f"{value:.3g}", (6, int(y) + 4), _FONT, 0.38, _INK, 1, cv2.LINE_AA)
    for step in (low[0], high[0]):
        x = int(px(np.array([[step, low[1]]]))[0, 0, 0])
        cv2.putText(image, f"{step:.0f}", (x - 8, height - 8), _FONT, 0.38, _INK, 1, cv2.LINE_AA)
    for points, color in lines:
        pale = tuple(int(255 - (255 - c) * 0.3) for c in color)
        cv2.polylines(image, [px(points)], False, pale, 1, cv2.LINE_AA)
    for points, color in lines:
        cv2.polylines(image, [px(running_mean(points, window))], False, color, 2, cv2.LINE_AA)
    return image


def draw(runs: Mapping[str, Path], names: Sequence[str], window: int = 10, columns: int = 2) -> ImageBgr:
    """The panels of ``names``, ``columns`` in a row, under a legend of the runs."""
    colors = {run: _bgr(COLORS[index % len(COLORS)]) for index, run in enumerate(runs)}
    panels = [panel(name, [(read_log(path, name), colors[run]) for run, path in runs.items()], window) for name in names]
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % columns)
    rows = [np.hstack(panels[first : first + columns]) for first in range(0, len(panels), columns)]
    legend = np.full((26, rows[0].shape[1], 3), 255, np.uint8)
    x = _MARGIN_LTRB[0]
    for run, color in colors.items():
        cv2.line(legend, (x, 14), (x + 18, 14), color, 2, cv2.LINE_AA)
        cv2.putText(legend, run, (x + 24, 18), _FONT, 0.42, _INK, 1, cv2.LINE_AA)
        x += 44 + cv2.getTextSize(run, _FONT, 0.42, 1)[0][0]
    return np.vstack([legend, *rows])


def _bgr(color: str) -> tuple[int, int, int]:
    return int(color[5:7], 16), int(color[3:5], 16), int(color[1:3], 16)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.curves", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="run folders")
    parser.add_argument("--plot", default="reward/overall,kl", help="quantities of the log, comma-separated")
    parser.add_argument("--window", type=int, default=10, help="steps of the running mean")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    args = parser.parse_args(argv)
    runs = {name if path else Path(name).name: Path(path or name) for name, _, path in (run.partition("=") for run in args.runs)}
    try:
        if args.window < 1:
            raise InputError(f"--window {args.window}: expected 1 or more")
        image = draw(runs, args.plot.split(","), args.window)
        if not cv2.imwrite(str(args.out), image):
            raise InputError(f"{args.out}: cannot be written; does its folder exist?")
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
