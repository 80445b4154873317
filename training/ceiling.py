"""``python -m training.ceiling``: how good could a model be on a labelled data set that writes every token right?

The labels are written as the model is taught to write them (`training.targets.elements_of`), read back by the runtime's own
parser, and scored as `training.evaluate` scores: what is missing to 1 is lost by the vocabulary, the thinning of lanes and the
limits of a scene, before anything is learnt. A row for each number of offset rounds; with 0 every point is its cell's centre.
Kinds that the data set does not label have a dash.

    python -m training.ceiling --dataset world:test --limit 150
    python -m training.ceiling --dataset tusimple:PATH
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from getok_drive.errors import GetokError
from getok_drive.tokens.elements import propose_ids, refine_ids
from getok_drive.tokens.parsing import parse
from getok_drive.tokens.vocab import OFFSET_ROUNDS
from getok_drive.types import Scene
from training.evaluation import HEADLINES, Collector
from training.samples import KINDS, Sample
from training.sources import open_source
from training.targets import elements_of

NUMBERS = (("lanes", "f1_50"), ("lanes", "f1_75"), *((kind, HEADLINES[kind][0]) for kind in KINDS if kind != "lanes"))


def written(sample: Sample, rounds: int = OFFSET_ROUNDS) -> Scene:
    """The labels of a picture as they come back from their tokens.

    Args:
        sample: picture and labels; kinds that are not labelled come back empty.
        rounds: of offsets that are written, 0..`OFFSET_ROUNDS`.
    """
    elements = elements_of(sample)
    moved = refine_ids([replace(element, offsets=element.offsets[:, :rounds]) for element in elements]) if rounds else None
    lanes, drivable, boxes, signs, report = parse(propose_ids(elements), moved, size_wh=sample.size_wh, rounds=max(1, rounds))
    return Scene(sample.size_wh, lanes, drivable, boxes, signs, report=report)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 0 on success, 2 on a mistake in options or data."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m training.ceiling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, help="as of training.evaluate: world:SEEDS or KIND:PATH")
    parser.add_argument("--split", default="test", help="of KIND:PATH data sets (default: test)")
    parser.add_argument("--size", default="448x252", help="WIDTHxHEIGHT of the driving world's pictures (default: 448x252)")
    parser.add_argument("--limit", type=int, help="only the first N pictures")
    args = parser.parse_args(argv)
    try:
        source = open_source(args.dataset, args.split, args.size, args.limit)
        collectors = [Collector(KINDS, worst=0) for _ in range(OFFSET_ROUNDS + 1)]
        for index in tqdm(range(len(source)), desc="ceiling", unit="frame"):
            sample = source.load(index)
            for rounds, collector in enumerate(collectors):
                collector.add(source.key(index), sample, written(sample, rounds))
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(source)} frames of {source.name}")
    print(" ".join(["rounds", *(f"{kind} {name}".rjust(16) for kind, name in NUMBERS), "tokens a frame".rjust(16)]))
    for rounds, collector in enumerate(collectors):
        report = collector.report()
        values = [f"{report.numbers[kind][name].value:.3f}" if kind in report.numbers else "-" for kind, name in NUMBERS]
        print(" ".join([f"{rounds:>6}", *(value.rjust(16) for value in values), f"{report.outputs['tokens_per_frame']:16.1f}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
