"""Weights that are spread over processes (FSDP2, ZeRO-3): this process's part, and the whole."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor, nn

from getok_drive.errors import GetokError


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


def savewhole(accelerator: Accelerator, model: Any, tokenizer: Any, folder: os.PathLike[str]) -> None:
    """An ordinary transformers folder of a model that may be sharded; every process must call it, the main one writes.

    Raises:
        GetokError: it cannot be written.
    """
    state = whole_state(model) if is_sharded(model) else None
    if accelerator.is_main_process:
        try:
            model.save_pretrained(folder, state_dict=state)
            tokenizer.save_pretrained(folder)
        except (OSError, SafetensorError) as error:
            raise GetokError(f"{folder}: cannot be written ({error}); is the disk full?") from error
