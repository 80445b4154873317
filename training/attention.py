"""Causal self-attention as plain products over stretches of the text, for bfloat16 on a CPU.

A stretch of queries looks at the keys up to its end and at no others, so that of the products above the diagonal only those
within a stretch are computed in vain. With texts of 400 tokens, heads of 32 channels and one thread it takes 0.4 of the time of
``scaled_dot_product_attention``, forward and backward; in single precision it gains nothing (training/LOG.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "causal_products"
_STRETCH = 128  # tokens


def use_causal_products(model: PreTrainedModel) -> None:
    """Makes the decoder attend so, wherever a whole text is read without padding on its left; else as it did."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation({"text_config": NAME})


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """What each token reads from itself and those before it.

    Args:
        query: ``(B, heads, T, channels)``.
        key: the same shape.
        value: the same shape.
        scale: of the products before the softmax.

    Returns:
        ``(B, heads, T, channels)``.
    """
    shape, parts = query.shape[:2], []
    query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    turned = key.transpose(1, 2)
    for first in range(0, query.shape[1], _STRETCH):
        own = query[:, first : first + _STRETCH]
        last = first + own.shape[1]
        later = torch.full((last - first, last), -torch.inf, dtype=own.dtype, device=own.device).triu(first + 1)
        scores = torch.baddbmm(later, own, turned[..., :last], alpha=scale)
        parts.append(scores.softmax(-1).to(value.dtype) @ value[:, :last])
    return torch.cat(parts, dim=1).unflatten(0, shape)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    whole = attention_mask is None and query.shape[2] == key.shape[2]
    if dropout or not whole or query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    groups = query.shape[1] // key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mixed = causal_attention(query, repeat_kv(key, groups), repeat_kv(value, groups), scale)
    return mixed.transpose(1, 2).contiguous(), None
