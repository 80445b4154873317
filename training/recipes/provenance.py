"""What a model has seen and on what terms: noted in ``training.json``, from where it goes into the bundle's contract."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from getok_drive.bundle import CONTRACT, Bundle
from training.recipes.pools import Pool, reader_of

WORLD = {"name": "procedural driving world of this repository (training/datasets/world)", "terms": "Apache-2.0"}


def provenance(pools: Sequence[Pool], source: str | None = None) -> list[dict[str, str]]:
    """Data sets and their terms, each once: those of the checkpoint that training began with, then those of the pools.

    Args:
        pools: of this run.
        source: checkpoint folder or hub name that it began with, if any.
    """
    found = [] if source is None else _before(source)
    for pool in pools:
        if pool.kind.partition("-")[0] == "world":  # also crowds and drives of it
            record = WORLD
        elif pool.kind in ("chat", "offset"):
            record = {
                "name": f"{pool.kind}: {Path(pool.path).name}",
                "terms": "those of its pictures and texts; not stated in the file",
            }
        else:
            record = {"name": pool.kind, "terms": str(getattr(reader_of(pool), "TERMS", "not stated"))}
        if record not in found:
            found.append(record)
    return found


def _before(source: str) -> list[dict[str, str]]:
    path = Path(source) / "training.json"
    if not path.is_file() and (Path(source) / CONTRACT).is_file():
        return [{"name": one.name, "terms": one.terms} for one in Bundle.load(source).contract.training]
    if not path.is_file():
        return [{"name": f"base model {Path(source).name}", "terms": "those of that model"}]
    record = json.loads(path.read_text(encoding="utf-8"))
    return list(record.get("training", [WORLD]))
