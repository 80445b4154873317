"""Self-improvement by GRPO: ``python -m training.grpo --start-from CHECKPOINT --stage placement --out runs/grpo [key=value]``.

Two stages (GETok, arXiv 2512.10554): ``placement`` samples proposals and rewards where their cells are; ``movement`` takes one
proposal a picture and samples refinements, rewarded for what they mend. Each step reads top to bottom in `Trainer.train_step`:
pictures, rollouts, rewards, advantages, update (`training.updates`). Pictures and draws of step i are the same in every run, so a
run that is killed and restarted with the same command continues bit for bit on the CPU.

The checkpoint that a run starts from is also the frozen reference of its KL term; start stage 2 from the ``final`` folder of
stage 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor
from tqdm import tqdm

from getok_drive.errors import ConfigError, GetokError
from training.checkpoints import RunLog, load_newest, plain_config, save_checkpoint, trained_size_wh, weights_sha256
from training.collate import Layout
from training.distributed import (
    any_process,
    autocast,
    distribute,
    finite_mean,
    leave_together,
    mean_records,
    open_accelerator,
)
from training.engines import open_engine, open_reference
from training.frozen import leave_out_frozen
from training.gallery import Drawn, contact_sheet
from training.grounding_task import GroundingTask
from training.grpo_config import PRESETS, STAGES, GrpoConfig
from training.lora import Tuning, prepare
from training.model import load_checkpoint, parameter_count
from training.optimizers import cosine_tail
from training.pictures import Pictures
from training.policy import AdaptersOff, Policy, decision_advantages
from training.presets import override
from training.recipes.pools import Pool
from training.recipes.provenance import provenance
from training.rewards.settings import in_every_stage
from training.rewards.statistics import reward_statistics
from training.rollout import Rollout
from training.sampling import Sampling
from training.sharding import is_sharded, save_whole
from training.tasks import DrivingTask, Task
from training.updates import Updater


class Trainer:
    """One run: its state and its loop.

    Args:
        config: settings.
        out: run folder, exists.
        start_from: checkpoint folder, the policy's start and the frozen reference.

    Raises:
        ConfigError: the checkpoint cannot be used.
    """

    def __init__(self, config: GrpoConfig, out: Path, start_from: Path) -> None:
        self.config, self.out = config, out
        self.accelerator = open_accelerator(config.prompts, config.clip_norm, config.threads)
        set_seed(config.seed)
        model, self.tokenizer = load_checkpoint(start_from)
        layout = Layout.of(self.tokenizer, model.config)
        self.size_wh = config.image_size_wh or trained_size_wh(start_from)
        self.preprocess = layout.pixels.preprocessor(self.size_wh)
        self.start_sha256 = weights_sha256(start_from)
        tuning = Tuning(config.lora_rank, config.lora_alpha, 0.0, config.train_vision, config.train_vision)
        self.tuned = prepare(model, self.tokenizer, tuning) if config.lora_rank else None
        policy = Policy(model, config.train_vision).eval()  # no dropout anywhere: rollouts and updates must agree
        groups = [p for p in policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay)
        self.policy, self.optimizer = distribute(self.accelerator, policy, optimizer)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda n: min(1.0, (n + 1) / (config.warmup_steps + 1)) * cosine_tail(n, config.steps, config.decay_steps),
        )
        self.accelerator.register_for_checkpointing(self.scheduler)
        self.start_from = start_from
        leave_out_frozen(self.accelerator, str(start_from))
        pictures = Pictures(config, self.size_wh, self.accelerator.process_index, self.accelerator.num_processes)
        self.task: Task = DrivingTask(config, layout, self.size_wh, pictures)
        if config.task == "grounding":
            self.task = GroundingTask(config, layout, self.size_wh, pictures, self.tokenizer)
        self.layout = self.task.layout
        self.sharded = is_sharded(self.plain)
        if self.tuned and (self.sharded or config.engine == "vllm"):
            raise ConfigError("lora_rank: adapters are not supported under FSDP2, ZeRO-3 or engine=vllm; use DDP and engine=own")
        ours = config.engine == "auto" and not config.sampling.plain
        engine = "own" if self.tuned or ours else config.engine
        self.engine = open_engine(
            engine, self.plain.model, start_from, self.layout, self.preprocess, self.accelerator.device, out
        )
        self.reference: Policy | AdaptersOff | None = None
        if config.kl_weight:
            adapted = self.tuned and self.tuned.adapted
            self.reference = open_reference(self.plain, adapted, start_from, self.accelerator.device, self.sharded)
        self.updater = Updater(
            config, self.accelerator, self.policy, self.reference, self.optimizer, self.scheduler,
            self.preprocess, self.layout, self._stop,
        )  # fmt: skip
        self.step = 0
        self.last: Drawn | None = None
        self.stop_asked = False

    @property
    def plain(self) -> Policy:
        """The policy without the wrapper that distributes it."""
        return self.accelerator.unwrap_model(self.policy)

    # ---- one step -------------------------------------------------------------------------------------------------------

    def pixels(self, items: Sequence[Any]) -> Tensor:
        """Patches of the pictures on the device."""
        patches = [self.preprocess(self.task.sample(item).image_bgr)[0] for item in items]
        return torch.from_numpy(np.stack(patches)).to(self.accelerator.device)

    def rollouts(self, items: Sequence[Any], pixels: Tensor, group: int, sampling: Sampling, first: int) -> list[Rollout]:
        """``group`` answers a picture in the turn that the stage trains; ``first`` numbers the pictures in the run."""
        with autocast(self.accelerator):
            return self.engine.draw(
                self.config.stage, [self.task.sample(item) for item in items], pixels, group, sampling,
                self.config.seed, first, [self.task.dialogue(item) for item in items],
            )  # fmt: skip

    def train_step(self) -> dict[str, float]:
        """Rollouts, rewards, advantages and the update; returns what is logged.

        Raises:
            GetokError: a reward or the loss is not finite; the batch is saved beside the checkpoints.
        """
        config, clock = self.config, time.perf_counter()
        items = self.task.at(self.step)
        pixels = self.pixels(items)
        self.engine.follow(self.plain.model)
        rollouts = self.rollouts(items, pixels, config.group, config.sampling, self.task.first(self.step))
        sampled_s = time.perf_counter() - clock
        credit = None
        if config.credit == "element" and isinstance(self.task, DrivingTask):
            rewards, credit = self.task.judge(items, rollouts)
        else:
            rewards = self.task.rewards(items, rollouts)
        overall = np.array([reward["overall"] for reward in rewards]).reshape(len(items), config.group)
        if not np.isfinite(overall).all():
            self._stop("a reward", float("nan"), rollouts, pixels)
        logged = self.updater(rollouts, pixels, decision_advantages(rollouts, overall, credit, config.normalise))
        logged.update(reward_statistics(rewards, overall))
        logged["length"] = float(np.mean([len(r.propose_ids) + len(r.refine_ids or ()) for r in rollouts]))
        logged["decisions"] = float(np.mean([len(r.places) for r in rollouts]))
        logged["truncated"] = float(np.mean([r.truncated for r in rollouts]))
        logged["rollouts_per_s"] = len(rollouts) / sampled_s
        logged["step_s"] = time.perf_counter() - clock
        self.last = Drawn(items, rollouts, rewards)
        return mean_records(self.accelerator, logged)

    def _stop(self, what: str, value: float, rollouts: Sequence[Rollout], pixels: Tensor) -> NoReturn:
        path = self.out / f"bad_batch_{self.step}.pt"
        torch.save({"rollouts": [dataclasses.asdict(r) for r in rollouts], "pixel_values": pixels.cpu()}, path)
        raise GetokError(f"step {self.step}: {what} is {value}; the batch is in {path}")

    # ---- the loop -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Trains to the end, or until Ctrl-C; either way the last state is saved."""
        config, main = self.config, self.accelerator.is_main_process
        signal.signal(signal.SIGINT, self._ask_stop)
        signal.signal(signal.SIGTERM, self._ask_stop)
        log = RunLog(self.out, main, self.step)
        saved = True
        bar = tqdm(total=config.steps, initial=self.step, disable=not main, unit="step", dynamic_ncols=True, mininterval=2)
        stop = False
        while self.step < config.steps and not stop:
            record = self.train_step()
            self.step += 1
            bar.update()
            bar.set_postfix(reward=f"{record['reward/overall']:.3f}", kl=f"{record['kl']:.4f}", refresh=False)
            if self.step % config.log_every == 0:
                log.write(self.step, record)
            if main and config.pictures_every and self.step % config.pictures_every == 0 and self.last is not None:
                log.picture(self.step, "samples", contact_sheet(self.last, self.task))
            if config.eval_every and self.step % config.eval_every == 0:
                record = self.evaluate()
                log.write(self.step, record)
                if main:
                    tqdm.write(json.dumps({"step": self.step, **record}))
            stop = any_process(self.accelerator, self.stop_asked)
            if self.step % config.save_every == 0 or self.step == config.steps or stop:
                saved = self.save()
        if self.step >= config.steps and saved:
            self.export_folder(self.out / "final")
        bar.close()
        log.close()
        if not saved:
            raise GetokError(f"step {self.step}: the last state of {self.out} could not be saved")

    def evaluate(self) -> dict[str, float]:
        """Mean rewards of greedy answers on validation frames (each process evaluates all of them)."""
        greedy = replace(self.config.sampling, temperature=0.0, proposal_temperature=0.0)
        self.engine.follow(self.plain.model)
        results: list[dict[str, float]] = []
        items = self.task.validation(self.config.eval_images)
        for first in range(0, len(items), 16):
            some = items[first : first + 16]
            results += self.task.rewards(some, self.rollouts(some, self.pixels(some), 1, greedy, first))
        return {f"val_{name}": finite_mean([result[name] for result in results]) for name in results[0]}

    def _ask_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_asked = True
        print("\nstopping after this step; the state will be saved", file=sys.stderr)

    # ---- checkpoints ----------------------------------------------------------------------------------------------------

    def save(self) -> bool:
        """Saves everything that a bit-exact continuation needs; whether that worked."""
        return save_checkpoint(self.accelerator, self.out, self.step, {"start_sha256": self.start_sha256})

    def resume(self) -> None:
        """Continues from the newest checkpoint in the run folder, if there is one.

        Raises:
            ConfigError: the run was started from another checkpoint.
        """
        found = load_newest(self.accelerator, self.out)
        if found is None:
            return
        extra, _ = found
        if extra["start_sha256"] != self.start_sha256:
            raise ConfigError(
                f"{self.out}: this run was started from another checkpoint; give the same --start-from, or another --out"
            )
        self.step = extra["step"]

    def export_folder(self, folder: Path) -> None:
        """Writes the policy as an ordinary transformers folder, which ``training.export`` and the next stage read."""
        save_whole(self.accelerator, self.plain.model, self.tokenizer, folder, self.tuned, str(self.start_from))
        if not self.accelerator.is_main_process:
            return
        kind, _, path = self.config.data.partition(":")
        record = {
            "step": self.step, "image_size_wh": self.size_wh, "data": f"GRPO, {self.config.stage}, on {self.config.data}",
            "training": provenance([Pool("driving", 1.0, kind, path)], str(self.start_from)),
            "start_sha256": self.start_sha256, "config": plain_config(self.config),
        }  # fmt: skip
        (folder / "training.json").write_text(json.dumps(record, indent=1))


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.grpo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--start-from", type=Path, required=True, help="checkpoint folder: the policy's start and its reference")
    parser.add_argument("--stage", choices=STAGES, default="placement")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="nano")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an unfinished run in it is continued")
    parser.add_argument("settings", nargs="*", metavar="key=value", help=GrpoConfig.__doc__)
    args = parser.parse_intermixed_args(argv)
    try:
        config = override(replace(PRESETS[args.preset], stage=args.stage), in_every_stage(args.settings))
        args.out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, args.out, args.start_from)
        trainer.resume()
        if trainer.accelerator.is_main_process:
            (args.out / "config.json").write_text(json.dumps(plain_config(config), indent=1))
            print(f"{parameter_count(trainer.plain.model) / 1e6:.2f} M parameters, {config.steps} steps", file=sys.stderr)
        trainer.run()
        leave_together(trainer.accelerator)
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
