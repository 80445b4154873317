"""Checkpoints of a run and its log, shared by the training programs: exact to continue from, and never half written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from getok_drive.bundle import CONTRACT, Bundle
from getok_drive.errors import ConfigError
from getok_drive.tokens.prompts import prompt_hash
from getok_drive.tokens.vocab import TOKENS
from getok_drive.types import ImageBgr

KEPT_CHECKPOINTS = 2
# As Python, torch's writers (of whole and of sharded checkpoints) and safetensors' report a full disk.
_DISK_ERRORS = (OSError, RuntimeError, CheckpointException, SafetensorError)


def save_checkpoint(
    accelerator: Accelerator, out: Path, step: int, extra: dict[str, Any], own: dict[str, Any] | None = None
) -> bool:
    """Saves everything that a bit-exact continuation needs; every process must call it.

    The checkpoint is written beside the good ones and renamed when it is whole, so whatever happens half-way, the last good
    one survives. A failure is told on stderr, and training may go on: room may be made meanwhile.

    Args:
        accelerator: holds model, optimisers and schedulers.
        out: run folder.
        step: finished steps, names the checkpoint.
        extra: what else ``torch.save`` shall keep once; ``step`` is added.
        own: what each process keeps for itself.

    Returns:
        Whether it was saved.
    """
    final, partial = out / f"checkpoint-{step:07d}", out / "checkpoint-partial"
    main = accelerator.is_main_process
    if main:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    if final.is_dir():  # a run writes one state at a step
        return True
    error = ""
    try:
        accelerator.save_state(str(partial))
        if main:
            about = {"step": step, "processes": accelerator.num_processes, "vocabulary": list(TOKENS), "prompts": prompt_hash()}
            torch.save({**extra, **about}, partial / "extra.pt")
        if own is not None:
            torch.save(own, partial / f"extra-{accelerator.process_index}.pt")
    except _DISK_ERRORS as problem:
        error = f"{type(problem).__name__}: {problem}"
    errors = [found for found in gather_object([error]) if found]
    if main:
        if errors:
            shutil.rmtree(partial, ignore_errors=True)
            good = newest(out)
            kept = f"the last good checkpoint is {good}" if good else "there is no earlier checkpoint"
            print(f"saving {final} failed ({errors[0]}); is the disk full? {kept}", file=sys.stderr)
        else:
            partial.rename(final)
            for old in sorted(out.glob("checkpoint-0*"))[:-KEPT_CHECKPOINTS]:
                shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return not errors


def newest(out: Path) -> Path | None:
    """The newest whole checkpoint of a run folder."""
    return max(out.glob("checkpoint-0*"), default=None)


def load_newest(accelerator: Accelerator, out: Path, exact: bool = True) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
    """Restores the newest checkpoint of a run folder; None where there is none.

    Args:
        accelerator: holds what to restore.
        out: run folder.
        exact: whether the number of processes has to be the same, as going on with the same data needs.

    Returns:
        What was given as ``extra``, and as this process's ``own``.

    Raises:
        ConfigError: it was written with another vocabulary, another model or another number of processes; says which.
    """
    found = newest(out)
    if found is None:
        return None
    try:
        extra = torch.load(found / "extra.pt", weights_only=True, map_location="cpu")
    except _DISK_ERRORS as error:
        raise ConfigError(f"{found}: cannot be read ({error}); delete this folder to go on from an earlier one") from error
    _check_origin(found, extra, accelerator.num_processes if exact else None)
    try:
        accelerator.load_state(str(found))
    except RuntimeError as error:  # torch's load_state_dict names what does not fit
        raise ConfigError(f"{found}: is of another model than this run's settings make ({_last_line(error)})") from error
    accelerator.print(f"resumed from {found}")
    path = found / f"extra-{accelerator.process_index}.pt"
    own = torch.load(path, weights_only=True, map_location="cpu") if path.is_file() else None
    return extra, own


def _check_origin(folder: Path, extra: dict[str, Any], processes: int | None) -> None:
    table = extra.get("vocabulary", list(TOKENS))
    if table != list(TOKENS):
        pairs = zip(table, TOKENS, strict=False)
        where = next((i for i, (theirs, ours) in enumerate(pairs) if theirs != ours), min(len(table), len(TOKENS)))
        theirs, ours = (words[where] if where < len(words) else "nothing" for words in (table, TOKENS))
        raise ConfigError(
            f"{folder}: has another vocabulary: {len(table)} tokens, {theirs} at place {where} where this version has {ours}; "
            "go on with the version that wrote it, or begin a run in another --out"
        )
    if extra.get("prompts", prompt_hash()) != prompt_hash():
        raise ConfigError(f"{folder}: was trained on other prompts than this version's; begin a run in another --out")
    if processes is not None and extra.get("processes", processes) != processes:
        raise ConfigError(
            f"{folder}: was written by {extra['processes']} processes, this run has {processes}; the data of a step would "
            "change. Start as many, or begin a run in another --out with --start-from"
        )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class RunLog:
    """``log.jsonl``, TensorBoard and pictures in a run folder; does nothing on other processes than the main one.

    Args:
        out: run folder.
        active: whether this is the main process.
        step: finished steps; records of a killed run beyond them are dropped, because they are about to be written again.
    """

    def __init__(self, out: Path, active: bool, step: int = 0) -> None:
        self._out, self._file, self._writer = out, None, None
        self._complained = False
        if active:
            from torch.utils.tensorboard import SummaryWriter

            path = out / "log.jsonl"
            _drop_records_after(path, step)
            self._file = path.open("a", buffering=1, encoding="utf-8")
            self._writer = SummaryWriter(str(out), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One record; numbers are rounded to 8 digits after the point, NaN is written as null. A full disk is told once."""
        if self._file is None or self._writer is None:
            return
        plain = {name: round(value, 8) if value == value else None for name, value in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **plain}) + "\n")
            for name, value in values.items():
                if value == value:
                    self._writer.add_scalar(name, value, step)
        except OSError as error:
            self._complain(error)

    def picture(self, step: int, name: str, image_bgr: ImageBgr) -> None:
        """A picture as ``NAME/step.jpg`` and in TensorBoard; ``(H, W, 3)``."""
        if self._writer is None:
            return
        import cv2

        path = self._out / name / f"{step:07d}.jpg"
        try:
            path.parent.mkdir(exist_ok=True)
            if not cv2.imwrite(str(path), image_bgr):
                raise OSError(f"{path} cannot be written")
            self._writer.add_image(name, image_bgr[:, :, ::-1].copy(), step, dataformats="HWC")
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            print(f"the log cannot be written ({error}); training goes on", file=sys.stderr)
            self._complained = True

    def close(self) -> None:
        """Flushes and closes both."""
        if self._file is not None and self._writer is not None:
            try:
                self._file.close()
                self._writer.close()
            except OSError as error:
                self._complain(error)


def _drop_records_after(path: Path, step: int) -> None:
    """Keeps the records up to a step (a line that a kill cut in two goes too)."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)


def trained_size_wh(folder: Path) -> tuple[int, int]:
    """Image size that a checkpoint was trained at, from its ``training.json``, or from the contract where it is a bundle.

    Raises:
        ConfigError: neither file is there and says so.
        BundleError: the bundle is broken.
    """
    path = folder / "training.json"
    try:
        if not path.is_file() and (folder / CONTRACT).is_file():
            width, height = Bundle.load(folder).contract.image.size_wh
        else:
            width, height = json.loads(path.read_text(encoding="utf-8"))["image_size_wh"]
        return int(width), int(height)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no size of the training images ({error!r}); say it: image_size_wh or --image-size") from error


def weights_sha256(folder: Path) -> str:
    """One hash over all weight files of a checkpoint folder, hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()


def plain_config(config: Any) -> dict[str, Any]:
    """A configuration dataclass as JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # type: ignore[no-any-return]
