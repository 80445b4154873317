import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from getok_drive.errors import ConfigError, InputError
from getok_drive.tokens import masks
from getok_drive.tokens.codec import OFFSET_NONE
from getok_drive.tokens.elements import KINDS, canonical_elements, propose_ids, refine_ids
from getok_drive.tokens.grammar import (
    ClassifyGrammar,
    Grammar,
    Limits,
    ProposeGrammar,
    RefineGrammar,
    choose,
    decide,
    parse,
)
from getok_drive.tokens.refining import unmoved
from getok_drive.tokens.vocab import KIND_TOKENS, TABLE, TOKEN_ID, TOKENS, VISIBLE_STATES
from getok_drive.types import DrivableArea, Lane
from tests.tokens.scenes import random_scene

SIZE = (448, 252)
SMALL = Limits(lanes=2, lane_points=4, polygons=2, polygon_vertices=8, boxes=3, signs=2)


def ids(text: str) -> list[int]:
    return [TOKEN_ID[f"<{piece}"] for piece in text.split("<")[1:]]


def greedy(grammar: Grammar, rng: np.random.Generator, bias: np.ndarray, most: int = 4000) -> list[int]:
    while not grammar.done:
        assert len(grammar.ids) < most, "does not end"
        token = decide(grammar, rng.normal(0, 2, len(TOKENS)) + bias)
        assert grammar.accepts(token)
        grammar.advance(token)
    return list(grammar.ids)


def random_bias(rng: np.random.Generator) -> np.ndarray:
    """A model with strong habits: talkative or brief, fond of deleting, of some kinds, of some part of the image."""
    bias = np.zeros(len(TOKENS))
    bias[masks.END] = rng.choice([-20, 0, 0, 5])
    bias[TABLE.delete] = rng.choice([-20, 0, 3, 8])
    bias[[TOKEN_ID[t] for t in KIND_TOKENS]] = rng.choice([-5, 2, 6, 9], size=4)
    if rng.random() < 0.3:
        bias[: masks.GRID_COUNT] = -20
        bias[rng.integers(masks.GRID_COUNT, size=12)] = 0  # likes a dozen cells: collisions, dead ends
    bias[TABLE.offset_base : TABLE.delete] += rng.choice([0, 4], size=9)
    return bias


def assert_valid(result, size_wh=SIZE) -> None:
    lanes, drivable, boxes, signs, _ = result
    low, high = np.full(2, -0.5 - 1e-3), np.array(size_wh) - 0.5 + 1e-3
    points = [e.points_px for e in lanes] + [e.polygon_px for e in drivable]
    points += [e.xyxy_px.reshape(2, 2) for e in boxes] + [e.point_px[None] for e in signs]
    assert all(((p >= low) & (p <= high)).all() for p in points)
    assert all((np.diff(lane.points_px[:, 1]) <= 0).all() for lane in lanes)
    for area in drivable:
        polygon = shapely.Polygon(area.polygon_px)
        assert polygon.is_valid and polygon.area > 0


# --- constrained decoding ---


@pytest.mark.parametrize("block", range(10))
def test_whatever_the_model_likes_constrained_decoding_ends_and_parses(block):
    """200 random models a block, both turns: no issue, valid geometry, with and without the refinement."""
    rng = np.random.default_rng(block)
    deleted = elements = 0
    for _ in range(200):
        limits = Limits() if rng.random() < 0.05 else SMALL
        bias = random_bias(rng)
        proposal = greedy(ProposeGrammar(limits), rng, bias, limits.max_propose_tokens + 1)
        refinement = greedy(RefineGrammar(proposal, limits=limits), rng, bias, limits.max_refine_tokens() + 1)
        for refine in (None, refinement):
            result = parse(proposal, refine, size_wh=SIZE, limits=limits)
            assert result[-1].issues == {}
            assert_valid(result)
        deleted, elements = deleted + result[-1].deleted, elements + result[-1].elements
    assert deleted > 20 and elements > 200  # the run did meet both


@pytest.mark.parametrize(("rounds", "decided"), [(1, 1), (2, 2), (5, 5), (3, 1), (3, 2), (5, 2)])
def test_other_numbers_of_rounds(rounds, decided):
    rng = np.random.default_rng(rounds)
    for _ in range(30):
        bias = random_bias(rng)
        proposal = greedy(ProposeGrammar(SMALL), rng, bias)
        refinement = greedy(RefineGrammar(proposal, rounds, SMALL, decided), rng, bias)
        assert only_decided(refinement, decided)
        result = parse(proposal, refinement, size_wh=SIZE, rounds=rounds, limits=SMALL)
        assert result[-1].issues == {}
        assert_valid(result)


@pytest.mark.parametrize("seed", range(10))
def test_masks_agree_with_accepts_and_never_run_empty(seed):
    rng = np.random.default_rng(seed)
    bias = random_bias(rng)
    proposal = ProposeGrammar(SMALL)
    refinement = None
    for grammar in (proposal, lambda: RefineGrammar(proposal.ids, limits=SMALL)):
        grammar = grammar() if callable(grammar) else grammar
        while not grammar.done:
            legal = grammar.legal()
            assert legal.any()
            assert not (legal & ~grammar.allowed()).any()
            sample = rng.integers(-5, len(TOKENS) + 5, 60)
            assert all(grammar.accepts(int(t)) == (0 <= t < len(TOKENS) and legal[t]) for t in sample)
            assert (grammar.forced() is not None) == (grammar.allowed().sum() == 1)
            token = choose(grammar, rng.normal(0, 2, len(TOKENS)) + bias)
            assert legal[token]
            grammar.advance(token)
        assert not grammar.allowed().any() and grammar.forced() is None
        refinement = grammar.ids
    assert parse(proposal.ids, refinement, size_wh=SIZE, limits=SMALL)[-1].issues == {}


def test_choose_survives_scores_that_are_no_numbers():
    for scores in (np.full(len(TOKENS), np.nan), np.full(len(TOKENS), -np.inf), np.full(len(TOKENS), np.inf)):
        grammar = ProposeGrammar(SMALL)
        while not grammar.done:
            token = choose(grammar, scores)
            assert grammar.accepts(token)
            grammar.advance(token)
            if len(grammar.ids) == 20:
                break
    with pytest.raises(InputError):
        choose(ProposeGrammar(), np.zeros(3))


@pytest.mark.parametrize("seed", range(30))
def test_the_grammars_accept_what_training_teaches(seed):
    rng = np.random.default_rng(seed)
    elements = canonical_elements(*random_scene(rng, SIZE), SIZE)
    elements = [e for e in elements if e.kind != "drivable"] if seed % 2 else elements
    proposal = propose_ids(elements)
    refused = 0
    for grammar, teacher in ((ProposeGrammar(), proposal), (RefineGrammar(proposal), refine_ids(elements))):
        for token in teacher:
            refused += not grammar.accepts(token)
            grammar.advance(token)
        assert grammar.done
    # Polygons are checked with the later vertices still at their cells' centres, so now and then a true offset is refused.
    assert refused <= (0 if seed % 2 else 3)


def test_kinds_come_in_order_and_only_those_asked_for():
    grammar = ProposeGrammar(kinds=("box", "lane"))
    kinds = {TOKENS[t] for t in np.flatnonzero(grammar.allowed())}
    assert kinds == {"<lane>", "<box>", "</scene>"}
    for token in ids("<box><car><grid_1_1><grid_2_2>"):
        grammar.advance(token)
    assert {TOKENS[t] for t in np.flatnonzero(grammar.allowed())} == {"<box>", "</scene>"}
    with pytest.raises(ConfigError, match="tree"):
        ProposeGrammar(kinds=("tree",))
    with pytest.raises(InputError):
        grammar.advance(TOKEN_ID["<lane>"])


def advance(grammar: Grammar, text: str) -> None:
    for token in ids(text):
        assert grammar.accepts(token), TOKENS[token]
        grammar.advance(token)


def test_lane_and_box_geometry():
    grammar = ProposeGrammar()
    advance(grammar, "<lane><solid><white><grid_5_20>")
    assert not grammar.accepts(TOKEN_ID["<grid_5_21>"])  # down
    assert not grammar.accepts(TOKEN_ID["<grid_5_20>"])  # again
    assert not grammar.accepts(masks.END)  # one point is no lane
    advance(grammar, "<grid_4_20><grid_3_19><box><car><grid_5_5>")
    assert not grammar.accepts(TOKEN_ID["<grid_4_6>"])
    assert not grammar.accepts(TOKEN_ID["<grid_6_4>"])
    advance(grammar, "<grid_5_5></scene>")
    assert grammar.done


def test_no_box_and_no_sign_is_written_twice():
    grammar = ProposeGrammar()
    advance(grammar, "<box><car><grid_30_31><grid_31_31><box><car><grid_30_31>")
    assert not grammar.accepts(TOKEN_ID["<grid_31_31>"]) and grammar.accepts(TOKEN_ID["<grid_30_31>"])
    scores = np.zeros(len(TOKENS))
    scores[TOKEN_ID["<grid_31_31>"]] = 9
    assert choose(grammar, scores) == TOKEN_ID["<grid_30_31>"]
    advance(grammar, "<grid_30_31><box><car>")
    assert not grammar.accepts(TOKEN_ID["<grid_30_31>"]), "both boxes that begin here are written"
    assert np.flatnonzero(grammar.legal()[: masks.GRID_COUNT]).tolist() == sorted(set(range(1024)) - {31 * 32 + 30})
    advance(grammar, "<grid_31_31><grid_31_31><box><bus><grid_30_31><grid_31_31>")  # another class is another box
    advance(grammar, "<sign><stop><red><grid_3_3><sign><stop><red>")
    assert not grammar.accepts(TOKEN_ID["<grid_3_3>"])
    advance(grammar, "<grid_3_4><sign><stop><white><grid_3_3></scene>")
    *_, report = parse(grammar.ids, size_wh=SIZE)
    assert report.elements == 7 and not report.issues


def test_a_model_that_repeats_itself_still_ends():
    limits = Limits(boxes=1024, signs=1024)
    for kind, word in (("box", "car"), ("sign", "stop")):
        scores = np.zeros(len(TOKENS))
        scores[[TOKEN_ID[f"<{kind}>"], TOKEN_ID[f"<{word}>"], TOKEN_ID["<red>"]]] = 50
        scores[[1023, 1022, 991, 990]] = (40, 39, 38, 37)
        grammar = ProposeGrammar(limits, (kind,))
        while not grammar.done:
            grammar.advance(choose(grammar, scores))
        *_, boxes, signs, report = parse(grammar.ids, size_wh=SIZE, limits=limits)
        assert not report.issues and len(boxes) + len(signs) == 1024


def test_a_polygon_that_winds_round_its_start_takes_vertices_back():
    grammar = ProposeGrammar(Limits(polygon_vertices=8))
    advance(grammar, "<drivable><grid_15_15><grid_16_15><grid_16_13><grid_13_13><grid_13_17>")
    assert not grammar.accepts(TOKEN_ID["<grid_17_14>"])  # would cross an edge
    assert not grammar.accepts(TOKEN_ID["<grid_13_13>"])  # would run back
    advance(grammar, "<grid_18_17><grid_18_11><grid_10_11>")
    assert not grammar.accepts(masks.END)  # its closing edge would cross
    assert grammar.forced() == TABLE.delete
    while grammar.forced() == TABLE.delete:
        grammar.advance(TABLE.delete)
    assert not grammar.allowed()[: masks.GRID_COUNT].any()
    advance(grammar, "</scene>")
    _, drivable, _, _, report = parse(grammar.ids, size_wh=SIZE, limits=Limits(polygon_vertices=8))
    assert report.issues == {} and len(drivable) == 1
    assert RefineGrammar(grammar.ids).points == len(drivable[0].polygon_px)


def test_a_straight_polygon_is_taken_back_entirely():
    grammar = ProposeGrammar(Limits(polygon_vertices=3))
    advance(grammar, "<drivable><grid_1_1><grid_2_1><grid_3_1><DELETE>")
    assert {TOKENS[t] for t in np.flatnonzero(grammar.allowed())} >= {"</scene>", "<box>"}
    advance(grammar, "</scene>")
    *_, report = parse(grammar.ids, size_wh=SIZE)
    assert (report.issues, report.deleted, report.elements) == ({}, 1, 0)


def test_refinement_keeps_boxes_open():
    grammar = RefineGrammar(ids("<box><car><grid_5_5><grid_5_5></scene>"))
    advance(grammar, "<offset><grid_5_5><OFF_1_1><OFF_1_1>")
    assert not grammar.accepts(TOKEN_ID["<OFF_1_0>"])  # 7 steps right of the centre: the other corner reaches no further
    advance(grammar, "<OFF_0_0><grid_5_5>")
    assert not grammar.accepts(TOKEN_ID["<OFF_0_1>"])
    advance(grammar, "<OFF_1_1><OFF_1_1>")
    assert not grammar.accepts(TOKEN_ID["<OFF_0_1>"])
    advance(grammar, "<OFF_1_1></offset>")
    *_, boxes, _, report = parse(ids("<box><car><grid_5_5><grid_5_5></scene>"), grammar.ids, size_wh=(256, 256))
    assert report.issues == {} and boxes[0].xyxy_px.tolist() == [49.5, 49.5, 50.5, 50.5]


def test_refinement_stays_in_the_image_and_forces_what_is_given_back():
    grammar = RefineGrammar(ids("<sign><stop><red><grid_0_31></scene>"))
    assert grammar.forced() == masks.OFFSET_START
    grammar.advance(masks.OFFSET_START)
    assert grammar.forced() == TOKEN_ID["<grid_0_31>"]
    grammar.advance(TOKEN_ID["<grid_0_31>"])
    assert grammar.forced() is None and grammar.accepts(TABLE.delete)
    advance(grammar, "<OFF_-1_1>")
    assert not grammar.accepts(TABLE.delete)  # only as the first answer
    assert not grammar.accepts(TOKEN_ID["<OFF_-1_0>"]) and not grammar.accepts(TOKEN_ID["<OFF_0_1>"])
    advance(grammar, "<OFF_0_0><OFF_1_-1>")
    assert grammar.forced() == masks.OFFSET_END
    with pytest.raises(ConfigError):
        RefineGrammar([], rounds=0)
    with pytest.raises(ConfigError, match=r"1\.\.3 offset rounds to decide for .*, got 4"):
        RefineGrammar([], decided=4)


def test_rounds_that_are_not_decided_are_forced_to_stay():
    grammar = RefineGrammar(ids("<box><car><grid_5_5><grid_9_9></scene>"), decided=1)
    advance(grammar, "<offset><grid_5_5>")
    assert grammar.forced() is None
    advance(grammar, "<OFF_1_1>")
    assert grammar.forced() == TOKEN_ID["<OFF_0_0>"]
    advance(grammar, "<OFF_0_0><OFF_0_0>")
    assert grammar.forced() == TOKEN_ID["<grid_9_9>"]


def test_rounds_may_differ_by_kind():
    decided = {"lane": 3, "drivable": 2, "box": 1, "sign": 2}
    proposal = ids("<box><car><grid_5_5><grid_9_9><sign><stop><red><grid_3_3></scene>")
    grammar = RefineGrammar(proposal, decided=decided)
    advance(grammar, "<offset><grid_5_5><OFF_1_1>")
    assert grammar.forced() == OFFSET_NONE
    advance(grammar, "<OFF_0_0><OFF_0_0><grid_9_9><OFF_0_1><OFF_0_0><OFF_0_0><grid_3_3><OFF_0_1>")
    assert grammar.forced() is None
    advance(grammar, "<OFF_1_0>")
    assert grammar.forced() == OFFSET_NONE
    with pytest.raises(ConfigError, match="for lane, drivable, box, sign"):
        RefineGrammar(proposal, decided={"lane": 3})


def test_budget_hands_over_finished_elements():
    text = "<lane><solid><white><grid_5_20><grid_6_10><box><car><grid_1_1><grid_4_4><box><bus><grid_3_3>"
    grammar = ProposeGrammar()
    advance(grammar, text)
    handed = grammar.finished_ids()
    assert handed == ids("<lane><solid><white><grid_5_20><grid_6_10><box><car><grid_1_1><grid_4_4></scene>")
    refine = RefineGrammar(handed)
    advance(refine, "<offset><grid_5_20><OFF_1_0><OFF_0_0><OFF_0_0><grid_6_10><OFF_0_0><OFF_0_0><OFF_0_0><grid_1_1><OFF_1_1>")
    lanes, _, boxes, _, report = parse(handed, refine.finished_ids(), size_wh=SIZE)
    assert len(lanes) == len(boxes) == 1 and report.issues == {"not_refined": 1}
    assert ProposeGrammar().finished_ids() == [masks.END]
    assert RefineGrammar(handed).finished_ids() == [masks.OFFSET_START, masks.OFFSET_END]


def test_an_unfinished_polygon_is_not_handed_over():
    grammar = ProposeGrammar()
    advance(grammar, "<drivable><grid_1_31><grid_5_5><grid_20_31>")
    assert grammar.finished_ids() == [masks.END]


def test_classification_is_one_word():
    grammar = ClassifyGrammar(VISIBLE_STATES)
    scores = np.zeros(len(TOKENS))
    scores[TOKEN_ID["<car>"]], scores[TOKEN_ID["<mostly_occluded>"]] = 9, 1
    grammar.advance(choose(grammar, scores))
    assert grammar.done and grammar.word == "mostly_occluded" and not grammar.allowed().any()
    with pytest.raises(InputError):
        grammar.advance(TOKEN_ID["<mostly_occluded>"])
    with pytest.raises(ConfigError, match="zebra"):
        ClassifyGrammar(["zebra"])


def test_masks_are_shared_and_cannot_be_written():
    assert ProposeGrammar().allowed() is ProposeGrammar().allowed()
    with pytest.raises(ValueError, match="read-only"):
        ProposeGrammar().allowed()[0] = True


@given(st.integers(0, 5), st.data())
@settings(max_examples=60)
def test_polygon_refinement_can_always_stay(seed, data):
    """However the earlier vertices moved, <OFF_0_0> is legal for the next one."""
    rng = np.random.default_rng(seed)
    proposal = greedy(
        ProposeGrammar(SMALL, kinds=("drivable",)), rng, np.zeros(len(TOKENS)) - 20 * (np.arange(len(TOKENS)) == masks.END)
    )
    grammar = RefineGrammar(proposal, limits=SMALL)
    while not grammar.done:
        forced = grammar.forced()
        assert forced is not None or grammar.accepts(OFFSET_NONE)
        token = forced if forced is not None else data.draw(st.integers(TABLE.offset_base, TABLE.delete))
        grammar.advance(token if grammar.accepts(token) else OFFSET_NONE)


def test_kinds_are_those_of_the_table():
    assert [f"<{kind}>" for kind in KINDS] == list(KIND_TOKENS)
    assert all(Limits().points(kind) and Limits().elements(kind) for kind in KINDS)


def test_true_offsets_of_a_smooth_road_pass():
    t = np.linspace(0, 1, 10)
    left, right = np.stack([40 + 170 * t, 251 - 130 * t], 1), np.stack([430 - 190 * t, 251 - 130 * t], 1)[::-1]
    lanes = [Lane(left), Lane(right)]
    elements = canonical_elements(lanes, [DrivableArea(np.concatenate([left, right]))], [], [], SIZE)
    grammar = RefineGrammar(propose_ids(elements))
    for token in refine_ids(elements):
        assert grammar.accepts(token)
        grammar.advance(token)


def test_unmoved_keeps_deletions_only():
    answers = "offset grid_3_4 OFF_1_0 OFF_-1_1 OFF_0_1 grid_9_9 DELETE grid_1_1 OFF_0_1 OFF_1_1 OFF_1_0 /offset"
    still = "offset grid_3_4 OFF_0_0 OFF_0_0 OFF_0_0 grid_9_9 DELETE grid_1_1 OFF_0_0 OFF_0_0 OFF_0_0 /offset"
    assert unmoved([TOKEN_ID[f"<{word}>"] for word in answers.split()]) == [TOKEN_ID[f"<{word}>"] for word in still.split()]


def only_decided(ids: list[int], decided: int) -> bool:
    """Whether later rounds move nothing."""
    number = 0
    for token in ids:
        number = number + 1 if TABLE.offset_base <= token < TABLE.delete else 0
        if number > decided and token != OFFSET_NONE:
            return False
    return True
