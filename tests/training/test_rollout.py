"""Rollouts: the runtime's decoder at temperature 0, and the same distribution in rollout and training at any other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from getok_drive.errors import ConfigError, GetokError  # noqa: E402
from getok_drive.preprocess import Preprocessor  # noqa: E402
from getok_drive.runtime.backend import Geometry  # noqa: E402
from getok_drive.runtime.decoding import Budget, Prompt, decode  # noqa: E402
from getok_drive.runtime.torch import TorchBackend  # noqa: E402
from getok_drive.tokens.grammar import ProposeGrammar, RefineGrammar  # noqa: E402
from getok_drive.tokens.limits import Limits  # noqa: E402
from getok_drive.tokens.positions import PositionSpec  # noqa: E402
from getok_drive.tokens.vocab import TOKEN_ID, TOKENS  # noqa: E402
from training.collate import Layout  # noqa: E402
from training.conversations import Conversations  # noqa: E402
from training.datasets import world  # noqa: E402
from training.model import SIZES, build_model, build_tokenizer, load_checkpoint, position_rule  # noqa: E402
from training.policy import Answers, Policy, group_advantages, grpo_terms  # noqa: E402
from training.rollout import Sampler, log_prob_of, pick, write  # noqa: E402
from training.sampling import Sampling, until  # noqa: E402
from training.visual import encode_pictures  # noqa: E402

LIMITS = Limits(lanes=2, lane_points=4, polygons=1, polygon_vertices=5, boxes=3, signs=2)
PRE = Preprocessor((112, 56))
MERGED = (2, 4)
SEED = 7


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, tmp_path_factory):
    """`tiny_checkpoint`, but reluctant to end the scene, so that answers are long."""
    model, tokenizer = load_checkpoint(tiny_checkpoint)
    layout = Layout.of(tokenizer, model.config)
    with torch.no_grad():
        hidden = model.model.language_model(input_ids=torch.tensor([layout.after])).last_hidden_state[0, -1]
        model.lm_head.weight[layout.first_id + TOKEN_ID["</scene>"]] = -hidden / hidden.norm()
    folder = tmp_path_factory.mktemp("talkative")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(checkpoint):
    model, tokenizer = load_checkpoint(checkpoint)
    return model.eval(), Layout.of(tokenizer, model.config)


@pytest.fixture(scope="module")
def pixels():
    return torch.from_numpy(np.stack([PRE(world.render(seed, (112, 56)).image_bgr)[0] for seed in range(3)]))


def sampler(loaded, **change):
    return Sampler(*loaded, PRE.grid_hw, replace(Sampling(limits=LIMITS), **change))


def runtime_decoder(checkpoint, loaded, pixels):
    model, layout = loaded
    text = model.config.text_config
    rope = text.rope_parameters
    geometry = Geometry(
        text.vocab_size, text.hidden_size, text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads,
        text.hidden_size // text.num_attention_heads, rope["rope_theta"], tuple(rope["mrope_section"]),
        position_rule(model.config), PRE.grid_hw, 2, 588,
    )  # fmt: skip
    spec = PositionSpec(layout.position_rule, len(layout.before), geometry.merged_hw, layout.first_id)
    backend = TorchBackend(checkpoint, geometry, spec, 1024, device="cpu")
    prompt = Prompt(layout.before, layout.after, layout.refine_turn, layout.first_id)
    for image in pixels.numpy():
        logits = backend.prefill(layout.before, backend.encode(image), layout.after)
        yield decode(backend, logits, prompt, limits=LIMITS, budget=Budget(4096))


def test_greedy_equals_the_runtime(checkpoint, loaded, pixels):
    own = sampler(loaded, temperature=0.0).move(pixels, 1, SEED)
    placed = sampler(loaded, temperature=0.0).place(pixels, 1, SEED)
    decoded = list(runtime_decoder(checkpoint, loaded, pixels))
    assert any(len(d.propose_ids) > 10 for d in decoded)
    for rollout, proposal, expected in zip(own, placed, decoded, strict=True):
        assert rollout.propose_ids == proposal.propose_ids == expected.propose_ids
        assert rollout.refine_ids == (expected.refine_ids or [TOKEN_ID["<offset>"], TOKEN_ID["</offset>"]])
        assert not rollout.truncated


def test_every_answer_is_legal_and_groups_differ(loaded, pixels):
    for rollout in sampler(loaded).place(pixels, 4, SEED):
        grammar = ProposeGrammar(LIMITS)
        for token in rollout.propose_ids:
            assert grammar.accepts(token)
            grammar.advance(token)
        assert grammar.done
    moved = sampler(loaded, proposal_temperature=1.0).move(pixels, 4, SEED)
    for rollout in moved:
        grammar = RefineGrammar(rollout.propose_ids, limits=LIMITS)
        for token in rollout.refine_ids or ():
            assert grammar.accepts(token)
            grammar.advance(token)
        assert grammar.done
    assert len({tuple(r.propose_ids) for r in moved}) == 3  # one proposal a picture
    longest = max(range(3), key=lambda picture: len(moved[4 * picture].places))
    assert len({tuple(r.refine_ids or ()) for r in moved[4 * longest : 4 * longest + 4]}) == 4


def test_draws_depend_on_the_seed_and_the_row_alone(loaded, pixels):
    first, again = (sampler(loaded).place(pixels, 2, SEED) for _ in range(2))
    assert [r.propose_ids for r in first] == [r.propose_ids for r in again]
    assert [r.propose_ids for r in sampler(loaded).place(pixels[:1], 2, SEED)] == [r.propose_ids for r in first[:2]]
    assert [r.propose_ids for r in sampler(loaded).place(pixels[1:], 2, SEED, first=1)] == [r.propose_ids for r in first[2:]]
    assert [r.propose_ids for r in sampler(loaded).place(pixels, 2, 8)] != [r.propose_ids for r in first]


def test_a_scene_can_be_drawn_up_to_a_kind(loaded, pixels):
    later = {TOKEN_ID["<box>"], TOKEN_ID["<sign>"]}
    rollouts = sampler(loaded, last_kind="drivable").place(pixels, 4, SEED)
    assert any(r.ids and r.ids[-1] - loaded[1].first_id in later for r in rollouts)  # the choice to go on is a decision too
    for rollout in rollouts:
        assert not later & set(rollout.propose_ids) and not rollout.truncated
        assert rollout.propose_ids[-1] == TOKEN_ID["</scene>"]
    whole = sampler(loaded, proposal_temperature=1.0).move(pixels, 2, SEED)
    lanes = sampler(loaded, proposal_temperature=1.0, last_kind="lane").move(pixels, 2, SEED)
    for rollout, full in zip(lanes, whole, strict=True):
        assert rollout.propose_ids == full.propose_ids  # what is refined was proposed as ever
        own = until(rollout.propose_ids, Sampling(last_kind="lane").stops)
        assert [t for t in rollout.refine_ids or () if t < 1024] == [t for t in own if t < 1024]
    assert sum(len(r.places) for r in lanes) < sum(len(r.places) for r in whole)
    with pytest.raises(ConfigError, match="last_kind"):
        Sampling(last_kind="tree")


@torch.no_grad()
def test_drawn_proposals_can_be_refined_before_they_are_judged(loaded, pixels):
    whole = sampler(loaded, temperature=0.0, refine_proposals=True).place(pixels, 2, SEED)
    moved = sampler(loaded, temperature=0.0).move(pixels, 2, SEED)
    assert [r.refine_ids for r in whole] == [r.refine_ids for r in moved]
    plain = sampler(loaded, last_kind="drivable").place(pixels, 3, SEED)
    rollouts = sampler(loaded, last_kind="drivable", refine_proposals=True).place(pixels, 3, SEED)
    assert len({len(r.propose_ids) for r in rollouts}) > 1  # some end before others, and wait
    for rollout, unrefined in zip(rollouts, plain, strict=True):
        assert rollout.propose_ids == unrefined.propose_ids and rollout.places == unrefined.places and not rollout.truncated
        alone = Conversations(loaded[0], loaded[1], pixels[rollout.picture : rollout.picture + 1], PRE.grid_hw)
        alone.waiting[0] += [*(loaded[1].first_id + t for t in rollout.propose_ids), *loaded[1].refine_turn]
        grammar = RefineGrammar(rollout.propose_ids, limits=LIMITS)
        write(alone, [grammar], loaded[1].first_id, 1024, 0.0, [np.random.default_rng(0)], True)
        assert rollout.refine_ids == grammar.finished_ids()


def test_a_shared_row_holds_the_proposal_once(loaded, pixels):
    rollouts = sampler(loaded, proposal_temperature=1.0).move(pixels, 3, SEED)
    answers = Answers.of(rollouts, pixels, loaded[1], MERGED, True)
    prompt = (answers.segments == -1).sum(dim=1)
    fixed = len(loaded[1].before) + MERGED[0] * MERGED[1] + len(loaded[1].after)
    for row, rollout in enumerate(rollouts[::3]):
        if rollout.places:
            assert prompt[row] == fixed + rollout.places[0]


@pytest.mark.parametrize("train_vision", [False, True])
def test_what_learns_has_a_gradient(pixels, train_vision):
    """Processes that average gradients wait for every parameter that learns."""
    tokenizer = build_tokenizer()
    model = build_model(replace(SIZES["tiny"], cell_channels=8, cell_blocks=2, cell_glances=2), tokenizer).eval()
    layout = Layout.of(tokenizer, model.config)
    policy = Policy(model, train_vision)
    rollouts = Sampler(model, layout, PRE.grid_hw, Sampling(limits=LIMITS)).place(pixels, 4, SEED)
    log_probs, _ = policy(Answers.of(rollouts, pixels, layout, MERGED, True), PRE.grid_hw, 1.0)
    log_probs.sum().backward()
    learning = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    assert any(".visual." in name for name in learning) == train_vision
    assert [name for name, p in learning.items() if p.grad is None] == []


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("stage", ["place", "move"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_training_sees_the_distribution_that_was_sampled_from(loaded, pixels, stage, shared, temperature):
    model, layout = loaded
    rollouts = getattr(sampler(loaded, temperature=temperature, proposal_temperature=1.0), stage)(pixels, 3, SEED)
    answers = Answers.of(rollouts, pixels, layout, MERGED, shared)
    assert len(answers.ids) == (3 if shared else 9)
    with torch.no_grad():
        log_probs, entropy = Policy(model)(answers, PRE.grid_hw, temperature)
    drawn = np.concatenate([r.log_probs for r in rollouts])
    assert len(drawn) > 30
    np.testing.assert_allclose(log_probs.numpy(), drawn, atol=2e-5)
    assert (entropy >= -1e-6).all() and entropy.max() > 0.5


def test_shared_prefix_gives_the_same_gradients(loaded, pixels):
    model, layout = loaded
    rollouts = sampler(loaded).place(pixels, 3, SEED)
    gradients = []
    for shared in (False, True):
        policy = Policy(model)
        policy.zero_grad()
        log_probs, _ = policy(Answers.of(rollouts, pixels, layout, MERGED, shared), PRE.grid_hw, 1.0)
        log_probs.sum().backward()
        gradients.append({name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None})
    policy.zero_grad()
    assert any("visual" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()), err_msg=name)


def test_part_of_a_batch_counts_pictures_from_its_own_first(loaded, pixels):
    model, layout = loaded
    rollouts = sampler(loaded).place(pixels, 2, SEED)
    with torch.no_grad():
        whole, _ = Policy(model)(Answers.of(rollouts, pixels, layout, MERGED, True), PRE.grid_hw, 1.0)
        part, _ = Policy(model)(Answers.of(rollouts[2:], pixels[1:], layout, MERGED, True), PRE.grid_hw, 1.0)
    np.testing.assert_allclose(part.numpy(), whole.numpy()[-len(part) :], atol=1e-5)


def test_a_budget_cuts_an_answer_to_its_finished_elements(loaded, pixels):
    for rollout in sampler(loaded, propose_tokens=9).place(pixels, 2, SEED):
        assert rollout.propose_ids[-1] == TOKEN_ID["</scene>"]
        assert len(rollout.ids) <= 9
    cut = sampler(loaded, propose_tokens=1, proposal_temperature=1.0).move(pixels, 2, SEED)
    assert any(r.truncated for r in cut)
    assert all(not r.places and not r.ids for r in cut)  # what is cut short is not refined
    assert any(r.truncated for r in sampler(loaded, refine_tokens=6, proposal_temperature=1.0).move(pixels, 2, SEED))


def test_a_diverged_model_is_named(tiny_checkpoint, pixels):
    model, tokenizer = load_checkpoint(tiny_checkpoint)
    model.lm_head.weight.data[:] = float("nan")
    with pytest.raises(GetokError, match="diverged"):
        Sampler(model, Layout.of(tokenizer, model.config), PRE.grid_hw, Sampling(limits=LIMITS)).place(pixels[:1], 1, SEED)


def test_picking_follows_the_softmax():
    scores, legal = np.zeros(len(TOKENS), np.float32), np.zeros(len(TOKENS), bool)
    scores[[3, 5, 8]], legal[[3, 5]] = [np.log(3.0), 0.0, 50.0], True
    rng = np.random.default_rng(0)
    drawn = [pick(scores, legal, 1.0, rng) for _ in range(4000)]
    assert {token for token, _ in drawn} == {3, 5}
    assert np.mean([token == 3 for token, _ in drawn]) == pytest.approx(0.75, abs=0.03)
    assert dict(drawn) == pytest.approx({3: np.log(0.75), 5: np.log(0.25)})
    assert pick(scores, legal, 0.5, rng)[1] in (pytest.approx(np.log(0.9)), pytest.approx(np.log(0.1)))
    assert log_prob_of(scores, legal, 3) == pytest.approx(np.log(0.75))


def test_towers_with_windows_are_encoded_by_transformers(tiny_checkpoint, pixels):
    model, _ = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        full = encode_pictures(model, pixels, PRE.grid_hw).tokens
        model.model.visual.fullatt_block_indexes, model.model.visual.window_size = [], 10_000  # one window: the whole picture
        np.testing.assert_allclose(encode_pictures(model, pixels, PRE.grid_hw).tokens, full, atol=1e-4)


def test_senseless_sampling_is_refused():
    with pytest.raises(ConfigError, match="temperatures"):
        Sampling(temperature=-1.0)


# --- the loss --------------------------------------------------------------------------------------------------------


def test_advantages_by_hand():
    rewards = np.array([[1.0, 0.0, 1.0, 0.0], [0.3, 0.3, 0.3, 0.3]])
    assert group_advantages(rewards, epsilon=0.0) == pytest.approx(np.array([[1, -1, 1, -1], [0, 0, 0, 0]]))
    assert group_advantages(rewards, normalise=False) == pytest.approx(np.array([[0.5, -0.5, 0.5, -0.5], [0, 0, 0, 0]]))
    assert not group_advantages(np.full((1, 8), 0.1 + 0.2)).any()


def test_loss_by_hand():
    old = torch.zeros(4)
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5])
    log_probs = ratio.log().requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    terms = grpo_terms(log_probs, old, log_probs.detach(), advantages, 0.2, 0.3, 0.0)
    assert terms.loss.tolist() == pytest.approx([-1.3, 1.5, -0.5, 0.8])
    assert terms.clipped.tolist() == [True, False, False, True]
    terms.loss.sum().backward()
    assert log_probs.grad.tolist() == pytest.approx([0.0, 1.5, -0.5, 0.0])


def test_kl_by_hand():
    log_probs = torch.log(torch.tensor([0.5, 0.5]))
    reference = torch.log(torch.tensor([0.25, 0.5]))
    terms = grpo_terms(log_probs, log_probs, reference, torch.zeros(2), 0.2, 0.2, 0.01)
    expected = 0.5 - np.log(0.5) - 1.0
    assert terms.kl.tolist() == pytest.approx([expected, 0.0])
    assert terms.loss.tolist() == pytest.approx([0.01 * expected, 0.0])
