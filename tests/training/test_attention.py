"""Attention as plain products: the same as torch's own, wherever it stands in for it."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from training import attention
from training.model import SIZES, build_model, build_tokenizer


@pytest.mark.parametrize("tokens", [1, 127, 128, 129, 300])
def test_products_and_their_gradients_are_those_of_torch(tokens):
    torch.manual_seed(0)
    ours = [torch.randn(2, 3, tokens, 8, requires_grad=True) for _ in range(3)]
    theirs = [part.detach().clone().requires_grad_() for part in ours]
    mixed, expected = attention.causal_attention(*ours, 0.3), scaled_dot_product_attention(*theirs, is_causal=True, scale=0.3)
    torch.testing.assert_close(mixed, expected)
    into = torch.randn_like(mixed)
    mixed.backward(into)
    expected.backward(into)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_in_bfloat16_they_are_as_exact_as_torchs():
    torch.manual_seed(0)
    parts = [torch.randn(2, 4, 400, 32) for _ in range(3)]
    exact = scaled_dot_product_attention(*parts, is_causal=True)
    halves = [part.bfloat16() for part in parts]
    own = attention.causal_attention(*halves, 32**-0.5).float() - exact
    other = scaled_dot_product_attention(*halves, is_causal=True).float() - exact
    assert own.square().mean() < 2 * other.square().mean()


@pytest.fixture(scope="module")
def decoders():
    """A tiny decoder as it is, and another of the same weights with products."""
    models = [build_model(SIZES["tiny"], build_tokenizer()) for _ in range(2)]
    attention.use_causal_products(models[1])
    return [model.eval().model.language_model for model in models]


def test_a_decoder_answers_the_same_with_them(decoders, monkeypatch):
    calls = []
    whole = attention.causal_attention
    monkeypatch.setattr(attention, "causal_attention", lambda *parts: calls.append(parts[0].shape) or whole(*parts))
    width = decoders[0].config.hidden_size
    embeds, positions = torch.randn(2, 150, width), torch.arange(150.0).expand(3, 2, -1)
    plain, products = (d(inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state for d in decoders)
    torch.testing.assert_close(products, plain, rtol=1e-4, atol=1e-5)
    assert len(calls) == decoders[1].config.num_hidden_layers


def test_padding_and_caches_are_left_to_torch(decoders):
    width = decoders[0].config.hidden_size
    embeds, positions = torch.randn(2, 20, width), torch.arange(20.0).expand(3, 2, -1)
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :5] = 0
    padded = [d(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False) for d in decoders]
    torch.testing.assert_close(padded[0].last_hidden_state[mask > 0], padded[1].last_hidden_state[mask > 0], rtol=1e-4, atol=1e-5)

    def in_two(decoder):
        read = decoder(inputs_embeds=embeds[:, :15], position_ids=positions[..., :15], use_cache=True)
        cache = read.past_key_values
        return decoder(inputs_embeds=embeds[:, 15:], position_ids=positions[..., 15:], past_key_values=cache).last_hidden_state

    whole = decoders[0](inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state[:, 15:]
    torch.testing.assert_close(in_two(decoders[1]), whole, rtol=1e-4, atol=1e-5)
