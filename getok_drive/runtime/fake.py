"""A backend without a model: it plays a given script of tokens. For tests and for trying out what comes after the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from getok_drive.errors import BackendError
from getok_drive.runtime.backend import Geometry, check_room
from getok_drive.types import FloatArray


class FakeBackend:
    """Wants to say ``script[k]`` when k tokens have followed the prefill, whatever they were, and ``script[-1]`` ever after.

    Args:
        geometry: shapes to check against, as of a real backend.
        script: model token ids of everything after the prefill: proposal, refinement prompt, refinement.
        capacity: most positions of a conversation.
        confidence: logit of the wanted token; all others have 0.
    """

    name = "fake"
    device = "none"

    def __init__(self, geometry: Geometry, script: Sequence[int], capacity: int = 4096, confidence: float = 12.0) -> None:
        if not script or not all(0 <= token < geometry.vocab_size for token in script):
            raise BackendError(f"fake backend: the script needs token ids in 0..{geometry.vocab_size - 1}")
        self.geometry = geometry
        self.script = list(script)
        self.capacity = capacity
        self.length = 0
        self.passes = 0
        self._start = 0
        self._confidence = confidence
        self._logits: FloatArray = np.zeros(geometry.vocab_size, np.float32)

    def encode(self, pixel_values: FloatArray) -> FloatArray:
        """Zeros of the right shape."""
        expected = (self.geometry.num_patches, self.geometry.patch_dim)
        if pixel_values.shape != expected:
            raise BackendError(f"fake backend: expected pixel_values of shape {expected}, got {pixel_values.shape}")
        return np.zeros((self.geometry.num_visual_tokens, self.geometry.hidden_size), np.float32)

    def prefill(self, ids_before: Sequence[int], visual: Any, ids_after: Sequence[int]) -> FloatArray:
        """Begin the script anew."""
        self.length = 0
        check_room(self, len(ids_before) + len(visual) + len(ids_after))
        self.length = self._start = len(ids_before) + len(visual) + len(ids_after)
        return self._next()

    def step(self, ids: Sequence[int]) -> FloatArray:
        """Go on in the script by as many tokens."""
        check_room(self, len(ids))
        self.length += len(ids)
        return self._next()

    def _next(self) -> FloatArray:
        self.passes += 1
        self._logits[:] = 0.0
        self._logits[self.script[min(self.length - self._start, len(self.script) - 1)]] = self._confidence
        return self._logits
