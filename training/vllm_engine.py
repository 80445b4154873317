"""Rollouts through vLLM: requests in, `Rollout`s out; docs/scale.md says with which versions it was run.

Each answer is one request, whose draws depend on the run's seed and its own numbers alone; vLLM's prefix cache computes a picture
and its prompt once. The grammar travels with the request (`SamplingParams.extra_args`) and masks the logits inside vLLM
(`GrammarProcessor`), so that both engines draw from the same distribution; ``logprobs_mode="processed_logprobs"`` hands back its
log-probabilities. What comes back is replayed through the same grammar, which finds the decisions and refuses what is not legal.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from getok_drive.errors import ConfigError, GetokError
from getok_drive.preprocess import Preprocessor, resize
from getok_drive.tokens.grammar import Grammar, ProposeGrammar, RefineGrammar
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.vocab import TOKEN_ID, TOKENS
from training.collate import Layout
from training.rollout import NOTHING, Rollout, Turn, rollout_of
from training.samples import Sample
from training.sampling import DRIVING, Dialogue, Sampling

KEY = "getok_drive"  # under which a request's grammar travels


def describe(first_id: int, sampling: Sampling, proposal: Sequence[int] | None) -> dict[str, Any]:
    """A request's grammar as plain values; ``proposal`` (local ids) asks for its refinement."""
    limits = dataclasses.asdict(sampling.limits)
    return {
        "first_id": first_id,
        "limits": limits,
        "rounds": sampling.rounds,
        "proposal": None if proposal is None else [*proposal],
    }


def grammar_of(description: Mapping[str, Any]) -> Grammar:
    """The grammar that `describe` wrote down, at its start."""
    limits = Limits(**description["limits"])
    if description["proposal"] is None:
        return ProposeGrammar(limits)
    return RefineGrammar(description["proposal"], description["rounds"], limits)


class Masker:
    """Masks one request's logits by its grammar; called with all that was written so far.

    Args:
        description: see `describe`.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        self._grammar, self._first, self._read = grammar_of(description), int(description["first_id"]), 0

    def __call__(self, output_ids: Sequence[int], logits: Tensor) -> Tensor:
        """``logits (V,)`` with everything that is not legal at minus infinity, in place."""
        for token in output_ids[self._read :]:
            self._grammar.advance(int(token) - self._first)
        self._read = len(output_ids)
        if not self._grammar.done:
            legal = self._first + np.flatnonzero(self._grammar.legal())
            kept = logits[legal].clone()
            logits.fill_(float("-inf"))
            logits[legal] = kept
        return logits


def replay(grammar: Grammar, first_id: int, ids: Sequence[int], log_probs: Sequence[float]) -> Turn:
    """What vLLM wrote, with its decisions; the grammar is advanced.

    Args:
        grammar: fresh.
        first_id: model id of the table's first token.
        ids: model ids in order.
        log_probs: of each, nats.

    Raises:
        GetokError: a token that the grammar does not allow: vLLM ran without its mask.
    """
    turn = Turn()
    for token, log_prob in zip(ids, log_probs, strict=True):
        local = token - first_id
        if grammar.done or not 0 <= local < len(TOKENS) or not grammar.accepts(local):
            raise GetokError(f"vLLM wrote token {token} at place {len(turn.ids)}, which the grammar does not allow")
        if grammar.forced() is None:
            turn.places.append(len(turn.ids))
            turn.log_probs.append(float(log_prob))
            turn.legal.append(np.packbits(grammar.legal()))
        grammar.advance(local)
        turn.ids.append(local)
    return turn


def chosen_log_probs(completion: Any) -> list[float]:
    """Log-probability of each chosen token of a vLLM ``CompletionOutput`` (its ``logprobs`` hold a dict a place)."""
    if completion.logprobs is None or len(completion.logprobs) != len(completion.token_ids):
        raise GetokError("vLLM gave no log-probabilities back; SamplingParams(logprobs=0) was asked for")
    return [float(place[token].logprob) for place, token in zip(completion.logprobs, completion.token_ids, strict=True)]


class VllmEngine:
    """`training.engines.Engine` over ``vllm.LLM`` in this process.

    Args:
        start_from: checkpoint folder, with the ``preprocessor_config.json`` of its vision tower.
        layout: fixed token ids.
        preprocess: gives the size at which pictures are handed over.
        work: folder for weights on their way to vLLM.
        llm: a ``vllm.LLM``; None opens one.

    Raises:
        ConfigError: the model's positions are not Qwen's own, which is all that vLLM knows.
    """

    def __init__(self, start_from: Path, layout: Layout, preprocess: Preprocessor, work: Path, llm: Any = None) -> None:
        if layout.position_rule != "text":
            raise ConfigError(f"engine=vllm: the model has the position rule {layout.position_rule!r}, vLLM knows 'text' only")
        self._layout, self._preprocess, self._start, self._weights = layout, preprocess, start_from, work / "vllm-weights"
        self._llm = llm or open_llm(start_from)

    def draw(
        self, stage: str, samples: Sequence[Sample], pixels: Tensor, group: int, sampling: Sampling, seed: int, first: int,
        dialogues: Sequence[Dialogue] = (),
    ) -> list[Rollout]:  # fmt: skip
        """See `Engine.draw`.

        Raises:
            ConfigError: another dialogue than the driving scene: its grammar cannot travel yet.
        """
        if any(one is not DRIVING for one in dialogues):
            raise ConfigError("engine=vllm draws driving scenes only; set engine=own")
        images = [self._picture(sample) for sample in samples]
        before = self._prompt()
        if stage == "placement":
            drawn = self._turns(images, [before] * len(images), group, None, sampling, (seed, 1), first)
            return [
                rollout_of(index // group, grammar.finished_ids(), None, not grammar.done, [], turn, self._layout.first_id)
                for index, (grammar, turn) in enumerate(drawn)
            ]
        once = dataclasses.replace(sampling, temperature=sampling.proposal_temperature)
        proposals = self._turns(images, [before] * len(images), 1, None, once, (seed, 0), first)
        given = [turn.ids if grammar.done else list(NOTHING) for grammar, turn in proposals]
        contexts = [[*(self._layout.first_id + token for token in ids), *self._layout.refine_turn] for ids in given]
        prompts = [[*before, *context] for context in contexts]
        drawn = self._turns(images, prompts, group, given, sampling, (seed, 1), first)
        rollouts = []
        for index, (grammar, turn) in enumerate(drawn):
            own, context = proposals[index // group][0], contexts[index // group]
            truncated = not (own.done and grammar.done)
            rollouts.append(
                rollout_of(
                    index // group, own.finished_ids(), grammar.finished_ids(), truncated, context, turn, self._layout.first_id
                )
            )
        return rollouts

    def follow(self, policy: Qwen2_5_VLForConditionalGeneration) -> None:
        """Writes the weights to a folder of this process and has vLLM read them; its cached prefixes are of the old ones.

        From then on vLLM takes the folder for the model's own and reads the image processor from it, too.
        """
        from training.sharding import whole_state

        policy.save_pretrained(self._weights, state_dict=whole_state(policy))
        for file in self._start.iterdir():
            of_weights = file.name.startswith("model.")  # shards and their index
            if file.is_file() and not of_weights and not (self._weights / file.name).exists():
                shutil.copy2(file, self._weights)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(self._weights)})
        self._llm.reset_prefix_cache()

    def _prompt(self) -> list[int]:
        """The prompt with one image pad, which vLLM widens to the picture's tokens."""
        return [*self._layout.before, self._layout.image_pad, *self._layout.after]

    def _picture(self, sample: Sample) -> Any:
        """The picture at the model's size, as vLLM takes it."""
        from PIL import Image

        return Image.fromarray(np.ascontiguousarray(resize(sample.image_bgr, self._preprocess.image_size_wh)[:, :, ::-1]))

    def _turns(
        self, images: Sequence[Any], prompts: Sequence[Sequence[int]], group: int, proposals: Sequence[Sequence[int]] | None,
        sampling: Sampling, seed: tuple[int, int], first: int,
    ) -> list[tuple[Grammar, Turn]]:  # fmt: skip
        """``group`` answers to each prompt: the grammar where the answer ended, and the answer."""
        first_id = self._layout.first_id
        budget = sampling.propose_tokens if proposals is None else sampling.refine_tokens
        end = TOKEN_ID["</scene>" if proposals is None else "</offset>"] + first_id
        requests, parameters, descriptions = [], [], []
        for number, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            about = describe(first_id, sampling, None if proposals is None else proposals[number])
            for own in range(group):
                draw = int(np.random.default_rng((*seed, first + number, own)).integers(2**31))
                requests.append({"prompt_token_ids": [*prompt], "multi_modal_data": {"image": image}})
                parameters.append(
                    {
                        "temperature": sampling.temperature, "max_tokens": budget, "seed": draw, "logprobs": 0,
                        "stop_token_ids": [end], "ignore_eos": True, "detokenize": False, "extra_args": {KEY: about},
                    }
                )  # fmt: skip
                descriptions.append(about)
        outputs = self._llm.generate(requests, [_parameters(values) for values in parameters], use_tqdm=False)
        turns = []
        for about, output in zip(descriptions, outputs, strict=True):
            grammar, completion = grammar_of(about), output.outputs[0]
            turns.append((grammar, replay(grammar, first_id, completion.token_ids, chosen_log_probs(completion))))
        return turns


def _parameters(values: Mapping[str, Any]) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**values)


def open_llm(folder: Path) -> Any:
    """A ``vllm.LLM`` of a checkpoint folder as the engine needs it; on a CPU in single precision, as the policy is there."""
    from vllm import LLM

    gpu = torch.cuda.is_available()
    launched = {"distributed_executor_backend": "external_launcher"} if int(os.environ.get("WORLD_SIZE", "1")) > 1 else {}
    return LLM(
        model=str(folder), dtype="bfloat16" if gpu else "float32", enforce_eager=not gpu, limit_mm_per_prompt={"image": 1},
        enable_prefix_caching=True, logprobs_mode="processed_logprobs",
        logits_processors=["training.vllm_grammar:GrammarProcessor"], gpu_memory_utilization=0.35, **launched,
    )  # fmt: skip
