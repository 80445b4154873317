"""Checkpoint folders and hub names: released base models in, folders that transformers, vLLM and ms-swift load out.

A folder that `save_folder` writes holds what the released ones hold: config.json, generation_config.json, safetensors, the
tokenizer's files with the extended vocabulary, preprocessor_config.json, and a chat template that writes the very conversation
of `getok_drive.tokens.prompts` (Qwen2.5-VL's own puts in a system turn, which training does not have).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from getok_drive.errors import ConfigError
from training.model import load_model
from training.visual import STATISTICS_RGB
from training.vocabulary import extend

# Files beside the weights that a released folder has and `save_pretrained` does not write; other engines ask for them.
COMPANIONS = ("preprocessor_config.json", "video_preprocessor_config.json", "vocab.json", "merges.txt")
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type in ('image', 'image_url') or 'image' in part or 'image_url' in part -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""


def load_base(
    name: str, token_init: str = "spatial", seed: int = 0, dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A released model with its vocabulary extended by the token table.

    Args:
        name: local folder or hub name, such as ``Qwen/Qwen2.5-VL-7B-Instruct``.
        token_init: what the new rows start from, see `training.vocabulary.initialise_rows`.
        seed: of the new rows.
        dtype: of the weights, a key of `training.model.DTYPES`.

    Raises:
        ConfigError: it cannot be had, is of another architecture, or has another table of spatial tokens.
    """
    model, tokenizer = load_model(name, dtype)
    _check_statistics(name, model.config.model_type)
    return model, extend(model, tokenizer, token_init, seed)


def save_folder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state: Mapping[str, Tensor] | None = None,
    source: str | None = None,
) -> None:
    """Writes a complete checkpoint folder.

    Args:
        model: its configuration, and its weights unless ``state`` is given.
        tokenizer: with the token table.
        folder: written into; created if need be.
        state: weights by the model's own names, such as merged ones.
        source: folder or hub name that the model comes from, for the files beside the weights; by default
            preprocessor_config.json is written from the model's geometry.
    """
    model.save_pretrained(folder, state_dict=dict(state) if state is not None else None)
    plain_template, tokenizer.chat_template = tokenizer.chat_template, CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template = plain_template
    for name in COMPANIONS:
        found = _companion(source, name) if source else None
        if found is not None:
            shutil.copyfile(found, folder / name)
    path = folder / COMPANIONS[0]
    if not path.is_file():
        path.write_text(json.dumps(_preprocessor_record(model), indent=2), encoding="utf-8")


def _companion(source: str, name: str) -> str | None:
    options = dict.fromkeys(
        ("_raise_exceptions_for_gated_repo", "_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors"),
        False,
    )
    return cached_file(source, name, **options)


def _check_statistics(name: str, model_type: str) -> None:
    """The pixel statistics of a base are those that `training.visual` knows for its architecture."""
    found = _companion(name, COMPANIONS[0])
    if found is None:
        return
    record = json.loads(Path(found).read_text(encoding="utf-8"))
    for key, expected in zip(("image_mean", "image_std"), STATISTICS_RGB[model_type], strict=True):
        if key in record and max(abs(a - b) for a, b in zip(record[key], expected, strict=True)) > 1e-4:
            raise ConfigError(f"{found}: {key} is {record[key]}, expected {list(expected)} for {model_type}")


def _preprocessor_record(model: PreTrainedModel) -> dict[str, Any]:
    """preprocessor_config.json in transformers' words; pixel limits are those of the released models."""
    vision: Any = model.config.vision_config
    mean, deviation = STATISTICS_RGB[model.config.model_type]
    block = (vision.patch_size * vision.spatial_merge_size) ** 2
    processor = {"qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}[model.config.model_type]
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": processor,
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "image_mean": list(mean),
        "image_std": list(deviation),
        "min_pixels": 4 * block,
        "max_pixels": 16384 * block,
    }
