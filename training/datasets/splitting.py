"""Dividing a converted data set by sequence, so that no drive and no picture stands on two sides."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from getok_drive.errors import ConfigError, InputError
from training.datasets.reading import read_json_lines


@dataclass(frozen=True, slots=True)
class Divided:
    """The result of a division.

    Attributes:
        parts: split -> (pictures, sequences).
        joined: sequences that were kept together with another one because they share a picture.
    """

    parts: Mapping[str, tuple[int, int]]
    joined: int


def split_file(path: Path, shares: Mapping[str, float]) -> Divided:
    """Write ``train.jsonl``, ``val.jsonl`` and ``test.jsonl`` beside a JSONL file, in place of those of an earlier division.

    Sequences are taken in the order of a hash of their names, so that the result depends on nothing but the data, and each goes
    where most pictures are missing. Sequences that hold the same picture (byte by byte) stay together.

    Args:
        path: the file; its pictures are read.
        shares: share of the pictures for each split; those with 0 are not written, and what an earlier division of this
            file wrote of them is removed: its pictures are in other parts now.

    Raises:
        ConfigError: shares that are not positive, or fewer sequences than splits.
        InputError: a file that is not of our schema.
    """
    total = sum(shares.values())
    if total <= 0 or min(shares.values()) < 0:
        raise ConfigError(f"--shares: expected numbers of 0 or more that do not add up to 0, got {dict(shares)}")
    records = read_json_lines(path)
    if not records:
        raise InputError(f"{path}: no line in it")
    names = []
    for number, record in enumerate(records, 1):
        try:
            names.append(str(record["meta"].get("sequence") or record["image"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: line {number} has no image or meta; is it of our schema?") from error
    group = _joined([path.parent / str(record["image"]) for record in records], names)
    sizes = Counter(group[name] for name in names)
    wanted = {name: share / total * len(records) for name, share in shares.items() if share > 0}
    if len(sizes) < len(wanted):
        raise ConfigError(f"{path}: {len(sizes)} independent sequences cannot be divided into {len(wanted)} parts without leaks")
    place: dict[str, str] = {}
    filled = dict.fromkeys(wanted, 0)
    for sequence in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        left = len(sizes) - len(place)
        empty = [name for name in wanted if not filled[name]]
        open_parts = empty if left <= len(empty) else list(wanted)
        at = max(open_parts, key=lambda name: (wanted[name] - filled[name]) / wanted[name])
        place[sequence] = at
        filled[at] += sizes[sequence]
    here = {str(record["image"]) for record in records}
    for stale in (path.with_name(f"{part}.jsonl") for part in shares if part not in wanted):
        if stale != path and stale.exists() and all(str(record.get("image")) in here for record in read_json_lines(stale)):
            stale.unlink()
    for part in wanted:
        chosen = [record for record, name in zip(records, names, strict=True) if place[group[name]] == part]
        text = "".join(json.dumps({**record, "split": part}, ensure_ascii=False) + "\n" for record in chosen)
        temporary = path.with_name(f".{part}.jsonl.part")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path.with_name(f"{part}.jsonl"))
    sequences = Counter(place[group[name]] for name in set(names))
    return Divided({part: (filled[part], sequences[part]) for part in wanted}, len(set(names)) - len(sizes))


def _joined(images: list[Path], names: list[str]) -> dict[str, str]:
    """Sequence -> the first of the sequences that it shares pictures with (itself when there is none)."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    owner: dict[bytes, str] = {}
    for image, name in zip(images, names, strict=True):
        try:
            digest = hashlib.sha256(image.read_bytes()).digest()
        except OSError as error:
            raise InputError(f"{image}: cannot be read ({error.strerror}); is the folder complete?") from error
        parent[root(name)] = root(owner.setdefault(digest, name))
    return {name: root(name) for name in parent}
