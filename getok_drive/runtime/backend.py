"""`Backend`: tensors in, logits out; `decoding` drives it. Where a token stands is told by `getok_drive.tokens.positions`.

Also here, because every backend needs them in the same form: the model's `Geometry` and its rotary angles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from getok_drive.errors import BackendError
from getok_drive.types import FloatArray


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shape of the language model and of the one image size, as far as a backend has to know them.

    Attributes:
        vocab_size: length of the logits.
        hidden_size: width of an embedding.
        layers: number of decoder layers.
        heads: query heads of a layer.
        kv_heads: key and value heads of a layer.
        head_dim: width of a head.
        rope_theta: base of the rotary frequencies.
        mrope_section: how many frequencies follow the time, row and column position.
        position_rule: where tokens stand, one of `getok_drive.tokens.positions.RULES`.
        grid_hw: patches along the height and the width of the image.
        merge_size: patches along each side of a visual token.
        patch_dim: values of a patch.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float
    mrope_section: tuple[int, ...]
    position_rule: str
    grid_hw: tuple[int, ...]
    merge_size: int
    patch_dim: int

    @property
    def num_patches(self) -> int:
        """Patches of the image."""
        return self.grid_hw[0] * self.grid_hw[1]

    @property
    def merged_hw(self) -> tuple[int, int]:
        """Visual tokens along the height and the width."""
        return self.grid_hw[0] // self.merge_size, self.grid_hw[1] // self.merge_size

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens of the image."""
        return self.merged_hw[0] * self.merged_hw[1]


@runtime_checkable
class Backend(Protocol):
    """One loaded model and the cache of one conversation. Not thread-safe.

    Attributes:
        name: ``onnx``, ``torch``, ...
        device: where it computes, in words.
        capacity: most positions that a conversation may have.
        length: positions cached so far.
    """

    name: str
    device: str
    capacity: int
    length: int

    def encode(self, pixel_values: FloatArray) -> Any:
        """The visual tokens of one image, in whatever form `prefill` of the same backend takes.

        Args:
            pixel_values: ``(num_patches, patch_dim)`` float32.
        """

    def prefill(self, ids_before: Sequence[int], visual: Any, ids_after: Sequence[int]) -> FloatArray:
        """Begin a new conversation: text, the image's visual tokens, text. Returns as `step`."""

    def step(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens in one pass of the decoder.

        Args:
            ids: one or more model token ids.

        Returns:
            ``(vocab_size,)`` float32 logits of what follows the last of them; valid until the next call.

        Raises:
            BackendError: when the conversation would exceed ``capacity``, or an id is none of the vocabulary.
        """


def check_room(backend: Backend, count: int) -> None:
    """Refuse to append ``count`` positions beyond the capacity.

    Raises:
        BackendError: says by how much.
    """
    if count < 1 or backend.length + count > backend.capacity:
        raise BackendError(
            f"{backend.name} backend: {count} more tokens after {backend.length} do not fit into its capacity of "
            f"{backend.capacity}; lower the limits or the token budget, or open the backend with a larger capacity"
        )


class Rotary:
    """Cosine and sine of the rotary angles (M-RoPE: Qwen2-VL, arXiv 2409.12191, section 2.1).

    Args:
        geometry: frequencies and sections.

    Raises:
        BackendError: when the sections do not cover the head.
    """

    def __init__(self, geometry: Geometry) -> None:
        exponents = np.arange(0, geometry.head_dim, 2, dtype=np.float32) / np.float32(geometry.head_dim)
        self._frequencies = np.float32(1.0) / np.power(np.float32(geometry.rope_theta), exponents)
        self._axis = np.repeat(np.arange(len(geometry.mrope_section)) % 3, geometry.mrope_section)
        if len(self._axis) != geometry.head_dim // 2:
            raise BackendError(f"mrope_section {geometry.mrope_section} must sum to head_dim / 2 = {geometry.head_dim // 2}")

    def __call__(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Two ``(N, head_dim / 2)`` float32 arrays for ``positions (3, N)`` of `getok_drive.tokens.positions`."""
        angles = positions[self._axis].T * self._frequencies
        return np.cos(angles, dtype=np.float32), np.sin(angles, dtype=np.float32)
