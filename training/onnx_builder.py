"""Operations of an ONNX graph as a model's layers need them: what `training.onnx_graphs` writes its graphs with.

Weights are stored in half precision and as the checkpoint has them, so that a bundle can hold them once
(`training.onnx_weights`): transposing, joining and widening are operations on constants, which a runtime does once, when it
loads the graph. In what precision they are computed with, and from which operations a graph may be made, is its `Form`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from getok_drive.errors import ConfigError
from getok_drive.runtime.stem import ConvStem

OPSET = 18
IR_VERSION = 9
FUSED = "com.microsoft"  # ONNX Runtime's own operations


@dataclass(frozen=True, slots=True)
class Form:
    """What a graph is made of.

    Precision is part of the graph, as explicit casts: strongly typed compilers (TensorRT 11, TensorRT for RTX) know no other
    way, and older ones build the same network from it.

    Attributes:
        standard: only operations of the ONNX standard, for TensorRT and other engines; else ONNX Runtime's own as well.
        half: matrix products, convolutions and the cache in half precision; sums, norms, softmax and logits stay single.
    """

    standard: bool
    half: bool = False


FORMS = {"fused": Form(standard=False), "standard": Form(standard=True), "standard-half": Form(standard=True, half=True)}


class Graph:
    """A graph under construction; every method adds operations and returns the name of their result."""

    def __init__(self, form: Form = FORMS["fused"]) -> None:
        self.form = form
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._narrowed: dict[str, str] = {}

    def op(self, kind: str, *inputs: str, outputs: tuple[str, ...] = (), domain: str = "", **attributes: Any) -> str:
        """Add one operation; returns its first output."""
        outputs = outputs or (f"{kind}_{len(self.nodes)}",)
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), name=name, domain=domain, **attributes))
        return outputs[0]

    def constant(self, name: str, value: npt.ArrayLike, dtype: Any) -> str:
        """A constant stored as it is; the same name may be asked for again."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(value, dtype=dtype, order="C"), name)
        return name

    def weight(self, name: str, *parts: Tensor, turned: bool = False) -> str:
        """A weight to compute with in single precision.

        Args:
            name: of it in the graph.
            parts: what it is joined from, along the first axis.
            turned: whether it is asked for transposed.
        """
        return self.op("Cast", self._stored(name, parts, turned), outputs=(f"{name}.float",), to=TensorProto.FLOAT)

    def factor(self, name: str, *parts: Tensor, turned: bool = False) -> str:
        """A weight for `product`; arguments as for `weight`."""
        if not self.form.half:
            return self.weight(name, *parts, turned=turned)
        return self.mark_narrow(self._stored(name, parts, turned))

    def _stored(self, name: str, parts: tuple[Tensor, ...], turned: bool) -> str:
        stored = []
        for index, part in enumerate(parts):
            half = part.detach().to(torch.float16).cpu().numpy()
            if not np.isfinite(half).all():
                raise ConfigError(f"export: weight {name} does not fit into half precision; the model has diverged")
            stored.append(self.constant(f"{name}.{index}" if len(parts) > 1 else name, half, np.float16))
        whole = self.op("Concat", *stored, axis=0) if len(stored) > 1 else stored[0]
        return self.op("Transpose", whole, perm=[1, 0]) if turned else whole

    def narrow(self, x: str) -> str:
        """``x`` as a factor of a product in the form's precision: half, or as it is."""
        if not self.form.half:
            return x
        if x not in self._narrowed:
            self._narrowed[x] = self.mark_narrow(self.op("Cast", x, to=TensorProto.FLOAT16))
        return self._narrowed[x]

    def mark_narrow(self, x: str) -> str:
        """Say that ``x`` has the precision of a factor already; returns it."""
        self._narrowed[x] = x
        return x

    def product(self, a: str, b: str, kind: str = "MatMul", **attributes: Any) -> str:
        """Matrix product or convolution in the form's precision; the result is single."""
        y = self.op(kind, self.narrow(a), self.narrow(b), **attributes)
        return self.op("Cast", y, to=TensorProto.FLOAT) if self.form.half else y

    def linear(self, x: str, name: str, *layers: nn.Linear) -> str:
        """The outputs of linear layers of one input, side by side."""
        y = self.product(x, self.factor(f"{name}.weight", *(layer.weight for layer in layers), turned=True))
        if layers[0].bias is None:
            return y
        return self.op("Add", y, self.weight(f"{name}.bias", *(layer.bias for layer in layers)))

    def rotate(self, x: str, cos: str, sin: str, half_turn: str) -> str:
        """Rotary embedding of ``x (T, heads, head_dim)`` by angles ``(T, 1, head_dim)``; see `half_turn`."""
        straight = self.op("Mul", x, cos)
        return self.op("Add", straight, self.op("Mul", self.product(x, half_turn), sin))

    def scores(self, query: str, turned_key: str, scale: str) -> str:
        """Attention before the softmax: ``query @ turned_key * scale``; scaled first where large products would overflow."""
        if self.form.half:
            return self.product(self.op("Mul", query, scale), turned_key)
        return self.op("Mul", self.product(query, turned_key), scale)

    def gelu(self, x: str) -> str:
        """``x / 2 * (1 + erf(x / sqrt(2)))``."""
        erf = self.op("Erf", self.op("Mul", x, self.constant("half_root", 0.5**0.5, np.float32)))
        risen = self.op("Mul", x, self.op("Add", erf, self.constant("one", 1.0, np.float32)))
        return self.op("Mul", risen, self.constant("half", 0.5, np.float32))

    def rms_norm(self, x: str, name: str, source: Any) -> str:
        """``x / sqrt(mean(x^2) + eps) * weight``, in the shape that ONNX Runtime recognises and fuses."""
        square = self.op("Pow", x, self.constant("two", 2.0, np.float32))
        mean = self.op("ReduceMean", square, self.constant("last_axis", [-1], np.int64), keepdims=1)
        epsilon = self.constant(f"epsilon_{source.variance_epsilon}", source.variance_epsilon, np.float32)
        root = self.op("Sqrt", self.op("Add", mean, epsilon))
        return self.op("Mul", self.op("Div", x, root), self.weight(f"{name}.weight", source.weight))

    def gated_mlp(self, x: str, name: str, source: Any) -> str:
        """``down(silu(gate(x)) * up(x))`` with gate and up in one product."""
        both = self.linear(x, f"{name}.gate_up", source.gate_proj, source.up_proj)
        gate, up = f"{name}.gate", f"{name}.up"
        self.op("Split", both, outputs=(gate, up), axis=-1, num_outputs=2)
        silu = self.op("Mul", gate, self.op("Sigmoid", gate))
        return self.linear(self.op("Mul", silu, up), f"{name}.down", source.down_proj)

    def channel_norm(self, x: str, name: str, source: nn.LayerNorm) -> str:
        """Layer norm over the channels of ``(1, channels, rows, columns)``, each place for itself."""
        weight, bias = self.weight(f"{name}.weight", source.weight), self.weight(f"{name}.bias", source.bias)
        normal = self.op(
            "LayerNormalization", self.op("Transpose", x, perm=[0, 2, 3, 1]), weight, bias, axis=-1, epsilon=source.eps
        )
        return self.op("Transpose", normal, perm=[0, 3, 1, 2])

    def conv(self, x: str, name: str, source: nn.Conv2d) -> str:
        """A convolution without a bias."""
        pads, strides = [int(source.padding[0])] * 4, list(source.stride)
        return self.product(x, self.factor(f"{name}.weight", source.weight), kind="Conv", pads=pads, strides=strides)

    def conv_stem(self, pixel_values: str, stem: ConvStem, grid_hw: tuple[int, int]) -> tuple[str, str]:
        """``ConvStem.forward`` for one picture."""
        (rows, columns), patch, merge, side = grid_hw, stem.patch_size, stem.merge_size, stem.side
        blocks = [rows // merge, columns // merge, merge, merge, 3, patch, patch]
        x = self.op("Reshape", pixel_values, self.constant("stem.blocks", blocks, np.int64))
        x = self.op("Transpose", x, perm=[4, 0, 2, 5, 1, 3, 6])
        x = self.op("Reshape", x, self.constant("stem.picture", [1, 3, rows * patch, columns * patch], np.int64))

        def conv(x: str, name: str, source: nn.Conv2d, norm: nn.LayerNorm) -> str:
            return self.channel_norm(self.conv(x, name, source), f"{name}.norm", norm)

        for index, stage in enumerate(stem.stages):
            name, (first, norm, _, *residuals) = f"stem.{index}", stage
            x = self.op("Relu", conv(x, name, first, norm))
            for number, block in enumerate(residuals):
                inner = self.op("Relu", conv(x, f"{name}.{number}.first", block.first, block.first_norm))
                risen = conv(inner, f"{name}.{number}.second", block.second, block.second_norm)
                x = self.op("Relu", self.op("Add", x, risen))
        picture, split = x, [-1, rows // merge, merge, side, columns // merge, merge, side]
        x = self.op("Reshape", x, self.constant("stem.split", split, np.int64))
        x = self.op("Transpose", x, perm=[1, 4, 2, 5, 3, 6, 0])
        x = self.op("Reshape", x, self.constant("stem.flat", [rows * columns, stem.proj.in_features], np.int64))
        return self.linear(x, "stem.proj", stem.proj), picture

    def model(self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The finished, checked model."""
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", OPSET)] + [helper.make_opsetid(FUSED, 1)] * (not self.form.standard)
        model = helper.make_model(graph, opset_imports=opsets, producer_name="getok-drive")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model


def half_turn(head_dim: int) -> npt.NDArray[np.float32]:
    """Matrix ``R`` with ``x @ R = (-second half of x, first half of x)``: rotary embedding without slicing."""
    half = np.eye(head_dim // 2, dtype=np.float32)
    return np.block([[np.zeros_like(half), half], [-half, np.zeros_like(half)]])
