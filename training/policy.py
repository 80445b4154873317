r"""The policy in training: log-probabilities of sampled decisions, and the loss of GRPO.

**Log-probabilities.** The distribution is that of `training.rollout`: a softmax over the tokens that the grammar allowed, at the
sampling temperature. `Answers` lays the rollouts out in one of two ways with the same result (tested):

- one row an answer: ``[prompt | c_g]``, padded on the right;
- shared prefix: one row a picture, ``[prompt | c_1 | ... | c_G]``, where an answer sees the prompt and itself (4-D mask) and
  takes up its positions where the prompt's end. The prompt is computed once a picture instead of G times.

**Loss** (Shao et al., DeepSeekMath, arXiv 2402.03300, eq. 3-4; PPO's clipping: arXiv 1707.06347):

| symbol | here |
|---|---|
| A_i = (r_i - mean r) / (std r + eps) over the group | `group_advantages` |
| rho = exp(log pi - log pi_old) | ratio of one decision |
| min(rho A, clip(rho, 1 - low, 1 + high) A) | surrogate |
| D = exp(d) - d - 1, d = log pi_ref - log pi | KL to the reference, the low-variance estimator k3 (Schulman, 2020) |
| loss = -surrogate + beta D | of one decision, `grpo_terms` |

Departures: decisions are averaged over the whole step, not within each answer first (as DAPO and veRL do: long answers are not
diluted); forced tokens are no decisions and do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2_5_VLForConditionalGeneration

from getok_drive.runtime.qwen import cell_reader
from getok_drive.tokens.vocab import TOKENS
from training.collate import Layout
from training.conversations import prompt_prefix
from training.rollout import Rollout
from training.visual import encode_pictures, picture_inputs, table_logits

if TYPE_CHECKING:
    from peft import PeftModel

_TABLE_SIZE = len(TOKENS)
_PROMPT, _PADDING = -1, -2


@dataclass(frozen=True, slots=True)
class Answers:
    """Rollouts of ``B`` pictures as ``R`` rows of ``S`` tokens, with ``D`` decisions.

    Attributes:
        pixel_values: ``(B, patches, patch_dim)``.
        picture: ``(R,)`` picture of each row.
        ids: ``(R, S)`` model ids.
        positions: ``(3, R, S)``.
        segments: ``(R, S)`` which answer a place belongs to (-1 the prompt, -2 padding); None: one answer a row.
        row: ``(D,)`` row of each decision.
        column: ``(D,)`` place whose output is the decision's distribution.
        token: ``(D,)`` local id chosen.
        legal: ``(D, len(TOKENS))`` bool.
        visual: the image's places.
        first_id: model id of the table's first token.
    """

    pixel_values: Tensor
    picture: Tensor
    ids: Tensor
    positions: Tensor
    segments: Tensor | None
    row: Tensor
    column: Tensor
    token: Tensor
    legal: Tensor
    visual: slice
    first_id: int

    @classmethod
    def of(
        cls, rollouts: Sequence[Rollout], pixel_values: Tensor, layout: Layout, merged_hw: tuple[int, int], shared: bool
    ) -> Answers:
        """The rollouts on the device of ``pixel_values``; their pictures are counted from the first one's.

        Args:
            rollouts: of ``len(pixel_values)`` consecutive pictures, a picture's side by side.
            pixel_values: of these pictures.
            layout: fixed token ids.
            merged_hw: visual tokens along the height and the width.
            shared: one row a picture instead of one an answer.
        """
        prefix, prompt_positions, after = prompt_prefix(layout, merged_hw)
        first = min(r.picture for r in rollouts)
        row_of = [r.picture - first for r in rollouts] if shared else list(range(len(rollouts)))
        context = _contexts(rollouts, row_of) if shared else [[] for _ in row_of]
        ends = [len(prefix) + len(own) for own in context]
        starts = []
        for rollout, row in zip(rollouts, row_of, strict=True):
            starts.append(ends[row])
            ends[row] += max(0, len(rollout.ids) - len(context[row]))
        shape = (len(ends), max(ends))
        ids, segments = np.zeros(shape, np.int64), np.full(shape, _PADDING, np.int64)
        positions = np.zeros((3, *shape), np.float32)
        ids[:, : len(prefix)], segments[:, : len(prefix)] = prefix, _PROMPT
        positions[:, :, : len(prefix)] = prompt_positions[:, None]
        for row, own in enumerate(context):
            span = slice(len(prefix), len(prefix) + len(own))
            ids[row, span], segments[row, span], positions[:, row, span] = own, _PROMPT, after.copy().append(own)
        picture = np.zeros(len(ends), np.int64)
        columns: list[int] = []
        for number, (rollout, row, start) in enumerate(zip(rollouts, row_of, starts, strict=True)):
            skip = len(context[row])
            own = rollout.ids[skip:]
            span = slice(start, start + len(own))
            ids[row, span], segments[row, span] = own, number
            positions[:, row, span] = after.copy().append(rollout.ids)[:, skip:]
            picture[row] = rollout.picture - first
            columns += [start + place - skip - 1 if place > skip else len(prefix) + skip - 1 for place in rollout.places]
        counts = [len(rollout.places) for rollout in rollouts]
        token = [rollout.ids[place] - layout.first_id for rollout in rollouts for place in rollout.places]
        packed = np.concatenate([r.legal for r in rollouts if len(r.places)] or [np.zeros((0, -(-_TABLE_SIZE // 8)), np.uint8)])
        legal = np.unpackbits(packed, axis=1, count=_TABLE_SIZE).astype(bool)

        def tensor(values: npt.ArrayLike) -> Tensor:
            return torch.from_numpy(np.asarray(values)).to(pixel_values.device)

        start = len(layout.before)
        return cls(
            pixel_values, tensor(picture), tensor(ids), tensor(positions), tensor(segments) if shared else None,
            tensor(np.repeat(np.array(row_of, np.int64), counts)), tensor(np.array(columns, np.int64)),
            tensor(np.array(token, np.int64)), tensor(legal), slice(start, start + merged_hw[0] * merged_hw[1]), layout.first_id,
        )  # fmt: skip

    def mask(self) -> Tensor | None:
        """``(R, 1, S, S)`` bool, which place sees which; None where plain causal attention does."""
        if self.segments is None:
            return None
        one, other = self.segments[:, :, None], self.segments[:, None, :]
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (((one == other) | (other == _PROMPT)) & (places[:, None] >= places[None]))[:, None]


def _contexts(rollouts: Sequence[Rollout], row_of: Sequence[int]) -> list[list[int]]:
    """What all answers of a row read before their first decision (a proposal that they refine), for each row."""
    contexts: list[list[int] | None] = [None] * (max(row_of) + 1)
    for rollout, row in zip(rollouts, row_of, strict=True):
        if rollout.places:
            own, common = rollout.ids[: rollout.places[0]], contexts[row]
            contexts[row] = own if common is None or common == own else []
    return [own or [] for own in contexts]


class Policy(nn.Module):
    """A model whose forward gives the log-probabilities of decisions.

    Args:
        model: the language model with its vision tower.
        train_vision: whether gradients reach the vision tower, and what grid tokens see of the picture.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, train_vision: bool = True) -> None:
        super().__init__()
        self.model = model
        self.train_vision = train_vision
        if not train_vision:
            model.model.visual.requires_grad_(False)
            if (reader := cell_reader(model)) is not None:
                reader.of_the_picture.requires_grad_(False)

    def forward(self, answers: Answers, grid_hw: tuple[int, int], temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of each decision, nats: two ``(D,)`` float32 tensors.

        Args:
            answers: rollouts.
            grid_hw: patches along the height and the width.
            temperature: at which they were drawn; 0 counts as 1.
        """
        text = self.model.model.language_model
        with torch.set_grad_enabled(self.train_vision and torch.is_grad_enabled()):
            visual = encode_pictures(self.model, answers.pixel_values, grid_hw).map(lambda part: part[answers.picture])
        inputs = picture_inputs(self.model, answers.ids, visual, answers.visual)
        hidden = text(**inputs, attention_mask=answers.mask(), position_ids=answers.positions, use_cache=False).last_hidden_state
        logits = table_logits(self.model, hidden, visual.cells, answers.first_id, (answers.row, answers.column))
        logits = logits.float() / (temperature or 1.0)
        log_all = F.log_softmax(logits.masked_fill(~answers.legal, -torch.inf), dim=-1)
        chosen = log_all.gather(1, answers.token[:, None])[:, 0]
        with torch.no_grad():
            entropy = -(log_all.exp() * log_all.masked_fill(~answers.legal, 0.0)).sum(-1)
        return chosen, entropy


@dataclass(frozen=True, slots=True)
class AdaptersOff:
    """The start of a policy with adapters, as its reference: the same weights, with the adapters switched off meanwhile.

    Attributes:
        policy: without the wrapper that distributes it.
        adapted: PEFT's view of its model.
    """

    policy: Policy
    adapted: PeftModel

    def __call__(self, answers: Answers, grid_hw: tuple[int, int], temperature: float) -> tuple[Tensor, Tensor]:
        """See `Policy.forward`."""
        with self.adapted.disable_adapter():
            return self.policy(answers, grid_hw, temperature)


def group_advantages(rewards: npt.NDArray[np.float64], normalise: bool = True, epsilon: float = 1e-4) -> npt.NDArray[np.float64]:
    """Advantages ``(B, G)`` of rewards ``(B, G)``: each less its group's mean, divided by the group's deviation if ``normalise``.

    A group whose answers all earn the same teaches nothing: its advantages are exactly 0.
    """
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    deviation = rewards.std(axis=1, keepdims=True)
    centred = np.where(deviation > 1e-9, centred, 0.0)
    return centred / np.where(deviation > 1e-9, deviation + epsilon, 1.0) if normalise else centred


def decision_advantages(
    rollouts: Sequence[Rollout],
    overall: npt.NDArray[np.float64],
    credit: Sequence[npt.NDArray[np.float64]] | None,
    normalise: bool,
) -> list[npt.NDArray[np.float64]]:
    """The advantage of each decision ``(D_i,)`` of each rollout.

    Args:
        rollouts: of one step.
        overall: ``(B, G)`` their rewards.
        credit: advantages of single decisions; None: all decisions of an answer have the answer's, `group_advantages`.
        normalise: divide by the group's deviation, or ``credit`` by its root mean square over the step.
    """
    if credit is None:
        whole = group_advantages(overall, normalise).reshape(-1)
        return [np.full(len(r.places), value) for r, value in zip(rollouts, whole, strict=True)]
    flat = np.concatenate(credit)
    size = float(np.sqrt(np.mean(flat**2))) if normalise and len(flat) else 1.0
    return [own / (size or 1.0) for own in credit]


@dataclass(frozen=True, slots=True)
class Terms:
    """Of each decision ``(D,)``: ``loss``, ``kl`` to the reference, and whether the ratio was ``clipped``."""

    loss: Tensor
    kl: Tensor
    clipped: Tensor


def grpo_terms(
    log_probs: Tensor, old: Tensor, reference: Tensor, advantages: Tensor, clip_low: float, clip_high: float, kl_weight: float
) -> Terms:
    """The loss of each decision; all tensors ``(D,)``, log-probabilities in nats."""
    ratio = torch.exp(log_probs - old)
    bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    surrogate = torch.minimum(ratio * advantages, bounded * advantages)
    apart = reference - log_probs
    kl = torch.exp(apart) - apart - 1.0
    clipped = bounded * advantages < ratio * advantages
    return Terms(-surrogate + kl_weight * kl, kl.detach(), clipped.detach())
