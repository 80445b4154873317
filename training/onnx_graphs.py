"""The two ONNX graphs of a bundle, written operation by operation from a model's weights.

They compute what transformers' Qwen2.5-VL computes (tests compare them): everything that follows from the one image size
(window order, rotary angles, window masks) is a constant, and batch size is one. `FORMS` names what they may be made of: the
form ``fused``, which ONNX Runtime runs fast on a CPU, or standard operations only, which TensorRT compiles (docs/tensorrt.md).
The forms differ in the decoder's attention (`training.onnx_attention`) and in precision, and in nothing else.

Source: Qwen2.5-VL (arXiv 2502.13923); rotary embedding in its multimodal form: Qwen2-VL (arXiv 2409.12191), section 2.1.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from getok_drive.errors import ConfigError
from getok_drive.runtime.cells import SUBCELLS, CellReader, cell_weights
from getok_drive.runtime.qwen import cell_reader
from getok_drive.runtime.stem import StemmedTower
from getok_drive.tokens.masks import GRID_COUNT
from getok_drive.tokens.vocab import GRID_SIZE
from training.onnx_attention import Attention, FusedAttention, StandardAttention
from training.onnx_builder import FORMS, Form, Graph, half_turn


def _float(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def vision_graph(
    model: Qwen2_5_VLForConditionalGeneration, grid_hw: tuple[int, int], form: Form = FORMS["fused"]
) -> onnx.ModelProto:
    """Patches of one image in, merged visual tokens out.

    Input ``pixel_values (patches, patch_dim)``, output ``visual (patches / merge**2, text_hidden)``, both float32. Of a model
    whose grid tokens see (`getok_drive.runtime.cells`) also ``cells (channels, GRID_COUNT)``, which the decoder takes, and ``seen
    (GRID_COUNT, text_hidden)``, what is added to the grid tokens' embeddings.

    Args:
        model: the model whose vision tower is taken.
        grid_hw: patches along the height and the width of the one image size.
        form: what the graph may be made of; here only its precision matters.
    """
    tower = model.model.visual
    config = tower.config
    hidden_dim, heads = config.hidden_size, config.num_heads
    head_dim, count = hidden_dim // heads, grid_hw[0] * grid_hw[1]
    grid_thw = torch.tensor([[1, *grid_hw]])
    graph = Graph(form)

    window_order, window_ends = get_vision_window_index(
        grid_thw, spatial_merge_size=tower.spatial_merge_size, window_size=tower.window_size, patch_size=tower.patch_size
    )
    patch_order = torch.arange(count).view(-1, tower.spatial_merge_unit)[window_order].flatten()
    windowed = len(set(tower.fullatt_block_indexes) & set(range(len(tower.blocks)))) < len(tower.blocks)
    if not windowed:  # then the order of the patches does not matter
        patch_order = torch.arange(count)
    angles_cos, angles_sin = tower.rotary_pos_emb(torch.zeros(1), get_vision_position_ids(grid_thw, tower.spatial_merge_size))
    cos = graph.constant("rotary.cos", angles_cos[patch_order][:, None].numpy(), np.float32)
    sin = graph.constant("rotary.sin", angles_sin[patch_order][:, None].numpy(), np.float32)
    rotation = graph.constant("rotary.half_turn", half_turn(head_dim), np.float32)
    scale = graph.constant("scale", head_dim**-0.5, np.float32)
    heads_shape = graph.constant("heads_shape", [count, heads, head_dim], np.int64)
    two_heads_shape = graph.constant("two_heads_shape", [count, 2 * heads, head_dim], np.int64)
    flat_shape = graph.constant("flat_shape", [count, hidden_dim], np.int64)
    two_and_one = graph.constant("two_and_one", [2 * hidden_dim, hidden_dim], np.int64)
    mask = ""
    if windowed:
        window = np.searchsorted(np.unique(window_ends.numpy())[1:], np.arange(count), side="right")
        mask = graph.constant("window_mask", np.where(window[:, None] == window[None], 0.0, -1e9), np.float32)

    patches = tower.patch_embed.proj.weight.flatten(1)
    x, picture = graph.product("pixel_values", graph.factor("patch_embed.weight", patches, turned=True)), ""
    if isinstance(tower, StemmedTower):
        beside, picture = graph.conv_stem("pixel_values", tower.stem, grid_hw)
        x = graph.op("Add", x, beside)
    if windowed:
        x = graph.op("Gather", x, graph.constant("patch_order", patch_order.numpy(), np.int64), axis=0)
    for index, block in enumerate(tower.blocks):
        name = f"blocks.{index}"
        qkv = graph.linear(graph.rms_norm(x, f"{name}.norm1", block.norm1), f"{name}.qkv", block.attn.qkv)
        query_key, value = f"{name}.query_key", f"{name}.value"
        graph.op("Split", qkv, two_and_one, outputs=(query_key, value), axis=-1)
        turned = graph.op("Reshape", query_key, two_heads_shape)
        turned = graph.op("Transpose", graph.rotate(turned, cos, sin, rotation), perm=[1, 0, 2])
        query, key = f"{name}.query", f"{name}.key"
        graph.op("Split", turned, outputs=(query, key), axis=0, num_outputs=2)
        value = graph.op("Transpose", graph.op("Reshape", value, heads_shape), perm=[1, 0, 2])
        scores = graph.scores(query, graph.op("Transpose", key, perm=[0, 2, 1]), scale)
        if index not in tower.fullatt_block_indexes:
            scores = graph.op("Add", scores, mask)
        mixed = graph.product(graph.op("Softmax", scores, axis=-1), value)
        mixed = graph.op("Reshape", graph.op("Transpose", mixed, perm=[1, 0, 2]), flat_shape)
        x = graph.op("Add", x, graph.linear(mixed, f"{name}.proj", block.attn.proj))
        x = graph.op("Add", x, graph.gated_mlp(graph.rms_norm(x, f"{name}.norm2", block.norm2), f"{name}.mlp", block.mlp))

    merger = tower.merger
    x = graph.rms_norm(x, "merger.norm", merger.ln_q)
    x = graph.op("Reshape", x, graph.constant("merged_shape", [-1, merger.hidden_size], np.int64))
    x = graph.linear(x, "merger.0", merger.mlp[0])
    x = graph.linear(graph.gelu(x), "merger.2", merger.mlp[2])
    order = torch.argsort(window_order).numpy() if windowed else np.arange(count // tower.spatial_merge_unit)
    graph.op("Gather", x, graph.constant("token_order", order, np.int64), outputs=("visual",), axis=0)
    tokens = count // tower.spatial_merge_unit
    outputs = [_float("visual", tokens, config.out_hidden_size)]
    if (reader := cell_reader(model)) is not None:
        merged_hw = (grid_hw[0] // tower.spatial_merge_size, grid_hw[1] // tower.spatial_merge_size)
        _read_cells(graph, reader, merged_hw, picture)
        outputs += [_float("cells", reader.channels, GRID_COUNT), _float("seen", GRID_COUNT, config.out_hidden_size)]
    return graph.model("vision", [_float("pixel_values", count, patches.shape[1])], outputs)


def _read_cells(graph: Graph, reader: CellReader, merged_hw: tuple[int, int], picture: str) -> None:
    """``CellReader.forward`` of ``visual`` and the convolutions' picture, as ``cells`` and ``seen``."""
    (rows, columns), side, channels = merged_hw, SUBCELLS, reader.channels

    def shaped(x: str, name: str, *shape: int) -> str:
        return graph.op("Reshape", x, graph.constant(f"cells.{name}", shape, np.int64))

    split = graph.linear("visual", "cells.read", reader.read)
    split = graph.op("Transpose", shaped(split, "split", rows, columns, side, side, channels), perm=[0, 2, 1, 3, 4])
    subcells = shaped(split, "subcells", rows * side, columns * side * channels)
    down, across = (graph.constant(f"cells.{n}", cell_weights(n * side), np.float32) for n in merged_hw)
    rowwise = shaped(graph.product(down, subcells), "rowwise", GRID_SIZE, columns * side, channels)
    features = shaped(graph.product(across, rowwise), "flat", GRID_COUNT, channels)
    if reader.detail is not None:
        inner, high, wide = reader.detail_chw
        split = shaped(picture, "picture", inner, GRID_SIZE, high, GRID_SIZE, wide)
        split = graph.op("Transpose", split, perm=[1, 3, 2, 4, 0])
        by_cell = shaped(split, "by_cell", GRID_COUNT, inner * high * wide)
        features = graph.op("Add", features, graph.linear(by_cell, "cells.detail", reader.detail))
    if reader.blocks:
        x = shaped(graph.op("Transpose", features, perm=[1, 0]), "grid", 1, channels, GRID_SIZE, GRID_SIZE)
        for index, block in enumerate(reader.blocks):
            name = f"cells.{index}"
            inside = graph.op("Relu", graph.channel_norm(graph.conv(x, f"{name}.first", block.first), f"{name}.norm", block.norm))
            x = graph.op("Add", x, graph.conv(inside, f"{name}.second", block.second))
        features = graph.op("Transpose", shaped(x, "columns", channels, GRID_COUNT), perm=[1, 0])
    graph.op("Transpose", features, outputs=("cells",), perm=[1, 0])
    graph.op("Identity", graph.linear(features, "cells.embed", reader.embed), outputs=("seen",))


def decoder_graph(model: Qwen2_5_VLForConditionalGeneration, form: Form = FORMS["fused"]) -> onnx.ModelProto:
    """One pass of the language model over T new positions; prefill and single steps alike.

    Inputs: ``inputs_embeds (1, T, hidden)`` float32; ``total (1,)`` int32, which holds ``S + T`` for S cached positions, and
    in the fused form ``cached (1,)`` int32, ``S + T - 1``; ``cos`` and ``sin`` ``(capacity, head_dim / 2)``, the rotary angles
    by place in the cache (`getok_drive.runtime.backend.Rotary`); ``key_i`` and ``value_i`` ``(1, kv_heads, capacity,
    head_dim)`` of layer i, float32, or float16 in a half form.
    Where grid tokens see, also ``cells`` of `vision_graph`.
    Outputs: ``logits (1, 1, vocab)`` float32 of the last new position; ``new_key_i`` and ``new_value_i``, the caches with the
    new positions. With ONNX Runtime they are bound to the very buffers of ``key_i`` and ``value_i``, which the fused form
    requires; elsewhere the standard form may write into a second set of buffers, to be swapped after each pass.

    Args:
        model: the model whose language model is taken.
        form: what the graph may be made of.
    """
    text = model.model.language_model
    config = text.config
    if text.has_sliding_layers:
        raise ConfigError("export: sliding-window attention in the language model is not supported")
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head_dim = config.hidden_size // heads
    graph = Graph(form)
    attend: Attention = (StandardAttention if form.standard else FusedAttention)(graph, heads, kv_heads, head_dim)
    counts = [helper.make_tensor_value_info(name, TensorProto.INT32, [1]) for name in attend.counts]
    angles = [_float(name, "capacity", head_dim // 2) for name in ("cos", "sin")]
    inputs = [_float("inputs_embeds", 1, "T", config.hidden_size), *counts, *angles]
    outputs = [_float("logits", 1, 1, config.vocab_size)]
    cache_type = TensorProto.FLOAT16 if form.half else TensorProto.FLOAT
    x = "inputs_embeds"
    for index, layer in enumerate(text.layers):
        name, attention = f"layers.{index}", layer.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        qkv = graph.linear(graph.rms_norm(x, f"{name}.norm1", layer.input_layernorm), f"{name}.qkv", *parts)
        mixed = attend(qkv, index)
        x = graph.op("Add", x, graph.linear(mixed, f"{name}.output", attention.o_proj))
        x = graph.op(
            "Add",
            x,
            graph.gated_mlp(graph.rms_norm(x, f"{name}.norm2", layer.post_attention_layernorm), f"{name}.mlp", layer.mlp),
        )
        for cache in (f"key_{index}", f"value_{index}"):
            shape = (1, kv_heads, "capacity", head_dim)
            inputs.append(helper.make_tensor_value_info(cache, cache_type, shape))
            outputs.append(helper.make_tensor_value_info(f"new_{cache}", cache_type, shape))
    last = graph.op("Gather", x, graph.constant("last", [-1], np.int64), axis=1)
    last = graph.rms_norm(last, "norm", text.norm)
    reader = cell_reader(model)
    if reader is not None and reader.look is not None and reader.tell is not None:
        by_head = graph.constant("cells.by_head", [reader.heads, reader.channels], np.int64)
        together = graph.constant("cells.together", [1, 1, reader.heads * reader.channels], np.int64)
        asked = graph.op("MatMul", last, graph.weight("cells.look", reader.look.weight, turned=True))
        asked = graph.op(
            "Mul", graph.op("Reshape", asked, by_head), graph.constant("cells.scale", reader.channels**-0.5, np.float32)
        )
        attention = graph.op("Softmax", graph.op("MatMul", asked, "cells"), axis=-1)
        seen = graph.op("Reshape", graph.op("Gemm", attention, "cells", transB=1), together)
        last = graph.op("Add", last, graph.op("MatMul", seen, graph.weight("cells.tell", reader.tell.weight, turned=True)))
    answer = "logits" if reader is None else "rows"  # of the token rows alone
    graph.op("MatMul", last, graph.weight("lm_head.weight", model.lm_head.weight, turned=True), outputs=(answer,))
    if reader is not None:
        inputs.append(_float("cells", reader.channels, GRID_COUNT))
        asked = graph.op("MatMul", last, graph.weight("cells.query", reader.query.weight, turned=True))
        around = [0, 0, reader.ids.start, 0, 0, config.vocab_size - reader.ids.stop]
        seen = graph.op("Pad", graph.op("MatMul", asked, "cells"), graph.constant("cells.around", around, np.int64))
        graph.op("Add", answer, seen, outputs=("logits",))
    return graph.model("decoder", inputs, outputs)
