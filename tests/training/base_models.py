"""Released models at tiny size: transformers' real configuration classes and tokenizer, random weights, local folders."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from getok_drive.preprocess import CLIP_MEAN_RGB, CLIP_STD_RGB
from training.model import build_tokenizer

KINDS = ("qwen2_5_vl", "qwen3_vl")
IMAGE_SIZE_WH = {"qwen2_5_vl": (112, 56), "qwen3_vl": (128, 64)}
_SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_ORDINARY = {"qwen2_5_vl": ("<tool_call>", "</tool_call>"), "qwen3_vl": ("<tool_call>", "</tool_call>", "<think>", "</think>")}


def base_tokenizer(kind: str) -> Qwen2Tokenizer:
    """Qwen's tokenizer class over a small vocabulary, with the added tokens of the kind's released models."""
    model = json.loads(build_tokenizer().backend_tokenizer.to_str())["model"]
    tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], eos_token="<|im_end|>")
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in _SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in _ORDINARY[kind]])
    tokenizer.chat_template = "{{ 'a default system turn' }}"
    return tokenizer


def base_model(kind: str, tokenizer: PreTrainedTokenizerBase, tied: bool, width: int = 32) -> PreTrainedModel:
    """A tiny model with what makes the released ones special: windowed attention and frames in pairs, or deepstack.

    ``width``, a multiple of 32: of tower and decoder, each of two heads.
    """
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": -(-len(tokenizer) // 64) * 64, "hidden_size": width, "intermediate_size": width * 3 // 2,
        "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 2048,
        "tie_word_embeddings": tied,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e6, "mrope_section": [part * width // 32 for part in (2, 3, 3)],
        },
        "bos_token_id": token("<|endoftext|>"), "eos_token_id": token("<|im_end|>"), "pad_token_id": token("<|endoftext|>"),
    }  # fmt: skip
    vision = {
        "depth": 3, "hidden_size": width, "intermediate_size": width * 3 // 2, "num_heads": 2, "out_hidden_size": width,
    }  # fmt: skip
    common = {
        "image_token_id": token("<|image_pad|>"), "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"), "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": tied,
    }  # fmt: skip
    torch.manual_seed(0)
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 56, "fullatt_block_indexes": [2]}  # windows of 4 x 4 patches
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **common))
    text["head_dim"] = width // 2
    text["rope_parameters"]["mrope_interleaved"] = True
    vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **common))


def save_base(folder: Path, kind: str, tied: bool, width: int = 32) -> Path:
    """A checkpoint folder as a user would have downloaded it."""
    tokenizer = base_tokenizer(kind)
    base_model(kind, tokenizer, tied, width).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    mean, deviation = ((0.5,) * 3, (0.5,) * 3) if kind == "qwen3_vl" else (CLIP_MEAN_RGB, CLIP_STD_RGB)
    record = {
        "image_processor_type": "Qwen2VLImageProcessor", "image_mean": mean, "image_std": deviation,
        "patch_size": 16 if kind == "qwen3_vl" else 14, "merge_size": 2, "temporal_patch_size": 2, "marker": "released",
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(record))
    return folder
