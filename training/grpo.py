"""Self-improvement by GRPO: ``python -m training.grpo --start-from CHECKPOINT --stage placement --out runs/grpo [key=value]``.

Two stages (GETok, arXiv 2512.10554): ``placement`` samples proposals and rewards where their cells are; ``movement`` takes one
proposal a picture and samples refinements, rewarded for what they mend. Each step reads top to bottom in `Trainer.train_step`:
pictures, rollouts, rewards, advantages, update. Pictures and draws of step i are the same in every run, so a run that is killed
and restarted with the same command continues bit for bit on the CPU.

The checkpoint that a run starts from is also the frozen reference of its KL term; start stage 2 from the ``final`` folder of
stage 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor
from tqdm import tqdm

from getok_drive.errors import ConfigError, GetokError
from getok_drive.preprocess import Preprocessor
from training.checkpoints import RunLog, load_newest, plain_config, save_checkpoint
from training.collate import Layout
from training.datasets import world
from training.grpo_config import PRESETS, STAGES, GrpoConfig
from training.model import load_checkpoint, parameter_count
from training.pictures import Pictures, labels_at_cells
from training.policy import Answers, Policy, group_advantages, grpo_terms
from training.presets import override
from training.rewards import Completion, driving_movement, driving_placement
from training.rollout import Rollout, Sampler, Sampling
from training.samples import Sample


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
        gpu = torch.cuda.is_available()  # without cpu=True, processes on a machine without a GPU would not find each other
        self.accelerator = Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no")
        if config.threads and self.accelerator.device.type == "cpu":
            torch.set_num_threads(config.threads)
        set_seed(config.seed)
        model, self.tokenizer = load_checkpoint(start_from)
        self.layout = Layout.of(self.tokenizer, model.config)
        self.size_wh = config.image_size_wh or _trained_size_wh(start_from)
        vision = model.config.vision_config
        self.preprocess = Preprocessor(self.size_wh, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        self.start_sha256 = _weights_sha256(start_from)
        policy = Policy(model, config.train_vision).eval()  # no dropout anywhere: rollouts and updates must agree
        groups = [p for p in policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay)
        self.policy, self.optimizer = self.accelerator.prepare(policy, optimizer)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda n: min(1.0, (n + 1) / (config.warmup_steps + 1))
        )
        self.accelerator.register_for_checkpointing(self.scheduler)
        self.reference: Policy | None = None
        if config.kl_weight:
            frozen, _ = load_checkpoint(start_from)
            self.reference = Policy(frozen).eval().requires_grad_(False).to(self.accelerator.device)
        self.pictures = Pictures(config, self.size_wh, self.accelerator.process_index, self.accelerator.num_processes)
        self.step = 0
        self.stop_asked = False

    @property
    def plain(self) -> Policy:
        """The policy without the wrapper that distributes it."""
        return self.accelerator.unwrap_model(self.policy)

    # ---- one step -------------------------------------------------------------------------------------------------------

    def pixels(self, samples: Sequence[Sample]) -> Tensor:
        """Patches of the pictures on the device."""
        return torch.from_numpy(np.stack([self.preprocess(s.image_bgr)[0] for s in samples])).to(self.accelerator.device)

    def rollouts(self, pixels: Tensor, group: int, sampling: Sampling, first: int) -> list[Rollout]:
        """``group`` answers a picture in the turn that the stage trains; ``first`` numbers the pictures in the run."""
        sampler = Sampler(self.plain.model, self.layout, self.preprocess.grid_hw, sampling)
        draw = sampler.place if self.config.stage == "placement" else sampler.move
        with self.accelerator.autocast():
            return draw(pixels, group, self.config.seed, first)

    def rewards(self, samples: Sequence[Sample], rollouts: Sequence[Rollout]) -> list[dict[str, float]]:
        """Every reward of every answer, in order."""
        sampling, placement = self.config.sampling, self.config.stage == "placement"
        labels = [labels_at_cells(s) if placement and self.config.cell_labels else s for s in samples]
        batch = [
            Completion(labels[r.picture], r.propose_ids, r.refine_ids, r.truncated, sampling.rounds, sampling.limits)
            for r in rollouts
        ]
        return (driving_placement if placement else driving_movement)(batch, self.config.rewards)

    def train_step(self) -> dict[str, float]:
        """Rollouts, rewards, advantages and the update; returns what is logged.

        Raises:
            GetokError: a reward or the loss is not finite; the batch is saved beside the checkpoints.
        """
        config, clock = self.config, time.perf_counter()
        samples = self.pictures.at(self.step)
        pixels = self.pixels(samples)
        rollouts = self.rollouts(pixels, config.group, config.sampling, self.pictures.first(self.step))
        sampled_s = time.perf_counter() - clock
        rewards = self.rewards(samples, rollouts)
        overall = np.array([reward["overall"] for reward in rewards]).reshape(len(samples), config.group)
        if not np.isfinite(overall).all():
            self._stop("a reward", float("nan"), rollouts, pixels)
        advantages = group_advantages(overall, config.normalise).reshape(-1)
        logged = self.update(rollouts, pixels, advantages)
        logged.update(reward_statistics(rewards, overall))
        logged["length"] = float(np.mean([len(r.propose_ids) + len(r.refine_ids or ()) for r in rollouts]))
        logged["decisions"] = float(np.mean([len(r.places) for r in rollouts]))
        logged["truncated"] = float(np.mean([r.truncated for r in rollouts]))
        logged["rollouts_per_s"] = len(rollouts) / sampled_s
        logged["step_s"] = time.perf_counter() - clock
        return _mean_over_processes(logged)

    def update(self, rollouts: Sequence[Rollout], pixels: Tensor, advantages: npt.NDArray[np.float64]) -> dict[str, float]:
        """The policy's update on one step's rollouts.

        Args:
            rollouts: a picture's ``group`` side by side.
            pixels: of the pictures.
            advantages: one a rollout.
        """
        config, merge = self.config, self.preprocess.merge_size
        merged_hw = (self.preprocess.grid_hw[0] // merge, self.preprocess.grid_hw[1] // merge)
        passes = []
        for first in range(0, config.prompts, config.prompts_per_pass):
            stop = min(first + config.prompts_per_pass, config.prompts)
            own = slice(first * config.group, stop * config.group)
            answers = Answers.of(rollouts[own], pixels[first:stop], self.layout, merged_hw, config.share_prefix)
            passes.append((answers, *self._targets(answers, rollouts[own], advantages[own]), own))
        totals = {"loss": 0.0, "kl": 0.0, "entropy": 0.0, "clip_fraction": 0.0, "grad_norm": 0.0}
        updates = 0
        for _ in range(config.epochs):
            for part in np.array_split(np.arange(len(passes)), config.minibatches):
                chosen = [passes[index] for index in part]
                counts = torch.tensor([len(answers.token) for answers, *_ in chosen], dtype=torch.float32).sum()
                count = max(1.0, float(self.accelerator.reduce(counts.to(self.accelerator.device), "sum")))
                for number, (answers, old, reference, advantage, own) in enumerate(chosen):
                    last = number == len(chosen) - 1
                    with nullcontext() if last else self.accelerator.no_sync(self.policy):
                        log_probs, entropy = self.policy(answers, self.preprocess.grid_hw, config.sampling.temperature)
                        terms = grpo_terms(
                            log_probs, old, log_probs.detach() if reference is None else reference, advantage,
                            config.clip_low, config.clip_high, config.kl_weight,
                        )  # fmt: skip
                        loss = terms.loss.sum() * self.accelerator.num_processes / count
                        if not torch.isfinite(loss):
                            self._stop("the loss", float(loss.detach()), rollouts[own], answers.pixel_values)
                        self.accelerator.backward(loss)
                    share = self.accelerator.num_processes / count
                    totals["loss"] += float(loss.detach())
                    totals["kl"] += float(terms.kl.sum()) * share
                    totals["entropy"] += float(entropy.sum()) * share
                    totals["clip_fraction"] += float(terms.clipped.sum()) * share
                totals["grad_norm"] += float(self.accelerator.clip_grad_norm_(self.policy.parameters(), config.clip_norm))
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                updates += 1
        self.scheduler.step()
        return {name: value / updates for name, value in totals.items()} | {"lr": self.scheduler.get_last_lr()[0]}

    @torch.no_grad()
    def _targets(
        self, answers: Answers, rollouts: Sequence[Rollout], advantages: npt.NDArray[np.float64]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Of each decision: log-probability when drawn, under the reference, and its answer's advantage."""
        device = answers.ids.device
        old = torch.from_numpy(np.concatenate([r.log_probs for r in rollouts])).to(device)
        repeated = np.repeat(advantages, [len(r.places) for r in rollouts]).astype(np.float32)
        reference = None
        if self.reference is not None:
            with self.accelerator.autocast():
                reference, _ = self.reference(answers, self.preprocess.grid_hw, self.config.sampling.temperature)
        return old, reference, torch.from_numpy(repeated).to(device)

    def _stop(self, what: str, value: float, rollouts: Sequence[Rollout], pixels: Tensor) -> None:
        path = self.out / f"bad_batch_{self.step}.pt"
        torch.save({"rollouts": [dataclasses.asdict(r) for r in rollouts], "pixel_values": pixels.cpu()}, path)
        raise GetokError(f"step {self.step}: {what} is {value}; the batch is in {path}")

    # ---- the loop -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Trains to the end, or until Ctrl-C; either way the last state is saved."""
        config, main = self.config, self.accelerator.is_main_process
        signal.signal(signal.SIGINT, self._ask_stop)
        signal.signal(signal.SIGTERM, self._ask_stop)
        log = RunLog(self.out, main)
        bar = tqdm(total=config.steps, initial=self.step, disable=not main, unit="step", dynamic_ncols=True, mininterval=2)
        while self.step < config.steps and not self.stop_asked:
            record = self.train_step()
            self.step += 1
            bar.update()
            bar.set_postfix(reward=f"{record['reward/overall']:.3f}", kl=f"{record['kl']:.4f}", refresh=False)
            if self.step % config.log_every == 0:
                log.write(self.step, record)
            if config.eval_every and self.step % config.eval_every == 0:
                record = self.evaluate()
                log.write(self.step, record)
                if main:
                    tqdm.write(json.dumps({"step": self.step, **record}))
            if self.step % config.save_every == 0 or self.stop_asked or self.step == config.steps:
                save_checkpoint(self.accelerator, self.out, self.step, {"start_sha256": self.start_sha256})
        if self.step >= config.steps:
            self.export_folder(self.out / "final")
        bar.close()
        log.close()

    def evaluate(self) -> dict[str, float]:
        """Mean rewards of greedy answers on validation frames (each process evaluates all of them)."""
        greedy = replace(self.config.sampling, temperature=0.0, proposal_temperature=0.0)
        results: list[dict[str, float]] = []
        seeds = list(world.VAL_SEEDS)[: self.config.eval_images]
        for first in range(0, len(seeds), 16):
            samples = [world.render(seed, self.size_wh) for seed in seeds[first : first + 16]]
            results += self.rewards(samples, self.rollouts(self.pixels(samples), 1, greedy, first))
        return {f"val_{name}": _mean([result[name] for result in results]) for name in results[0]}

    def _ask_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_asked = True
        print("\nstopping after this step; the state will be saved", file=sys.stderr)

    # ---- checkpoints ----------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Continues from the newest checkpoint in the run folder, if there is one.

        Raises:
            ConfigError: the run was started from another checkpoint.
        """
        extra = load_newest(self.accelerator, self.out)
        if extra is None:
            return
        if extra["start_sha256"] != self.start_sha256:
            raise ConfigError(
                f"{self.out}: this run was started from another checkpoint; give the same --start-from, or another --out"
            )
        self.step = extra["step"]

    def export_folder(self, folder: Path) -> None:
        """Writes the policy as an ordinary transformers folder, which ``training.export`` and the next stage read."""
        if not self.accelerator.is_main_process:
            return
        self.plain.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        record = {
            "step": self.step, "image_size_wh": self.size_wh, "data": f"GRPO, {self.config.stage}, on {self.config.data}",
            "start_sha256": self.start_sha256, "config": plain_config(self.config),
        }  # fmt: skip
        (folder / "training.json").write_text(json.dumps(record, indent=1))


def reward_statistics(rewards: Sequence[dict[str, float]], overall: npt.NDArray[np.float64]) -> dict[str, float]:
    """Mean and deviation of each reward over all answers (NaN left out), and how much the groups have to learn from.

    Args:
        rewards: of each answer.
        overall: ``(B, G)``.
    """
    result: dict[str, float] = {}
    for name in rewards[0]:
        values = np.array([reward[name] for reward in rewards])
        finite = values[np.isfinite(values)]
        result[f"reward/{name}"] = float(finite.mean()) if len(finite) else float("nan")
        result[f"reward/{name}_spread"] = float(finite.std()) if len(finite) else float("nan")
    deviations = overall.std(axis=1)
    result["group_spread"] = float(deviations.mean())
    result["zero_variance_groups"] = float((deviations <= 1e-9).mean())
    return result


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _mean_over_processes(record: dict[str, float]) -> dict[str, float]:
    records = gather_object([record])
    return {name: _mean([one[name] for one in records]) for name in record} if len(records) > 1 else record


def _trained_size_wh(folder: Path) -> tuple[int, int]:
    path = folder / "training.json"
    try:
        width, height = json.loads(path.read_text())["image_size_wh"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: does not say image_size_wh; set image_size_wh=(width,height)") from None
    return int(width), int(height)


def _weights_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()


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
    args = parser.parse_args(argv)
    try:
        config = override(replace(PRESETS[args.preset], stage=args.stage), args.settings)
        args.out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, args.out, args.start_from)
        trainer.resume()
        if trainer.accelerator.is_main_process:
            (args.out / "config.json").write_text(json.dumps(plain_config(config), indent=1))
            print(f"{parameter_count(trainer.plain.model) / 1e6:.2f} M parameters, {config.steps} steps", file=sys.stderr)
        trainer.run()
    except GetokError as error:
        print(f"training.grpo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
