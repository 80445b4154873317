import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from getok_drive.errors import InputError
from getok_drive.tokens import masks
from getok_drive.tokens.codec import cells_to_points_px
from getok_drive.tokens.confidence import Calibration, TokenProbs
from getok_drive.tokens.elements import canonical_elements, propose_ids, refine_ids
from getok_drive.tokens.grammar import ISSUES, Limits, parse
from getok_drive.tokens.vocab import TABLE, TOKEN_ID, TOKENS
from tests.tokens.scenes import random_scene
from tests.tokens.test_grammar import assert_valid, ids

SIZE = (320, 320)  # a cell is 10 x 10 pixels, its centre at 10 * i + 4.5
STAY = "<OFF_0_0><OFF_0_0><OFF_0_0>"
KEYS = np.array(
    [TOKEN_ID[t] for t in ("<lane>", "<drivable>", "<box>", "<sign>", "</scene>", "<offset>", "</offset>", "<DELETE>")]
)


def shuffled_tokens(rng: np.random.Generator, count: int) -> np.ndarray:
    """Tokens of all sorts, the rare ones often, some out of range."""
    sorts = rng.integers(0, 6, count)
    choices = [
        rng.integers(0, masks.GRID_COUNT, count),
        rng.integers(0, 4, count) * 33 + rng.integers(0, 4, count),  # a few cells, so that they meet
        rng.integers(TABLE.offset_base, TABLE.delete + 1, count),
        rng.choice(KEYS, count),
        rng.integers(KEYS[-1], len(TOKENS), count),
        rng.integers(-10, len(TOKENS) + 10, count),
    ]
    return np.choose(sorts, choices)


@pytest.mark.parametrize("block", range(10))
def test_100_000_random_sequences_raise_nothing(block):
    """10,000 a block: lengths 0..16, both turns; what comes out is valid, what does not is counted by a known reason."""
    rng = np.random.default_rng(block)
    lengths = rng.integers(0, 17, (10_000, 2))
    tokens = shuffled_tokens(rng, int(lengths.sum())).tolist()
    at, elements, reasons = 0, 0, set()
    for first, second in lengths.tolist():
        propose, refine = tokens[at : at + first], tokens[at + first : at + first + second]
        at += first + second
        result = parse(propose, refine if second % 3 else None, size_wh=SIZE)
        report = result[-1]
        assert report.tokens == first + (second if second % 3 else 0)
        reasons.update(report.issues)
        elements += report.elements
        if report.elements:
            assert_valid(result, SIZE)
    assert reasons <= set(ISSUES)
    assert elements > 50


def damaged(rng: np.random.Generator, tokens: list[int]) -> list[int]:
    """A good text with a few tokens replaced, dropped or doubled."""
    tokens = list(tokens)
    for _ in range(int(rng.integers(1, 6))):
        at, what = int(rng.integers(len(tokens))), rng.integers(3)
        tokens[at : at + 1] = [[int(shuffled_tokens(rng, 1)[0])], [], tokens[at : at + 1] * 2][what]
        if not tokens:
            break
    return tokens


def test_damaged_texts_lose_little():
    """A slip in a good text is counted, and costs the elements it touches, not the scene."""
    rng = np.random.default_rng(0)
    kept = total = 0
    for _ in range(150):
        elements = canonical_elements(*random_scene(rng, SIZE), SIZE)
        result = parse(damaged(rng, propose_ids(elements)), damaged(rng, refine_ids(elements)), size_wh=SIZE)
        assert_valid(result, SIZE)
        assert set(result[-1].issues) <= set(ISSUES)
        kept, total = kept + result[-1].elements, total + len(elements)
    assert kept > 0.6 * total


@given(st.lists(st.integers(), max_size=12), st.none() | st.lists(st.integers(), max_size=12))
def test_any_integers_at_all(propose, refine):
    parse(propose, refine, size_wh=SIZE)


def test_numpy_ids_are_welcome():
    *_, signs, report = parse(np.array(ids("<sign><stop><red><grid_3_4></scene>")), size_wh=SIZE)
    assert report.issues == {} and signs[0].point_px.tolist() == [34.5, 44.5]


GOOD = "<lane><dashed><yellow><grid_1_9><grid_2_5></scene>"


@pytest.mark.parametrize(
    ("text", "refine", "issues"),
    [
        ("", None, {"missing_end": 1}),
        ("<grid_1_1></scene>", None, {"stray_point": 1}),
        ("<stop></scene>", None, {"stray_word": 1}),
        ("<OFF_0_0><seg></scene>", None, {"stray_token": 2}),
        ("<DELETE></scene>", None, {"stray_token": 1}),
        ("</scene><box>", None, {"after_end": 1}),
        ("<box><grid_1_1><grid_2_2></scene>", None, {"head_incomplete": 1}),
        ("<box><car><bus><grid_1_1><grid_2_2></scene>", None, {"stray_word": 1}),
        ("<box><car><grid_1_1></scene>", None, {"box_too_short": 1}),
        ("<sign><stop><red></scene>", None, {"sign_too_short": 1}),
        ("<lane><solid><white><grid_1_1></scene>", None, {"lane_too_short": 1}),
        ("<drivable><grid_1_1><grid_2_2></scene>", None, {"drivable_too_short": 1}),
        ("<box><car><grid_1_1><grid_2_2><grid_3_3></scene>", None, {"surplus_point": 1}),
        ("<box><car><grid_2_1><grid_1_2></scene>", None, {"box_inverted": 1}),
        ("<box><car><grid_1_1><grid_2_2><box><bus><grid_1_1><grid_2_2>" * 2 + "</scene>", None, {"repeated_element": 2}),
        ("<sign><stop><red><grid_1_1>" * 3 + "</scene>", None, {"repeated_element": 2}),
        (
            "<lane><solid><white><grid_1_9><grid_1_9><grid_2_8><grid_2_9></scene>",
            None,
            {"repeated_point": 1, "lane_goes_down": 1},
        ),
        ("<drivable><grid_1_9><grid_9_1><grid_9_9><grid_1_1></scene>", None, {"polygon_not_simple": 1}),
        ("<lane><solid><white><grid_1_9><grid_2_8>", None, {"missing_end": 1, "unfinished_element": 1}),
        ("<box><car><grid_1_1><grid_2_2>", None, {"missing_end": 1}),
        (GOOD, "", {"missing_start": 1, "missing_end": 1, "not_refined": 1}),
        (GOOD, "<offset></offset><OFF_0_0>", {"not_refined": 1, "after_end": 1}),
        (GOOD, "<offset><OFF_0_0></offset>", {"stray_token": 1, "not_refined": 1}),
        (GOOD, f"<offset><grid_9_9>{STAY}</offset>", {"unknown_anchor": 1, "stray_token": 3, "not_refined": 1}),
        (GOOD, f"<offset><grid_2_5>{STAY}</offset>", {"not_refined": 1}),
        (GOOD, f"<offset><grid_1_9><OFF_0_0><grid_2_5>{STAY}<OFF_1_1></offset>", {"missing_offset": 1, "surplus_offset": 1}),
        (GOOD, f"<offset><grid_1_9>{STAY}<DELETE><grid_2_5>{STAY}</offset>", {"late_delete": 1}),
        ("<box><car><grid_5_5><grid_5_5></scene>", f"<offset><grid_5_5>{STAY}<grid_5_5>{STAY}</offset>", {"box_empty": 1}),
    ],
)
def test_each_fault_has_its_reason(text, refine, issues):
    *_, report = parse(ids(text), None if refine is None else ids(refine), size_wh=SIZE)
    assert report.issues == issues
    assert set(issues) <= set(ISSUES)
    assert report.dropped == sum(issues.values())


def test_unknown_tokens_and_limits_are_counted():
    *_, report = parse([5000, -1, 10**30, masks.END], size_wh=SIZE)
    assert report.issues == {"unknown_token": 3}
    limits = Limits(lanes=0, polygons=0, boxes=1, signs=0)
    text = (
        GOOD[:-8]
        + "<drivable><grid_1_9><grid_1_1><grid_5_9>"
        + "<box><car><grid_1_1><grid_2_2><box><car><grid_1_1><grid_2_3>"
        + "<sign><stop><red><grid_1_1></scene>"
    )
    *_, report = parse(ids(text), size_wh=SIZE, limits=limits)
    assert report.issues == {"too_many_lanes": 1, "too_many_polygons": 1, "too_many_boxes": 1, "too_many_signs": 1}
    assert report.elements == 1


def test_without_refinement_points_are_cell_centres_and_flat_boxes_take_their_cells():
    lanes, *_ = parse(ids(GOOD), size_wh=SIZE)
    assert lanes[0].points_px.tolist() == cells_to_points_px(ids("<grid_1_9><grid_2_5>"), SIZE).tolist()
    assert (lanes[0].type, lanes[0].color, lanes[0].confidence) == ("dashed", "yellow", 1.0)
    _, _, boxes, _, _ = parse(ids("<box><truck><grid_5_5><grid_5_7></scene>"), size_wh=SIZE)
    assert boxes[0].xyxy_px.tolist() == [49.5, 54.5, 59.5, 74.5]


def refined(text: str, refine: str):
    return parse(ids(text + "</scene>"), ids(f"<offset>{refine}</offset>"), size_wh=SIZE)


def test_delete_removes_a_vertex_of_a_lane_or_polygon():
    lane = "<lane><solid><white><grid_1_9><grid_2_5><grid_3_3>"
    lanes, *_, report = refined(lane, f"<grid_1_9>{STAY}<grid_2_5><DELETE><grid_3_3>{STAY}")
    assert lanes[0].points_px.tolist() == [[14.5, 94.5], [34.5, 34.5]]
    assert (report.deleted, report.elements, report.issues) == (0, 1, {})
    area = "<drivable><grid_1_9><grid_1_1><grid_9_1><grid_9_9>"
    answers = f"<grid_1_9>{STAY}<grid_1_1>{STAY}<grid_9_1><DELETE><grid_9_9>{STAY}"
    _, drivable, *_, report = refined(area, answers)
    assert drivable[0].polygon_px.tolist() == [[14.5, 94.5], [14.5, 14.5], [94.5, 94.5]]
    assert (report.deleted, report.issues) == (0, {})


@pytest.mark.parametrize(
    ("text", "refine"),
    [
        ("<lane><solid><white><grid_1_9><grid_2_5>", f"<grid_1_9><DELETE><grid_2_5>{STAY}"),
        ("<drivable><grid_1_9><grid_1_1><grid_9_1>", f"<grid_1_9>{STAY}<grid_1_1>{STAY}<grid_9_1><DELETE>"),
        ("<box><car><grid_1_1><grid_2_2>", f"<grid_1_1><DELETE><grid_2_2>{STAY}"),
        ("<box><car><grid_1_1><grid_2_2>", f"<grid_1_1>{STAY}<grid_2_2><DELETE>"),
        ("<box><car><grid_1_1><grid_2_2>", "<grid_1_1><DELETE><grid_2_2><DELETE>"),
        ("<sign><stop><red><grid_1_1>", "<grid_1_1><DELETE>"),
    ],
)
def test_delete_removes_what_is_too_small_without_its_point(text, refine):
    *_, report = refined(text, refine)
    assert (report.deleted, report.elements, report.issues) == (1, 0, {})


def test_offsets_move_by_halves():
    _, _, _, signs, _ = refined("<sign><stop><red><grid_4_4>", "<grid_4_4><OFF_1_-1><OFF_0_1><OFF_-1_0>")
    assert signs[0].point_px.tolist() == [44.5 + 5 - 1.25, 44.5 - 5 + 2.5]


def test_a_lost_answer_does_not_shift_the_others():
    text = "<sign><stop><red><grid_1_1><sign><stop><red><grid_2_2><sign><stop><red><grid_3_3>"
    _, _, _, signs, report = refined(text, f"<grid_1_1>{STAY}<grid_3_3><OFF_1_0><OFF_0_0><OFF_0_0>")
    assert [s.point_px.tolist() for s in signs] == [[14.5, 14.5], [24.5, 24.5], [39.5, 34.5]]
    assert report.issues == {"not_refined": 1}


def test_polygons_come_out_clockwise_from_the_lowest_left():
    _, drivable, *_ = parse(ids("<drivable><grid_9_1><grid_1_1><grid_1_9><grid_9_9></scene>"), size_wh=SIZE)
    assert drivable[0].polygon_px.tolist() == [[14.5, 94.5], [14.5, 14.5], [94.5, 14.5], [94.5, 94.5]]


def test_confidences_follow_the_definition():
    text = ids("<sign><stop><red><grid_1_1><box><car><grid_2_2><grid_4_4></scene>")
    refine = ids(f"<offset><grid_1_1>{STAY}<grid_2_2>{STAY}<grid_4_4>{STAY}</offset>")
    propose_probs = [0.9, 0.8, 1.0, 0.5, 0.7, 1.0, 0.4, 0.9, 1.0]
    refine_probs = [0.0] * len(refine)
    refine_probs[2], refine_probs[6], refine_probs[10] = 0.25, 0.5, 0.0
    probs = TokenProbs(propose_probs, refine_probs)
    _, _, boxes, signs, _ = parse(text, refine, size_wh=SIZE, token_probs=probs)
    assert signs[0].confidence == pytest.approx(0.9 * 0.8 * 0.5 * 0.75)
    assert boxes[0].confidence == pytest.approx(0.7 * (0.4 * 0.5 * 0.9) ** 0.5)
    _, _, boxes, signs, _ = parse(
        text, size_wh=SIZE, token_probs=TokenProbs(propose_probs), calibration={"sign": Calibration(2.0, 1.0)}
    )
    raw = 0.9 * 0.8 * 0.5
    assert signs[0].confidence == pytest.approx(1 / (1 + np.exp(-(np.log(raw / (1 - raw)) / 2 + 1))))
    assert boxes[0].confidence == pytest.approx(0.7 * (0.4 * 0.9) ** 0.5)


def test_wrong_calls_are_named():
    with pytest.raises(InputError, match=r"token_probs\.propose"):
        parse([1, 2], size_wh=SIZE, token_probs=TokenProbs([0.5]))
    with pytest.raises(InputError, match="size_wh"):
        parse([], size_wh=(0, 5))
    with pytest.raises(InputError, match="rounds"):
        parse([], size_wh=SIZE, rounds=0)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 30))
@settings(max_examples=40)
def test_any_image_size(width, height, seed):
    rng = np.random.default_rng(seed)
    elements = canonical_elements(*random_scene(rng, (width, height)), (width, height))
    result = parse(propose_ids(elements), refine_ids(elements), size_wh=(width, height))
    assert result[-1].issues == {} and result[-1].elements == len(elements)
