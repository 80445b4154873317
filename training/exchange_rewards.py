"""Our driving rewards under the signatures of other engines; without torch, so any engine's environment can import it.

| engine | calls | reference |
|---|---|---|
| EasyR1, ``reward_type=batch`` | `compute_scores` with ``[{"response", "response_length", "ground_truth"}, ...]`` | ``verl/workers/reward/function.py`` |
| veRL | `compute_score` with ``data_source, solution_str, ground_truth, extra_info`` | "Implement reward function" |
| ms-swift | an ``ORM`` around `scene_rewards` with ``completions`` and the column ``solution`` | "Reward function" |

The ground truth is the text that `training.exchange` wrote. Rewards that a picture's labels cannot judge are left out of the
dictionaries, because engines average whatever they find.
"""  # noqa: E501

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from getok_drive.errors import InputError
from getok_drive.tokens.codec import from_text
from training.datasets.jsonl import labels_of
from training.rewards import Completion, RewardSettings, driving_movement, driving_placement
from training.samples import Sample

STAGES = ("placement", "movement")
_CHAT = re.compile(r"<\|[^|]*\|>")  # the chat's own tokens; decoders may leave them in


def labels_in(ground_truth: str) -> tuple[str, Sample, list[int] | None]:
    """Stage, labels and proposal of a ground truth.

    Raises:
        InputError: it was not written by `training.exchange`.
    """
    try:
        record = json.loads(ground_truth)
        stage, labels = record["stage"], record["labels"]
        width, height = labels["size_wh"]
        empty = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (height, width, 3))  # its size is all that counts
        found = labels_of(labels, empty, Path())
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"ground truth: not written by training.exchange ({type(error).__name__}: {error})") from error
    if stage not in STAGES:
        raise InputError(f"ground truth: stage {stage!r}; expected one of {', '.join(STAGES)}")
    sample = Sample(empty, found.lanes, found.drivable, found.boxes, found.signs, known=found.known, meta=found.meta)
    return stage, sample, from_text(record["proposal"]) if "proposal" in record else None


def judge(
    responses: Sequence[str], ground_truths: Sequence[str], settings: RewardSettings | None = None
) -> list[dict[str, float]]:
    """Every reward of every response, with ``overall``; answers to one picture share the drawing of its labels.

    Args:
        responses: what was written, special tokens or not.
        ground_truths: of each response.
        settings: constants and weights.
    """
    known = {truth: labels_in(truth) for truth in set(ground_truths)}
    batches: dict[str, list[tuple[int, Completion]]] = {stage: [] for stage in STAGES}
    for index, (response, truth) in enumerate(zip(responses, ground_truths, strict=True)):
        stage, labels, proposal = known[truth]
        ids = from_text(_CHAT.sub("", response))
        completion = Completion(labels, ids) if stage == "placement" else Completion(labels, proposal or [], ids)
        batches[stage].append((index, completion))
    results: dict[int, dict[str, float]] = {}
    for stage, batch in batches.items():
        rewards = driving_placement if stage == "placement" else driving_movement
        for (index, _), result in zip(batch, rewards([one for _, one in batch], settings), strict=True):
            results[index] = {name: float(value) for name, value in result.items() if np.isfinite(value)}
    return [results[index] for index in range(len(responses))]


def compute_scores(reward_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """EasyR1's batch reward function."""
    if isinstance(reward_inputs, Mapping):
        raise InputError("compute_scores takes a batch; set worker.reward.reward_type=batch")
    return judge([one["response"] for one in reward_inputs], [one["ground_truth"] for one in reward_inputs])


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, float]:
    """veRL's reward function: ``score`` is what it trains on, everything else is logged."""
    result = judge([solution_str], [ground_truth])[0]
    return {"score": result.pop("overall"), **result}


def scene_rewards(completions: Sequence[str], solution: Sequence[str], **_: Any) -> list[float]:
    """ms-swift's reward: one number a completion."""
    return [result["overall"] for result in judge(completions, solution)]
