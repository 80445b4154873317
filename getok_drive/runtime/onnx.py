"""The ONNX Runtime backend: preallocated buffers bound once; a step of the decoder copies a few embeddings, no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from getok_drive.errors import BackendError
from getok_drive.machine import cores
from getok_drive.runtime.backend import Geometry, Rotary, check_room
from getok_drive.runtime.weights import mapped_tensor
from getok_drive.tokens.masks import GRID_COUNT
from getok_drive.tokens.positions import Positions, PositionSpec
from getok_drive.types import FloatArray

FILES = ("vision.onnx", "decoder.onnx", "model.safetensors")
_EMBEDDING = "embed_tokens.weight"
_KEPT_BINDINGS = 16  # forced tokens wait for the next choice: passes of a few tokens come again and again, and binding is dear
LEAST_VERSION = (1, 20)  # before, GroupQueryAttention gave wrong results for several tokens after a cache, without a word


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads that spin take the cores from whatever else runs: decoding, drawing, the next frame.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes, without a common base
        raise BackendError(f"onnx backend: {path} cannot be loaded: {error}; export the bundle again") from error


class Encoded(NamedTuple):
    """One image.

    Attributes:
        tokens: ``(num_visual_tokens, hidden_size)``.
        cells: ``(channels, GRID_COUNT)``: what the logits of grid tokens are asked of, where the model's grid tokens see.
        seen: ``(GRID_COUNT, hidden_size)``: what is added to the grid tokens' embeddings, likewise.
    """

    tokens: FloatArray
    cells: FloatArray | None
    seen: FloatArray | None


class OnnxBackend:
    """`Backend` on ONNX Runtime's CPU provider.

    The key and value buffers are inputs and outputs of the decoder at the same time: its attention writes the new positions
    into them. For passes of a few tokens every tensor stays bound, and only the values behind the bindings change.

    Args:
        folder: holds `FILES`.
        geometry: must agree with the graphs.
        spec: where the conversation's tokens stand.
        capacity: most positions of a conversation.
        threads: for the vision tower; 0: one per core, at most four. The decoder's steps are too small to share.

    Raises:
        BackendError: when a file is missing or does not fit the geometry.
    """

    name = "onnx"

    def __init__(self, folder: Path, geometry: Geometry, spec: PositionSpec, capacity: int, threads: int = 0) -> None:
        if tuple(int(part) for part in ort.__version__.split(".")[:2]) < LEAST_VERSION:
            raise BackendError(f"onnx backend: onnxruntime {ort.__version__} is too old; pip install 'onnxruntime>=1.20'")
        for file in FILES:
            if not (folder / file).is_file():
                raise BackendError(f"onnx backend: {folder / file} is missing; export the bundle with python -m training.export")
        threads = threads or min(cores(), 4)
        self.device = f"CPU, {threads} thread{'s' * (threads > 1)}"
        self.capacity = capacity
        self.length = 0
        self._geometry = geometry
        self._spec = spec
        self._embedding = mapped_tensor(folder / "model.safetensors", _EMBEDDING)
        self._vision = _session(folder / "vision.onnx", threads)
        self._decoder = _session(folder / "decoder.onnx", 1)
        self._check()

        self._positions = Positions(spec)
        self._rotary = Rotary(geometry)
        self._cos: FloatArray = np.zeros((capacity, geometry.head_dim // 2), np.float32)
        self._sin: FloatArray = np.zeros_like(self._cos)
        self._pixels = np.zeros((geometry.num_patches, geometry.patch_dim), np.float32)
        tokens = np.zeros((geometry.num_visual_tokens, geometry.hidden_size), np.float32)
        self._first_id = spec.first_token_id  # the table begins with the grid tokens
        inputs = {node.name: node for node in self._decoder.get_inputs()}
        cells = np.zeros(inputs["cells"].shape, np.float32) if "cells" in inputs else None
        self._encoded = Encoded(
            tokens, cells, None if cells is None else np.zeros((GRID_COUNT, geometry.hidden_size), np.float32)
        )
        self._cached, self._total = np.zeros(1, np.int32), np.zeros(1, np.int32)
        self._logits: FloatArray = np.zeros((1, 1, geometry.vocab_size), np.float32)
        self._answer: FloatArray = self._logits[0, 0]
        self._steering = {"total": self._total, "cos": self._cos, "sin": self._sin}
        if "cached" in inputs:  # of a graph of standard operations it is none
            self._steering["cached"] = self._cached
        self._cells, self._seen = (None if part is None else part.copy() for part in self._encoded[1:])  # the conversation's own
        if self._cells is not None:
            self._steering["cells"] = self._cells
        shape = (1, geometry.kv_heads, capacity, geometry.head_dim)
        dtype = np.float16 if inputs["key_0"].type == "tensor(float16)" else np.float32
        self._cache = {f"{kind}_{i}": np.zeros(shape, dtype) for i in range(geometry.layers) for kind in ("key", "value")}

        self._vision_binding = self._vision.io_binding()
        _bind_input(self._vision_binding, "pixel_values", self._pixels)
        for name, array in zip(("visual", "cells", "seen"), self._encoded, strict=True):
            if array is not None:
                _bind_output(self._vision_binding, name, array)
        self._bindings: dict[int, tuple[FloatArray, ort.IOBinding]] = {}

    def _bound(self, count: int) -> tuple[FloatArray, ort.IOBinding]:
        """A buffer for so many embeddings, and a binding of the decoder to it and the backend's own buffers; few are kept."""
        if count in self._bindings:
            return self._bindings[count]
        embeddings: FloatArray = np.zeros((1, count, self._geometry.hidden_size), np.float32)
        binding = self._decoder.io_binding()
        _bind_input(binding, "inputs_embeds", embeddings)
        for name, array in self._steering.items():
            _bind_input(binding, name, array)
        _bind_output(binding, "logits", self._logits)
        for name, buffer in self._cache.items():
            _bind_input(binding, name, buffer)
            _bind_output(binding, f"new_{name}", buffer)
        if count <= _KEPT_BINDINGS:
            self._bindings[count] = embeddings, binding
        return embeddings, binding

    def _check(self) -> None:
        g = self._geometry
        found = {node.name: list(node.shape) for session in (self._vision, self._decoder) for node in session.get_inputs()}
        found |= {node.name: list(node.shape) for session in (self._vision, self._decoder) for node in session.get_outputs()}
        cache: list[int | str] = [1, g.kv_heads, "capacity", g.head_dim]
        expected: dict[str, list[int | str]] = {
            "pixel_values": [g.num_patches, g.patch_dim],
            "visual": [g.num_visual_tokens, g.hidden_size],
            "inputs_embeds": [1, "T", g.hidden_size],
            "logits": [1, 1, g.vocab_size],
        }
        expected |= {f"{kind}_{i}": cache for i in range(g.layers) for kind in ("key", "value")}
        if "cells" in found:  # grid tokens see: what one graph gives is what the other takes
            taken = [list(node.shape) for node in self._decoder.get_inputs() if node.name == "cells"]
            expected |= {"cells": taken[0] if taken else [], "seen": [GRID_COUNT, g.hidden_size]}
        for name, shape in expected.items():
            if found.get(name) != shape:
                raise BackendError(f"onnx backend: tensor {name} is {found.get(name)} in the graph but {shape} in the contract")
        table = self._embedding
        if table.shape != (g.vocab_size, g.hidden_size):
            raise BackendError(f"onnx backend: {_EMBEDDING} is {table.shape}, expected {(g.vocab_size, g.hidden_size)}")

    def encode(self, pixel_values: FloatArray) -> Encoded:
        """See `Encoded`; valid until the next call."""
        if pixel_values.shape != self._pixels.shape:
            raise BackendError(f"onnx backend: expected pixel_values {self._pixels.shape}, got {pixel_values.shape}")
        self._pixels[:] = pixel_values
        _run(self._vision, self._vision_binding)
        return self._encoded

    def prefill(self, ids_before: Sequence[int], visual: Encoded, ids_after: Sequence[int]) -> FloatArray:
        """Begin a new conversation; see `Backend.prefill`."""
        shape = self._encoded.tokens.shape
        if len(ids_before) != self._spec.count_before or visual.tokens.shape != shape:
            raise BackendError(
                f"onnx backend: expected {self._spec.count_before} tokens before visual tokens of shape {shape}, "
                f"got {len(ids_before)} and {visual.tokens.shape}"
            )
        self.length = 0
        for own, given in ((self._cells, visual.cells), (self._seen, visual.seen)):
            if own is not None and given is not None:
                own[:] = given
        self._positions = Positions(self._spec)
        places = np.concatenate([self._spec.prefix(), self._positions.append(ids_after)], axis=1)
        parts = (self._rows(ids_before), visual.tokens, self._rows(ids_after))
        return self._pass(np.concatenate(parts, dtype=np.float32), places)

    def step(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens; see `Backend.step`."""
        return self._pass(self._rows(ids), self._positions.append(ids))

    def _turn(self, positions: FloatArray) -> None:
        """Write the angles of the next places into the table that the decoder reads."""
        span = slice(self.length, self.length + positions.shape[1])
        self._cos[span], self._sin[span] = self._rotary(positions)

    def _rows(self, ids: Sequence[int]) -> FloatArray:
        index = np.asarray(ids, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= len(self._embedding)):
            raise BackendError(
                f"onnx backend: token ids {index.min()}..{index.max()} exceed the vocabulary of {len(self._embedding)}"
            )
        rows: FloatArray = self._embedding[index].astype(np.float32)
        if self._seen is not None:
            for row, token in zip(rows, ids, strict=True):  # mostly one: quicker than finding the grid's with arrays
                if 0 <= (cell := token - self._first_id) < GRID_COUNT:
                    row += self._seen[cell]
        return rows

    def _pass(self, embeddings: FloatArray, positions: FloatArray) -> FloatArray:
        count = len(embeddings)
        check_room(self, count)
        self._turn(positions)
        self._cached[0] = self.length + count - 1
        self._total[0] = self.length = self.length + count
        buffer, binding = self._bound(count)
        buffer[0] = embeddings
        _run(self._decoder, binding)
        return self._answer


def _bind_input(binding: ort.IOBinding, name: str, array: npt.NDArray[np.generic]) -> None:
    assert array.flags.c_contiguous, name  # bound by address
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _bind_output(binding: ort.IOBinding, name: str, array: npt.NDArray[np.generic]) -> None:
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _run(session: ort.InferenceSession, binding: ort.IOBinding) -> None:
    try:
        session.run_with_iobinding(binding)
    except Exception as error:  # see _session
        raise BackendError(f"onnx backend: inference failed: {error}") from error
