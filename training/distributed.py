"""Processes: one way to open accelerate for one process, DDP, FSDP2 and DeepSpeed, and what the trainers must know of them.

The files in ``training/configs`` choose; the trainers read the same for each. Two things are hidden here because accelerate does
them silently: on the CPU it turns FSDP2 and DeepSpeed into DDP (`open_accelerator` puts that right, so both are tested without a
GPU), and DeepSpeed takes its optimiser step inside ``backward`` (`one_backward` says which pass is the last).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, gather_object
from torch import Tensor, nn
from transformers.integrations import unset_hf_deepspeed_config

from getok_drive.errors import ConfigError
from training.losses import Losses
from training.sharding import whole


def open_accelerator(
    batch_size: int, clip_norm: float, threads: int = 0, unused_parameters: bool = False, cpu_bf16: bool = False
) -> Accelerator:
    """The accelerator of this process, as the launcher configured it; bfloat16 on GPUs, unless ``ACCELERATE_MIXED_PRECISION``
    says otherwise.

    Args:
        batch_size: per process and step; DeepSpeed wants to know.
        clip_norm: DeepSpeed clips gradients itself.
        threads: torch's threads on the CPU; 0 leaves torch's choice.
        unused_parameters: whether some steps train only a part of the model (DDP has to look for the part).
        cpu_bf16: bfloat16 on processors that compute with it, too.

    Raises:
        ConfigError: FSDP of version 1 is configured, or DeepSpeed without being installed.
    """
    _make_visible_to_fsdp()
    gpu = torch.cuda.is_available()
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    if deepspeed and importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("DeepSpeed is asked for but not installed: pip install --no-build-isolation 'getok-drive[deepspeed]'")
    if deepspeed and not gpu and "LOCAL_RANK" in os.environ:
        _deepspeed_over_gloo()
    accelerator = Accelerator(
        cpu=not gpu and not deepspeed,  # without it, processes on a machine without a GPU would not find each other
        mixed_precision=os.environ.get("ACCELERATE_MIXED_PRECISION")
        or ("bf16" if gpu or (cpu_bf16 and _cpu_has_bf16()) else "no"),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused_parameters)],
    )
    if threads and not gpu:
        torch.set_num_threads(threads)
    state = accelerator.state
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        plugin = getattr(state, "fsdp_plugin", None) or FullyShardedDataParallelPlugin()
        if plugin.fsdp_version != 2:
            raise ConfigError("FSDP of version 1 is not supported; set fsdp_version: 2 as in training/configs/fsdp2.yaml")
        if accelerator.num_processes > 1:
            state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # else the next AcceleratorState() undoes it
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        settings = state.deepspeed_plugin.deepspeed_config
        settings.update(train_micro_batch_size_per_gpu=batch_size, gradient_accumulation_steps=1, gradient_clipping=clip_norm)
        if not state.deepspeed_plugin.is_zero3_init_enabled():
            unset_hf_deepspeed_config()  # which accelerate sets regardless, and transformers then builds models in pieces
    return accelerator


def leave_together(accelerator: Accelerator) -> None:
    """The end of a program of several processes: one that leaves while the others still talk to it may abort (gloo)."""
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        accelerator.end_training()


def _cpu_has_bf16() -> bool:
    """Whether this processor multiplies in bfloat16; elsewhere it is slower than single precision."""
    able = torch.cpu.get_capabilities()
    return any(able.get(unit, False) for unit in ("avx512_bf16", "amx_bf16"))


def _deepspeed_over_gloo() -> None:
    """Joins the processes of a machine without a GPU; accelerate, left alone, takes each for a run of its own."""
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles C++ for minutes, for a collective of inference
    PartialState(backend="gloo")


def _make_visible_to_fsdp() -> None:
    """FSDP2 hooks into the tensors that a forward returns; inside a dataclass it finds them only if the class is registered."""
    if Losses not in torch.utils._pytree.SUPPORTED_NODES:
        torch.export.register_dataclass(Losses)


def distribute(accelerator: Accelerator, model: nn.Module, *optimizers: torch.optim.Optimizer) -> tuple[Any, ...]:
    """`Accelerator.prepare`; for DeepSpeed, which only casts the weights, with bfloat16 autocast and an output that it reads."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        _make_visible_to_deepspeed(model)
    if _casts_weights(accelerator):
        model.forward = torch.autocast(accelerator.device.type, torch.bfloat16)(model.forward)  # type: ignore[method-assign]
    return tuple(accelerator.prepare(model, *optimizers))


class _Output(dict[str, Any]):
    """A dataclass's values as a dict, with its attributes."""

    __getattr__ = dict.__getitem__


def _make_visible_to_deepspeed(model: nn.Module) -> None:
    """ZeRO-3 hooks into the tensors that a forward returns; it looks into dicts, and fails on a dataclass with slots."""
    forward = model.forward

    def visible(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if not isinstance(output, Losses):
            return output
        return _Output({field.name: getattr(output, field.name) for field in dataclasses.fields(output)})

    model.forward = visible  # type: ignore[method-assign]


def autocast(accelerator: Accelerator) -> AbstractContextManager[None]:
    """Around forward passes outside the prepared model: the precision that it has inside."""
    if _casts_weights(accelerator):
        return torch.autocast(accelerator.device.type, torch.bfloat16)
    return accelerator.autocast()  # type: ignore[no-any-return]


def _casts_weights(accelerator: Accelerator) -> bool:
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and bool(plugin.deepspeed_config.get("bf16", {}).get("enabled", False))


@contextmanager
def one_backward(accelerator: Accelerator, model: nn.Module, last: bool) -> Iterator[None]:
    """Around one forward and backward of several in a step: gradients are exchanged in the last one only."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        accelerator.gradient_state._set_sync_gradients(last)
        yield
    elif last:
        yield
    else:
        with accelerator.no_sync(model):
            yield


def clip_gradients(accelerator: Accelerator, model: nn.Module, most: float) -> float:
    """Clips the gradients to a norm of ``most``; the norm before."""
    norm = accelerator.clip_grad_norm_(model.parameters(), most)
    return float(whole(norm)) if isinstance(norm, Tensor) else float(norm or 0.0)


def mean_over_processes(accelerator: Accelerator, values: Sequence[float | Tensor]) -> Tensor:
    """Each value's mean over the processes: ``(len(values),)`` float64 on the accelerator's device."""
    device = accelerator.device
    together = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device).detach() for value in values])
    return accelerator.reduce(together, "mean")


def mean_records(accelerator: Accelerator, record: Mapping[str, float]) -> dict[str, float]:
    """What is logged, as the mean over the processes that have a finite value; every process must call it."""
    records = gather_object([dict(record)]) if accelerator.num_processes > 1 else [record]
    return {name: finite_mean([one[name] for one in records]) for name in record} if len(records) > 1 else dict(record)


def finite_mean(values: Sequence[float]) -> float:
    """Mean of what is finite; NaN if nothing is."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is set in any process, so that all of them leave a loop at the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)
