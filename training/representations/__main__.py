"""``python -m training.representations``: the paper's tables 4 and 5 on the driving world (docs/tables.md).

    python -m training.representations frames --out runs/tables/frames          # once: pictures, labels
    python -m training.representations run lanes grid --frames runs/tables/frames --out runs/tables/lanes-grid-0
    python -m training.representations table runs/tables
    python -m training.representations grpo runs/tables/lanes-grid-0 --frames runs/tables/frames --out runs/grpo/grid

``training/runs/table5.sh`` and ``table4.sh`` call it. A run that was stopped goes on, a run that is done is left alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch

from getok_drive.errors import ConfigError, GetokError
from training.datasets import world
from training.presets import override
from training.representations import grpo
from training.representations.frames import Frames, write_frames
from training.representations.reader import READINGS
from training.representations.runs import TASKS, FrameTrainer, RunSettings, sft_config
from training.representations.scores import Examiner
from training.representations.table import tables

_BUNDLE = Path(__file__).parents[2] / "getok_drive" / "bundles" / "nano"
_FIRST_SEED = world.TRAIN_SEEDS.start + 500_000


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit status 0, or 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m training.representations", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    frames = commands.add_parser("frames", help="render the pictures that all runs share")
    frames.add_argument("--out", type=Path, required=True)
    frames.add_argument("--train", type=int, default=4000, metavar="N", help="training pictures")
    frames.add_argument("--test", type=int, default=300, metavar="N", help=f"test pictures, at most {len(world.TEST_SEEDS)}")
    frames.add_argument("--size", type=int, nargs=2, default=(512, 256), metavar=("W", "H"), help="of the tower's input")
    frames.set_defaults(call=_frames)
    run = commands.add_parser("run", help="train one form and examine it")
    run.add_argument("task", choices=sorted(TASKS))
    run.add_argument("form", choices=sorted({form for forms in TASKS.values() for form in forms}))
    run.add_argument("--frames", type=Path, required=True)
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--tower", type=Path, default=_BUNDLE, help="checkpoint whose vision tower is taken")
    run.add_argument("--steps", type=int, default=600)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--layers", type=int, default=0, help="of the decoder (0: as many as the tower's own model has)")
    run.add_argument("--reading", choices=READINGS, default="rewritten")
    run.add_argument("--positions", choices=("image", "text"), default="image")
    run.add_argument("--set", action="append", default=[], metavar="key=value", help="of training.presets.SftConfig")
    run.set_defaults(call=_run)
    more = commands.add_parser("grpo", help="go on from a finished run of table 5 by GRPO (forms without offsets)")
    more.add_argument("start", type=Path, help="folder of the finished run")
    more.add_argument("--frames", type=Path, required=True)
    more.add_argument("--out", type=Path, required=True)
    more.add_argument("--steps", type=int, default=100)
    more.add_argument("--learning-rate", type=float, default=1e-4)
    more.add_argument("--prompts", type=int, default=4, help="pictures a step")
    more.add_argument("--temperature", type=float, default=1.0, help="of the policy")
    more.add_argument("--without", action="append", default=[], metavar="REWARD", help="that is not paid")
    more.add_argument("--seed", type=int, default=0)
    more.set_defaults(call=_grpo)
    table = commands.add_parser("table", help="print the tables of all finished runs below a folder")
    table.add_argument("folder", type=Path)
    table.set_defaults(call=_table)
    options = parser.parse_args(arguments)
    try:
        options.call(options)
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _frames(options: argparse.Namespace) -> None:
    if not 0 < options.test <= len(world.TEST_SEEDS) or options.train < 1:
        raise ConfigError(f"frames: expected --train of 1 or more and --test in 1..{len(world.TEST_SEEDS)}")
    size, render = tuple(options.size), (448, 252)
    write_frames(options.out / "train", range(_FIRST_SEED, _FIRST_SEED + options.train), size, render)
    write_frames(options.out / "test", world.TEST_SEEDS[: options.test], size, render)


def _run(options: argparse.Namespace) -> None:
    out: Path = options.out
    if (out / "result.json").is_file():
        print(f"{out}: is done", file=sys.stderr)
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    train, test = Frames(options.frames / "train"), Frames(options.frames / "test")
    settings = RunSettings(
        options.task, options.form, str(train.folder), str(options.tower), options.reading, options.layers, options.positions
    )
    config = override(sft_config(settings, options.steps, options.seed, train.image_size_wh), options.set)
    about = {"settings": dataclasses.asdict(settings), "steps": config.total_steps, "seed": config.seed}
    path = out / "run.json"
    out.mkdir(parents=True, exist_ok=True)
    if path.is_file() and json.loads(path.read_text()) != about:
        raise ConfigError(f"{out}: holds a run of other settings; take another --out, or delete it")
    path.write_text(json.dumps(about, indent=1))
    if not (out / "final" / "training.json").is_file():
        trainer = FrameTrainer(settings, config, out)
        trainer.resume()
        trainer.run()
        if trainer.stop_asked:
            return
    start = time.process_time()
    examiner = Examiner(settings, out / "final", test)
    result: dict[str, object] = {**about, "train_pictures": len(train), "test_pictures": len(test)}
    if options.task == "regions":
        result["answers"] = examiner.regions()
    else:
        result["free"] = examiner.lanes()
        if options.form.startswith("grid"):
            result["ruled"] = examiner.lanes(ruled=True)
    result["examination_cpu_s"] = round(time.process_time() - start, 1)
    partial = out / "result.partial"
    partial.write_text(json.dumps(result))
    partial.rename(out / "result.json")


def _grpo(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    settings = grpo.GrpoSettings(
        options.steps, options.learning_rate, options.prompts, options.temperature, tuple(options.without), options.seed
    )
    print(grpo.run(options.start, options.frames, settings, options.out))


def _table(options: argparse.Namespace) -> None:
    found = [json.loads(path.read_text()) for path in sorted(options.folder.glob("*/result.json"))]
    if not found:
        raise ConfigError(f"{options.folder}: no */result.json in it")
    print(tables(found))


if __name__ == "__main__":
    sys.exit(main())
