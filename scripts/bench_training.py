"""Our training engine against TRL's: ``python -m scripts.bench_training [--start-from DIR] [--steps 3]`` (extra ``dev``).

Same model (the shipped nano with Qwen's own positions and without the cells that transformers does not know), same precision
(``--bf16`` or single), same machine, same run, one after the other, same work:

- **SFT**: the same conversations through the same collator, full batches without packing; forward, backward, clipping, AdamW.
  Ours computes its dense loss on top.
- **GRPO**: a group of answers a picture, of up to ``--tokens`` tokens, rewards by `driving_placement`, KL to a frozen reference,
  one update. TRL draws from the whole vocabulary, ours under the grammar, whose rules cost time too; tokens are counted, so
  that a shorter answer does not pass for a faster one.

TRL needs help to run here: a processor without a video processor (the stock one wants torchvision), the model by folder (a
reference of a model in memory is loaded by name), and ``remove_unused_columns=False`` with our collator.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from getok_drive.preprocess import resize
from getok_drive.tokens.vocab import TOKENS
from training import grpo, sft
from training.collate import Batch, Collator, Layout
from training.datasets import world
from training.grpo_config import GrpoConfig
from training.model import SIZES, build_model, build_tokenizer, load_checkpoint, parameter_count
from training.pictures import Pictures
from training.presets import SftConfig, Stage
from training.recipes.driving import DrivingRecipe
from training.rewards import Completion, driving_placement
from training.samples import Sample

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_checkpoint(folder: Path, start_from: str, size_wh: tuple[int, int]) -> None:
    """A checkpoint, or random weights of a size, with what transformers computes itself alone: both sides do the same."""
    if start_from in SIZES:
        tokenizer = build_tokenizer()
        model = build_model(SIZES[start_from], tokenizer, 0)
    else:
        model, tokenizer = load_checkpoint(Path(start_from))
    model.config.position_rule, model.config.cell_reader, model.cells = "text", None, None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Qwen2_5_VLForConditionalGeneration"]  # by this name TRL loads it
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "training.json").write_text(json.dumps({"image_size_wh": size_wh}))


def processor_of(folder: Path, size_wh: tuple[int, int]) -> Any:
    """The processor of Qwen2.5-VL without videos, so without torchvision."""
    from transformers import ProcessorMixin, Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    class PictureProcessor(Qwen2_5_VLProcessor):
        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **_: Any) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids([self.image_token, self.video_token])
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    config = load_checkpoint(folder)[0].config.vision_config
    pixels = size_wh[0] * size_wh[1]
    images = Qwen2VLImageProcessorPil(
        patch_size=config.patch_size, temporal_patch_size=config.temporal_patch_size, merge_size=config.spatial_merge_size,
        size={"shortest_edge": pixels, "longest_edge": pixels},
    )  # fmt: skip
    return PictureProcessor(images, load_checkpoint(folder)[1], CHAT)


def now() -> np.ndarray:
    """Seconds of the clock, and of this process's work: on a machine shared with others, only the second says something."""
    return np.array([time.perf_counter(), time.process_time()])


def bf16() -> bool:
    """What `main` chose, for both sides."""
    return os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"


def timed(step: Callable[[], Any], steps: int) -> np.ndarray:
    """Seconds a step ``(wall, CPU)``, after one that is not counted."""
    step()
    begun = now()
    for _ in range(steps):
        step()
    return (now() - begun) / steps


# --- supervised ----------------------------------------------------------------------------------------------------------


def conversations(folder: Path, size_wh: tuple[int, int], count: int) -> tuple[Collator, list[Any]]:
    """The collator and what it collates: rendered and written before the clock starts."""
    model, tokenizer = load_checkpoint(folder)
    layout = Layout.of(tokenizer, model.config)
    recipe = DrivingRecipe(layout)
    found = [recipe(world.render(seed, size_wh), np.random.default_rng(seed)) for seed in range(count)]
    return Collator(layout.pixels.preprocessor(size_wh), layout), [one for one in found if one is not None]


def sft_ours(folder: Path, size_wh: tuple[int, int], batch_size: int, steps: int, out: Path) -> np.ndarray:
    """Samples a second of `training.sft`, by clock and by CPU."""
    stage = Stage(steps + 1, size_wh)
    config = SftConfig(stages=(stage,), batch_size=batch_size, warmup_steps=1, ema_decay=0.0, workers=0)
    trainer = sft.Trainer(config, out, folder)
    trainer.model.train()
    collator, items = conversations(folder, size_wh, batch_size * (steps + 1))
    parts = iter([items[first : first + batch_size] for first in range(0, len(items), batch_size)])
    return batch_size / timed(lambda: trainer.train_step(collator(next(parts)), stage), steps)


def as_transformers(batch: Batch, grid_hw: tuple[int, int], image_pad: int) -> dict[str, torch.Tensor]:
    """Our batch as the forward of transformers takes it."""
    count = len(batch.ids)
    return {
        "input_ids": batch.ids, "attention_mask": torch.ones_like(batch.ids), "labels": batch.labels,
        "pixel_values": batch.pixel_values.flatten(0, 1), "image_grid_thw": torch.tensor([[1, *grid_hw]] * count),
        "mm_token_type_ids": (batch.ids == image_pad).int(),
    }  # fmt: skip


def sft_trl(folder: Path, size_wh: tuple[int, int], batch_size: int, steps: int, out: Path) -> np.ndarray:
    """Samples a second of TRL's SFTTrainer, by clock and by CPU."""
    from datasets import Dataset
    from trl import SFTConfig as TrlConfig
    from trl import SFTTrainer

    collator, items = conversations(folder, size_wh, batch_size * (steps + 1))
    grid_hw, pad = collator.preprocessor.grid_hw, collator.layout.image_pad

    def collate(rows: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
        return as_transformers(collator([items[row["number"]] for row in rows]), grid_hw, pad)

    args = TrlConfig(
        output_dir=str(out), per_device_train_batch_size=batch_size, max_steps=steps + 1, learning_rate=1e-3, use_cpu=True,
        bf16=bf16(), report_to=[], save_strategy="no", logging_steps=1, remove_unused_columns=False, disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True}, gradient_checkpointing=False, max_grad_norm=1.0, max_length=None,
        dataloader_num_workers=0,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=load_checkpoint(folder)[0], args=args, train_dataset=Dataset.from_dict({"number": range(len(items))}),
        data_collator=collate, processing_class=processor_of(folder, size_wh),
    )  # fmt: skip
    return batch_size / _seconds_a_step(trainer, steps)


def _seconds_a_step(trainer: Any, steps: int) -> np.ndarray:
    """Seconds a step ``(wall, CPU)`` of a transformers trainer, the first one not counted."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        ends: list[np.ndarray] = []  # noqa: RUF012

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(now())

    clock = Clock()
    clock.ends = []
    trainer.add_callback(clock)
    trainer.train()
    return (clock.ends[-1] - clock.ends[0]) / steps


# --- GRPO ----------------------------------------------------------------------------------------------------------------


class Rendered:
    """The pictures of the first steps, rendered before the clock starts (as TRL's are)."""

    def __init__(self, pictures: Pictures, steps: int) -> None:
        self._found, self.first = [pictures.at(step) for step in range(steps)], pictures.first

    def at(self, step: int) -> list[Sample]:
        """See `Pictures.at`."""
        return self._found[step]


def grpo_ours(
    folder: Path, size_wh: tuple[int, int], prompts: int, group: int, tokens: int, steps: int, out: Path
) -> tuple[np.ndarray, float]:
    """Rollouts a second of a whole step of `training.grpo`, and tokens a rollout."""
    base = GrpoConfig(steps=steps + 1, prompts=prompts, group=group, prompts_per_pass=prompts, engine="own", eval_every=0)
    config = replace(base, sampling=replace(base.sampling, propose_tokens=tokens))
    trainer = grpo.Trainer(config, out, folder)
    trainer.task.pictures = Rendered(trainer.task.pictures, steps + 1)  # type: ignore[attr-defined]
    lengths: list[float] = []

    def step() -> None:
        lengths.append(trainer.train_step()["length"])
        trainer.step += 1

    seconds = timed(step, steps)
    return prompts * group / seconds, float(np.mean(lengths[1:]))


def grpo_trl(
    folder: Path, size_wh: tuple[int, int], prompts: int, group: int, tokens: int, steps: int, out: Path
) -> tuple[np.ndarray, float]:
    """The same of TRL's GRPOTrainer."""
    from datasets import Dataset
    from PIL import Image
    from trl import GRPOConfig as TrlConfig
    from trl import GRPOTrainer

    from getok_drive.tokens.prompts import PROPOSE_PROMPT

    tokenizer = load_checkpoint(folder)[1]
    first_id = tokenizer.convert_tokens_to_ids(TOKENS[0])
    samples: list[Sample] = [world.render(seed, size_wh) for seed in range(prompts * (steps + 1))]
    lengths: list[float] = []

    def reward(completion_ids: Sequence[Sequence[int]], number: Sequence[int], **_: Any) -> list[float]:
        batch = [
            Completion(samples[which], [token - first_id for token in ids if first_id <= token < first_id + len(TOKENS)])
            for ids, which in zip(completion_ids, number, strict=True)
        ]
        lengths.append(float(np.mean([len(ids) for ids in completion_ids])))
        return [result["overall"] for result in driving_placement(batch)]

    args = TrlConfig(
        output_dir=str(out), per_device_train_batch_size=prompts * group, num_generations=group, max_completion_length=tokens,
        max_steps=steps + 1, beta=0.01, learning_rate=1e-6, use_cpu=True, bf16=bf16(), report_to=[], save_strategy="no",
        logging_steps=1, gradient_checkpointing=False, temperature=1.0, disable_tqdm=True, steps_per_generation=1,
    )  # fmt: skip
    content = [{"type": "image"}, {"type": "text", "text": PROPOSE_PROMPT}]
    rows = [
        {
            "prompt": [{"role": "user", "content": content}], "number": number,
            "image": Image.fromarray(np.ascontiguousarray(resize(sample.image_bgr, size_wh)[:, :, ::-1])),
        }
        for number, sample in enumerate(samples)
    ]  # fmt: skip
    trainer = GRPOTrainer(
        model=str(folder), reward_funcs=reward, args=args, train_dataset=Dataset.from_list(rows),
        processing_class=processor_of(folder, size_wh),
    )  # fmt: skip
    seconds = _seconds_a_step(trainer, steps)
    return prompts * group / seconds, float(np.mean(lengths[1:]))


def _compared(what: str, ours: np.ndarray, trl: np.ndarray) -> dict[str, float]:
    names = [f"{side}_{what}_per_{unit}" for side in ("ours", "trl") for unit in ("s", "cpu_s")]
    values = [float(value) for value in (*ours, *trl)]
    return dict(zip(names, values, strict=True)) | {"ratio": values[0] / values[2], "ratio_cpu": values[1] / values[3]}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs both comparisons and prints the ratios."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_training", description=__doc__)
    parser.add_argument("--start-from", default="getok_drive/bundles/nano", help="checkpoint or bundle folder, or a key of SIZES")
    parser.add_argument("--image", type=int, nargs=2, default=(512, 256), metavar=("W", "H"))
    parser.add_argument("--steps", type=int, default=3, help="counted steps")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96, help="of one answer")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 on both sides, for processors that have it")
    parser.add_argument("--only", choices=["sft", "grpo"])
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if args.bf16 else "no"
    size_wh = (args.image[0], args.image[1])
    result: dict[str, Any] = {
        "start_from": args.start_from,
        "image_wh": size_wh,
        "steps": args.steps,
        "threads": torch.get_num_threads(),
        "bf16": args.bf16,
    }
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = root / "checkpoint"
        write_checkpoint(folder, args.start_from, size_wh)
        result["parameters_m"] = parameter_count(load_checkpoint(folder)[0]) / 1e6
        if args.only != "grpo":
            runs = [run(folder, size_wh, args.batch_size, args.steps, root / "sft") for run in (sft_ours, sft_trl)]
            result["sft"] = _compared("samples", *runs)
            print(json.dumps(result["sft"]))
        if args.only != "sft":
            settings = (folder, size_wh, args.prompts, args.group, args.tokens, args.steps, root / "grpo")
            (own, own_tokens), (trl, trl_tokens) = grpo_ours(*settings), grpo_trl(*settings)
            result["grpo"] = _compared("rollouts", own, trl) | {
                "ours_tokens": own_tokens, "trl_tokens": trl_tokens,
                "ratio_cpu_per_token": float(own[1] * own_tokens / (trl[1] * trl_tokens)),
            }  # fmt: skip
            print(json.dumps(result["grpo"]))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
