"""Checkpoints of a run and its log, shared by the training programs: exact to continue from, and never half written."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

KEPT_CHECKPOINTS = 2


def save_checkpoint(accelerator: Accelerator, out: Path, step: int, extra: dict[str, Any]) -> None:
    """Saves everything that a bit-exact continuation needs; the last good checkpoint survives a failure half-way.

    Args:
        accelerator: holds model, optimisers and schedulers.
        out: run folder.
        step: finished steps, names the checkpoint.
        extra: what else ``torch.save`` shall keep; ``step`` is added.
    """
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return
    final, partial = out / f"checkpoint-{step:07d}", out / "checkpoint-partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        accelerator.save_state(str(partial))
        torch.save({**extra, "step": step}, partial / "extra.pt")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except OSError as error:
        print(f"saving {final} failed ({error}); the last good checkpoint is kept", file=sys.stderr)
        shutil.rmtree(partial, ignore_errors=True)
        return
    for old in sorted(out.glob("checkpoint-0*"))[:-KEPT_CHECKPOINTS]:
        shutil.rmtree(old)


def load_newest(accelerator: Accelerator, out: Path) -> dict[str, Any] | None:
    """Restores the newest checkpoint of a run folder and returns its ``extra``; None where there is none."""
    found = sorted(out.glob("checkpoint-0*"))
    if not found:
        return None
    accelerator.load_state(str(found[-1]))
    accelerator.print(f"resumed from {found[-1]}")
    return torch.load(found[-1] / "extra.pt", weights_only=True, map_location=accelerator.device)  # type: ignore[no-any-return]


class RunLog:
    """``log.jsonl`` and TensorBoard in a run folder; does nothing on other processes than the main one."""

    def __init__(self, out: Path, active: bool) -> None:
        self._file = self._writer = None
        if active:
            from torch.utils.tensorboard import SummaryWriter

            self._file = (out / "log.jsonl").open("a", buffering=1)
            self._writer = SummaryWriter(str(out))

    def write(self, step: int, values: dict[str, float]) -> None:
        """One record; numbers are rounded to 8 digits after the point, NaN is written as null."""
        if self._file is None or self._writer is None:
            return
        plain = {name: round(value, 8) if value == value else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **plain}) + "\n")
        for name, value in values.items():
            if value == value:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both."""
        if self._file is not None and self._writer is not None:
            self._file.close()
            self._writer.close()


def plain_config(config: Any) -> dict[str, Any]:
    """A configuration dataclass as JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # type: ignore[no-any-return]
