"""The decoder's attention over a cache of fixed capacity, in two forms that take and give the same tensors.

`FusedAttention` is ONNX Runtime's ``GroupQueryAttention``, which writes new keys and values into the buffers that hold the old
ones: the cache is never copied. `StandardAttention` spells the same out in operations of the ONNX standard (opset 18), for
compilers that know nothing else: TensorRT's parser has no ``GroupQueryAttention``.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from onnx import TensorProto

from training.onnx_builder import FUSED, Graph, half_turn

_MASKED = -1e9  # added to single-precision scores, in every form


class Attention(Protocol):
    """Adds one layer's attention to a graph.

    Attributes:
        counts: names of the int32 inputs ``(1,)`` that it reads; see `training.onnx_graphs.decoder_graph`.
    """

    counts: tuple[str, ...]

    def __call__(self, qkv: str, layer: int) -> str:
        """Mix the values of layer ``layer``, and add the outputs ``new_key_i`` and ``new_value_i``.

        Args:
            qkv: ``(1, T, (heads + 2 * kv_heads) * head_dim)``: query, key and value of the new positions, not yet rotated.
            layer: number of the layer, in the names of its caches.

        Returns:
            ``(1, T, heads * head_dim)``.
        """


class FusedAttention:
    """One operation of ONNX Runtime's own.

    Args:
        graph: under construction.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: width of a head.
    """

    counts: tuple[str, ...] = ("cached", "total")

    def __init__(self, graph: Graph, heads: int, kv_heads: int, head_dim: int) -> None:
        self._graph = graph
        self._shape = {"num_heads": heads, "kv_num_heads": kv_heads, "scale": head_dim**-0.5}

    def __call__(self, qkv: str, layer: int) -> str:
        """See `Attention`."""
        key, value = f"key_{layer}", f"value_{layer}"
        return self._graph.op(
            "GroupQueryAttention", qkv, "", "", key, value, "cached", "total", "cos", "sin",
            outputs=(f"layers.{layer}.attention", f"new_{key}", f"new_{value}"), domain=FUSED,
            **self._shape, do_rotary=1, rotary_interleaved=0,
        )  # fmt: skip


class StandardAttention:
    """The same in operations of the standard.

    New keys and values are scattered to their places in the cache; the queries see the whole cache, and a mask hides the
    places after their own. Query heads that share a key head are further rows of one product, so that nothing is repeated.
    What all layers share (places, angles, mask) is computed once, from ``total`` and the number of new positions alone, so
    every shape follows from the shapes of the inputs.

    Args:
        graph: under construction.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: width of a head.
    """

    counts: tuple[str, ...] = ("total",)

    def __init__(self, graph: Graph, heads: int, kv_heads: int, head_dim: int) -> None:
        self._graph, self._heads, self._kv_heads, self._head_dim = graph, heads, kv_heads, head_dim
        integers: dict[str, int | list[int]] = {
            "attention.zero": 0, "attention.one": 1, "attention.axis_0": [0], "attention.axis_1": [1],
            "attention.split": [heads + kv_heads, kv_heads], "attention.turned_split": [heads, kv_heads],
            "attention.parts": [-1, heads + 2 * kv_heads, head_dim],
            "attention.grouped": [1, kv_heads, -1, head_dim], "attention.ungrouped": [heads, -1, head_dim],
            "attention.flat": [1, -1, heads * head_dim],
        }  # fmt: skip
        for name, value in integers.items():
            graph.constant(name, value, np.int64)
        graph.constant("attention.scale", head_dim**-0.5, np.float32)
        graph.constant("attention.half_turn", half_turn(head_dim), np.float32)
        places = self._places()
        self._cos, self._sin = (self._angles(name, places) for name in ("cos", "sin"))
        self._mask = self._causal_mask(places)
        self._slots = self._cache_slots(places)

    def _count_along(self, tensor: str, axis: int) -> tuple[str, str]:
        """A tensor's length along an axis as ``(1,)`` and ``(0 .. length - 1)``, both int64."""
        length = self._graph.op("Shape", tensor, start=axis, end=axis + 1)
        scalar = self._graph.op("Squeeze", length, "attention.axis_0")
        return length, self._graph.op("Range", "attention.zero", scalar, "attention.one")

    def _places(self) -> str:
        """``(T,)``: where the new positions stand in the cache."""
        count, steps = self._count_along("inputs_embeds", 1)
        total = self._graph.op("Cast", "total", to=TensorProto.INT64)
        return self._graph.op("Add", self._graph.op("Sub", total, count), steps)

    def _angles(self, table: str, places: str) -> str:
        """``(T, 1, head_dim)``: the rows of a table of angles, each twice as wide, for both halves of a head."""
        rows = self._graph.op("Gather", table, places, axis=0)
        return self._graph.op("Unsqueeze", self._graph.op("Concat", rows, rows, axis=-1), "attention.axis_1")

    def _causal_mask(self, places: str) -> str:
        """``(group * T, capacity)``: what is added to the scores of the query heads of one key head."""
        graph, group = self._graph, self._heads // self._kv_heads
        if group > 1:
            places = graph.op("Tile", places, graph.constant("attention.group", [group], np.int64))
        _, key_places = self._count_along("key_0", 2)
        seen = graph.op("LessOrEqual", key_places, graph.op("Unsqueeze", places, "attention.axis_1"))
        shown, hidden = (graph.constant(f"attention.{n}", v, np.float32) for n, v in (("shown", 0.0), ("hidden", _MASKED)))
        return graph.op("Where", seen, shown, hidden)

    def _cache_slots(self, places: str) -> str:
        """``(1, kv_heads, T, 3)``: batch, head and place of each new row of a cache, for ``ScatterND``."""
        graph = self._graph
        head = np.zeros((1, self._kv_heads, 1, 3), np.int64)
        head[0, :, 0, 1] = np.arange(self._kv_heads)
        place_axis = graph.constant("attention.place_axis", [0, 0, 1], np.int64)
        along = graph.op("Mul", graph.op("Unsqueeze", places, "attention.axis_1"), place_axis)
        return graph.op("Add", along, graph.constant("attention.head_slots", head, np.int64))

    def __call__(self, qkv: str, layer: int) -> str:
        """See `Attention`."""
        graph, name = self._graph, f"layers.{layer}"
        turned, value = f"{name}.query_key", f"{name}.value"
        graph.op("Split", graph.op("Reshape", qkv, "attention.parts"), "attention.split", outputs=(turned, value), axis=1)
        turned = graph.rotate(turned, self._cos, self._sin, "attention.half_turn")
        query, key = f"{name}.query", f"{name}.key"
        turned = graph.op("Transpose", turned, perm=[1, 0, 2])
        graph.op("Split", turned, "attention.turned_split", outputs=(query, key), axis=0)
        key = self._cached(f"key_{layer}", key)
        value = self._cached(f"value_{layer}", graph.op("Transpose", value, perm=[1, 0, 2]))
        query = graph.op("Reshape", query, "attention.grouped")
        scores = graph.scores(query, graph.op("Transpose", key, perm=[0, 1, 3, 2]), "attention.scale")
        weights = graph.op("Softmax", graph.op("Add", scores, self._mask), axis=-1)
        mixed = graph.op("Reshape", graph.product(weights, value), "attention.ungrouped")
        return graph.op("Reshape", graph.op("Transpose", mixed, perm=[1, 0, 2]), "attention.flat")

    def _cached(self, cache: str, new: str) -> str:
        """``(1, kv_heads, capacity, head_dim)``: the cache with the new rows ``(kv_heads, T, head_dim)``, an output."""
        graph = self._graph
        rows = graph.narrow(graph.op("Unsqueeze", new, "attention.axis_0"))
        return graph.mark_narrow(graph.op("ScatterND", cache, self._slots, rows, outputs=(f"new_{cache}",)))
