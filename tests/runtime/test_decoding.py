"""The constrained decoder on scripted logits: what it asks, what it skips, and what a budget leaves over."""

import time

import numpy as np
import pytest

from getok_drive.errors import BackendError, ConfigError
from getok_drive.runtime.backend import Geometry
from getok_drive.runtime.decoding import Budget, Prompt, decode, softmax
from getok_drive.runtime.fake import FakeBackend
from getok_drive.tokens.grammar import parse
from getok_drive.tokens.vocab import TABLE, TOKEN_ID, TOKENS

FIRST = 50
GEOMETRY = Geometry(
    vocab_size=FIRST + len(TOKENS) + 20, hidden_size=8, layers=1, heads=2, kv_heads=1, head_dim=16, rope_theta=10000.0,
    mrope_section=(2, 3, 3), position_rule="text", grid_hw=(4, 6), merge_size=2, patch_dim=588,
)  # fmt: skip
PROMPT = Prompt(before=(1, 2), after=(3, 4, 5), refine=(6, 7, 8, 9), first_token_id=FIRST)


def ids(text: str) -> list[int]:
    return [TOKEN_ID[f"<{word}>"] for word in text.split()]


LANE = ids("lane dashed white grid_9_31 grid_11_28 grid_12_20")
BOX = ids("box car grid_4_10 grid_8_14")
SIGN = ids("sign stop red grid_20_6")
PROPOSAL = [*LANE, *BOX, *SIGN, *ids("/scene")]


def answer(cell: str, *offsets: str) -> list[int]:
    return ids(" ".join((cell, *offsets)))


REFINEMENT = [
    *ids("offset"),
    *answer("grid_9_31", "OFF_1_0", "OFF_-1_0", "OFF_0_0"),
    *answer("grid_11_28", "OFF_0_0", "OFF_1_1", "OFF_0_-1"),
    *answer("grid_12_20", "DELETE"),
    *answer("grid_4_10", "OFF_-1_-1", "OFF_0_0", "OFF_0_0"),
    *answer("grid_8_14", "OFF_1_1", "OFF_0_0", "OFF_0_0"),
    *answer("grid_20_6", "OFF_0_1", "OFF_0_0", "OFF_1_0"),
    *ids("/offset"),
]


def script() -> list[int]:
    return [*(FIRST + t for t in PROPOSAL), *PROMPT.refine, *(FIRST + t for t in REFINEMENT)]


class Recorder(FakeBackend):
    """Remembers what it was fed."""

    def __init__(self, wanted: list[int], **options) -> None:
        super().__init__(GEOMETRY, wanted, **options)
        self.fed: list[list[int]] = []

    def step(self, ids):
        self.fed.append(list(ids))
        return super().step(ids)


def run(backend: FakeBackend, **options):
    visual = backend.encode(np.zeros((24, 588), np.float32))
    return decode(backend, backend.prefill(PROMPT.before, visual, PROMPT.after), PROMPT, **options)


def test_plays_both_turns():
    backend = Recorder(script())
    result = run(backend)
    assert result.propose_ids == PROPOSAL
    assert result.refine_ids == REFINEMENT
    assert not result.truncated
    assert len(result.propose_probs) == len(PROPOSAL)
    assert len(result.refine_probs) == len(REFINEMENT)
    assert result.passes == len(backend.fed)


def test_forced_tokens_cost_no_pass():
    backend = Recorder(script())
    run(backend)
    choices = sum(TABLE.offset_base <= t <= TABLE.delete for t in REFINEMENT)
    # Every token of the proposal is chosen; the prefill answers the first. In the refinement only offsets and <DELETE> are.
    assert len(backend.fed) == len(PROPOSAL) - 1 + choices
    turn = backend.fed[len(PROPOSAL) - 1]
    assert turn == [FIRST + PROPOSAL[-1], *PROMPT.refine, FIRST + TOKEN_ID["<offset>"], FIRST + TOKEN_ID["<grid_9_31>"]]
    assert [FIRST + TOKEN_ID["<OFF_0_0>"], FIRST + TOKEN_ID["<grid_11_28>"]] in backend.fed
    fed = [token for part in backend.fed for token in part]
    assert fed == script()[: len(fed)]  # nothing skipped, nothing twice, nothing after the last choice


def test_refinement_can_be_left_out():
    result = run(FakeBackend(GEOMETRY, script()), refine=False)
    assert result.propose_ids == PROPOSAL
    assert result.refine_ids is None
    assert not result.truncated


def test_an_empty_scene_is_not_refined():
    backend = Recorder([FIRST + TOKEN_ID["</scene>"]])
    result = run(backend)
    assert (result.propose_ids, result.refine_ids, result.passes) == (ids("/scene"), None, 0)


def test_only_the_wanted_kinds():
    backend = FakeBackend(GEOMETRY, [FIRST + t for t in SIGN] + [FIRST + TOKEN_ID["</scene>"]])
    assert run(backend, kinds=("sign",), refine=False).propose_ids == [*SIGN, *ids("/scene")]
    lanes_only = run(FakeBackend(GEOMETRY, script()), kinds=("lane",))
    assert set(ids("box sign drivable")).isdisjoint(lanes_only.propose_ids)


@pytest.mark.parametrize("tokens", range(2, len(PROPOSAL) + len(REFINEMENT) + 1))
def test_any_token_budget_leaves_finished_elements_only(tokens):
    result = run(FakeBackend(GEOMETRY, script()), budget=Budget(tokens=tokens))
    complete = tokens == len(PROPOSAL) + len(REFINEMENT)
    assert result.truncated is not complete
    lanes, drivable, boxes, signs, report = parse(
        result.propose_ids, result.refine_ids, size_wh=(640, 360), token_probs=result.token_probs
    )
    assert set(report.issues) <= {"not_refined"}
    found = len(lanes), len(drivable), len(boxes), len(signs)
    written = min(tokens, len(PROPOSAL))
    lane, box, sign = len(LANE) < written, len(LANE + BOX) <= written, len(LANE + BOX + SIGN) <= written
    assert found == (int(lane), 0, int(box), int(sign))


def test_time_budget():
    class Slow(FakeBackend):
        def step(self, ids):
            time.sleep(0.004)
            return super().step(ids)

    start = time.perf_counter()
    result = run(Slow(GEOMETRY, script()), budget=Budget(time_s=0.02))
    assert time.perf_counter() - start < 0.1
    assert result.truncated
    assert result.propose_ids[-1] == TOKEN_ID["</scene>"]
    assert result.refine_ids is None
    late = run(FakeBackend(GEOMETRY, script()), budget=Budget(time_s=1e-9))
    assert late.propose_ids == ids("/scene")
    assert late.truncated


def test_confidence_follows_the_logits():
    sure = run(FakeBackend(GEOMETRY, script(), confidence=20.0))
    unsure = run(FakeBackend(GEOMETRY, script(), confidence=7.0))
    assert min(sure.propose_probs) > 0.99
    expected = np.exp(7.0) / (np.exp(7.0) + len(TOKENS) - 1)
    assert unsure.propose_probs[0] == pytest.approx(expected, rel=1e-4)
    assert unsure.propose_probs[3] == pytest.approx(expected + 5 * (1 - expected) / (len(TOKENS) - 1), rel=1e-3)  # edge cell
    deleted = REFINEMENT.index(TABLE.delete)
    assert unsure.refine_probs[deleted] == pytest.approx(expected, rel=1e-4)
    # The first answer to each point records <DELETE>'s probability, the rounds after it nothing.
    assert unsure.refine_probs[2] == pytest.approx((1 - expected) / (len(TOKENS) - 1), rel=1e-3)
    assert unsure.refine_probs[3] == 0.0


def test_a_model_that_wants_nonsense_still_gives_a_valid_scene():
    rng = np.random.default_rng(0)

    class Noise(FakeBackend):
        def _next(self):
            super()._next()
            self._logits[:] = rng.normal(size=len(self._logits), scale=3.0)
            return self._logits

    for _ in range(20):
        result = run(Noise(GEOMETRY, [0]))
        *_, report = parse(result.propose_ids, result.refine_ids, size_wh=(640, 360), token_probs=result.token_probs)
        assert not report.issues
        assert not result.truncated


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_model_gives_no_confidence_and_no_exception(value):
    class Broken(FakeBackend):
        def _next(self):
            super()._next()
            self._logits[:] = value
            return self._logits

    result = run(Broken(GEOMETRY, [0]), budget=Budget(tokens=300))
    *elements, _ = parse(result.propose_ids, result.refine_ids, size_wh=(640, 360), token_probs=result.token_probs)
    assert all(element.confidence == 0.0 for kind in elements for element in kind)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="budget"):
        Budget(tokens=1)
    with pytest.raises(ConfigError, match="budget"):
        Budget(time_s=0.0)
    backend = FakeBackend(GEOMETRY, script())
    logits = backend.prefill((1,), np.zeros((6, 8)), (2,))
    with pytest.raises(BackendError, match="wrong bundle"):
        decode(backend, logits, Prompt((1,), (2,), (3,), first_token_id=100))


def test_softmax():
    scores = np.random.default_rng(0).normal(size=1090, scale=20).astype(np.float32)
    expected = np.exp(scores.astype(np.float64) - scores.max())
    np.testing.assert_allclose(softmax(scores), expected / expected.sum(), atol=1e-6)
