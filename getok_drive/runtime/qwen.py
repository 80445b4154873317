"""Qwen2.5-VL with what small models trained from scratch get beside it: convolutions, and grid tokens that see."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import AutoModelForImageTextToText, PretrainedConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from getok_drive.runtime.cells import CellReader, CellSettings
from getok_drive.runtime.stem import StemmedTower


class DrivingQwen(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL whose tower is a `StemmedTower` where ``config.vision_config.conv_stem`` tells its stages, and with a
    `CellReader` where ``config.cell_reader`` holds `CellSettings`.

    Transformers' own forward knows nothing of the cells; `training.visual` and the backends do.
    """

    def __init__(self, config: Qwen2_5_VLConfig) -> None:
        super().__init__(config)
        if getattr(config.vision_config, "conv_stem", None):
            self.model.visual = StemmedTower._from_config(config.vision_config)
        reader = getattr(config, "cell_reader", None)
        self.cells = CellReader(config.text_config.hidden_size, CellSettings(**reader)) if reader else None

    @classmethod
    def from_config(cls, config: Qwen2_5_VLConfig, **kwargs: Any) -> DrivingQwen:
        """With random weights; named and used as transformers' factories have it."""
        model: DrivingQwen = cls._from_config(config, **kwargs)
        if isinstance(model.model.visual, StemmedTower):
            model.model.visual.stem.reset_parameters()
        if model.cells is not None:
            model.cells.reset_parameters()
        return model


def model_class(config: PretrainedConfig) -> Any:
    """What makes or loads a model of this configuration, by ``from_config`` or ``from_pretrained``."""
    own = getattr(config.vision_config, "conv_stem", None) or getattr(config, "cell_reader", None)
    return DrivingQwen if own else AutoModelForImageTextToText


def cell_reader(model: Any) -> CellReader | None:
    """The model's `CellReader`, where it has one."""
    reader: CellReader | None = getattr(model, "cells", None)
    return reader


def embed_tokens(model: Any, ids: Tensor, cells: Tensor | None) -> Tensor:
    """Input embeddings ``(B, T, hidden)`` of ``ids (B, T)``, where ``cells`` are the features of B pictures."""
    embedded: Tensor = model.get_input_embeddings()(ids)
    reader = cell_reader(model)
    return embedded if reader is None or cells is None else reader.embedded(ids, embedded, cells)


def seeing(model: Any, hidden: Tensor, cells: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What logits are made of: the hidden states after their glances, and what is added to the grid tokens' logits.

    Args:
        model: Qwen2.5-VL or Qwen3-VL.
        hidden: ``(B, T, hidden)`` last hidden states of B rows.
        cells: features of their pictures, `CellReader.forward`.

    Returns:
        The same shape, and ``(B, T, GRID_COUNT)``, or None where grid tokens do not see.
    """
    reader = cell_reader(model)
    if reader is None or cells is None:
        return hidden, None
    hidden = reader.glanced(hidden, cells)
    return hidden, reader.logits(hidden, cells)
