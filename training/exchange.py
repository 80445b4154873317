"""Data sets and rewards for other GRPO engines: ``python -m training.exchange --to easyr1 --dataset world:0-999 --out DIR``.

| ``--to`` | written | as documented in |
|---|---|---|
| ``easyr1`` | ``data.parquet``: ``problem`` with ``<image>``, ``answer``, ``images`` (bytes) | EasyR1 ``verl/utils/dataset.py`` |
| ``verl`` | ``data.parquet``: ``data_source``, ``prompt`` (messages), ``images``, ``ability``, ``reward_model``, ``extra_info`` | veRL ``examples/data_preprocess/geo3k.py`` |
| ``swift`` | ``data.jsonl``: ``messages``, ``images`` (files), ``solution``; with ``--sft`` the answers too | ms-swift "Custom dataset", "Reward function" |

Each comes with ``reward.py``, the file that the engine is given; it hands on to `training.exchange_rewards`. ``--stage movement``
asks for the refinement of a given proposal (two turns; EasyR1 takes one turn only).
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from getok_drive.errors import ConfigError, GetokError, InputError
from getok_drive.preprocess import resize
from getok_drive.tokens.codec import to_text
from getok_drive.tokens.elements import propose_ids
from getok_drive.tokens.prompts import PROPOSE_PROMPT, REFINE_PROMPT
from getok_drive.tokens.vocab import TOKEN_ID
from training.datasets.jsonl import record_of
from training.exchange_rewards import STAGES
from training.pictures import labels_at_cells
from training.samples import Sample
from training.sources import Source, open_source, parse_size
from training.targets import Noise, Target, elements_of, noisy_targets

DATA_SOURCE = "getok-drive"
REWARD_FILES = {
    "easyr1": "from training.exchange_rewards import compute_scores as compute_score  # noqa: F401\n",
    "verl": "from training.exchange_rewards import compute_score  # noqa: F401\n",
    "swift": (
        "from swift.plugin import ORM, orms\n\nfrom training.exchange_rewards import scene_rewards\n\n\n"
        "class GetokDriveReward(ORM):\n    def __call__(self, completions, solution, **kwargs):\n"
        "        return scene_rewards(completions, solution)\n\n\norms['getok_drive'] = GetokDriveReward\n"
    ),
}
Row = dict[str, Any]


def proposal_of(targets: Sequence[Target]) -> list[int]:
    """Local ids of the proposal that the targets' context writes."""
    ids = [token for target in targets for token in (*target.element.head, *target.context_cells.tolist())]
    return [*ids, TOKEN_ID["</scene>"]]


def refinement_of(targets: Sequence[Target]) -> list[int]:
    """Local ids of the right refinement of `proposal_of`."""
    delete, ids = TOKEN_ID["<DELETE>"], [TOKEN_ID["<offset>"]]
    for target in targets:
        for cell, answer in zip(target.context_cells.tolist(), target.answers.tolist(), strict=True):
            ids += [cell, delete] if answer[0] == delete else [cell, *answer]
    return [*ids, TOKEN_ID["</offset>"]]


def ground_truth(sample: Sample, stage: str, proposal: Sequence[int] | None) -> str:
    """What the reward needs to know of a picture, as JSON text: the labels (at cells for a placement) and the proposal."""
    labels = labels_at_cells(sample) if stage == "placement" else sample
    record = {"stage": stage, "labels": record_of(labels, image="")}
    return json.dumps(record if proposal is None else {**record, "proposal": to_text(proposal)})


def _jpeg(sample: Sample, size_wh: tuple[int, int] | None) -> bytes:
    picture = sample.image_bgr if size_wh is None else resize(sample.image_bgr, size_wh)
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not done:
        raise InputError("a picture could not be encoded as JPEG")
    return bytes(data)


def messages_of(sample: Sample, stage: str, rng: np.random.Generator, answered: bool) -> tuple[list[dict[str, str]], str]:
    """The conversation up to the answer that is to be drawn (with ``answered``, the right answers too), and the ground truth."""
    elements = elements_of(sample)
    targets = noisy_targets(elements, Noise() if stage == "movement" or answered else None, rng)
    messages = [{"role": "user", "content": f"<image>{PROPOSE_PROMPT}"}]
    proposal = proposal_of(targets) if stage == "movement" else None
    if stage == "movement" or answered:
        written = proposal_of(targets) if stage == "movement" else propose_ids(elements)
        messages.append({"role": "assistant", "content": to_text(written)})
    if stage == "movement":
        messages.append({"role": "user", "content": REFINE_PROMPT})
        if answered:
            messages.append({"role": "assistant", "content": to_text(refinement_of(targets))})
    return messages, ground_truth(sample, stage, proposal)


def _easyr1(number: int, messages: list[dict[str, str]], truth: str, picture: bytes, out: Path) -> Row:
    if len(messages) > 1:
        raise ConfigError("--to easyr1: its prompts have one turn; take --stage placement, or --to verl or swift")
    return {"problem": messages[0]["content"], "answer": truth, "images": [{"bytes": picture, "path": f"{number:07d}.jpg"}]}


def _verl(number: int, messages: list[dict[str, str]], truth: str, picture: bytes, out: Path) -> Row:
    return {
        "data_source": DATA_SOURCE,
        "prompt": messages,
        "images": [{"bytes": picture, "path": f"{number:07d}.jpg"}],
        "ability": "driving",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"index": number},
    }


def _swift(number: int, messages: list[dict[str, str]], truth: str, picture: bytes, out: Path) -> Row:
    path = out / "images" / f"{number:07d}.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(picture)
    return {"messages": messages, "images": [str(path.resolve())], "solution": truth}


WRITERS: dict[str, Callable[[int, list[dict[str, str]], str, bytes, Path], Row]] = {
    "easyr1": _easyr1, "verl": _verl, "swift": _swift,
}  # fmt: skip


def rows(
    source: Source, engine: str, stage: str, out: Path, size_wh: tuple[int, int] | None, answered: bool, seed: int
) -> Iterator[Row]:
    """A row for each picture, as the engine wants it."""
    for number in tqdm(range(len(source)), unit="picture", disable=None):
        sample = source.load(number)
        messages, truth = messages_of(sample, stage, np.random.default_rng((seed, number)), answered)
        yield WRITERS[engine](number, messages, truth, _jpeg(sample, size_wh), out)


def write(path: Path, found: Iterator[Row]) -> int:
    """Writes rows to a ``.jsonl`` or ``.parquet`` file; how many.

    Raises:
        ConfigError: pyarrow is missing.
    """
    partial = path.with_name(path.name + ".partial")
    if path.suffix == ".jsonl":
        lines = [json.dumps(row) for row in found]
        partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        count = len(lines)
    else:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ConfigError("parquet files need pyarrow: pip install pyarrow") from error
        table = pyarrow.Table.from_pylist(list(found))
        count = table.num_rows
        pyarrow.parquet.write_table(table, partial)
    partial.replace(path)
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.exchange", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--to", choices=sorted(WRITERS), required=True)
    parser.add_argument("--dataset", required=True, help="world:FIRST-LAST or KIND:PATH (see training.sources)")
    parser.add_argument("--split", default="train")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--stage", choices=STAGES, default="placement")
    parser.add_argument(
        "--size", metavar="WxH", help="resize pictures to the model's input; labels stay in the original's pixels"
    )
    parser.add_argument("--sft", action="store_true", help="with the right answers, for supervised training (swift only)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        if args.sft and args.to != "swift":
            raise ConfigError("--sft: only ms-swift trains on answers; EasyR1 and veRL draw their own")
        size_wh = parse_size(args.size) if args.size else None
        source = open_source(args.dataset, args.split, limit=args.limit)
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / ("data.jsonl" if args.to == "swift" else "data.parquet")
        count = write(path, rows(source, args.to, args.stage, args.out, size_wh, args.sft, args.seed))
        (args.out / "reward.py").write_text(REWARD_FILES[args.to], encoding="utf-8")
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {count} pictures; rewards in {args.out / 'reward.py'} (with this repository on PYTHONPATH)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
