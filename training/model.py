"""Models: the Qwen2.5-VL architecture at any size, and its vocabulary extended by the project's token table.

`build_model` makes a small model from the *real* transformers configuration classes, with random weights and a byte-level
tokenizer of its own, so that everything downstream treats it exactly like a released checkpoint. `vision_tokens` is a batched
forward of the vision tower for images of one size; it uses the transformers module's own weights and equals its output
(tested), but does not loop over images and skips the 3-D convolution, which is slow on CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from getok_drive.errors import ConfigError
from getok_drive.runtime.qwen import model_class
from getok_drive.runtime.stem import StemmedTower
from getok_drive.tokens import prompts
from getok_drive.tokens.vocab import TOKENS
from training.vocabulary import first_token_id, initialise_rows

ARCHITECTURES = ("qwen2_5_vl", "qwen3_vl")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Shape of a model trained from scratch; every vision block attends to the whole image (images are small)."""

    vision_hidden: int = 192
    vision_depth: int = 6
    vision_heads: int = 6
    vision_intermediate: int = 512
    text_hidden: int = 192
    text_depth: int = 4
    text_heads: int = 6
    text_kv_heads: int = 2
    text_intermediate: int = 512
    patch_size_px: int = 14
    merge_size: int = 2
    conv_stem: tuple[tuple[int, int, int], ...] = ()  # stages of convolutions beside the patch embedding, see ConvStem
    cell_channels: int = 0  # features of a cell of the grid that grid tokens see, see CellReader; 0: they do not see
    cell_detail: tuple[int, ...] = ()  # these three as in CellSettings
    cell_blocks: int = 0
    cell_glances: int = 0
    rope_theta: float = 20.0  # so that the slowest frequency still turns visibly over the 32 cells of the grid


def position_rule(config: PretrainedConfig) -> str:
    """The rule of `getok_drive.tokens.positions` that a checkpoint was trained with; released models know Qwen's own only."""
    return str(getattr(config, "position_rule", "text"))


SIZES = {
    # a visual token per patch of 32 pixels: 2 x 4 grid cells at 512x256, so that offsets can be read
    "nano": ModelSize(
        merge_size=1, patch_size_px=32, text_kv_heads=6, conv_stem=((32, 4, 0), (64, 2, 3)),
        cell_channels=64, cell_detail=(64, 1, 2), cell_blocks=4, cell_glances=2,
    ),
    "tiny": ModelSize(32, 1, 2, 48, 32, 2, 2, 1, 48, cell_channels=8),
    "small": ModelSize(384, 10, 6, 1024, 384, 6, 6, 2, 1024),
}  # fmt: skip


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (never an unknown character) whose merges come from the prompts, plus the token table."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, min_frequency=1, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(sorted(prompts.all_prompts()), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in TOKENS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def build_model(
    size: ModelSize, tokenizer: PreTrainedTokenizerFast, seed: int = 0, token_init: str = "spatial"
) -> Qwen2_5_VLForConditionalGeneration:
    """A randomly initialised Qwen2.5-VL of the given shape (float32, tied embeddings, vocabulary padded to 64).

    Args:
        size: its shape.
        tokenizer: with the token table, see `build_tokenizer`.
        seed: of the weights.
        token_init: what the table's rows start from, see `training.vocabulary.initialise_rows`.
    """
    half = size.text_hidden // size.text_heads // 2
    sections = [half - 2 * (half * 7 // 16), half * 7 // 16, half * 7 // 16]  # time, rows, columns
    special = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": size.text_hidden,
            "intermediate_size": size.text_intermediate,
            "num_hidden_layers": size.text_depth,
            "num_attention_heads": size.text_heads,
            "num_key_value_heads": size.text_kv_heads,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": size.rope_theta, "mrope_section": sections},
            "tie_word_embeddings": True,
            "bos_token_id": special["<|endoftext|>"],
            "eos_token_id": special["<|im_end|>"],
            "pad_token_id": special["<|endoftext|>"],
        },
        vision_config={
            "depth": size.vision_depth,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_intermediate,
            "num_heads": size.vision_heads,
            "out_hidden_size": size.text_hidden,
            "patch_size": size.patch_size_px,
            "spatial_merge_size": size.merge_size,
            "temporal_patch_size": 1,
            "fullatt_block_indexes": list(range(size.vision_depth)),
            "window_size": size.patch_size_px * size.merge_size * 4,
        },
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    config.position_rule = "image"
    if size.conv_stem:
        config.vision_config.conv_stem = [list(stage) for stage in size.conv_stem]
    if size.cell_channels:
        config.cell_reader = {
            "channels": size.cell_channels,
            "first_id": first_token_id(tokenizer),
            "detail": list(size.cell_detail),
            "blocks": size.cell_blocks,
            "glances": size.cell_glances,
        }
    torch.manual_seed(seed)
    model: Qwen2_5_VLForConditionalGeneration = model_class(config).from_config(
        config, attn_implementation="sdpa", dtype=torch.float32
    )
    initialise_rows(model.get_input_embeddings().weight, tokenizer, token_init, seed)
    return model


def load_model(name: str, dtype: str = "float32", extended: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a checkpoint folder or hub name as they are; every weight must be there.

    Args:
        name: folder or hub name.
        dtype: of the weights, a key of `DTYPES`.
        extended: whether the token table has to be in the vocabulary.

    Raises:
        ConfigError: it cannot be had, is of another architecture, or lacks weights or the table.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type not in ARCHITECTURES:
            raise ConfigError(f"{name}: is a {config.model_type} model; expected one of {', '.join(ARCHITECTURES)}")
        tokenizer = AutoTokenizer.from_pretrained(name)
        if extended:
            first_token_id(tokenizer)
        model, report = model_class(config).from_pretrained(
            name, attn_implementation="sdpa", dtype=DTYPES[dtype], output_loading_info=True
        )
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ConfigError(f"{name}: cannot be loaded as a checkpoint folder or a hub name: {error}") from error
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise ConfigError(f"{name}: {len(absent)} weights are missing or of another shape, the first is {absent[0]}")
    return model, tokenizer


def load_checkpoint(folder: Path, dtype: str = "float32") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a checkpoint folder (ordinary transformers files) that has the token table.

    Raises:
        ConfigError: the folder is no checkpoint, or its vocabulary lacks the token table.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: no config.json; expected a checkpoint folder written by training.sft")
    return load_model(str(folder), dtype, extended=True)


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, tied ones counted once; of weights that ZeRO-3 spread the whole."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())


def vision_tokens(
    model: Qwen2_5_VLForConditionalGeneration, pixel_values: Tensor, grid_hw: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    """Merged visual tokens of a batch of images of one size, and what the tower's convolutions see, where it has some.

    Args:
        model: its vision tower must attend to the whole image in every block (``fullatt_block_indexes`` names them all).
        pixel_values: ``(B, grid_h * grid_w, channels * temporal * patch**2)``, patches in Qwen's merge-block order.
        grid_hw: patches along the height and the width.

    Returns:
        ``(B, grid_h * grid_w / merge**2, text_hidden)``, and `ConvStem.picture` or None.

    Raises:
        ConfigError: the tower has windowed blocks.
    """
    tower = model.model.visual
    if len(tower.fullatt_block_indexes) != len(tower.blocks):
        raise ConfigError("vision_tokens needs full attention in every vision block; use the transformers forward instead")
    batch, count, _ = pixel_values.shape
    picture = None
    if isinstance(tower, StemmedTower):
        hidden, picture = tower.embed(pixel_values, grid_hw)
    else:
        hidden = F.linear(pixel_values, tower.patch_embed.proj.weight.flatten(1))
    rows, columns = _patch_coordinates(grid_hw, tower.spatial_merge_size, pixel_values.device)
    position = torch.stack((rows, columns), dim=-1)
    cos, sin = tower.rotary_pos_emb(hidden, position)
    cos, sin = cos[:, None].to(hidden.dtype), sin[:, None].to(hidden.dtype)
    for block in tower.blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(hidden)).view(batch, count, 3, attention.num_heads, attention.head_dim)
        query, key, value = qkv.unbind(2)
        query, key = query * cos + _rotate_half(query) * sin, key * cos + _rotate_half(key) * sin
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        if hidden.is_cuda:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:  # so few tokens: two to five times as fast as torch's own there, forward and backward
            mixed = (query * attention.head_dim**-0.5 @ key.transpose(2, 3)).softmax(-1).to(value.dtype) @ value
        hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(batch, count, -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
    merger = tower.merger
    return merger.mlp(merger.ln_q(hidden).view(batch, -1, merger.hidden_size)), picture


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _patch_coordinates(grid_hw: tuple[int, int], merge: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of every patch, in merge-block order: two ``(grid_h * grid_w,)`` tensors."""
    height, width = grid_hw
    rows, columns = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")

    def block_order(x: Tensor) -> Tensor:
        return x.view(height // merge, merge, width // merge, merge).transpose(1, 2).reshape(-1)

    return block_order(rows), block_order(columns)
