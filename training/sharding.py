"""Weights that are spread over processes (FSDP2, ZeRO-3): this process's part, and the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor, nn

from getok_drive.errors import GetokError
from training.base_model import save_folder
from training.lora import Tuned


def is_sharded(model: nn.Module) -> bool:
    """Whether this process holds only a part of each weight (FSDP2, ZeRO-3)."""
    return any(hasattr(p, "full_tensor") or hasattr(p, "ds_id") for p in model.parameters())


def local(tensor: Tensor) -> Tensor:
    """This process's part of a weight that FSDP2 spread, or the weight itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # type: ignore[no-any-return]


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that FSDP2 spread; every process must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[no-any-return]


@torch.no_grad()
def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's ``state_dict`` with whole tensors; every process must call it, and every process gets all of it."""
    spread = [p for p in model.parameters() if hasattr(p, "ds_id")]
    if spread:
        import deepspeed

        with deepspeed.zero.GatheredParameters(spread):
            return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return {name: whole(tensor.detach()) for name, tensor in model.state_dict().items()}


def save_whole(
    accelerator: Accelerator, model: Any, tokenizer: Any, folder: Path, tuned: Tuned | None = None, source: str | None = None
) -> None:
    """An ordinary transformers folder of a model that may be sharded; every process must call it, the main one writes.

    Args:
        accelerator: of the run.
        model: transformers' model.
        tokenizer: its tokenizer.
        folder: written into; created if need be.
        tuned: of a model with adapters: they are merged, and stand in the folder ``adapter`` of their own beside.
        source: folder or hub name that the run started from, see `training.base_model.save_folder`.

    Raises:
        GetokError: it cannot be written.
    """
    state = whole_state(model) if tuned or is_sharded(model) else None
    if state and not tuned:  # gathered, a tied weight would be written under each of its names
        names = {name for name, _ in model.named_parameters()}
        twice = {name for name, _ in model.named_parameters(remove_duplicate=False)} - names
        state = {name: tensor for name, tensor in state.items() if name not in twice}
    if accelerator.is_main_process:
        try:
            save_folder(model, tokenizer, folder, tuned.merge(state) if tuned and state else state, source)
            if tuned and state:
                tuned.save(state, source or "", folder / "adapter")
        except (OSError, SafetensorError) as error:
            raise GetokError(f"{folder}: cannot be written ({error}); is the disk full?") from error
