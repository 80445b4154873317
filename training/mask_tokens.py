"""``python -m training.mask_tokens``: masks to grid tokens without training, and back.

    python -m training.mask_tokens --dataset idd:PATH --split val --out runs/masks                    # masks -> tokens
    python -m training.mask_tokens --dataset world:val --limit 40 --segmenter transformers:FOLDER --jobs 4 --out runs/sam
    python -m training.mask_tokens --image photo.jpg --tokens "<seg><grid_9_20></seg>" --out mask.png # tokens -> mask

The first writes ``tokens.jsonl`` (a line for each mask), ``run.json`` (the settings) and ``report.json`` (tokens per mask and IoU
reached). An interrupted run continues with the same command; proposals are kept in ``--cache`` and serve every tau.

Source: GETok (arXiv 2512.10554), section 3.2.1; the rule itself is in `training.mask_greedy`, its inverse in
`training.mask_decode`, the segmenters in `training.segmenters`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from getok_drive.errors import ConfigError, GetokError, InputError
from getok_drive.images import read_image
from getok_drive.tokens.codec import from_text, to_text
from getok_drive.tokens.vocab import TOKEN_ID
from training.mask_decode import tokens_to_masks
from training.mask_greedy import TAU, greedy_cells
from training.object_masks import MIN_AREA_SHARE, object_masks
from training.parallel import ENGINES, ordered_map
from training.predictions import read_lines
from training.proposals import cached_proposals
from training.segmenters import open_segmenter
from training.sources import Source, open_source

# --- masks -> tokens ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a worker needs; plain values, so that it can be sent to another process."""

    dataset: str
    split: str
    size: str
    limit: int | None
    segmenter: str
    tau: float
    max_tokens: int
    min_area_share: float
    cache: str | None

    def source(self) -> Source:
        """The data set."""
        return open_source(self.dataset, self.split, self.size, self.limit, masks=True)


class _Searcher:
    """Searches the tokens of a picture's masks; made once in each process."""

    def __init__(self, job: Job) -> None:
        cv2.setNumThreads(1)
        self._job, self._source, self._segmenter = job, job.source(), open_segmenter(job.segmenter)

    def __call__(self, index: int) -> dict[str, Any]:
        """The line of one picture."""
        job, sample = self._job, self._source.load(index)
        items = list(object_masks(sample, job.min_area_share))
        record: dict[str, Any] = {"key": self._source.key(index), "size_wh": list(sample.size_wh), "masks": []}
        if not items:
            return record
        proposals = cached_proposals(self._segmenter, sample.image_bgr, Path(job.cache) if job.cache else None)
        for item in items:
            found = greedy_cells(item.mask, proposals, job.tau, job.max_tokens)
            record["masks"].append(
                {
                    "name": item.name,
                    "label": item.label,
                    "area_px": int(item.mask.sum()),
                    "tokens": to_text([TOKEN_ID["<seg>"], *found.cells, TOKEN_ID["</seg>"]]),
                    "count": len(found.cells),
                    "iou": round(found.iou, 6),
                    "reason": found.reason,
                }
            )
        return record


def convert(job: Job, out: Path, jobs: int = 1, engine: str = "local") -> dict[str, Any]:
    """Convert every mask of a data set, continuing an interrupted run.

    Args:
        job: what to do.
        out: folder for ``tokens.jsonl``, ``run.json`` and ``report.json``.
        jobs: processes.
        engine: ``local`` or ``ray``; see `training.parallel`. The lines are the same.

    Returns:
        The report, see `summary`.

    Raises:
        ConfigError: a setting out of range, or ``out`` holds a run of other settings.
        InputError: the data set has no masks.
    """
    if not 0 < job.tau <= 1 or job.max_tokens < 1 or jobs < 1 or not 0 <= job.min_area_share < 1:
        raise ConfigError("expected 0 < --tau <= 1, --max-tokens and --jobs of 1 or more, 0 <= --min-area < 1")
    source = job.source()
    settings = {name: getattr(job, name) for name in Job.__slots__ if name not in ("cache", "limit")}
    settings["segmenter"] = open_segmenter(job.segmenter).name
    out.mkdir(parents=True, exist_ok=True)
    lines, run = out / "tokens.jsonl", out / "run.json"
    done: dict[str, dict[str, Any]] = {}
    if lines.exists():
        before = json.loads(run.read_text(encoding="utf-8")) if run.exists() else {}
        changed = sorted(name for name in settings if before.get(name) != settings[name])
        if changed:
            raise ConfigError(
                f"{out}: holds a run of other settings ({', '.join(changed)} differ); delete it or give another --out"
            )
        done = {record["key"]: record for record in read_lines(lines, repair=True)}
    run.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    missing = [index for index in range(len(source)) if source.key(index) not in done]
    with lines.open("a", encoding="utf-8") as file:
        for record in tqdm(
            ordered_map(_Searcher, (job,), missing, jobs, engine), total=len(missing), unit="picture", disable=None
        ):
            file.write(json.dumps(record) + "\n")
            file.flush()
            done[record["key"]] = record
    masks = [mask for index in range(len(source)) for mask in done[source.key(index)]["masks"]]
    if not masks:
        raise InputError(f"--dataset {job.dataset}: no instance or semantic masks in its {len(source)} pictures")
    report = {**settings, "pictures": len(source), **summary(masks)}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def summary(masks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tokens per mask and IoU of converted masks: all, those that reached tau, and by size.

    Args:
        masks: with ``count``, ``iou``, ``reason`` and ``area_px``; at least one.
    """

    def of(some: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        counts = np.array([mask["count"] for mask in some], dtype=float)
        return {
            "masks": len(some),
            "tokens_mean": round(float(counts.mean()), 2),
            "tokens_median": float(np.median(counts)),
            "iou_mean": round(float(np.mean([mask["iou"] for mask in some])), 4),
            "reached_share": round(float(np.mean([mask["reason"] == "reached" for mask in some])), 4),
        }

    groups = {"all": list(masks), "reached": [mask for mask in masks if mask["reason"] == "reached"]}
    for name, low, high in (("under_400_px", 0, 400), ("400_to_4000_px", 400, 4000), ("over_4000_px", 4000, np.inf)):
        groups[name] = [mask for mask in masks if low <= mask["area_px"] < high]
    report: dict[str, Any] = {name: of(some) for name, some in groups.items() if some}
    report["reasons"] = dict(Counter(str(mask["reason"]) for mask in masks))
    return report


# --- the command -------------------------------------------------------------------------------------------------------


def _decode(options: argparse.Namespace) -> None:
    image = read_image(options.image)
    masks, faults = tokens_to_masks(open_segmenter(options.segmenter), image, from_text(options.tokens))
    picture = np.zeros(image.shape[:2], np.uint8)
    for number, mask in enumerate(masks, start=1):
        picture[mask] = min(number, 255)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(options.out), picture):
        raise InputError(f"--out {options.out}: cannot be written; use a file name that ends in .png")
    print(f"{options.out}: {len(masks)} masks, {[int(mask.sum()) for mask in masks]} pixels; faults {dict(faults) or 'none'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit status 0, or 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m training.mask_tokens", description=__doc__.split("\n\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dataset", help="world:test, world:FIRST-LAST, or KIND:PATH (see training.sources)")
    what.add_argument("--image", type=Path, help="decode --tokens on this picture instead")
    parser.add_argument("--tokens", default="", help='e.g. "<seg><grid_9_20><grid_11_20></seg>"')
    parser.add_argument("--split", default="val")
    parser.add_argument("--size", default="448x252", help="of the world's pictures")
    parser.add_argument("--limit", type=int, help="only the first N pictures")
    parser.add_argument("--segmenter", default="opencv", help="opencv, transformers:FOLDER or sam2:CONFIG:CHECKPOINT")
    parser.add_argument("--tau", type=float, default=TAU, help="IoU at which to stop")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--min-area", type=float, default=MIN_AREA_SHARE, help="smallest mask, share of the image")
    parser.add_argument("--cache", type=Path, help="folder for proposals (default: OUT/proposals)")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    parser.add_argument("--engine", choices=ENGINES, default="local", help="ray: Ray Data in --jobs workers")
    parser.add_argument("--out", type=Path, required=True, help="folder, or the mask's file with --image")
    options = parser.parse_args(arguments)
    try:
        if options.image is not None:
            _decode(options)
            return 0
        cache = None if options.no_cache else str(options.cache or options.out / "proposals")
        job = Job(
            options.dataset, options.split, options.size, options.limit, options.segmenter,
            options.tau, options.max_tokens, options.min_area, cache,
        )  # fmt: skip
        print(json.dumps(convert(job, options.out, options.jobs, options.engine), indent=2))
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
