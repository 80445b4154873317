"""The weights of a bundle's graphs, kept once: in ``model.safetensors``, where the graphs refer to them.

ONNX names a file, an offset and a length for data that lie outside the graph (onnx.proto3, ``TensorProto.external_data``), and
a safetensors file is a header before the bare bytes of its tensors; so a graph can read them where they are.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, external_data_helper

from getok_drive.runtime.weights import tensor_places

_LEAST_BYTES = 1024  # smaller ones stay in the graph


def refer_to_weights(model: onnx.ModelProto, path: Path) -> None:
    """Take out of a graph what a safetensors file beside it holds, and refer to it there.

    Args:
        model: the graph, changed in place.
        path: the file; the graph has to be saved in the same folder.
    """
    data = memoryview(path.read_bytes())
    found = {bytes(data[place.offset : place.offset + place.length]): place for place in tensor_places(path).values()}
    for tensor in model.graph.initializer:
        place = found.get(tensor.raw_data) if tensor.data_type == TensorProto.FLOAT16 else None
        if place is not None and place.length >= _LEAST_BYTES:
            external_data_helper.set_external_data(tensor, path.name, place.offset, place.length)
            tensor.ClearField("raw_data")
