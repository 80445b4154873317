"""Data sets at the command line: ``python -m training.data convert|validate|stats|preview|split``.

    python -m training.data convert --dataset idd:PATH --out OUT --jobs 4      any data set -> our JSONL, resumable
    python -m training.data validate --dataset jsonl:OUT                       every label checked; exit code 1 on errors
    python -m training.data stats --dataset jsonl:OUT --out OUT/stats          what is in it, as a table, JSON and a page
    python -m training.data preview --dataset jsonl:OUT --out OUT/preview      pictures with their labels, as a page
    python -m training.data split --file OUT/samples.jsonl                     train/val/test.jsonl without leaks

Every command reads one picture at a time, in as many processes as ``--jobs`` says, and ends with a report of what was left out
and why. An interrupted ``convert`` goes on where it stopped; ``convert --engine ray`` runs it on a Ray cluster.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from getok_drive.errors import ConfigError, GetokError
from training.datasets.checks import Problem, check_set, examined
from training.datasets.convert import convert
from training.datasets.preview import write_preview
from training.datasets.splitting import split_file
from training.datasets.statistics import Statistics, measure, write_page
from training.datasets.walk import open_dataset, walk
from training.parallel import ENGINES


def _dataset_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, metavar="KIND:PATH", help="e.g. idd:DIR, jsonl:DIR, world:0-99")
    parser.add_argument("--split", default="all", help="train, val, test or all (default)")
    parser.add_argument("--size", default="448x252", metavar="WxH", help="picture size of the driving world")
    parser.add_argument("--limit", type=int, help="only the first N pictures")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.data", description="Convert, check, count, show and split data sets."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    each = commands.add_parser("convert", help="write a data set in the project's own format")
    _dataset_options(each)
    each.add_argument("--out", type=Path, required=True)
    each.add_argument("--masks", action="store_true", help="write label pictures too")
    each.add_argument("--engine", choices=ENGINES, default="local", help="ray: Ray Data in --jobs workers")
    each = commands.add_parser("validate", help="check every label")
    _dataset_options(each)
    each.add_argument("--out", type=Path, help="write all problems to this JSON lines file")
    each = commands.add_parser("stats", help="count and measure")
    _dataset_options(each)
    each.add_argument("--out", type=Path, help="folder for stats.json and stats.html")
    each = commands.add_parser("preview", help="a page of pictures with their labels")
    _dataset_options(each)
    each.add_argument("--out", type=Path, required=True)
    each.add_argument("--every", type=int, default=1, help="only every Nth picture")
    each.add_argument("--width", type=int, default=480, help="picture width, pixels")
    each = commands.add_parser("split", help="divide a converted data set by sequence")
    each.add_argument("--file", type=Path, required=True, help="the .jsonl to divide")
    each.add_argument("--shares", default="0.8,0.1,0.1", help="of train, val and test, in pictures")
    return parser


def _print_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    for name, reason in list(skipped)[:8]:
        print(f"  left out: {name}: {reason}")
    if len(skipped) > 8:
        print(f"  ... and {len(skipped) - 8} more")


def _convert(args: argparse.Namespace) -> int:
    options = {"size": args.size, "limit": args.limit, "jobs": args.jobs, "masks": args.masks, "engine": args.engine}
    report = convert(args.dataset, args.split, args.out, **options)
    already = f" ({report.kept} of them from an earlier run)" if report.kept else ""
    print(f"{report.written} pictures{already} in {args.out / 'samples.jsonl'}; {len(report.skipped)} left out")
    _print_skipped(report.skipped)
    return 0 if report.written else 1


def _validate(args: argparse.Namespace) -> int:
    dataset = open_dataset(args.dataset, args.split, args.size, args.limit)
    findings = []
    problems: list[Problem] = [Problem(name, "warning", f"left out by the reader: {reason}") for name, reason in dataset.skipped]
    for key, finding, error in walk(dataset, examined, args.jobs, "checking"):
        if error is not None:
            problems.append(Problem(key, "error", error))
        else:
            problems += finding.problems
            findings.append(finding)
    problems += check_set(findings)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in problems))
    counts = Counter(problem.level for problem in problems)
    for problem in sorted(problems, key=lambda p: p.level != "error")[:20]:
        print(f"{problem.level}: {problem.key}: {problem.text}")
    print(f"{len(dataset)} pictures: {counts['error']} errors, {counts['warning']} warnings")
    return 1 if counts["error"] else 0


def _stats(args: argparse.Namespace) -> int:
    dataset = open_dataset(args.dataset, args.split, args.size, args.limit)
    statistics = Statistics()
    skipped = list(dataset.skipped)
    for key, row, error in walk(dataset, measure, args.jobs, "counting"):
        if error is not None:
            skipped.append((key, error))
        else:
            statistics.add(row)
    print(statistics.table())
    _print_skipped(skipped)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "stats.json").write_text(json.dumps({**statistics.to_json(), "left_out": skipped}, indent=1))
        write_page(statistics, args.dataset, args.out / "stats.html")
        print(f"{args.out / 'stats.html'}")
    return 0


def _preview(args: argparse.Namespace) -> int:
    dataset = open_dataset(args.dataset, args.split, args.size, args.limit)
    skipped = write_preview(dataset, args.out, every=args.every, width_px=args.width, jobs=args.jobs)
    _print_skipped(skipped)
    print(args.out / "index.html")
    return 0


def _split(args: argparse.Namespace) -> int:
    try:
        train, val, test = (float(text) for text in args.shares.split(","))
    except ValueError as error:
        raise ConfigError(f"--shares: expected three numbers such as 0.8,0.1,0.1, got {args.shares!r}") from error
    result = split_file(args.file, {"train": train, "val": val, "test": test})
    for name, (pictures, sequences) in result.parts.items():
        print(f"{name}: {pictures} pictures of {sequences} sequences in {args.file.with_name(f'{name}.jsonl')}")
    if result.joined:
        print(f"{result.joined} sequences share pictures with another one and were kept together")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when all is well, 1 on errors in the data, 2 on wrong use, 130 when interrupted."""
    args = _parser().parse_args(argv)
    commands = {"convert": _convert, "validate": _validate, "stats": _stats, "preview": _preview, "split": _split}
    try:
        return commands[args.command](args)
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
