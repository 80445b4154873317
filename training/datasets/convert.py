"""Any data set -> the project's own format, resumable: a picture counts as done when its line stands in ``samples.jsonl``."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from training.datasets.jsonl import record_of
from training.datasets.walk import open_dataset, walk
from training.samples import KINDS, Sample


@dataclass(slots=True)
class Report:
    """What a conversion did.

    Attributes:
        written: pictures in the file now.
        kept: how many of them an earlier run had written.
        elements: number of elements by kind.
        skipped: ``(name, reason)`` of what was left out.
        terms: licence notes found.
    """

    written: int = 0
    kept: int = 0
    elements: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    terms: set[str] = field(default_factory=set)


def convert(
    name: str,
    split: str,
    out: Path,
    *,
    size: str = "448x252",
    limit: int | None = None,
    jobs: int = 1,
    masks: bool = False,
    engine: str = "local",
) -> Report:
    """Write ``samples.jsonl``, ``images/``, ``skipped.jsonl`` and ``report.json`` into a folder.

    Pictures that are files are copied byte by byte, others are written as PNG. Lines come in the data set's order, whatever
    ``jobs``.

    Args:
        name: data set, ``KIND:PATH``.
        split: part of it.
        out: the folder; one that holds another conversion is refused.
        size: of the driving world's pictures.
        limit: only the first N pictures.
        jobs: processes.
        masks: write label pictures into ``masks/`` too.
        engine: ``local`` or ``ray``; see `training.parallel`. The result is the same.

    Raises:
        ConfigError: a folder of another conversion.
        InputError: the disk is full or not writable.
    """
    dataset = open_dataset(name, split, size, limit, masks)
    settings = {"dataset": name, "split": split, "size": size, "masks": masks}
    lines = out / "samples.jsonl"
    try:
        out.mkdir(parents=True, exist_ok=True)
        _claim(out / "convert.json", settings)
        done = _finished(lines)
        report = Report(kept=len(done), skipped=list(dataset.skipped))
        for record in done.values():
            _count(report, record)
        todo = [index for index, key in enumerate(dataset.keys) if key not in done]
        work = partial(_write_one, out=out, with_masks=masks)
        with lines.open("a", encoding="utf-8") as file:
            for key, record, error in walk(dataset, work, jobs, "converting", todo, engine):
                if error is not None:
                    report.skipped.append((key, error))
                else:
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                    file.flush()
                    _count(report, record)
        skipped = "".join(json.dumps({"name": name, "reason": reason}) + "\n" for name, reason in report.skipped)
        (out / "skipped.jsonl").write_text(skipped)
        reasons = Counter(re.sub(r"[\d.]+|\S*/\S*", "*", reason)[:100] for _, reason in report.skipped)
        summary = {
            **settings, "pictures": report.written, "elements": dict(report.elements), "terms": sorted(report.terms),
            "left_out": len(report.skipped), "left_out_by_reason": dict(reasons.most_common()),
        }  # fmt: skip
        (out / "report.json").write_text(json.dumps(summary, indent=1) + "\n")
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror}); free some space and run the same command again"
        ) from error
    return report


def _claim(path: Path, settings: Mapping[str, Any]) -> None:
    """Remember what is converted into the folder, or make sure that it is the same as before."""
    if path.exists():
        before = json.loads(path.read_text())
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise ConfigError(
                f"{path.parent}: holds a conversion with {changed[0]} = {before.get(changed[0])!r}, not "
                f"{settings[changed[0]]!r}; use another --out or delete the folder"
            )
    else:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(settings) + "\n")
        part.replace(path)  # whole or not at all: a run that is killed here must not lock the folder


def _finished(path: Path) -> dict[str, dict[str, Any]]:
    """Key -> record of the lines already written; a last line that was cut off is taken away from the file."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    records = [json.loads(line) for line in whole.splitlines()]
    return {str(record["meta"]["source"]): record for record in records}


def _count(report: Report, record: Mapping[str, Any]) -> None:
    report.written += 1
    report.elements.update({kind: len(record.get(kind, ())) for kind in KINDS if kind in record["known"]})
    if record.get("phrases"):
        report.elements["phrases"] += len(record["phrases"])
    report.terms.add(str(record["meta"].get("terms", "")))


def _write_one(index: int, key: str, sample: Sample, out: Path, with_masks: bool) -> dict[str, Any]:
    """Write the picture (and label pictures) of a sample; its record."""
    stem = f"{index:07d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', Path(key.partition(':')[2]).stem)[-60:]}"
    path = sample.meta.get("image_path")
    target = Path("images") / f"{stem}{Path(path).suffix.lower() if path else '.png'}"
    (out / "images").mkdir(exist_ok=True)
    if path:
        _whole(out / target, lambda temporary: shutil.copyfile(path, temporary))
    else:
        _whole(out / target, lambda temporary: _png(temporary, sample.image_bgr))
    masks = {}
    for name, mask in sample.masks.items() if with_masks else ():
        masks[name] = f"masks/{stem}_{name}.png"
        (out / "masks").mkdir(exist_ok=True)
        _whole(out / masks[name], partial(_png, picture=mask))
    record = record_of(sample, target.as_posix(), masks)
    record["meta"]["source"] = key
    return record


def _whole(path: Path, write: Any) -> None:
    """A file that is there completely or not at all."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _png(path: Path, picture: npt.NDArray[np.generic]) -> None:
    path.write_bytes(cv2.imencode(".png", np.asarray(picture))[1].tobytes())
