"""Weights that do not learn: a checkpoint names their origin and holds their hashes instead of themselves.

A run builds them again when it starts: from its base, its starting point or its seed. With LoRA that leaves the adapters, the
token table's rows and the optimiser in a checkpoint; of a 7B model some 3 GB instead of 20.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_model
from torch import Tensor, nn

from getok_drive.errors import ConfigError

RECORD = "frozen.json"
_WEIGHTS = "model.safetensors"  # as accelerate names it


def leave_out_frozen(accelerator: Accelerator, source: str | None) -> None:
    """From now on checkpoints leave out what does not learn, and loading one checks that the run has the same.

    Checkpoints of FSDP2 and DeepSpeed hold everything as before: each process writes its part of every weight.

    Args:
        accelerator: of the run; holds one model by the time that a checkpoint is written or loaded.
        source: folder or hub name that the run starts from; None: built from the seed.
    """
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        return
    hashes: dict[str, str] = {}  # frozen weights stay as they are, so they are hashed once

    def own_hashes(model: nn.Module) -> dict[str, str]:
        if not hashes:
            hashes.update((name, _sha256(p)) for name, p in model.named_parameters() if not p.requires_grad)
        return hashes

    def save(models: list[nn.Module], states: list[dict[str, Tensor]], folder: str) -> None:
        model = models[0]
        if left_out := _left_out(model):
            states[0] = {name: value for name, value in states[0].items() if name not in left_out}
            if accelerator.is_main_process:
                record = {"source": source, "sha256": own_hashes(model)}
                (Path(folder) / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")

    def load(models: list[nn.Module], folder: str) -> None:
        path = Path(folder) / RECORD
        if not path.is_file():
            return  # everything learns, or the checkpoint is of a version that saved all: accelerate loads it
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path}: cannot be read ({error}); delete the folder to go on from an earlier one") from error
        model = models.pop(0)  # accelerate loads what is left in the list
        _check(path.parent, record, source, own_hashes(model))
        missing, unexpected = load_model(model, path.parent / _WEIGHTS, strict=False)
        if wrong := sorted({*unexpected, *missing} - _left_out(model)):
            raise ConfigError(f"{path.parent}: is of another model than this run's settings make ({wrong[0]})")

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def _left_out(model: nn.Module) -> set[str]:
    """Names of what does not learn, and second names of shared weights; none where everything learns."""
    first = dict(model.named_parameters())
    every = dict(model.named_parameters(remove_duplicate=False))
    frozen = {name for name, p in every.items() if not p.requires_grad}
    return frozen | (every.keys() - first.keys()) if frozen else set()


def _sha256(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _check(folder: Path, record: Mapping[str, dict[str, str]], source: str | None, own: Mapping[str, str]) -> None:
    """Refuses a base that is not the checkpoint's, by the first weight that differs."""
    theirs = record["sha256"]
    if wrong := [name for name in [*theirs, *own] if theirs.get(name) != own.get(name)]:
        built = "weights made from the seed"
        raise ConfigError(
            f"{folder}: holds what {record['source'] or built} learned; of {source or built}, that this run starts from, "
            f"{len(set(wrong))} frozen weights are others, first {wrong[0]}; start from the former, or begin a run in another "
            "--out"
        )
