"""``python -m training.recipes``: what a run would be taught, before it is started, and what its padding costs.

    python -m training.recipes --preset tiny --domain driving --data tusimple:PATH --show 3
    python -m training.recipes --data 2*world:train --data classification=world:train --steps 8 recipe.length_group=4

``[[...]]`` is taught, ``{a|b}`` are equally right answers, the rest is read. ``--steps`` counts the tokens of batches.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch

from getok_drive.errors import GetokError
from getok_drive.tokens.vocab import TOKENS
from training.batches import RecipeBatches, with_data
from training.collate import Batch, Layout
from training.model import SIZES, build_model, build_tokenizer
from training.presets import PRESETS, override
from training.recipes.conversation import IGNORE, Conversation
from training.recipes.domains import DOMAINS
from training.recipes.encoder import Encoder


def marked(conversation: Conversation, encoder: Encoder) -> str:
    """A conversation as text, with what is taught in double brackets, and there what belongs, not what is read."""
    parts = []
    kinds = [
        ("choice" if at in conversation.alternatives else "read" if label == IGNORE else "taught")
        for at, label in enumerate(conversation.labels)
    ]
    for kind, places in groupby(range(len(kinds)), lambda at: kinds[at]):
        at = list(places)
        if kind == "read":
            parts.append(encoder.tokenizer.decode([conversation.ids[i] for i in at]))
        elif kind == "taught":
            parts.append(f"[[{encoder.tokenizer.decode([conversation.labels[i] for i in at])}]]")
        else:
            for i in at:
                label = encoder.tokenizer.decode([conversation.labels[i]])
                parts.append(f"[[{{{'|'.join((label, *(TOKENS[t] for t in sorted(conversation.alternatives[i]))))}}}]]")
    return "".join(parts)


def padding(batches: Sequence[Batch], parts: int) -> tuple[int, int]:
    """Tokens that are computed, and those of them that are part of a row, when each batch is cut into parts by length."""
    computed = used = 0
    for batch in batches:
        rows = torch.argsort(batch.lengths) if parts > 1 else torch.arange(len(batch.ids))
        for part in rows.chunk(parts):
            computed += batch.rows(part).ids.numel()
            used += int(batch.lengths[part].sum())
    return computed, used


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit status 0, or 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m training.recipes", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="nano")
    parser.add_argument("--domain", choices=[*DOMAINS, "mix"])
    parser.add_argument("--data", action="append", default=[], metavar="[DOMAIN=][WEIGHT*]KIND:PATH[#SPLIT]")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print the first N conversations")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="count the tokens of the first N batches")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _run(options, Path(folder))
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace, folder: Path) -> None:
    config = with_data(override(PRESETS[options.preset], options.settings), options.domain, options.data, folder)
    tokenizer = build_tokenizer()
    encoder = Encoder(tokenizer, Layout.of(tokenizer, build_model(SIZES["tiny"], tokenizer).config))
    made = RecipeBatches(config, config.stages[-1], encoder, 0, 1)
    for number in range(options.show):
        row = made.example(number)
        print(f"--- {row.sample.meta.get('source', 'world')}, {len(row.ids)} tokens\n{marked(row, encoder)}\n")
    if options.steps:
        groups = -(-options.steps // config.recipe.length_group)
        found = [batch for group in range(groups) for batch in made[group]]
        computed, used = padding(found, config.accumulate)
        what = f"{len(found)} batches of {config.batch_size} in {config.accumulate} parts"
        print(f"{what}: {computed} tokens, {1 - used / computed:.1%} padding")


if __name__ == "__main__":
    sys.exit(main())
