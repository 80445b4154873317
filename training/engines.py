"""Who draws the answers of GRPO (our own generator, or vLLM where it is installed; one protocol for both), and its reference."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from getok_drive.errors import ConfigError
from getok_drive.preprocess import Preprocessor
from training.collate import Layout
from training.model import load_checkpoint
from training.policy import AdaptersOff, Policy
from training.rollout import Rollout, Sampler
from training.samples import Sample
from training.sampling import Dialogue, Sampling
from training.sharding import is_sharded, whole_state

if TYPE_CHECKING:
    from peft import PeftModel

ENGINES = ("auto", "own", "vllm")


class Engine(Protocol):
    """Draws answers with the policy's weights."""

    def draw(
        self, stage: str, samples: Sequence[Sample], pixels: Tensor, group: int, sampling: Sampling, seed: int, first: int,
        dialogues: Sequence[Dialogue] = (),
    ) -> list[Rollout]:  # fmt: skip
        """``group`` answers to each picture, a picture's side by side.

        Args:
            stage: ``placement`` (the propose turn is drawn) or ``movement`` (the refine turn).
            samples: the pictures.
            pixels: the same, ``(B, patches, patch_dim)`` on the policy's device.
            group: answers a picture.
            sampling: how to draw.
            seed: of the run.
            first: number of the first picture in the run; see `Sampler.place`.
            dialogues: what is asked about each; see `Sampler.place`.
        """

    def follow(self, policy: Qwen2_5_VLForConditionalGeneration) -> None:
        """Takes over the policy's weights; every process must call it before drawing."""


def frozen_copy(folder: Path, device: torch.device, compact: bool) -> Qwen2_5_VLForConditionalGeneration:
    """A checkpoint's model that only answers.

    Args:
        folder: checkpoint.
        device: where it shall be.
        compact: in bfloat16 on GPUs, as autocast would read its weights anyway.
    """
    model = load_checkpoint(folder)[0].eval().requires_grad_(False)
    return model.to(device, torch.bfloat16 if compact and device.type == "cuda" else torch.float32)


class OwnEngine:
    """`training.rollout`: forks the cache of the policy itself, or of a whole copy where the policy is spread over processes.

    Args:
        policy: the policy's model after it was prepared.
        start_from: its checkpoint; a copy is made from it.
        layout: fixed token ids.
        grid_hw: patches along the height and the width.
        device: where a copy shall be.
    """

    def __init__(
        self,
        policy: Qwen2_5_VLForConditionalGeneration,
        start_from: Path,
        layout: Layout,
        grid_hw: tuple[int, int],
        device: torch.device,
    ) -> None:
        self._copied = is_sharded(policy)
        self._model = frozen_copy(start_from, device, compact=True) if self._copied else policy
        self._layout, self._grid_hw = layout, grid_hw

    def draw(
        self, stage: str, samples: Sequence[Sample], pixels: Tensor, group: int, sampling: Sampling, seed: int, first: int,
        dialogues: Sequence[Dialogue] = (),
    ) -> list[Rollout]:  # fmt: skip
        """See `Engine.draw`."""
        sampler = Sampler(self._model, self._layout, self._grid_hw, sampling)
        return (sampler.place if stage == "placement" else sampler.move)(pixels, group, seed, first, dialogues)

    def follow(self, policy: Qwen2_5_VLForConditionalGeneration) -> None:
        """See `Engine.follow`; nothing to do where the policy's own weights are used."""
        if self._copied:
            self._model.load_state_dict(whole_state(policy))


def open_reference(
    policy: Policy, adapted: PeftModel | None, start_from: Path, device: torch.device, compact: bool
) -> Policy | AdaptersOff:
    """The policy as it was at its start, for the KL term: its own weights without adapters, or a frozen copy.

    Args:
        policy: without the wrapper that distributes it.
        adapted: PEFT's view of its model; None where all weights learn.
        start_from: its checkpoint.
        device: where a copy shall be.
        compact: see `frozen_copy`.
    """
    if adapted is not None:
        return AdaptersOff(policy, adapted)
    return Policy(frozen_copy(start_from, device, compact)).eval().requires_grad_(False)


def open_engine(
    name: str,
    policy: Qwen2_5_VLForConditionalGeneration,
    start_from: Path,
    layout: Layout,
    preprocess: Preprocessor,
    device: torch.device,
    work: Path,
) -> Engine:
    """The engine of a name: ``own``, ``vllm``, or ``auto``: vLLM where it is installed and can run this model.

    Args:
        name: one of `ENGINES`.
        policy: the policy's model after it was prepared.
        start_from: its checkpoint.
        layout: fixed token ids.
        preprocess: of the pictures.
        device: of the policy.
        work: folder for weights on their way to vLLM.

    Raises:
        ConfigError: unknown name, or vLLM was asked for and is missing.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine={name!r}: expected one of {', '.join(ENGINES)}")
    installed = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not installed:
        raise ConfigError("engine=vllm: vLLM is not installed; pip install vllm in an environment of its own, or set engine=own")
    fits = layout.position_rule == "text" and device.type == "cuda"
    if name == "vllm" or (name == "auto" and installed and fits):
        from training.vllm_engine import VllmEngine

        return VllmEngine(start_from, layout, preprocess, work)
    return OwnEngine(policy, start_from, layout, preprocess.grid_hw, device)
