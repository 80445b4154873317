"""``getok-drive run | bench | bundle | doctor | replay``: the command line. A command imports what it needs only when it runs.

Exit status: 0 all went well; 1 some frames failed (or a check of ``doctor``); 2 the command could not be carried out;
130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from getok_drive import __version__
from getok_drive.errors import BundleError, ConfigError, GetokError, InputError

if TYPE_CHECKING:
    from getok_drive.pipeline import Perceiver
    from getok_drive.sources import Source


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["replay"]:
            return _replay(arguments[1:])
        options = _parser().parse_args(arguments)
        status: int = options.command(options)
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left, e.g. head; what is still in the buffer must go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="getok-drive", description="One camera image in, the whole driving scene out: lanes, drivable area, boxes and signs."
    )
    parser.add_argument("--version", action="version", version=f"getok-drive {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="see what is in images, videos, a camera or the procedural world")
    run.add_argument("source", help="image, folder, glob ('**' too), video, camera number, or world:SEED")
    run.add_argument("--out", type=Path, required=True, help="folder for scenes.jsonl and the overlay pictures or videos")
    run.add_argument("--max-frames", type=_count, metavar="N", help="stop after so many frames")
    run.add_argument("--json", action="store_true", help="also print each scene as a line of JSON")
    run.add_argument("--mcap", action="store_true", help="also record run.mcap for Foxglove")
    run.add_argument("--no-overlay", action="store_true", help="write no pictures or videos")
    _model_options(run)
    run.set_defaults(command=_run)

    bench = commands.add_parser("bench", help="measure the time of every stage and the memory")
    bench.add_argument("source", nargs="?", help="as for run; default: the procedural world's test frames, else noise")
    bench.add_argument("--max-frames", type=_count, default=100, metavar="N", help="frames to measure (default: %(default)s)")
    bench.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _model_options(bench)
    bench.set_defaults(command=_bench)

    bundle = commands.add_parser("bundle", help="show or verify a model bundle")
    bundle.add_argument("action", choices=("show", "verify"))
    bundle.add_argument("bundle", nargs="?", default="nano", help="folder, or name of a built-in bundle (default: %(default)s)")
    bundle.add_argument("--json", action="store_true", help="print the whole contract as JSON")
    bundle.set_defaults(command=_bundle)

    doctor = commands.add_parser("doctor", help="say what this machine can run, and why not")
    doctor.add_argument("--bundle", default="nano", help="folder or name of the bundle to try (default: %(default)s)")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of a table")
    doctor.set_defaults(command=_doctor)

    commands.add_parser("replay", help="run a ROS bag through the pipeline (needs the extra 'ros'; see replay --help)")
    return parser


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", default="nano", help="folder, or name of a built-in bundle (default: %(default)s)")
    parser.add_argument("--backend", default="onnx", help="what runs the model: onnx or torch (default: %(default)s)")
    count = partial(_count, least=0)
    parser.add_argument("--threads", type=count, default=0, metavar="N", help="CPU threads; 0 (default): the backend's choice")
    parser.add_argument("--rounds", type=count, metavar="N", help="offset rounds asked for; fewer are faster (default: bundle's)")
    parser.add_argument("--min-confidence", type=_share, metavar="C", help="leave out elements below it (default: bundle's)")
    parser.add_argument("--token-budget", type=_count, metavar="N", help="most tokens for one frame")
    parser.add_argument("--time-budget-ms", type=_positive, metavar="MS", help="most milliseconds of decoding for one frame")


def _count(text: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"expected a number in 0..1, got {text!r}")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def _perceiver(options: argparse.Namespace) -> Perceiver:
    from getok_drive.pipeline import Perceiver
    from getok_drive.runtime.decoding import Budget

    given: dict[str, Any] = {}
    if options.token_budget:
        given["tokens"] = max(2, options.token_budget)
    if options.time_budget_ms:
        given["time_s"] = options.time_budget_ms / 1e3
    budget = Budget(**given)
    perceiver = Perceiver(
        options.bundle, options.backend, budget=budget, rounds=options.rounds, min_confidence=options.min_confidence,
        threads=options.threads,
    )  # fmt: skip
    perceiver.warm_up()
    return perceiver


# --- run -----------------------------------------------------------------------------------------------------------------


@dataclass
class _Tally:
    """What a run has done so far."""

    frames: int = 0
    elements: int = 0
    truncated: int = 0
    busy_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False

    def summary(self) -> str:
        rate = f", {self.frames / self.busy_s:.1f} frames/s without reading and drawing" if self.busy_s else ""
        failed = f", {len(self.failures)} failed" if self.failures else ""
        cut = f", {self.truncated} truncated by the budget" if self.truncated else ""
        return f"{self.frames} frames{failed}{cut}, {self.elements} elements{rate}"


def _run(options: argparse.Namespace) -> int:
    from getok_drive.sources import open_source

    out: Path = options.out
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    source = open_source(options.source, exclude=out)
    perceiver = _perceiver(options)
    try:
        out.mkdir(parents=True, exist_ok=True)
        tally = _see(source, perceiver, options)
    except BrokenPipeError:  # standard output, not a file: see main
        raise
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error}") from error
    print(f"{tally.summary()}\nwritten to {out}", file=sys.stderr)
    if tally.failures:
        print("failed:", *tally.failures, sep="\n  ", file=sys.stderr)
    if tally.interrupted and source.total is not None:
        return 130
    return 1 if tally.failures else 0


def _see(source: Source, perceiver: Perceiver, options: argparse.Namespace) -> _Tally:
    """The loop over all frames."""
    from tqdm import tqdm

    from getok_drive.views.files import JsonLines, OverlayFiles, to_line
    from getok_drive.views.mcap import McapFile
    from getok_drive.views.overlay import draw

    tally = _Tally()
    total = min(filter(None, (source.total, options.max_frames)), default=None)
    with ExitStack() as stack:
        lines = stack.enter_context(JsonLines(options.out / "scenes.jsonl"))
        overlays = stack.enter_context(OverlayFiles(options.out / "overlays"))
        recording = stack.enter_context(McapFile(options.out / "run.mcap")) if options.mcap else None
        bar = stack.enter_context(tqdm(total=total, unit="frame", disable=None, dynamic_ncols=True))
        try:
            for item in source:
                if item.frame is None:
                    tally.failures.append(item.error)
                    bar.update()
                    continue
                start = time.perf_counter()
                try:
                    scene = perceiver.run(item.frame)
                except GetokError as error:
                    tally.failures.append(f"{item.frame.source} frame {item.frame.index}: {error}")
                    bar.update()
                    continue
                tally.busy_s += time.perf_counter() - start
                tally.frames += 1
                tally.elements += scene.elements
                tally.truncated += scene.truncated
                lines.write(scene)
                if options.json:
                    print(to_line(scene), flush=True)
                if not options.no_overlay:
                    overlays.write(draw(item.frame.image_bgr, scene), item.name, item.frame.source, item.fps)
                if recording is not None:
                    recording.write(item.frame, scene)
                bar.update()
                if tally.frames == options.max_frames:
                    break
        except KeyboardInterrupt:
            tally.interrupted = True
    return tally


# --- the other commands --------------------------------------------------------------------------------------------------


def _bench(options: argparse.Namespace) -> int:
    from getok_drive.bench import measure

    report = measure(options.source, lambda: _perceiver(options), options.max_frames)
    print(json.dumps(report.to_json(), indent=1) if options.json else report.table())
    return 0


def _bundle(options: argparse.Namespace) -> int:
    from getok_drive.bundle import Bundle

    try:
        bundle = Bundle.load(options.bundle)
    except BundleError as error:
        if options.action == "verify":
            print(f"not valid: {error}", file=sys.stderr)
            return 1
        raise
    contract = bundle.contract
    if options.json:
        print(contract.to_json(), end="")
        return 0
    size = sum((bundle.folder / name).stat().st_size for name in contract.files)
    print(f"{bundle.name}  {bundle.sha256}")
    print(f"folder    {bundle.folder}")
    print(f"files     {len(contract.files)}, {size / 1e6:.1f} MB, all as written")
    if options.action == "show":
        model, image = contract.model, contract.image
        width, height = image.size_wh
        print(f"image     {width}x{height} px, patches of {image.patch_size} px, {model.num_visual_tokens} visual tokens")
        print(
            f"decoder   {model.layers} layers, width {model.hidden_size}, {model.heads} heads, vocabulary of {model.vocab_size}"
        )
        tokens = contract.tokens
        decided = ", ".join(f"{kind} {number}" for kind, number in tokens.decided_rounds.items())
        print(f"tokens    grid {tokens.grid_size}, of {tokens.offset_rounds} offset rounds decided: {decided}")
        print(f"commit    {contract.git_commit}")
        for kind, spec in contract.calibration.items():
            print(f"calibration of {kind}: temperature {spec.temperature:.4f}, bias {spec.bias:+.4f}")
        least = ", ".join(f"{kind} {value:g}" for kind, value in contract.least_confidence.items() if value)
        print(f"left out  elements below a confidence of: {least or '0'}")
        for data in contract.training:
            print(f"trained on {data.name}: {data.terms}")
    return 0


def _replay(arguments: Sequence[str]) -> int:
    """Hand over to the ROS part, which has a command line of its own."""
    try:  # by name: neither of the two top layers depends on the other
        replay = importlib.import_module("getok_drive.ros.replay")
    except ImportError as error:
        raise ConfigError(f"replay needs ROS 2's messages: {error}; install with pip install 'getok-drive[ros]'") from error
    status: int = replay.main(arguments)
    return status


def _doctor(options: argparse.Namespace) -> int:
    from getok_drive.doctor import examine, table

    checks = examine(options.bundle)
    print(json.dumps([check.to_json() for check in checks], indent=1) if options.json else table(checks))
    return 1 if any(check.state == "fail" for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
