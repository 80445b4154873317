"""A fresh decoder on a frozen vision tower, and how it reads the tower's tokens.

The picture's tokens come from a file (`frames`), so a step costs the decoder alone. How the decoder reads them is a setting:

- ``rewritten``, the real architecture: visual tokens go through all layers like any other token.
- ``read``: every layer computes keys and values of the tower's tokens *as they are*; only text goes through the layers. For a
  tower that has seen the whole picture already, this costs a third for a short answer; the short runs of the tables use it.

Either way the picture becomes a cache of keys and values, and the text is a continuation of it, in training and in answering.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

from getok_drive.errors import ConfigError
from getok_drive.tokens.vocab import GRID_SIZE
from training.collate import Batch
from training.losses import Losses
from training.recipes.conversation import IGNORE
from training.representations.forms import BIN_TOKENS, BINS
from training.vocabulary import GRID_LENGTH_CELLS, first_token_id, initialise_rows

READINGS = ("read", "rewritten")


def add_bins(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with the bins behind the token table, in place: the same vocabulary for every form."""
    tokenizer.add_tokens([token for token in BIN_TOKENS if token not in tokenizer.get_vocab()])
    first_token_id(tokenizer)
    return tokenizer


def fresh_decoder(
    tower: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int = 0, layers: int = 0, position_rule: str = "image"
) -> PreTrainedModel:
    """A model with the tower of another and a decoder of the same shape that has learnt nothing yet.

    Args:
        tower: whose vision tower is taken over (the very module).
        tokenizer: with the bins, see `add_bins`.
        seed: of all other weights; they do not depend on the form.
        layers: of the decoder; 0: as many as the tower's own model has.
        position_rule: see `getok_drive.tokens.positions`.
    """
    config = deepcopy(tower.config)
    text = config.text_config
    text.vocab_size = -(-len(tokenizer) // 64) * 64
    if layers:
        text.num_hidden_layers = layers
        text.layer_types = text.layer_types[:1] * layers
    config.position_rule = position_rule
    config.cell_reader = None  # the forms that are compared have no grid tokens to see with
    torch.manual_seed(seed)
    model = type(tower)._from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    model.model.visual = tower.model.visual
    weight = model.get_input_embeddings().weight
    initialise_rows(weight, tokenizer, "spatial", seed)
    _initialise_bins(weight, tokenizer, seed)
    return model


@torch.no_grad()
def _initialise_bins(weight: Tensor, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
    """Rows of bins, as those of grid tokens start: neighbours alike, at the same distances in the image, x and y unrelated."""
    first = first_token_id(tokenizer)
    old = weight[:first].float().numpy()
    mean, dim = old.mean(axis=0), weight.shape[1]
    scale = float(np.sqrt(np.square(old - mean).mean(dtype=np.float64)) * np.sqrt(dim))
    length = GRID_LENGTH_CELLS * BINS / GRID_SIZE
    places = np.arange(BINS)
    values, vectors = np.linalg.eigh(np.exp(-np.abs(places[:, None] - places) / length))
    components = (vectors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1][:, :dim]
    rng = np.random.default_rng((seed, 1))
    for axis in (0, 1):
        rotation, _ = np.linalg.qr(rng.standard_normal((dim, components.shape[1])))
        rows = components @ rotation.T
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        ids = tokenizer.convert_tokens_to_ids(list(BIN_TOKENS[axis * BINS : (axis + 1) * BINS]))
        weight[ids] = torch.from_numpy(mean + scale * rows).to(weight)


def picture_cache(model: PreTrainedModel, prefix: Tensor, positions: Tensor, reading: str) -> DynamicCache:
    """Keys and values of what stands before the text.

    Args:
        model: whose decoder reads.
        prefix: ``(B, P, D)``: embedded text before the picture, and the picture's tokens.
        positions: ``(3, B, P)``.
        reading: one of `READINGS`.

    Raises:
        ConfigError: an unknown reading.
    """
    text = model.model.language_model
    cache = DynamicCache(config=text.config)
    if reading == "rewritten":
        text(inputs_embeds=prefix, position_ids=positions, past_key_values=cache, use_cache=True)
        return cache
    if reading != "read":
        raise ConfigError(f"reading={reading!r}: expected one of {', '.join(READINGS)}")
    cos, sin = text.rotary_emb(prefix, positions)
    batch, length, _ = prefix.shape
    for index, layer in enumerate(text.layers):
        normal, attention = layer.input_layernorm(prefix), layer.self_attn
        key, value = (
            project(normal).view(batch, length, -1, attention.head_dim).transpose(1, 2)
            for project in (attention.k_proj, attention.v_proj)
        )
        _, key = apply_rotary_pos_emb(key, key, cos, sin)
        cache.update(key, value, index)
    return cache


def reading_losses(
    model: PreTrainedModel, batch: Batch, visual: Tensor, reading: str, token_weight: Tensor | None = None
) -> Losses:
    """The language loss of one batch on pictures that are encoded already; there is no dense loss.

    Args:
        model: see `fresh_decoder`.
        batch: its pixels have no meaning here.
        visual: ``(B, K, D)``.
        reading: one of `READINGS`.
        token_weight: what the loss is divided by, as in `training.losses.TrainedModel.forward`.
    """
    logits, labels, weights, _ = taught_logits(model, batch, visual, reading)
    entropy = F.cross_entropy(logits, labels, reduction="none")
    correct = (logits.detach().argmax(-1) == labels).float().mean()
    total = (entropy * weights).sum() / (weights.sum() if token_weight is None else token_weight)
    return Losses(total, total.detach(), total.new_zeros(()), correct)


def taught_logits(model: PreTrainedModel, batch: Batch, visual: Tensor, reading: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of the taught places ``(N, vocabulary)``, their labels, weights and batch rows ``(N,)``; see `reading_losses`."""
    stop = batch.visual.stop
    embedded = model.get_input_embeddings()(batch.ids)
    prefix = torch.cat((embedded[:, : batch.visual.start], visual.to(embedded.dtype)), dim=1)
    cache = picture_cache(model, prefix, batch.positions[:, :, :stop], reading)
    hidden = model.model.language_model(
        inputs_embeds=embedded[:, stop:], position_ids=batch.positions[:, :, stop:], past_key_values=cache, use_cache=True
    ).last_hidden_state
    labels, weights = batch.labels[:, stop + 1 :], batch.weights[:, stop + 1 :]
    taught = labels != IGNORE
    logits = F.linear(hidden[:, :-1][taught], model.lm_head.weight).float()
    return logits, labels[taught], weights[taught], taught.nonzero()[:, 0]
