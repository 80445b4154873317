"""Which weights of a model learn: all of them, some frozen, or LoRA (arXiv 2106.09685) with the token table's rows beside it.

LoRA adds ``alpha / rank * B @ A`` to every matrix that it adapts. The rows of the new tokens are trained themselves, in the
embedding and, where the head is not tied to it, in the head too (PEFT leaves an untied head frozen when it is not named).
Adapters and rows are float32 whatever the base's precision. `merged_state` folds all of it into ordinary weights; it works on
names and tensors alone, so also on the gathered weights of a run that was spread over processes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from getok_drive.errors import ConfigError
from getok_drive.tokens.vocab import TOKENS
from training.vocabulary import first_token_id

PARTS = {  # modules of each part, by their names in the model
    "language": r"model\.language_model\.layers\.",
    "vision": r"model\.visual\.blocks\.",
    "merger": r"model\.visual\.(merger|deepstack_merger_list)\.",
}


@dataclass(frozen=True, slots=True)
class Tuning:
    """Which weights learn, and how.

    Attributes:
        lora_rank: 0 trains the weights themselves.
        lora_alpha: see the module.
        lora_dropout: on what goes into the adapters.
        train_vision: whether the vision tower learns (with LoRA: is adapted).
        train_merger: whether the layers that hand visual tokens to the decoder learn.
        dtype: of the weights that are loaded, ``float32`` or ``bfloat16``; what learns should be float32.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        rows_lr_ratio: learning rate of the token table's rows under LoRA, relative to that of the adapters.
    """

    lora_rank: int = 0
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    train_vision: bool = True
    train_merger: bool = True
    dtype: str = "float32"
    gradient_checkpointing: bool = False
    rows_lr_ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.lora_rank < 0 or self.lora_alpha <= 0:
            raise ConfigError(f"lora_rank={self.lora_rank}, lora_alpha={self.lora_alpha}: expected 0 or more, and above 0")


@dataclass(frozen=True, slots=True)
class Tuned:
    """What `prepare` did to a model.

    Attributes:
        adapted: PEFT's view of the model.
        scaling: of the adapters' products.
        first: model id of the token table's first token.
        tied: whether the head shares the embedding's matrix.
    """

    adapted: nn.Module
    scaling: float
    first: int
    tied: bool

    def merge(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's ``state_dict`` as ordinary weights, see `merged_state`."""
        return merged_state(state, self.scaling, self.first, self.tied)

    def save(self, state: Mapping[str, Tensor], base: str, folder: Path) -> None:
        """Writes adapters and rows alone, in PEFT's format; ``python -m training.merge`` joins them with their base again.

        Args:
            state: the model's ``state_dict``; whole tensors.
            base: folder or hub name of the model that they change.
            folder: written into; created if need be.
        """
        for config in self.adapted.peft_config.values():  # type: ignore[union-attr]
            config.base_model_name_or_path = base
        named = {f"base_model.model.{name}": value for name, value in state.items()}
        self.adapted.save_pretrained(folder, state_dict=named, save_embedding_layers=False)  # type: ignore[operator]


def prepare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tuning: Tuning) -> Tuned | None:
    """Freezes what shall not learn and puts the adapters in, in place.

    Returns:
        What merging needs; None without LoRA.

    Raises:
        ConfigError: weights of half precision shall learn themselves.
    """
    if model.dtype == torch.bfloat16 and not tuning.lora_rank:
        raise ConfigError(
            "tuning.dtype=bfloat16 without LoRA would round small updates away; set tuning.lora_rank, or tuning.dtype=float32"
        )
    parts = ["language"] + ["vision"] * tuning.train_vision + ["merger"] * tuning.train_merger
    if not tuning.lora_rank:
        for name, parameter in model.named_parameters():
            part = next((part for part, pattern in PARTS.items() if re.match(pattern, name)), "language")
            stem = name.startswith("model.visual.") and part == "language"  # patch and position embedding go with the tower
            parameter.requires_grad_(("vision" if stem else part) in parts)
        _checkpoint_gradients(model, tuning)
        return None
    from peft import LoraConfig, get_peft_model

    first, tied = first_token_id(tokenizer), is_tied(model)
    rows = list(range(first, first + len(TOKENS)))
    config = LoraConfig(
        r=tuning.lora_rank,
        lora_alpha=tuning.lora_alpha,
        lora_dropout=tuning.lora_dropout,
        target_modules=_target_pattern(model, parts),
        trainable_token_indices={"embed_tokens": rows} if tied else {"embed_tokens": rows, "lm_head": rows},
    )
    adapted = get_peft_model(model, config)
    _checkpoint_gradients(model, tuning)  # afterwards, for PEFT would make inputs need gradients
    return Tuned(adapted, tuning.lora_alpha / tuning.lora_rank, first, tied)


def _checkpoint_gradients(model: PreTrainedModel, tuning: Tuning) -> None:
    if tuning.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.disable_input_require_grads()  # else a frozen tower's pixels need gradients, and it is run backwards for nothing


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the head shares the embedding's matrix."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _target_pattern(model: PreTrainedModel, parts: list[str]) -> str:
    """A regular expression that matches the names of every linear layer of these parts."""
    layers = {
        part: sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)
                      and re.match(PARTS[part], name)})
        for part in parts
    }  # fmt: skip
    return "|".join(rf"{PARTS[part]}(.*\.)?({'|'.join(map(re.escape, names))})" for part, names in layers.items())


@torch.no_grad()
def merged_state(state: Mapping[str, Tensor], scaling: float, first: int, tied: bool) -> dict[str, Tensor]:
    """Ordinary weights of a model with adapters, by the names they have without; sums are taken in float32.

    Args:
        state: the ``state_dict`` of a model after `prepare`; whole tensors.
        scaling: ``lora_alpha / lora_rank``.
        first: model id of the token table's first token.
        tied: whether the head shares the embedding's matrix; it is left out then.
    """
    merged: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".lora_" in name or ".trainable_tokens_" in name or (tied and name.startswith("lm_head.")):
            continue
        owner, base, leaf = name.rpartition(".base_layer.")
        if not base:
            merged[name] = value
            continue
        rows = state.get(f"{owner}.trainable_tokens_delta.default")
        factor = state.get(f"{owner}.lora_A.default.weight")
        if leaf == "weight" and rows is not None:
            value = value.clone()
            value[first : first + len(rows)] = rows.to(value)
        elif leaf == "weight" and factor is not None:
            update = state[f"{owner}.lora_B.default.weight"].float() @ factor.float()
            value = (value.float() + scaling * update.to(value.device)).to(value.dtype)
        merged[f"{owner.removesuffix('.token_adapter')}.{leaf}"] = value
    return merged
