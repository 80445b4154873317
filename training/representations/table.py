"""Finished runs as the paper's tables, in Markdown, with 95 % bootstrap intervals over pictures; seeds of a form are summed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.metrics.intervals import Estimate, Statistic, bootstrap, f1, precision, ratio, recall
from training.recipes.settings import REGION_FORMS
from training.representations.forms import FORMS
from training.representations.regions import ROWS
from training.representations.scores import LANE_COLUMNS, TOLERANCES

FloatArray = npt.NDArray[np.float64]
Result = Mapping[str, Any]
_AT = {name: index for index, name in enumerate(LANE_COLUMNS)}


def tables(results: Sequence[Result]) -> str:
    """Every table that the results have something for."""
    groups: dict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in results:
        groups[_kind(result)].append(result)
    parts = []
    for kind in sorted(groups, key=str):
        found = groups[kind]
        task, reading, layers, rule, steps, train, test = kind
        about = f"{task}: {steps} steps, {train} training and {test} test pictures, visual tokens {reading}, "
        about += f"{layers or 'all'} layers, positions `{rule}`"
        parts.append(f"### {about}\n\n" + (_lane_tables(found) if task == "lanes" else _region_table(found)))
    return "\n\n".join(parts)


def _kind(result: Result) -> tuple[Any, ...]:
    """What runs must share to stand in one table."""
    settings = result["settings"]
    shared = tuple(settings[name] for name in ("task", "reading", "layers", "position_rule"))
    return (*shared, *(result[name] for name in ("steps", "train_pictures", "test_pictures")))


def _by_form(results: Sequence[Result], order: Sequence[str]) -> list[tuple[str, list[Result]]]:
    return [(form, own) for form in order if (own := [r for r in results if r["settings"]["form"] == form])]


def _lane_tables(results: Sequence[Result]) -> str:
    tight, *wider = (f"{t:.1%}" for t in TOLERANCES)
    head = ["form", "seeds", "precision", "recall", f"F1 at {tight}", "each seed's", "F1 minus the first form's"]
    head += [*(f"F1 at {t}" for t in wider), "CULane F1@50", "mean miss, % of width"]
    head += ["tokens a lane", "malformed lanes", "unfinished answers"]
    parts = []
    for way, title in (("free", "Free answers"), ("ruled", "Under the runtime's grammar")):
        lines: list[list[str]] = []
        first: FloatArray | None = None
        for form, own in _by_form(results, tuple(FORMS)):
            rows = [np.asarray(result[way], dtype=np.float64) for result in own if way in result]
            if rows:
                lines.append([form, _seeds(own), *_lane_cells(rows, first)])
                first = np.sum(rows, axis=0) if first is None else first
        if lines:
            parts.append(f"**{title}**\n\n{_markdown(head, lines)}")
    return "\n\n".join(parts)


def _lane_cells(seeds: Sequence[FloatArray], first: FloatArray | None) -> list[str]:
    """Cells of one form: rows of each seed, and the summed rows of the first form."""
    rows: FloatArray = np.sum(seeds, axis=0)

    def of(name: str, statistic: Statistic, sums: FloatArray) -> FloatArray:
        return statistic(sums[..., _AT[name] : _AT[name] + 3])

    def counts(name: str, statistic: Statistic) -> str:
        return _cell(bootstrap(rows, lambda sums: of(name, statistic, sums)))

    def share(top: str, bottom: str) -> Estimate:
        return bootstrap(rows, lambda sums: ratio(sums[..., _AT[top]], sums[..., _AT[bottom]]))

    tight, *wider = (f"tp@{t:g}" for t in TOLERANCES)
    width, gain = rows.shape[1], "-"
    if first is not None:  # of the same pictures in each replicate
        pairs = np.concatenate([rows, first], axis=1)
        gain = _cell(bootstrap(pairs, lambda sums: of(tight, f1, sums[..., :width]) - of(tight, f1, sums[..., width:])))
    return [
        *(counts(tight, statistic) for statistic in (precision, recall, f1)),
        " ".join(f"{float(of(tight, f1, seed.sum(axis=0))):.3f}" for seed in seeds),
        gain,
        *(counts(name, f1) for name in (*wider, "culane_tp")),
        _cell(share("miss_sum", "lanes"), 100, 1),
        f"{share('tokens', 'lanes_written').value:.1f}",
        _cell(share("malformed", "lanes_written")),
        _cell(share("incomplete", "pictures")),
    ]


def _region_table(results: Sequence[Result]) -> str:
    forms = _by_form(results, REGION_FORMS)
    lines = []
    for row in ROWS:
        cells, asked = [], 0
        for _, own in forms:
            answers = [(a["picture"], float(a["said"] == a["right"])) for r in own for a in r["answers"] if a["row"] == row]
            asked = len(answers) // len(own)
            cells.append(_accuracy(answers))
        rights = [a["right"] for a in forms[0][1][0]["answers"] if a["row"] == row]
        common = max((rights.count(word) for word in set(rights)), default=0) / max(len(rights), 1)
        lines.append([row, str(asked), f"{common:.3f}", *cells])
    head = ["row", "questions", "always the commonest word", *(f"{form} (seeds {_seeds(own)})" for form, own in forms)]
    return _markdown(head, lines)


def _accuracy(answers: Sequence[tuple[int, float]]) -> str:
    rows = np.array([[right, 1.0] for _, right in answers])
    return _cell(bootstrap(rows, lambda sums: ratio(sums[..., 0], sums[..., 1]), groups=[picture for picture, _ in answers]))


def _seeds(results: Sequence[Result]) -> str:
    return " ".join(str(result["seed"]) for result in sorted(results, key=lambda r: r["seed"]))


def _cell(estimate: Estimate, scale: float = 1.0, digits: int = 3) -> str:
    value, low, high = (f"{scale * number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
