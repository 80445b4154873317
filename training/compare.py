"""``python -m training.compare A B C``: evaluations side by side; is a difference more than the draw of the pictures?

    python -m training.compare runs/text runs/bins runs/grid --out runs/compare.html

Each argument is a folder of `training.evaluate`, or ``NAME=FOLDER``. The runs must have scored the same pictures with the same
labels; if not, the command says which differ. The first run is what the others are held against.

For every headline, pictures (whole sequences where they are known) are drawn anew, the *same* draw for all runs, and the
difference to the first run is computed on each draw: a paired bootstrap. Its 95 % interval is printed, and p, two-sided: twice
the smaller share of draws with a difference at or above, or at or below, zero. With three or more runs p is compared with 0.05
divided by the number of comparisons of that headline (Bonferroni); a star says that it is below.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, GetokError, InputError
from training import pages
from training.metrics.headlines import HEADLINES, Headline
from training.metrics.intervals import Estimate, group_rows, resampling_weights
from training.predictions import read_lines

FloatArray = npt.NDArray[np.float64]

LEVEL = 0.05
REPLICATES = 2000


@dataclass(frozen=True, slots=True)
class Run:
    """One evaluation.

    Attributes:
        name: for people.
        keys: its pictures, in order.
        digests: SHA-256 of each picture with its labels.
        groups: the sequence of each picture.
        rows: by name, the rows of sums of each picture, None where it has none.
        about: the report: command, bundle, speed.
    """

    name: str
    keys: tuple[str, ...]
    digests: tuple[str, ...]
    groups: tuple[str, ...]
    rows: dict[str, tuple[FloatArray | None, ...]]
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One headline of all runs.

    Attributes:
        kind: a key of `HEADLINES`.
        values: of each run, with its own interval.
        differences: of each run to the first one, with the paired interval.
        p: of each difference, two-sided.
        level: that p is compared with.
    """

    kind: str
    values: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]
    p: tuple[float, ...]
    level: float


def read_run(argument: str) -> Run:
    """The run of ``FOLDER`` or ``NAME=FOLDER``.

    Raises:
        InputError: the folder is no evaluation, or one of before ``scores.jsonl`` was written.
    """
    name, _, given = ("", "", argument) if Path(argument).is_dir() else argument.partition("=")
    folder = Path(given or argument)
    if not (folder / "scores.jsonl").is_file():
        raise InputError(f"{folder}: has no scores.jsonl; run training.evaluate with --out {folder} (again)")
    try:
        about = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        records = list(read_lines(folder / "scores.jsonl"))
        names = dict.fromkeys(name for record in records for name in record["rows"])
        rows = {
            name: tuple(np.array(r["rows"][name], np.float64) if name in r["rows"] else None for r in records) for name in names
        }
        keys, digests, groups = (tuple(str(r[field]) for r in records) for field in ("key", "sample_sha256", "group"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: not an evaluation of this version ({type(error).__name__}: {error}); run it again"
        ) from error
    return Run(name or folder.name, keys, digests, groups, rows, about)


def check_same_pictures(runs: Sequence[Run]) -> None:
    """Refuse runs over different pictures or labels.

    Raises:
        InputError: names the runs and the first pictures that differ.
    """
    first = runs[0]
    known = dict(zip(first.keys, first.digests, strict=True))
    for run in runs[1:]:
        theirs = dict(zip(run.keys, run.digests, strict=True))
        for what, keys in (
            (f"only {first.name} has", [key for key in known if key not in theirs]),
            (f"only {run.name} has", [key for key in theirs if key not in known]),
            ("with other pixels or labels", [key for key in known if key in theirs and theirs[key] != known[key]]),
        ):
            if keys:
                some = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
                raise InputError(f"{first.name} and {run.name} scored different pictures: {len(keys)} {what}: {some}")


def _stacked(run: Run, headline: Headline, order: Sequence[str]) -> FloatArray:
    """``(N, K)`` rows in the order of these pictures, zeros where a picture has none."""
    place = {key: index for index, key in enumerate(run.keys)}
    rows = run.rows[headline.row]
    width = next(len(row) for row in rows if row is not None)
    return np.stack([np.zeros(width) if (row := rows[place[key]]) is None else row for key in order])


def compare(runs: Sequence[Run], replicates: int = REPLICATES, seed: int = 0) -> list[Comparison]:
    """Every headline that all runs have.

    Args:
        runs: two or more; the first is what the others are held against.
        replicates: number of draws.
        seed: of the draws.

    Raises:
        InputError: see `check_same_pictures`; or the runs have no headline in common.
    """
    check_same_pictures(runs)
    order, groups = runs[0].keys, runs[0].groups
    result = []
    for kind, headline in HEADLINES.items():
        if not all(headline.row in run.rows for run in runs):
            continue
        rows = [group_rows(_stacked(run, headline, order), groups) for run in runs]
        weights = resampling_weights(len(rows[0]), replicates, seed)
        drawn = [headline.statistic(weights @ each) for each in rows]
        whole = [float(headline.statistic(each.sum(axis=0, keepdims=True))[0]) for each in rows]
        count = len(rows[0])
        values = tuple(_estimate(value, draws, count) for value, draws in zip(whole, drawn, strict=True))
        differences = [(value - whole[0], draws - drawn[0]) for value, draws in zip(whole[1:], drawn[1:], strict=True)]
        result.append(
            Comparison(
                kind,
                values,
                tuple(_estimate(value, draws, count) for value, draws in differences),
                tuple(_p_value(draws) for _, draws in differences),
                LEVEL / max(len(runs) - 1, 1),
            )
        )
    if not result:
        raise InputError("the runs have no headline in common; were they evaluated with the same --tasks?")
    return result


def _estimate(value: float, draws: FloatArray, count: int) -> Estimate:
    defined = draws[np.isfinite(draws)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) and count > 1 else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), count)


def _p_value(differences: FloatArray) -> float:
    """Two-sided p of a bootstrapped difference; never below what so many draws can tell."""
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return float("nan")
    smaller = min(int((defined >= 0).sum()), int((defined <= 0).sum()))
    return min(1.0, 2.0 * (smaller + 1) / (len(defined) + 1))


def _cell(comparison: Comparison, index: int) -> str:
    value = f"{comparison.values[index]}"
    if index == 0:
        return value
    difference, p = comparison.differences[index - 1], comparison.p[index - 1]
    star = "*" if p < comparison.level else ""
    return f"{value}  {difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] p={p:.3f}{star}"


def as_text(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> str:
    """The comparison for a terminal: a line for each headline and run."""
    count = comparisons[0].values[0].count
    lines = [f"{len(runs[0].keys)} pictures in {count} groups; differences to {runs[0].name}; * p < {comparisons[0].level:.4g}"]
    width = max(len(run.name) for run in runs)
    for comparison in comparisons:
        lines += ["", HEADLINES[comparison.kind].title]
        lines += [f"  {run.name:<{width}}  {_cell(comparison, index)}" for index, run in enumerate(runs)]
    return "\n".join(lines)


def write_html(runs: Sequence[Run], comparisons: Sequence[Comparison], path: Path) -> None:
    """The comparison as a page of its own."""
    body = ["<h1>Comparison</h1>", f"<p class=dim>{html.escape(as_text(runs, comparisons).splitlines()[0])}</p>"]
    for comparison in comparisons:
        headline = HEADLINES[comparison.kind]
        named = [(run.name, value) for run, value in zip(runs, comparison.values, strict=True)]
        unbounded = () if headline.bounded else tuple(run.name for run in runs)
        rows = []
        for run, d, p in zip(runs[1:], comparison.differences, comparison.p, strict=True):
            better = "better" if (d.value < 0) == headline.lower_is_better else "worse"
            verdict = better if p < comparison.level else "not told apart"
            rows.append(
                (f"{run.name} – {runs[0].name}", f"{d.value:+.4f}", f"{d.low:+.4f} to {d.high:+.4f}", f"{p:.4f}", verdict)
            )
        body += [pages.heading(headline.title), pages.estimates(named, runs[0].name, unbounded)]
        body.append(pages.table(rows, ("", "difference", "95 %", "p", "")))
    body += [pages.heading("Runs")]
    body.append(pages.table([(run.name, run.about.get("command", "")) for run in runs], numbers_from=2))
    speed = [
        (run.name, *(f"{run.about.get('speed', {}).get(n, float('nan')):.2f}" for n in ("p50_ms", "p95_ms"))) for run in runs
    ]
    body += [pages.heading("Speed"), pages.table(speed, ("", "p50, ms", "p95, ms"))]
    pages.page("Comparison", body, path)


def to_json(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Plain values: by headline and run, the value, the difference to the first run and its p."""
    result: dict[str, Any] = {"schema": 1, "runs": [run.name for run in runs], "pictures": len(runs[0].keys), "headlines": {}}
    for c in comparisons:
        others = [
            {"difference": d.to_json(), "p": p, "significant": p < c.level} for d, p in zip(c.differences, c.p, strict=True)
        ]
        entries = [{"value": v.to_json(), **o} for v, o in zip(c.values, [{}, *others], strict=True)]
        result["headlines"][f"{c.kind}/{HEADLINES[c.kind].number}"] = entries
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 0 on success, 2 when the runs cannot be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="[NAME=]FOLDER", help="evaluations; the first is held against the others")
    parser.add_argument("--out", type=Path, help="write the page here, and the numbers beside it as .json")
    parser.add_argument("--replicates", type=int, default=REPLICATES, help=f"draws of the bootstrap (default: {REPLICATES})")
    args = parser.parse_args(argv)
    try:
        if len(args.runs) < 2 or args.replicates < 1:
            raise ConfigError("give two or more runs, and one or more replicates")
        runs = [read_run(argument) for argument in args.runs]
        comparisons = compare(runs, args.replicates)
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(as_text(runs, comparisons))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_html(runs, comparisons, args.out)
        args.out.with_suffix(".json").write_text(json.dumps(to_json(runs, comparisons), indent=2) + "\n", encoding="utf-8")
        print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
