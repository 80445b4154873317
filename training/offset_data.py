"""``python -m training.offset_data``: offset-aware conversations from masks, boxes, lanes and drivable areas.

    python -m training.offset_data --dataset world:val --limit 100 --out offsets.jsonl

Source: GETok (arXiv 2512.10554), supplement C.2, algorithm 1 (masks and boxes); its bands and pools are in
`training.offset_bands`, its answers in `training.offset_answers`. Polylines and polygons (`training.offset_shapes`) and several
rounds are this project's extension; one round on masks and boxes is the paper's algorithm.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from getok_drive.errors import GetokError
from getok_drive.tokens.codec import px_to_norm, to_text
from getok_drive.tokens.prompts import REFINE_PROMPT
from getok_drive.tokens.vocab import OFFSET_ROUNDS, TABLE, TOKEN_ID
from training.object_masks import described_masks
from training.offset_answers import Anchors, OffsetSettings, box_anchors, mask_anchors
from training.samples import Sample
from training.sources import open_source


def refinement_ids(anchors: Anchors) -> list[int]:
    """The assistant's turn, ``<offset> ... </offset>``: each grid token again, then its offsets or ``<DELETE>``.

    Departure: the paper writes the offsets alone; see "Refine" in ARCHITECTURE.md for why the grid tokens are given back.
    """
    ids = [TOKEN_ID["<offset>"]]
    for cell, answer in zip(anchors.cells.tolist(), anchors.answers.tolist(), strict=True):
        ids += [cell, TABLE.delete] if answer[0] == TABLE.delete else [cell, *answer]
    return [*ids, TOKEN_ID["</offset>"]]


def conversation(image: str, query: str, kind: str, anchors: Anchors) -> dict[str, Any]:
    """One line of the data set: image tag, prompt and grid tokens by the user, offsets by the assistant (serialisation of
    algorithm 1, in the common ``conversations`` layout).

    Args:
        image: the picture's name.
        query: q, what the object is called.
        kind: ``mask``, ``box``, ``lane`` or ``drivable``.
        anchors: what is proposed, and the answers.
    """
    given = to_text([TOKEN_ID["<seg>"], *anchors.cells.tolist(), TOKEN_ID["</seg>"]])
    return {
        "image": image,
        "kind": kind,
        "conversations": [
            {"from": "human", "value": f"<image>\n{query}\n{given}\n{REFINE_PROMPT}"},
            {"from": "gpt", "value": to_text(refinement_ids(anchors))},
        ],
    }


def conversations_of(sample: Sample, image: str, settings: OffsetSettings, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Every object of a sample once as a mask and once as a box, every lane and drivable area once (the loop of algorithm 1)."""
    from training.offset_shapes import polygon_anchors, polyline_anchors

    for query, mask in described_masks(sample):
        resized = cv2.resize(mask.astype(np.uint8), settings.size_wh, interpolation=cv2.INTER_NEAREST)
        if resized.any():
            yield conversation(image, query, "mask", mask_anchors(resized, settings, rng))
            yield conversation(image, query, "box", box_anchors(resized, settings, rng))
    for lane in sample.lanes:
        anchors = polyline_anchors(px_to_norm(lane.points_px, sample.size_wh), settings.rounds, rng)
        yield conversation(image, f"{lane.color} {lane.type} lane", "lane", anchors)
    for area in sample.drivable:
        anchors = polygon_anchors(px_to_norm(area.polygon_px, sample.size_wh), settings.rounds, rng)
        yield conversation(image, "drivable area", "drivable", anchors)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit status 0, or 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m training.offset_data", description=__doc__.split("\n\n")[0])
    parser.add_argument("--dataset", required=True, help="world:test, world:FIRST-LAST, or KIND:PATH (see training.sources)")
    parser.add_argument("--split", default="train")
    parser.add_argument("--size", default="448x252", help="of the world's pictures")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--rounds", type=int, default=OFFSET_ROUNDS, help="offset rounds; 1 is the paper's")
    parser.add_argument("--tau", type=float, default=OffsetSettings().tau, help="least IoU of a corrected box")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSONL file")
    options = parser.parse_args(arguments)
    try:
        settings = OffsetSettings(rounds=options.rounds, tau=options.tau)
        source = open_source(options.dataset, options.split, options.size, options.limit, masks=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        partial = options.out.with_name(options.out.name + ".partial")
        with partial.open("w", encoding="utf-8") as lines:
            for index in tqdm(range(len(source)), unit="picture", disable=None):
                rng = np.random.default_rng([options.seed, index])
                for record in conversations_of(source.load(index), source.key(index), settings, rng):
                    lines.write(json.dumps(record) + "\n")
                    written += 1
        partial.replace(options.out)
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {written} conversations from {len(source)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
