"""The translation to vLLM and back, without vLLM: a stand-in answers its structures with the real tiny model. `test_vllm` has it.

The stand-in does what vLLM does with a request: it widens the one image pad, masks with the request's own logits processor, takes
the best token, and returns token ids with one dict of log-probabilities a place.
"""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from getok_drive.errors import ConfigError, GetokError  # noqa: E402
from getok_drive.preprocess import Preprocessor  # noqa: E402
from getok_drive.tokens.grammar import ProposeGrammar, choose  # noqa: E402
from getok_drive.tokens.limits import Limits  # noqa: E402
from getok_drive.tokens.vocab import TOKEN_ID, TOKENS  # noqa: E402
from training import rollout  # noqa: E402
from training.collate import Layout  # noqa: E402
from training.conversations import Conversations  # noqa: E402
from training.datasets import world  # noqa: E402
from training.engines import OwnEngine, open_engine  # noqa: E402
from training.model import load_checkpoint  # noqa: E402
from training.rollout import Sampling  # noqa: E402
from training.vllm_engine import KEY, Masker, VllmEngine, chosen_log_probs, describe, replay  # noqa: E402

PRE = Preprocessor((112, 56))
LIMITS = Limits(lanes=2, lane_points=4, polygons=1, polygon_vertices=5, boxes=2, signs=1)
GREEDY = Sampling(temperature=0.0, proposal_temperature=0.0, limits=LIMITS)


class StandIn:
    """``vllm.LLM`` as far as the engine uses it."""

    def __init__(self, model, layout):
        self.model, self.layout = model, layout
        self.requests, self.parameters, self.calls = [], [], []

    def generate(self, requests, parameters, use_tqdm):
        self.requests += requests
        self.parameters += parameters
        return [self._answer(*pair) for pair in zip(requests, parameters, strict=True)]

    @torch.no_grad()
    def _answer(self, request, parameters):
        layout, ids = self.layout, request["prompt_token_ids"]
        opening = [*layout.before, layout.image_pad, *layout.after]
        assert ids[: len(opening)] == opening
        image_bgr = np.asarray(request["multi_modal_data"]["image"])[:, :, ::-1]
        assert image_bgr.shape == (56, 112, 3)
        rows = Conversations(self.model, layout, torch.from_numpy(PRE(np.ascontiguousarray(image_bgr))[0])[None], PRE.grid_hw)
        rows.waiting[0] += ids[len(opening) :]
        masker, written, places = Masker(parameters.extra_args[KEY]), [], []
        while len(written) < parameters.max_tokens and not (written and written[-1] in parameters.stop_token_ids):
            logits = torch.full((self.model.config.text_config.vocab_size,), 5.0)  # what is outside the table must be masked
            logits[layout.first_id : layout.first_id + len(TOKENS)] = torch.from_numpy(rows.scores()[0])
            log_probs = torch.log_softmax(masker(written, logits), dim=0)
            token = int(log_probs.argmax())
            written.append(token)
            places.append({token: types.SimpleNamespace(logprob=float(log_probs[token]), rank=1, decoded_token=None)})
            rows.waiting[0].append(token)
        reason = "stop" if written[-1] in parameters.stop_token_ids else "length"
        completion = types.SimpleNamespace(index=0, text="", token_ids=written, logprobs=places, finish_reason=reason)
        return types.SimpleNamespace(prompt_token_ids=ids, outputs=[completion], finished=True)

    def collective_rpc(self, method, kwargs):
        self.calls.append((method, kwargs))

    def reset_prefix_cache(self):
        self.calls.append(("reset_prefix_cache", {}))


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    model, tokenizer = load_checkpoint(tiny_checkpoint)
    layout = replace(Layout.of(tokenizer, model.config), position_rule="text")
    with torch.no_grad():  # reluctant to end the scene, so that answers are long
        hidden = model.model.language_model(input_ids=torch.tensor([layout.after])).last_hidden_state[0, -1]
        model.lm_head.weight[layout.first_id + TOKEN_ID["</scene>"]] = -hidden / hidden.norm()
    return model.eval(), layout


@pytest.fixture
def pair(loaded, tiny_checkpoint, tmp_path, monkeypatch):
    """Both engines over one model, and the stand-in; at temperature 0 vLLM takes the likeliest token, so ours shall, too."""
    monkeypatch.setattr(rollout, "decide", choose)
    stub = types.ModuleType("vllm")
    stub.SamplingParams = types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", stub)
    llm = StandIn(*loaded)
    own = OwnEngine(loaded[0], tiny_checkpoint, loaded[1], PRE.grid_hw, torch.device("cpu"))
    return own, VllmEngine(tiny_checkpoint, loaded[1], PRE, tmp_path, llm), llm


@pytest.mark.parametrize("stage", ["placement", "movement"])
def test_both_engines_draw_the_same(pair, stage):
    own, other, llm = pair
    samples = [world.render(seed, (112, 56)) for seed in range(2)]
    pixels = torch.from_numpy(np.stack([PRE(sample.image_bgr)[0] for sample in samples]))
    expected = own.draw(stage, samples, pixels, 2, GREEDY, 3, 10)
    drawn = other.draw(stage, samples, pixels, 2, GREEDY, 3, 10)
    assert len(drawn) == len(expected) == 4 and max(len(r.places) for r in drawn) > 3
    for one, two in zip(expected, drawn, strict=True):
        for name in ("picture", "propose_ids", "refine_ids", "truncated", "ids", "places"):
            assert getattr(one, name) == getattr(two, name), name
        np.testing.assert_array_equal(one.legal, two.legal)
        np.testing.assert_allclose(one.log_probs, two.log_probs, atol=1e-4)
    turns = 4 if stage == "placement" else 2 + 4
    assert len(llm.requests) == turns and len({p.seed for p in llm.parameters}) == turns
    assert all(p.logprobs == 0 and p.ignore_eos and not p.detokenize for p in llm.parameters)


def test_budgets_cut_both_alike(pair):
    own, other, _ = pair
    samples = [world.render(0, (112, 56))]
    pixels = torch.from_numpy(PRE(samples[0].image_bgr)[0])[None]
    short = replace(GREEDY, propose_tokens=5)
    for stage in ("placement", "movement"):
        (one,), (two,) = (engine.draw(stage, samples, pixels, 1, short, 0, 0) for engine in (own, other))
        assert one.truncated and two.truncated
        assert (one.propose_ids, one.ids, one.places) == (two.propose_ids, two.ids, two.places)


def test_weights_go_through_a_folder(pair, loaded, tiny_checkpoint):
    _, other, llm = pair
    other.follow(loaded[0])
    (method, kwargs), (last, _) = llm.calls
    assert method == "reload_weights" and last == "reset_prefix_cache"
    reloaded, _ = load_checkpoint_without_tokenizer(kwargs["weights_path"])
    assert torch.equal(reloaded.lm_head.weight, loaded[0].lm_head.weight)
    there = {file.name for file in Path(kwargs["weights_path"]).iterdir()}
    assert there >= {file.name for file in tiny_checkpoint.iterdir() if file.is_file()}  # vLLM reads it all from here now


def load_checkpoint_without_tokenizer(folder):
    from transformers import Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32), None


def test_an_answer_without_the_mask_is_refused():
    first = 1000
    with pytest.raises(GetokError, match="at place 0, which the grammar does not allow"):
        replay(ProposeGrammar(LIMITS), first, [first + TOKEN_ID["</offset>"]], [-0.1])
    with pytest.raises(GetokError, match="at place 0"):
        replay(ProposeGrammar(LIMITS), first, [3], [-0.1])  # not a token of the table at all
    with pytest.raises(GetokError, match="log-probabilities"):
        chosen_log_probs(types.SimpleNamespace(token_ids=[1], logprobs=None))


def test_the_grammar_travels_as_plain_values():
    import json

    about = describe(7, GREEDY, [TOKEN_ID["</scene>"]])
    assert json.loads(json.dumps(about)) == about
    logits = Masker(about)([], torch.zeros(2048))
    assert torch.isfinite(logits).nonzero().flatten().tolist() == [7 + TOKEN_ID["<offset>"]]


def test_engines_by_name(loaded, tiny_checkpoint, tmp_path):
    model, layout = loaded
    rest = (model, tiny_checkpoint, layout, PRE, torch.device("cpu"), tmp_path)
    assert isinstance(open_engine("auto", *rest), OwnEngine)
    with pytest.raises(ConfigError, match="expected one of auto, own, vllm"):
        open_engine("trl", *rest)
    with pytest.raises(ConfigError, match="position rule"):
        VllmEngine(tiny_checkpoint, replace(layout, position_rule="image"), PRE, tmp_path, object())
