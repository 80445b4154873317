"""Pictures as the decoder sees them, for every architecture: from scratch, released Qwen2.5-VL, and Qwen3-VL with its deepstack.

Towers that attend to the whole image in every block take the batched forward of `training.model.vision_tokens`; all others
(windowed blocks, learned position grids, deepstack) take transformers' own, which is exact and slower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from getok_drive.preprocess import CLIP_MEAN_RGB, CLIP_STD_RGB, Preprocessor
from getok_drive.runtime.qwen import cell_reader, embed_tokens, seeing
from getok_drive.tokens.vocab import TOKENS
from training.model import vision_tokens

_HALF = (0.5, 0.5, 0.5)
STATISTICS_RGB = {"qwen2_5_vl": (CLIP_MEAN_RGB, CLIP_STD_RGB), "qwen3_vl": (_HALF, _HALF)}  # mean, deviation, by model type


@dataclass(frozen=True, slots=True)
class Visual:
    """Pictures of one size, encoded.

    Attributes:
        tokens: ``(B, K, text_hidden)``, what stands at the image's places.
        deepstack: each ``(B, K, text_hidden)``, added at the image's places after the decoder's first, second, ... layer
            (Qwen3-VL; empty in other architectures).
        cells: ``(B, GRID_COUNT, channels)``, what grid tokens see, where the model has a `CellReader`.
    """

    tokens: Tensor
    deepstack: tuple[Tensor, ...] = ()
    cells: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Visual:
        """The same with every tensor changed, such as rows chosen or a gradient cut."""
        cells = None if self.cells is None else change(self.cells)
        return Visual(change(self.tokens), tuple(change(part) for part in self.deepstack), cells)


@dataclass(frozen=True, slots=True)
class Pixels:
    """How a model takes pictures.

    Attributes:
        patch_size: side of a patch, pixels.
        merge_size: patches along each side of a visual token.
        temporal_patch_size: frames per patch.
        mean_rgb: of its architecture's pixel statistics, of values scaled to 0..1.
        deviation_rgb: likewise.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    mean_rgb: tuple[float, float, float]
    deviation_rgb: tuple[float, float, float]

    @classmethod
    def of(cls, config: PretrainedConfig) -> Pixels:
        """Those of a model, by its configuration."""
        vision = config.vision_config
        sizes = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        return cls(*sizes, *STATISTICS_RGB[config.model_type])

    def preprocessor(self, image_size_wh: tuple[int, int]) -> Preprocessor:
        """The resize-and-normalise for one image size.

        Raises:
            ConfigError: the size is no multiple of a visual token.
        """
        return Preprocessor(
            image_size_wh, self.patch_size, self.merge_size, self.temporal_patch_size, self.mean_rgb, self.deviation_rgb
        )


def encode_pictures(model: PreTrainedModel, pixel_values: Tensor, grid_hw: tuple[int, int]) -> Visual:
    """Encode pictures of one size.

    Args:
        model: Qwen2.5-VL or Qwen3-VL.
        pixel_values: ``(B, patches, patch_dim)``.
        grid_hw: patches along the height and the width.
    """
    tower = model.model.visual
    pixel_values = pixel_values.to(tower.patch_embed.proj.weight.dtype)
    deepstack: tuple[Tensor, ...] = ()
    if len(getattr(tower, "fullatt_block_indexes", ())) == len(tower.blocks):
        tokens, picture = vision_tokens(model, pixel_values, grid_hw)
    else:
        count = len(pixel_values)
        grid_thw = torch.tensor([[1, *grid_hw]] * count, device=pixel_values.device)
        out = tower(pixel_values.flatten(0, 1), grid_thw=grid_thw)
        tokens = out.pooler_output.unflatten(0, (count, -1))
        deepstack = tuple(part.unflatten(0, (count, -1)) for part in getattr(out, "deepstack_features", None) or ())
        picture = torch.cat(out.conv_pictures) if hasattr(out, "conv_pictures") else None
    reader, merge = cell_reader(model), tower.spatial_merge_size
    cells = None if reader is None else reader(tokens, (grid_hw[0] // merge, grid_hw[1] // merge), picture)
    return Visual(tokens, deepstack, cells)


def table_logits(
    model: PreTrainedModel, hidden: Tensor, cells: Tensor | None, first_id: int, places: tuple[Any, ...] = ()
) -> Tensor:
    """Logits of the token table, ``(B, T, len(TOKENS))``, or ``(N, len(TOKENS))`` of N chosen places.

    Args:
        model: Qwen2.5-VL or Qwen3-VL.
        hidden: ``(B, T, hidden)`` last hidden states of B rows.
        cells: `Visual.cells` of their pictures.
        first_id: model id of the table's first token; the grid's are the first of the table.
        places: index of rows and index of columns, ``(N,)`` each.
    """
    hidden, seen = seeing(model, hidden, cells)
    logits: Tensor = functional.linear(hidden[places], model.lm_head.weight[first_id : first_id + len(TOKENS)])
    return logits if seen is None else logits + functional.pad(seen[places], (0, len(TOKENS) - seen.shape[-1]))


def picture_inputs(model: PreTrainedModel, ids: Tensor, visual: Visual, span: slice) -> dict[str, Any]:
    """What the language model is called with, so that it reads ``ids`` with the pictures at the places ``span``.

    Args:
        model: Qwen2.5-VL or Qwen3-VL.
        ids: ``(B, T)``.
        visual: of the same B pictures.
        span: the image's places, common to all rows.
    """
    embedded = embed_tokens(model, ids, visual.cells)
    tokens = visual.tokens.to(embedded.dtype)
    inputs: dict[str, Any] = {"inputs_embeds": torch.cat((embedded[:, : span.start], tokens, embedded[:, span.stop :]), dim=1)}
    if visual.deepstack:
        places = torch.zeros_like(ids, dtype=torch.bool)
        places[:, span] = True
        inputs["visual_pos_masks"] = places
        inputs["deepstack_visual_embeds"] = [part.flatten(0, 1) for part in visual.deepstack]
    return inputs
