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
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from accelerate.utils import DistributedType, set_seed
from tqdm import tqdm

from getok_drive.errors import ConfigError, GetokError
from training.attention import use_causal_products
from training.base_model import load_base
from training.batches import batches, validation_batches, with_data
from training.checkpoints import RunLog, load_newest, plain_config, save_checkpoint
from training.collate import Batch, Layout
from training.distributed import (
    any_process,
    clip_gradients,
    distribute,
    leave_together,
    mean_over_processes,
    mean_records,
    one_backward,
    open_accelerator,
)
from training.frozen import leave_out_frozen
from training.lora import prepare
from training.losses import Losses, TrainedModel
from training.model import SIZES, build_model, build_tokenizer, load_checkpoint, parameter_count
from training.optimizers import Averaged, build_optimizers, learning_rate_factor
from training.presets import PRESETS, SftConfig, Stage, override
from training.recipes.conversation import IGNORE
from training.recipes.domains import DOMAINS
from training.recipes.encoder import Encoder
from training.recipes.pools import pools_of
from training.recipes.provenance import provenance
from training.sharding import is_sharded, save_whole


class Trainer:
    """One run: its state and its loop."""

    def __init__(self, config: SftConfig, out: Path, start_from: Path | None) -> None:
        self.config, self.out = config, out
        partial = any(stage.dense_only for stage in config.stages)
        self.accelerator = open_accelerator(config.batch_size, config.clip_norm, config.threads, partial, cpu_bf16=True)
        set_seed(config.seed)
        if start_from is not None:
            model, self.tokenizer = load_checkpoint(start_from, config.tuning.dtype)
        elif config.base:
            model, self.tokenizer = load_base(config.base, config.token_init, config.seed, config.tuning.dtype)
        else:
            self.tokenizer = build_tokenizer()
            model = build_model(SIZES[config.size], self.tokenizer, config.seed, config.token_init)
        self.encoder = Encoder(self.tokenizer, Layout.of(self.tokenizer, model.config))
        self.tuned = prepare(model, self.tokenizer, config.tuning)
        self.source = str(start_from or config.base) or None
        if self.accelerator.device.type == "cpu" and self.accelerator.mixed_precision == "bf16":
            use_causal_products(model)
        trained = TrainedModel(model, heads_from=start_from)
        if config.compile:
            for block in (*model.model.visual.blocks, *model.model.language_model.layers):
                block.compile()
        optimizers = build_optimizers(trained, config)
        if len(optimizers) > 1 and self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise ConfigError("optimizer=muon works on whole matrices, and FSDP2 and DeepSpeed cut them up; set optimizer=adamw")
        self.model, *self.optimizers = distribute(self.accelerator, trained, *optimizers)
        self.schedulers = [
            torch.optim.lr_scheduler.LambdaLR(o, lambda step: learning_rate_factor(step, config)) for o in self.optimizers
        ]
        self.accelerator.register_for_checkpointing(*self.schedulers)
        leave_out_frozen(self.accelerator, self.source)
        self.sharded = is_sharded(self.plain)
        if config.ema_decay and self.sharded and self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise ConfigError("averaged weights are not supported under ZeRO-3; set ema_decay=0, or use ZeRO-2 or FSDP2")
        self.average = Averaged(self.plain, config.ema_decay) if config.ema_decay else None
        self.step = 0
        self.stop_asked = False

    @property
    def plain(self) -> TrainedModel:
        """The model without the wrapper that distributes it."""
        return self.accelerator.unwrap_model(self.model)

    def averaged(self) -> AbstractContextManager[None]:
        """The model has the averaged weights while this is open, where there are any."""
        return self.average.swapped(self.plain) if self.average else nullcontext()

    # ---- one step -------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, stage: Stage, token_weight: torch.Tensor | None = None, dense_share: float = 1.0) -> Losses:
        """Losses of one batch at the stage's settings.

        Args:
            batch: the conversations.
            stage: image size, and what is trained.
            token_weight: as in `TrainedModel.forward`.
            dense_share: scale of the dense loss's weight.
        """
        width, height = stage.image_size_wh
        patch = self.plain.model.config.vision_config.patch_size
        config = self.config
        return self.model(
            batch.to(self.accelerator.device), (height // patch, width // patch), stage.dense_only,
            config.dense_weight * dense_share, config.dense_positive_weights, token_weight, stage.vision_gradient,
            config.dense_class_weight, config.dense_way_weights,
        )  # fmt: skip

    def train_step(self, batch: Batch, stage: Stage) -> dict[str, float]:
        """One optimiser step; returns what is logged.

        Losses are means over what the whole step teaches, in all parts and processes, so that cutting a batch or spreading it
        over processes changes nothing.

        Raises:
            GetokError: the loss is not finite; the batch is saved beside the checkpoints.
        """
        config, parts = self.config, batch.parts(self.config.accumulate)
        counts = [(part.token_weight, part.dense_count, (part.labels != IGNORE).sum()) for part in parts]
        sums = [sum(column) for column in zip(*counts, strict=True)]
        token_weight, known, taught = mean_over_processes(self.accelerator, sums).clamp(min=1e-12).tolist()
        logged: dict[str, float] = {"language": 0.0, "dense": 0.0, "correct": 0.0}
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            _, own_known, own_taught = counts[number]
            shares = {"dense": float(own_known) * len(parts) / known, "correct": float(own_taught) * len(parts) / taught}
            with one_backward(self.accelerator, self.model, last):
                losses = self.losses(part, stage, torch.tensor(token_weight / len(parts)), shares["dense"])
                if not torch.isfinite(losses.total):
                    path = self.out / f"bad_batch_{self.step}.pt"
                    torch.save(dataclasses.asdict(part), path)
                    raise GetokError(f"step {self.step}: the loss is {losses.total.item()}; the batch is in {path}")
                self.accelerator.backward(losses.total / len(parts))
            for name in logged:
                logged[name] += float(getattr(losses, name)) * shares.get(name, 1.0) / len(parts)
        logged["grad_norm"] = clip_gradients(self.accelerator, self.model, config.clip_norm)
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.plain)
        return logged

    # ---- the loop -------------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[tuple[int, Stage, Batch]]:
        """The steps that are left, each with its stage and batch."""
        return batches(self.config, self.encoder, self.step, self.accelerator)

    def run(self) -> None:
        """Trains to the end, or until Ctrl-C; either way the last state is saved."""
        config, main = self.config, self.accelerator.is_main_process
        signal.signal(signal.SIGINT, self._ask_stop)
        signal.signal(signal.SIGTERM, self._ask_stop)
        log = RunLog(self.out, main, self.step)
        bar = tqdm(total=config.total_steps, initial=self.step, disable=not main, unit="step", dynamic_ncols=True, mininterval=2)
        self.model.train()
        window: list[dict[str, float]] = []
        saved = True
        clock = time.perf_counter()
        for index, stage, batch in self.batches():
            window.append(self.train_step(batch, stage))
            self.step = index + 1
            bar.update()
            if self.step % config.log_every == 0:
                mean = {name: float(np.mean([entry[name] for entry in window])) for name in window[0]}
                mean = mean_records(self.accelerator, mean)
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
            stop = any_process(self.accelerator, self.stop_asked)
            if self.step % config.save_every == 0 or stop:
                saved = self.save()
            if stop:
                break
        if self.step >= config.total_steps:
            saved = self.save()
            if saved:
                self.export_folder(self.out / "final")
        bar.close()
        log.close()
        if not saved:
            raise GetokError(f"step {self.step}: the last state of {self.out} could not be saved")

    @torch.no_grad()
    def evaluate(self, stage: Stage) -> dict[str, float]:
        """Teacher-forced losses of the averaged weights on validation examples (no noise on the context); none without any."""
        self.model.eval()
        results = []
        with self.averaged():
            for batch in validation_batches(self.config, stage, self.encoder):
                losses = self.losses(batch, stage)
                results.append([float(losses.language), float(losses.dense), float(losses.correct)])
        self.model.train()
        if not results:
            return {}
        language, dense, correct = np.mean(results, axis=0)
        return {"val_language": float(language), "val_dense": float(dense), "val_correct": float(correct)}

    def _ask_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_asked = True
        print("\nstopping after this step; the state will be saved", file=sys.stderr)

    # ---- checkpoints ----------------------------------------------------------------------------------------------------

    def save(self) -> bool:
        """Saves everything that a bit-exact continuation needs; whether that worked."""
        average = {"average": self.average and self.average.state()}
        shared, own = ({}, average) if self.sharded else (average, None)
        return save_checkpoint(self.accelerator, self.out, self.step, shared, own)

    def resume(self, to_train: bool = True) -> None:
        """Continues from the newest checkpoint in the run folder, if there is one.

        Args:
            to_train: whether the run shall go on exactly, and not only be looked at.
        """
        found = load_newest(self.accelerator, self.out, exact=to_train)
        if found is None:
            return
        extra, own = found
        self.step = extra["step"]
        average = (own or extra).get("average")
        if self.average and average:
            self.average.restore(average)

    def export_folder(self, folder: Path) -> None:
        """Writes the averaged weights as an ordinary transformers folder, which ``training.export`` reads, and the heads."""
        with self.averaged():
            save_whole(self.accelerator, self.plain.model, self.tokenizer, folder, self.tuned, self.source)
            if self.accelerator.is_main_process and self.config.dense_weight and not self.sharded:
                self.plain.save_heads(folder)
        if not self.accelerator.is_main_process:
            return
        stage = self.config.stage_at(max(0, self.step - 1))
        record = {
            "step": self.step,
            "image_size_wh": stage.image_size_wh,
            "data": [pool.name for pool in pools_of(self.config.recipe)],
            "training": provenance(pools_of(self.config.recipe), self.source),
            "config": plain_config(self.config),
        }
        (folder / "training.json").write_text(json.dumps(record, indent=1))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sft", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--domain", choices=[*DOMAINS, "mix"], help="which data recipe to train on (default: driving)")
    parser.add_argument(
        "--data", action="append", default=[], metavar="[DOMAIN=][WEIGHT*]KIND:PATH[#SPLIT]",
        help="a data set to train on, may be repeated; without any: the driving world (docs/recipes.md)",
    )  # fmt: skip
    parser.add_argument("--preset", choices=sorted(PRESETS), default="nano")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an unfinished run in it is continued")
    parser.add_argument("--start-from", type=Path, help="checkpoint folder whose weights to begin with")
    parser.add_argument("--export", type=Path, metavar="DIR", help="write the newest checkpoint as transformers' folder and stop")
    parser.add_argument("settings", nargs="*", metavar="key=value", help=SftConfig.__doc__)
    args = parser.parse_intermixed_args(argv)
    try:
        config = with_data(override(PRESETS[args.preset], args.settings), args.domain, args.data, args.out)
        args.out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, args.out, args.start_from)
        trainer.resume(to_train=args.export is None)
        if args.export:
            trainer.export_folder(args.export)
            return 0
        if trainer.accelerator.is_main_process:
            (args.out / "config.json").write_text(json.dumps(plain_config(config), indent=1))
            print(f"{parameter_count(trainer.plain.model) / 1e6:.2f} M parameters, {config.total_steps} steps", file=sys.stderr)
        trainer.run()
        leave_together(trainer.accelerator)
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
