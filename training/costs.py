"""What training a model costs, worked out on its real architecture without running it (see `training.estimate`).

Parameters are counted on torch's meta device. Floating point operations are two for each weight and row of the matrix products,
forward and backward, with what LoRA saves and gradient checkpointing adds; they equal torch's own counter on small models
(tests).
Memory is arithmetic on the same counts; each line says how it was computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PretrainedConfig

from getok_drive.errors import ConfigError
from getok_drive.runtime.qwen import cell_reader, model_class
from getok_drive.runtime.stem import StemmedTower
from getok_drive.tokens.masks import GRID_COUNT
from getok_drive.tokens.vocab import TOKENS
from training.lora import PARTS
from training.model import SIZES, build_model, build_tokenizer
from training.presets import SftConfig

GIB = 2**30
QWEN_TOKENS = 151_669  # of Qwen's tokenizers with all added tokens; the table comes behind them
# The released configurations, so that a preset can be estimated without a network.
KNOWN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "model_type": "qwen2_5_vl", "tie_word_embeddings": False,
        "text_config": {
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vocab_size": 152064,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        "vision_config": {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "out_hidden_size": 3584},
    },
    "Qwen/Qwen3-VL-2B-Instruct": {
        "model_type": "qwen3_vl", "tie_word_embeddings": True,
        "text_config": {
            "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
            "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
        },
        "vision_config": {
            "hidden_size": 1024, "intermediate_size": 4096, "depth": 24, "num_heads": 16, "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a model: decoder layers, tower blocks, or mergers.

    Attributes:
        parameters: of its linear layers.
        adapters: parameters that LoRA adds to them; 0 without LoRA or where the part is frozen.
        learns: whether it, or its adapters, is trained.
    """

    parameters: int
    adapters: int
    learns: bool


@dataclass(frozen=True, slots=True)
class Work:
    """What one picture costs.

    Attributes:
        tokens: in the decoder.
        patches: in the tower.
        forward: floating point operations of the forward pass.
        total: of forward, backward, and what gradient checkpointing computes again.
    """

    tokens: int
    patches: int
    forward: float
    total: float


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """A share of the memory on each GPU: what it is, bytes, and how they were computed."""

    what: str
    bytes: float
    how: str


def config_of(settings: SftConfig) -> PretrainedConfig:
    """The architecture that the settings train, with the token table in its vocabulary.

    Raises:
        ConfigError: the base is neither known here nor to be had.
    """
    if not settings.base:
        return build_model(SIZES[settings.size], build_tokenizer()).config
    if settings.base in KNOWN:
        record = dict(KNOWN[settings.base])
        config = AutoConfig.for_model(record.pop("model_type"), **record)
    else:
        try:
            config = AutoConfig.from_pretrained(settings.base)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{settings.base}: no configuration to be had: {error}") from error
    if config.text_config.vocab_size >= QWEN_TOKENS:
        config.text_config.vocab_size = max(config.text_config.vocab_size, -(-(QWEN_TOKENS + len(TOKENS)) // 128) * 128)
    return config


class Costs:
    """A model counted, with the settings that it is trained at.

    Args:
        config: the architecture, table included.
        settings: of the training run.
        text_tokens: tokens of a conversation beside the image.
        taught_tokens: of these, how many are taught.
    """

    def __init__(self, config: PretrainedConfig, settings: SftConfig, text_tokens: int = 400, taught_tokens: int = 250) -> None:
        self.config, self.settings = config, settings
        self.text_tokens, self.taught_tokens = text_tokens, taught_tokens
        with torch.device("meta"):
            model = model_class(config).from_config(config)
        text, tuning = config.text_config, settings.tuning
        self.hidden, self.vocabulary = text.hidden_size, text.vocab_size
        self.head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.parameters = sum(p.numel() for p in model.parameters())
        tower = model.model.visual
        self.stem = tower.patch_embed.proj.weight.numel() + (tower.stem.multiply_adds if isinstance(tower, StemmedTower) else 0)
        self.cells = cell_reader(model)
        learns = {"language": True, "vision": tuning.train_vision, "merger": tuning.train_merger}
        self.parts = {name: _part(model, pattern, tuning.lora_rank, learns[name]) for name, pattern in PARTS.items()}
        if tuning.lora_rank:
            tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
            rows = len(TOKENS) * self.hidden * (1 if tied else 2)
            self.learning = rows + sum(part.adapters for part in self.parts.values())
        else:
            self.learning = self.parameters - sum(part.parameters for part in self.parts.values() if not part.learns)

    def work(self, image_size_wh: tuple[int, int]) -> Work:
        """Operations for one picture of this size with its conversation."""
        vision, text, lora = self.config.vision_config, self.config.text_config, bool(self.settings.tuning.lora_rank)
        patches = image_size_wh[0] * image_size_wh[1] // vision.patch_size**2
        visual = patches // vision.spatial_merge_size**2
        tokens = visual + self.text_tokens
        full_blocks = len(getattr(vision, "fullatt_block_indexes", range(vision.depth)))
        window = min(patches, (getattr(vision, "window_size", 0) // vision.patch_size) ** 2)
        seen = patches * full_blocks + window * (vision.depth - full_blocks)
        attention = {
            "language": 4.0 * tokens**2 * text.num_attention_heads * self.head_dim * text.num_hidden_layers,
            "vision": 4.0 * patches * seen * vision.hidden_size,
            "merger": 0.0,
        }
        rows = {"language": tokens, "vision": patches, "merger": visual}
        stem, head = 2.0 * patches * self.stem, 2.0 * self.taught_tokens * self.vocabulary * self.hidden
        stem_learns = self.parts["vision"].learns and not lora
        if self.cells is not None:  # read from every visual token, seen by every token, asked for after the text's
            reader = self.cells
            asked = sum(layer.weight.numel() for layer in (reader.query, reader.look, reader.tell) if layer is not None)
            asked += (1 + 2 * reader.heads) * reader.channels * GRID_COUNT
            over_grid = sum(p.numel() for part in (reader.detail, reader.blocks) if part is not None for p in part.parameters())
            head += 2.0 * (visual * reader.read.weight.numel() + tokens * reader.embed.weight.numel())
            head += 2.0 * (self.text_tokens * asked + GRID_COUNT * over_grid)
        forward, total = stem + head, stem * (1 + stem_learns) + 3 * head  # the head's rows always learn: its backward is whole
        for name, part in self.parts.items():
            base, own = 2.0 * rows[name] * part.parameters, 2.0 * rows[name] * part.adapters
            once = base + attention[name] + own
            forward, total = forward + once, total + once
            if part.learns or (name == "merger" and self.parts["vision"].learns):
                weights = base if part.learns and not lora else 0.0
                total += base + weights + 2 * attention[name] + 2 * own
                if self.settings.tuning.gradient_checkpointing and name != "merger":
                    total += once
        return Work(tokens, patches, forward, total)

    def memory(self, image_size_wh: tuple[int, int], gpus: int, sharding: str) -> list[MemoryLine]:
        """Bytes on each GPU at the peak.

        Args:
            image_size_wh: the largest size of the run, pixels.
            gpus: in all nodes together.
            sharding: ``ddp``, ``zero2`` (gradients and moments are spread over the GPUs) or ``fsdp2`` (weights too).
        """
        settings, tuning = self.settings, self.settings.tuning
        half = 2 if tuning.dtype == "bfloat16" else 4
        states, weights = (gpus if sharding != "ddp" else 1), (gpus if sharding == "fsdp2" else 1)
        over_states, over_weights = (f" / {n} GPUs" if n > 1 else "" for n in (states, weights))
        own = 4 if tuning.lora_rank else 0
        lines = [
            MemoryLine(
                "weights", half * self.parameters / weights,
                f"{self.parameters / 1e9:.2f} G parameters x {half} bytes{over_weights}",
            ),
            MemoryLine(
                "what learns", (12 / states + own / weights) * self.learning,
                f"{self.learning / 1e6:.0f} M in float32: gradient and AdamW's two moments, 12 bytes{over_states}"
                + f"; adapters and rows themselves, 4 bytes{over_weights}" * bool(own),
            ),
        ]  # fmt: skip
        if half == 4:
            lines.append(MemoryLine("autocast", 2.0 * self.parameters / weights, "bfloat16 copies of the weights, 2 bytes"))
        if settings.ema_decay:
            lines.append(MemoryLine("averaged weights", 4.0 * self.learning / weights, f"4 bytes{over_weights}"))
        if tuning.lora_rank:
            how = f"embedding and head with the rows in, and a gradient: 3 x {self.vocabulary} x {self.hidden} x 2 bytes"
            lines.append(MemoryLine("new rows", 6.0 * self.vocabulary * self.hidden, how))
        lines += self._activations(image_size_wh)
        rest = 0.1 * sum(line.bytes for line in lines) + 1.5 * GIB
        return [*lines, MemoryLine("the rest", rest, "CUDA context, buffers, fragmentation: 10 % + 1.5 GiB, assumed")]

    def _activations(self, image_size_wh: tuple[int, int]) -> list[MemoryLine]:
        vision, text, tuning = self.config.vision_config, self.config.text_config, self.settings.tuning
        work, pictures = self.work(image_size_wh), self.settings.batch_size // self.settings.accumulate
        queries, keys = text.num_attention_heads * self.head_dim, text.num_key_value_heads * self.head_dim
        layer = layer_bytes(text.hidden_size, queries, keys, text.intermediate_size)
        block = layer_bytes(vision.hidden_size, vision.hidden_size, vision.hidden_size, vision.intermediate_size)
        lines = []
        for name, depth, each, width, rows, learns in (
            ("decoder layers", text.num_hidden_layers, layer, text.hidden_size, work.tokens, True),
            ("tower blocks", vision.depth, block, vision.hidden_size, work.patches, tuning.train_vision),
        ):
            if not learns:
                a_row, how = float(each), "frozen, one block at a time"
            elif tuning.gradient_checkpointing:
                a_row, how = (
                    2.0 * width * depth + each,
                    f"the inputs of {depth} layers, {2 * width} bytes each, and one layer in full",
                )
            else:
                a_row, how = float(each) * depth, f"{depth} layers in full"
            lines.append(
                MemoryLine(name, a_row * rows * pictures, f"{pictures} pictures x {rows} rows; {each} bytes a layer: {how}")
            )
        logits = 14.0 * pictures * self.taught_tokens * self.vocabulary
        how = (
            f"{pictures} pictures x {self.taught_tokens} taught tokens x {self.vocabulary} x 14 bytes (bfloat16, 3 times float32)"
        )
        return [*lines, MemoryLine("logits", logits, how)]


def layer_bytes(hidden: int, queries: int, keys: int, intermediate: int) -> int:
    """Bytes of activations that one transformer layer keeps of one row for its backward pass, in bfloat16.

    Its two norms keep a float32 row and their result; attention its queries and keys before and after the rotation, values, and
    result; the gated MLP four rows of its inner width.
    """
    return 2 * (4 + 2) * hidden + 2 * (3 * queries + 3 * keys + 4 * intermediate)


def _part(model: nn.Module, pattern: str, rank: int, learns: bool) -> Part:
    layers: Sequence[nn.Linear] = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and re.match(pattern, n)]
    adapters = rank * sum(layer.in_features + layer.out_features for layer in layers) if learns else 0
    return Part(sum(p.numel() for layer in layers for p in layer.parameters()), adapters, learns)
