"""Supervised training: ``python -m training.sft --domain driving --preset nano --out runs/nano [key=value ...]``.

Reads top to bottom: state, one step, the loop, checkpoints, options. Batch number i (`training.batches`) holds the same pictures
in every run, so a run that is killed and restarted with the same command sees the same data in the same order and continues bit
for bit on the CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

from getok_drive.errors import ConfigError, GetokError
from training.batches import batches, validation_batches
from training.checkpoints import RunLog, load_newest, plain_config, save_checkpoint
from training.collate import Batch, Layout
from training.losses import Losses, TrainedModel
from training.model import SIZES, build_model, build_tokenizer, load_checkpoint, parameter_count
from training.optimizers import Averaged, build_optimizers, learning_rate_factor
from training.presets import PRESETS, SftConfig, Stage, override


class Trainer:
    """One run: its state and its loop."""

    def __init__(self, config: SftConfig, out: Path, start_from: Path | None) -> None:
        self.config, self.out = config, out
        gpu = torch.cuda.is_available()
        self.accelerator = Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no")
        if config.threads and self.accelerator.device.type == "cpu":
            torch.set_num_threads(config.threads)
        set_seed(config.seed)
        if start_from is not None:
            model, self.tokenizer = load_checkpoint(start_from)
        else:
            self.tokenizer = build_tokenizer()
            model = build_model(SIZES[config.size], self.tokenizer, config.seed, config.token_init)
        self.layout = Layout.of(self.tokenizer)
        trained = TrainedModel(model)
        if config.compile:
            for block in (*model.model.visual.blocks, *model.model.language_model.layers):
                block.compile()
        optimizers = build_optimizers(trained, config)
        self.model, *self.optimizers = self.accelerator.prepare(trained, *optimizers)
        self.schedulers = [
            torch.optim.lr_scheduler.LambdaLR(o, lambda step: learning_rate_factor(step, config)) for o in self.optimizers
        ]
        self.accelerator.register_for_checkpointing(*self.schedulers)
        self.average = Averaged(self.plain, config.ema_decay) if config.ema_decay else None
        self.step = 0
        self.stop_asked = False

    @property
    def plain(self) -> TrainedModel:
        """The model without the wrapper that distributes it."""
        return self.accelerator.unwrap_model(self.model)

    # ---- one step -------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, stage: Stage, token_weight: torch.Tensor | None = None) -> Losses:
        """Losses of one batch at the stage's settings; ``token_weight`` as in `TrainedModel.forward`."""
        width, height = stage.image_size_wh
        patch = self.plain.model.config.vision_config.patch_size
        config = self.config
        return self.model(
            batch.to(self.accelerator.device), (height // patch, width // patch), stage.dense_only,
            config.dense_weight, config.dense_positive_weight, token_weight, stage.vision_gradient,
        )  # fmt: skip

    def train_step(self, batch: Batch, stage: Stage) -> dict[str, float]:
        """One optimiser step; returns what is logged.

        Raises:
            GetokError: the loss is not finite; the batch is saved beside the checkpoints.
        """
        config, parts = self.config, _parts(batch, self.config.accumulate)
        token_weight = batch.token_weight.to(self.accelerator.device) / len(parts)
        logged: dict[str, float] = {"language": 0.0, "dense": 0.0, "correct": 0.0}
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                losses = self.losses(part, stage, token_weight)
                if not torch.isfinite(losses.total):
                    path = self.out / f"bad_batch_{self.step}.pt"
                    torch.save(dataclasses.asdict(part), path)
                    raise GetokError(f"step {self.step}: the loss is {losses.total.item()}; the batch is in {path}")
                self.accelerator.backward(losses.total / len(parts))
            for name in logged:
                logged[name] += float(getattr(losses, name)) / len(parts)
        logged["grad_norm"] = float(self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip_norm))
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.plain)
        return logged

    # ---- the loop -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Trains to the end, or until Ctrl-C; either way the last state is saved."""
        config, main = self.config, self.accelerator.is_main_process
        signal.signal(signal.SIGINT, self._ask_stop)
        signal.signal(signal.SIGTERM, self._ask_stop)
        log = RunLog(self.out, main)
        bar = tqdm(total=config.total_steps, initial=self.step, disable=not main, unit="step", dynamic_ncols=True, mininterval=2)
        self.model.train()
        window: list[dict[str, float]] = []
        clock = time.perf_counter()
        for index, stage, batch in batches(config, self.layout, self.step, self.accelerator):
            window.append(self.train_step(batch, stage))
            self.step = index + 1
            bar.update()
            if self.step % config.log_every == 0:
                mean = {name: float(np.mean([entry[name] for entry in window])) for name in window[0]}
                rate = len(window) * config.batch_size * self.accelerator.num_processes / (time.perf_counter() - clock)
                log.write(self.step, {**mean, "lr": self.schedulers[0].get_last_lr()[0], "samples_per_s": rate})
                bar.set_postfix(lm=f"{mean['language']:.3f}", dense=f"{mean['dense']:.4f}", rate=f"{rate:.1f}/s", refresh=False)
                window, clock = [], time.perf_counter()
            if config.eval_every and self.step % config.eval_every == 0:
                values = self.evaluate(stage)
                log.write(self.step, values)
                if main:
                    tqdm.write(json.dumps({"step": self.step, **values}))
                clock = time.perf_counter()
            if self.step % config.save_every == 0 or self.stop_asked:
                self.save()
            if self.stop_asked:
                break
        if self.step >= config.total_steps:
            self.save()
            self.export_folder(self.out / "final")
        bar.close()
        log.close()

    @torch.no_grad()
    def evaluate(self, stage: Stage) -> dict[str, float]:
        """Teacher-forced losses of the averaged weights on validation frames (no noise on the context)."""
        if self.average:
            self.average.swap(self.plain)
        self.model.eval()
        results = []
        for batch in validation_batches(self.config, stage, self.layout):
            losses = self.losses(batch, stage)
            results.append([float(losses.language), float(losses.dense), float(losses.correct)])
        self.model.train()
        if self.average:
            self.average.swap(self.plain)
        language, dense, correct = np.mean(results, axis=0)
        return {"val_language": float(language), "val_dense": float(dense), "val_correct": float(correct)}

    def _ask_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_asked = True
        print("\nstopping after this step; the state will be saved", file=sys.stderr)

    # ---- checkpoints ----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Saves everything that a bit-exact continuation needs."""
        average = self.average and (self.average.updates, self.average.values)
        save_checkpoint(self.accelerator, self.out, self.step, {"average": average})

    def resume(self) -> None:
        """Continues from the newest checkpoint in the run folder, if there is one."""
        extra = load_newest(self.accelerator, self.out)
        if extra is None:
            return
        self.step = extra["step"]
        if self.average and extra["average"]:
            self.average.updates, self.average.values = extra["average"]

    def export_folder(self, folder: Path) -> None:
        """Writes the averaged weights as an ordinary transformers folder, which ``training.export`` reads."""
        if not self.accelerator.is_main_process:
            return
        if self.average:
            self.average.swap(self.plain)
        self.plain.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        stage = self.config.stage_at(max(0, self.step - 1))
        record = {
            "step": self.step,
            "image_size_wh": stage.image_size_wh,
            "data": "procedural driving world",
            "config": plain_config(self.config),
        }
        (folder / "training.json").write_text(json.dumps(record, indent=1))
        if self.average:
            self.average.swap(self.plain)


def _parts(batch: Batch, count: int) -> list[Batch]:
    """The batch in equal parts, rows of like length together, so that little padding is computed."""
    if count == 1:
        return [batch]
    rows = torch.argsort(batch.lengths)
    return [batch.rows(part) for part in rows.chunk(count)]


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sft", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--domain", choices=["driving"], default="driving", help="which data recipe to train on")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="nano")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an unfinished run in it is continued")
    parser.add_argument("--start-from", type=Path, help="checkpoint folder whose weights to begin with")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="write the newest checkpoint as a transformers folder and stop"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help=SftConfig.__doc__)
    args = parser.parse_args(argv)
    try:
        config = override(PRESETS[args.preset], args.settings)
        args.out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, args.out, args.start_from)
        trainer.resume()
        if args.export:
            trainer.export_folder(args.export)
            return 0
        if trainer.accelerator.is_main_process:
            (args.out / "config.json").write_text(json.dumps(plain_config(config), indent=1))
            print(f"{parameter_count(trainer.plain.model) / 1e6:.2f} M parameters, {config.total_steps} steps", file=sys.stderr)
        trainer.run()
    except (ConfigError, GetokError) as error:
        print(f"training.sft: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
