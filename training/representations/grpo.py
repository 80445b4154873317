"""Figure 10's shape: a finished run of table 5 goes on by GRPO, whatever its form; and table 11's: with a reward left out.

A step draws `GROUP` answers to each of its pictures from the whole vocabulary, as free as table 5's, rewards them, and takes one
step of policy gradient with the group's advantages and the KL to the run's own weights (GETok's supplement; `training.policy` has
the terms, `training.grpo` the whole engine for grid tokens). The tower stays frozen.

| reward | of one answer |
|---|---|
| ``lane_f1`` | CULane's F1 at IoU 0.5 |
| ``polyline_f1`` | mean F1 at the table's three distances |
| ``format`` | share of the lanes begun that can be read; 0 without ``</scene>`` |
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import trange

from getok_drive.errors import ConfigError
from getok_drive.tokens import prompts
from training.metrics.intervals import bootstrap, f1
from training.optimizers import cosine_tail
from training.policy import group_advantages, grpo_terms
from training.representations.answers import LaneAnswer, PictureConversations, Scores, converse, free_lanes
from training.representations.forms import FORMS
from training.representations.frames import Frames, visual_tokens
from training.representations.lanes import LANE_PROMPT
from training.representations.reader import taught_logits
from training.representations.runs import RunSettings
from training.representations.scores import LANE_COLUMNS, TOLERANCES, Examiner, lane_row
from training.samples import Sample

REWARDS = {"lane_f1": 0.4, "polyline_f1": 0.4, "format": 0.2}
GROUP = 8
KL_WEIGHT, CLIP = 1e-2, 0.2
_AT = {name: index for index, name in enumerate(LANE_COLUMNS)}


@dataclass(frozen=True, slots=True)
class GrpoSettings:
    """What makes a run beside the one that it goes on from.

    Attributes:
        steps: of one update each.
        learning_rate: of AdamW, reached after a tenth of the steps; over the last third it falls to 0 along a cosine.
        prompts: pictures a step.
        temperature: of the policy: of its draws, and of the probabilities that learn. What is best to write depends on it: a
            policy whose draws often miss earns more by writing more lanes, which its greedy answers then have too many of.
        without: names of `REWARDS` that are not paid.
        seed: of pictures and draws; not of the weights.
    """

    steps: int = 100
    learning_rate: float = 1e-4
    prompts: int = 4
    temperature: float = 1.0
    without: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := set(self.without) - set(REWARDS):
            raise ConfigError(f"--without {', '.join(sorted(unknown))}: expected some of {', '.join(REWARDS)}")
        if min(self.steps, self.prompts) < 1:
            raise ConfigError(f"--steps {self.steps} --prompts {self.prompts}: expected 1 or more")
        if not self.temperature > 0:
            raise ConfigError(f"--temperature {self.temperature}: expected a number above 0")

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        warm_up = min(1.0, (step + 1) / max(1, self.steps // 10))
        return self.learning_rate * warm_up * cosine_tail(step, self.steps, self.steps // 3)


def rewards_of(sample: Sample, answer: LaneAnswer) -> dict[str, float]:
    """Every reward of one answer, 0..1, whether it is paid or not."""
    row = np.array(lane_row(sample, answer), dtype=np.float64)

    def score(name: str) -> float:
        counts = row[_AT[name] : _AT[name] + 3]
        return float(f1(counts)) if counts.any() else 1.0  # nothing is there, and nothing was said

    written = row[_AT["lanes_written"]]
    readable = 1.0 - row[_AT["malformed"]] / written if written else 1.0
    return {
        "lane_f1": score("culane_tp"),
        "polyline_f1": float(np.mean([score(f"tp@{tolerance:g}") for tolerance in TOLERANCES])),
        "format": float(readable * answer.complete),
    }


class LaneGrpo:
    """The run.

    Args:
        start: folder of a finished run of table 5, in a form without offsets.
        frames: training frames.
        settings: see `GrpoSettings`.

    Raises:
        ConfigError: the run is not finished, or has another form.
    """

    def __init__(self, start: Path, frames: Frames, settings: GrpoSettings) -> None:
        try:
            of_start = json.loads((start / "result.json").read_text())["settings"]
        except OSError as error:
            raise ConfigError(f"{start}: no finished run of table 5 ({error})") from error
        self.of_start, self.settings, self.frames = RunSettings(**of_start), settings, frames
        if self.of_start.task != "lanes" or FORMS[self.of_start.form].rounds:
            raise ConfigError(f"{start}: expected lanes in a form without offsets, found {of_start['task']}, {of_start['form']}")
        examiner = Examiner(self.of_start, start / "final", frames)
        self.encoder, self.collate, self.reference = examiner.encoder, examiner.collate, examiner.model
        self.policy = copy.deepcopy(self.reference).requires_grad_(True)
        self.policy.model.visual.requires_grad_(False)
        self._visual = visual_tokens(frames, self.policy)
        self._sample = lru_cache(maxsize=None)(frames.__getitem__)
        learning = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        self._order = np.random.default_rng((settings.seed, 1)).permutation(len(frames))

    def step(self, number: int) -> dict[str, float]:
        """Draws, rewards, updates; returns what is logged."""
        prompts = self.settings.prompts
        at = [int(self._order[(number * prompts + place) % len(self._order)]) for place in range(prompts)]
        rows = [index for index in at for _ in range(GROUP)]
        visual = torch.from_numpy(np.array(self._visual[rows], np.float32))
        answers = self._draw(number, visual)
        rewards = [rewards_of(self._sample(index), answer) for index, answer in zip(rows, answers, strict=True)]
        paid = {name: weight for name, weight in REWARDS.items() if name not in self.settings.without}
        overall = np.array([sum(weight * reward[name] for name, weight in paid.items()) for reward in rewards])
        advantages = torch.from_numpy(group_advantages(overall.reshape(prompts, GROUP)).reshape(-1)).float()
        logged = self._update(number, answers, rows, visual, advantages)
        for name in REWARDS:
            logged[f"reward/{name}"] = float(np.mean([reward[name] for reward in rewards]))
        logged["reward/overall"] = float(np.mean([sum(w * r[n] for n, w in REWARDS.items()) for r in rewards]))
        logged["group_spread"] = float(overall.reshape(prompts, GROUP).std(axis=1).mean())
        logged["length"] = float(np.mean([len(answer.ids) for answer in answers]))
        return logged

    def _draw(self, number: int, visual: Tensor) -> list[LaneAnswer]:
        form, reading = FORMS[self.of_start.form], self.of_start.reading
        with torch.no_grad():
            conversations = PictureConversations(self.policy, self.collate, visual, reading)
        seeds = [(self.settings.seed, 2, number, row) for row in range(len(visual))]
        pick = partial(_drawn, temperature=self.settings.temperature)
        talks = [free_lanes(self.encoder, form, partial(pick, rng=np.random.default_rng(seed))) for seed in seeds]
        return converse(conversations, talks)

    def _update(
        self, number: int, answers: Sequence[LaneAnswer], rows: Sequence[int], visual: Tensor, advantages: Tensor
    ) -> dict[str, float]:
        conversations = []
        for answer, index in zip(answers, rows, strict=True):
            script = self.encoder.open(prompts.chat_segments(LANE_PROMPT))
            script.teach(answer.ids)
            conversations.append(script.conversation(self._sample(index)))
        batch = self.collate(conversations, visual)
        logits, chosen, _, row = taught_logits(self.policy, batch, visual, self.of_start.reading)
        log_all = (logits / self.settings.temperature).log_softmax(-1)
        log_probs = log_all.gather(1, chosen[:, None])[:, 0]
        with torch.no_grad():
            entropy = -(log_all.exp() * log_all).sum(-1).mean()
            theirs, *_ = taught_logits(self.reference, batch, visual, self.of_start.reading)
            before = (theirs / self.settings.temperature).log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        terms = grpo_terms(log_probs, log_probs.detach(), before, advantages[row], CLIP, CLIP, KL_WEIGHT)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(number)
        self.optimizer.zero_grad()
        terms.loss.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        return {"kl": float(terms.kl.mean()), "entropy": float(entropy), "grad_norm": float(norm)}


def _drawn(scores: Scores, rng: np.random.Generator, temperature: float) -> int:
    """A token drawn at a temperature."""
    shares = np.cumsum(np.exp((scores - scores.max()) / temperature, dtype=np.float64))
    return min(int(np.searchsorted(shares, rng.random() * shares[-1], side="right")), len(scores) - 1)


def run(start: Path, frames: Path, settings: GrpoSettings, out: Path) -> str:
    """Trains, examines the greedy answers before and after, writes ``log.jsonl`` and ``result.json``; what came of it in a line.

    Args:
        start: see `LaneGrpo`.
        frames: folder with ``train`` and ``test`` frames.
        settings: see `GrpoSettings`.
        out: run folder; a run that is done is left alone.
    """
    done = out / "result.json"
    if not done.is_file():
        trainer = LaneGrpo(start, Frames(frames / "train"), settings)
        out.mkdir(parents=True, exist_ok=True)
        with (out / "log.jsonl").open("w", encoding="utf-8") as log, trange(settings.steps, unit="step", mininterval=5) as steps:
            for number in steps:
                logged = trainer.step(number)
                steps.set_postfix(reward=f"{logged['reward/overall']:.3f}", kl=f"{logged['kl']:.4f}")
                log.write(json.dumps({"step": number + 1, **{name: round(v, 6) for name, v in logged.items()}}) + "\n")
        trainer.policy.save_pretrained(out / "final")
        trainer.encoder.tokenizer.save_pretrained(out / "final")
        rows = Examiner(trainer.of_start, out / "final", Frames(frames / "test")).lanes()
        record = {"start": str(start), "settings": asdict(settings), "form": trainer.of_start.form, "free": rows}
        done.write_text(json.dumps(record))
    return _difference(json.loads((start / "result.json").read_text()), json.loads(done.read_text()))


def _difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    pairs = np.concatenate([np.asarray(after["free"], np.float64), np.asarray(before["free"], np.float64)], axis=1)
    parts = []
    for name, title in ((f"tp@{TOLERANCES[0]:g}", f"F1 at {TOLERANCES[0]:.1%}"), ("culane_tp", "CULane F1@50")):
        own, theirs = _AT[name], pairs.shape[1] // 2 + _AT[name]

        def gain(sums: npt.NDArray[np.float64], own: int = own, theirs: int = theirs) -> npt.NDArray[np.float64]:
            return f1(sums[..., own : own + 3]) - f1(sums[..., theirs : theirs + 3])

        value, old = (float(f1(pairs[:, at : at + 3].sum(axis=0))) for at in (own, theirs))
        parts.append(f"{title} {old:.3f} -> {value:.3f}, difference {bootstrap(pairs, gain)}")
    left_out = after["settings"]["without"]
    return f"{after['form']}{' without ' + ', '.join(left_out) if left_out else ''}: " + "; ".join(parts)
