"""Qwen2.5-VL's vision tower with convolutions beside its linear patch embedding, for small models trained from scratch.

A linear patch embedding has to learn from examples that a stroke of paint is the same wherever in its patch it lies;
convolutions know it, and learn from less (Xiao et al. 2021, arXiv 2106.14881; measured in training/LOG.md). Their last layer
starts at zero, so that they can also be given to a model that was trained without: it stays what it was until it learns on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from getok_drive.errors import ConfigError


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of ``(B, channels, H, W)``: every place for itself, so that no picture changes another."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """``relu(x + norm(conv(relu(norm(conv(x))))))`` with 3 x 3 convolutions; nothing but ``relu(x)`` at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.first_norm = _conv(channels, channels, 1), ChannelNorm(channels)
        self.second, self.second_norm = _conv(channels, channels, 1), ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, H, W)`` to the same shape."""
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(x + self.second_norm(self.second(inner)))


class ConvStem(nn.Module):
    """What the convolutions add to the embedding of each patch.

    Args:
        stages: ``(channels, stride, blocks)`` from the pixels on: a strided convolution, then residual blocks. What they make of
            a patch, ``(patch size / product of the strides)**2`` vectors, is read together.
        width: of the tower.
        patch_size: side of a patch, pixels.
        merge_size: patches along each side of a merge block, in whose order patches come and go.

    Raises:
        ConfigError: the product of the strides does not divide the patch size.
    """

    def __init__(self, stages: Sequence[Sequence[int]], width: int, patch_size: int, merge_size: int) -> None:
        super().__init__()
        stride = math.prod(stride for _, stride, _ in stages)
        if patch_size % stride:
            raise ConfigError(f"vision_config.conv_stem: the strides of {list(stages)} must divide patch_size={patch_size}")
        self.patch_size, self.merge_size, self.side = patch_size, merge_size, patch_size // stride
        self.stages = nn.ModuleList()
        before = 3
        for channels, stride, blocks in stages:
            parts: list[nn.Module] = [_conv(before, channels, stride), ChannelNorm(channels), nn.ReLU()]
            parts += [Residual(channels) for _ in range(blocks)]
            self.stages.append(nn.Sequential(*parts))
            before = channels
        self.proj = nn.Linear(before * self.side**2, width)

    @property
    def multiply_adds(self) -> int:
        """Of one patch (the convolutions and the projection; norms and activations are left out)."""
        side, total = self.patch_size, self.proj.weight.numel()
        for stage in self.stages:
            side //= stage[0].stride[0]
            total += side**2 * sum(part.weight.numel() for part in stage.modules() if isinstance(part, nn.Conv2d))
        return total

    def reset_parameters(self) -> None:
        """Random convolutions, a projection of zeros."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, ChannelNorm):
                module.reset_parameters()
            elif isinstance(module, Residual):
                nn.init.zeros_(module.second_norm.weight)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def picture(self, pixel_values: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """What the convolutions see.

        Args:
            pixel_values: ``(B, patches, 3 * patch**2)`` in merge-block order.
            grid_hw: patches along the height and the width.

        Returns:
            ``(B, channels, side * grid height, side * grid width)``.
        """
        batch, (rows, columns), patch, merge = len(pixel_values), grid_hw, self.patch_size, self.merge_size
        blocks = pixel_values.view(batch, rows // merge, columns // merge, merge, merge, 3, patch, patch)
        x = blocks.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(batch, 3, rows * patch, columns * patch)
        x = x.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x)
        return x

    def by_patch(self, picture: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """`picture` in the patches' order: ``(B, patches, side**2 * channels)``."""
        (rows, columns), merge, x = grid_hw, self.merge_size, picture
        batch = len(x)
        split = x.permute(0, 2, 3, 1).reshape(batch, rows // merge, merge, self.side, columns // merge, merge, self.side, -1)
        return split.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, rows * columns, -1)

    def forward(self, pixel_values: Tensor, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What is added to the embeddings, ``(B, patches, width)``, and `picture`, whose arguments these are."""
        picture = self.picture(pixel_values, grid_hw)
        return self.proj(self.by_patch(picture, grid_hw)), picture


class _PatchEmbed(nn.Module):
    """In the place of transformers' patch embedding, when what comes is embedded already."""

    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, embedded: Tensor) -> Tensor:
        return embedded


class StemmedTower(Qwen2_5_VisionTransformerPretrainedModel):
    """Transformers' vision tower; ``config.conv_stem`` holds the stages of its `ConvStem`."""

    patch_embed: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.stem = ConvStem(config.conv_stem, config.hidden_size, config.patch_size, config.spatial_merge_size)
        self.patch_embed = _PatchEmbed(self.patch_embed.proj)

    def embed(self, pixel_values: Tensor, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Patches embedded, and what the convolutions see.

        Args:
            pixel_values: ``(B, patches, 3 * patch**2)`` of pictures of one size.
            grid_hw: patches along the height and the width.

        Returns:
            ``(B, patches, width)`` and `ConvStem.picture`.
        """
        weight = self.patch_embed.proj.weight
        linear = nn.functional.linear(pixel_values, weight.reshape(len(weight), -1))
        beside, picture = self.stem(pixel_values, grid_hw)
        return linear + beside, picture

    def forward(self, hidden_states: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
        """As transformers', picture by picture; the output's ``conv_pictures`` are what the convolutions see in each."""
        grids = [(int(rows), int(columns)) for _, rows, columns in grid_thw]
        given = hidden_states.split([rows * columns for rows, columns in grids])
        embedded, pictures = zip(*(self.embed(one[None], grid) for one, grid in zip(given, grids, strict=True)), strict=True)
        out = super().forward(torch.cat([one[0] for one in embedded]), grid_thw=grid_thw, **kwargs)
        out.conv_pictures = pictures
        return out


def _conv(before: int, channels: int, stride: int) -> nn.Conv2d:
    """A convolution whose output is ``stride`` times smaller: 3 x 3 up to stride 2, from there on without overlap."""
    kernel, padding = (3, 1) if stride < 3 else (stride, 0)
    return nn.Conv2d(before, channels, kernel, stride, padding, bias=False)
