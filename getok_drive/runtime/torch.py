"""The reference backend: transformers' own Qwen2.5-VL on torch, from a bundle's ``model.safetensors``; CPU or CUDA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from getok_drive.errors import BackendError
from getok_drive.runtime.backend import Geometry, check_room
from getok_drive.tokens.positions import Positions, PositionSpec
from getok_drive.types import FloatArray

try:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, DynamicCache

    from getok_drive.runtime.qwen import cell_reader, embed_tokens, model_class, seeing
except ImportError as error:
    raise BackendError(f"torch backend: {error}; install it with pip install 'getok-drive[train]'") from error

FILES = ("model.safetensors", "config.json")


@contextmanager
def _failures_told() -> Iterator[None]:
    """What torch raises while it computes (also for memory that is full) as a `BackendError`."""
    try:
        yield
    except RuntimeError as error:
        raise BackendError(f"torch backend: inference failed: {error}") from error


class Encoded(NamedTuple):
    """One image.

    Attributes:
        tokens: ``(num_visual_tokens, hidden_size)``.
        cells: ``(1, GRID_COUNT, channels)``, what grid tokens see, where the model has a `CellReader`.
    """

    tokens: torch.Tensor
    cells: torch.Tensor | None


class TorchBackend:
    """`Backend` on torch; positions are given explicitly, so that M-RoPE never depends on what transformers infers.

    Args:
        folder: holds `FILES`.
        geometry: must agree with the model.
        spec: where the conversation's tokens stand.
        capacity: most positions of a conversation.
        threads: torch's CPU threads; 0 leaves them as they are.
        device: ``cpu``, ``cuda``, ...; by default CUDA where there is one.

    Raises:
        BackendError: when the files cannot be loaded or do not fit the geometry.
    """

    name = "torch"

    def __init__(
        self, folder: Path, geometry: Geometry, spec: PositionSpec, capacity: int, threads: int = 0, device: str | None = None
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = torch.float32 if self._device.type == "cpu" else torch.bfloat16
        try:
            model: Any = model_class(AutoConfig.from_pretrained(folder, local_files_only=True)).from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True, attn_implementation="sdpa"
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise BackendError(f"torch backend: {folder} cannot be loaded: {error}") from error
        self._model = model.eval().requires_grad_(False).to(self._device)
        config = model.config.text_config
        if (config.vocab_size, config.hidden_size) != (geometry.vocab_size, geometry.hidden_size):
            raise BackendError(f"torch backend: {folder / 'config.json'} has another vocab_size or hidden_size than the contract")
        self.device = f"{self._device}, {dtype}".replace("torch.", "")
        self.capacity = capacity
        self.length = 0
        self._spec = spec
        self._positions = Positions(spec)
        self._grid_thw = torch.tensor([[1, *geometry.grid_hw]], device=self._device)
        self._cache: Any = None
        self._cells: Any = None

    def encode(self, pixel_values: FloatArray) -> Encoded:
        """See `Encoded`, on the device."""
        with torch.no_grad(), _failures_told():
            pixels = torch.from_numpy(pixel_values).to(self._device, self._model.dtype)
            out = self._model.model.visual(pixels, grid_thw=self._grid_thw)
            tokens: torch.Tensor = out.pooler_output
            if (reader := cell_reader(self._model)) is None:
                return Encoded(tokens, None)
            (picture,) = getattr(out, "conv_pictures", (None,))
            return Encoded(tokens, reader(tokens[None], self._spec.merged_hw, picture))

    def prefill(self, ids_before: Sequence[int], visual: Encoded, ids_after: Sequence[int]) -> FloatArray:
        """Begin a new conversation; see `Backend.prefill`."""
        if len(ids_before) != self._spec.count_before:
            expected = self._spec.count_before
            raise BackendError(f"torch backend: expected {expected} tokens before the image, got {len(ids_before)}")
        self.length = 0
        self._cells = visual.cells
        self._cache = DynamicCache(config=self._model.config.text_config)
        self._positions = Positions(self._spec)
        places = np.concatenate([self._spec.prefix(), self._positions.append(ids_after)], axis=1)
        return self._pass(torch.cat([self._embed(ids_before), visual.tokens, self._embed(ids_after)]), places)

    def step(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens; see `Backend.step`."""
        return self._pass(self._embed(ids), self._positions.append(ids))

    def _embed(self, ids: Sequence[int]) -> torch.Tensor:
        size = self._model.config.text_config.vocab_size
        if not all(0 <= token < size for token in ids):
            raise BackendError(f"torch backend: a token id is none of the {size} of the vocabulary: {list(ids)}")
        index = torch.tensor([list(ids)], dtype=torch.long, device=self._device)
        return embed_tokens(self._model, index, self._cells)[0]

    def _pass(self, embeddings: torch.Tensor, positions: FloatArray) -> FloatArray:
        check_room(self, len(embeddings))
        end = self.length + len(embeddings)
        with torch.no_grad(), _failures_told():
            hidden = self._model.model.language_model(
                inputs_embeds=embeddings[None],
                position_ids=torch.from_numpy(positions)[:, None].to(self._device),
                past_key_values=self._cache,
                use_cache=True,
            ).last_hidden_state
            last, seen = seeing(self._model, hidden[:, -1:], self._cells)
            scores: torch.Tensor = self._model.lm_head(last)[0, 0]
            if seen is not None:
                scores[self._model.cells.ids] += seen[0, 0]
            logits: FloatArray = scores.float().cpu().numpy()
        self.length = end
        return logits
