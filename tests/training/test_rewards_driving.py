"""The driving rewards: worked by hand on scenes of few tokens, and against empty, repeated and exhaustive answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from getok_drive.tokens.codec import cell_centers, norm_to_px, offsets_for, px_to_norm
from getok_drive.tokens.elements import canonical_elements, propose_ids, refine_ids
from getok_drive.tokens.vocab import OFFSET_ROUNDS, TABLE, TOKEN_ID
from getok_drive.types import Box, DrivableArea, Lane, Sign
from training.metrics import culane
from training.rewards import Completion, RewardSettings, driving_movement, driving_placement
from training.samples import Sample

SIZE_WH = (1640, 590)
ID = TOKEN_ID


def cell(i, j):
    return j * 32 + i


def at(*cells):
    return norm_to_px(cell_centers(cells), SIZE_WH)


LANE_CELLS = [cell(8, 30), cell(10, 24), cell(12, 18)]
AREA_CELLS = [cell(4, 31), cell(12, 16), cell(20, 16), cell(28, 31)]
CAR_CELLS = [cell(14, 14), cell(18, 18)]
SIGN_CELL = cell(26, 8)


def labels(**change):
    base = {
        "lanes": (Lane(at(*LANE_CELLS)),),
        "drivable": (DrivableArea(at(*AREA_CELLS)),),
        "boxes": (Box(at(*CAR_CELLS).reshape(-1), "car"),),
        "signs": (Sign(at(SIGN_CELL)[0], "stop", "red"),),
    }
    return Sample(np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8), **(base | change))


def lane(*cells):
    return [ID["<lane>"], ID["<solid>"], ID["<white>"], *cells]


def area(*cells):
    return [ID["<drivable>"], *cells]


def car(*cells, word="<car>"):
    return [ID["<box>"], ID[word], *cells]


def sign(*cells, word="<stop>", color="<red>"):
    return [ID["<sign>"], ID[word], ID[color], *cells]


END = [ID["</scene>"]]
PERFECT = [*lane(*LANE_CELLS), *area(*AREA_CELLS), *car(*CAR_CELLS), *sign(SIGN_CELL), *END]


def placed(ids, truth=None, **more):
    (reward,) = driving_placement([Completion(truth or labels(), ids, **more)])
    return reward


def test_a_perfect_proposal_earns_one_everywhere():
    assert set(placed(PERFECT).values()) == {1.0}


def test_an_empty_proposal_earns_only_its_format():
    reward = placed(END)
    assert {name for name, value in reward.items() if value} == {"overall", "format"}
    assert reward["overall"] == pytest.approx(0.5 / 5.5)
    nothing = labels(lanes=(), drivable=(), boxes=(), signs=())
    assert set(placed(END, nothing).values()) == {1.0}
    wrong = placed(PERFECT, nothing)
    assert wrong["lane_f1"] == wrong["polygon_iou"] == wrong["detection_f1"] == wrong["sign_hits"] == wrong["box"] == 0.0


def test_repeating_elements_loses():
    near = cell(18, 19)
    reward = placed(
        [*lane(*LANE_CELLS) * 3, *area(*AREA_CELLS), *car(*CAR_CELLS), *car(CAR_CELLS[0], near), *sign(SIGN_CELL), *END]
    )
    assert reward["lane_f1"] == pytest.approx(2 / 4)  # TP 1, FP 2
    assert reward["lane_closeness"] == pytest.approx(1 / 3)
    assert reward["detection_f1"] == pytest.approx(2 / 3)
    assert reward["box"] == pytest.approx(1 / 2)
    assert reward["non_repetition"] == pytest.approx(4 / 7)
    assert reward["format"] == 1.0


def test_what_the_labels_repeat_is_no_repetition():
    """Far away two lanes are one stroke wide."""
    truth = labels(lanes=labels().lanes * 2)
    assert placed([*lane(*LANE_CELLS) * 2, *PERFECT[len(lane(*LANE_CELLS)) :]], truth)["non_repetition"] == 1.0
    assert placed([*lane(*LANE_CELLS) * 3, *END], truth)["non_repetition"] == pytest.approx(2 / 3)


def test_a_kind_that_is_not_labelled_does_not_make_an_empty_scene_wrong():
    assert placed(END, labels(lanes=(), known=("lanes",)))["non_repetition"] == 1.0
    assert placed(END, labels(known=("lanes",)))["non_repetition"] == 0.0


def test_exact_copies_of_boxes_and_signs_are_dropped_and_cost_the_format():
    """Decoding under the grammar cannot write them; other engines can."""
    reward = placed([*lane(*LANE_CELLS), *area(*AREA_CELLS), *car(*CAR_CELLS) * 2, *sign(SIGN_CELL) * 2, *END])
    assert reward["format"] == 0.0
    assert {reward[name] for name in reward if name not in ("format", "overall")} == {1.0}


def test_near_copies_count_as_repetition_only_when_alike():
    apart = placed([*car(*CAR_CELLS), *car(cell(20, 14), cell(24, 18)), *END])
    assert apart["non_repetition"] == 1.0
    signs = placed([*sign(SIGN_CELL), *sign(SIGN_CELL, color="<white>"), *sign(SIGN_CELL, word="<yield>"), *END])
    assert signs["non_repetition"] == pytest.approx(2 / 3)


def test_every_box_on_the_grid_earns_next_to_nothing():
    many = [token for j in range(0, 32, 2) for i in range(0, 32, 16) for token in car(cell(i, j), cell(i + 15, j + 1))]
    reward = placed([*many, *END])
    assert reward["detection_f1"] == 0.0 and reward["box"] < 0.01
    whole = placed([*area(cell(0, 31), cell(0, 0), cell(31, 0), cell(31, 31)), *END])
    assert 0.2 < whole["polygon_iou"] < 0.35  # the area's share of the picture


def test_small_boxes_are_not_free():
    """The headline metric excuses predictions below 5 % of the height; the reward must not."""
    small = [*PERFECT[: -1 - 4], *[t for i in range(8) for t in car(cell(i, 2), cell(i, 2))], *END]
    assert placed(small)["detection_f1"] == pytest.approx(2 / (2 + 8))


def test_lane_closeness_by_hand():
    shifted = [cell(i + 1, j) for i, j in ((8, 30), (10, 24), (12, 18))]
    reward = placed([*lane(*shifted), *END])
    slope = np.array([2 / 32 * 1640, -6 / 32 * 590])
    apart = 1640 / 32 * abs(slope[1]) / np.hypot(*slope)  # a parallel line, one cell to the right
    limit = 1640 / 16
    assert reward["lane_closeness"] == pytest.approx(1 - apart / limit, abs=0.02)  # the ends' distance is a little longer
    assert reward["lane_f1"] == 0.0


def test_lane_f1_is_the_official_metric_for_answers_scored_together():
    truth = labels(lanes=(Lane(at(*LANE_CELLS)), Lane(at(cell(20, 30), cell(22, 12)))))
    answers = [
        lane(*LANE_CELLS),
        lane(cell(20, 30), cell(22, 12)) + lane(cell(3, 30), cell(4, 20)),
        lane(cell(9, 30), cell(12, 18)),
    ]
    batch = [Completion(truth, [*answer, *END]) for answer in (*answers, [])]
    rewards = driving_placement(batch, RewardSettings(lane_thresholds=(0.3, 0.5)))
    for item, reward in zip(batch, rewards, strict=True):
        predicted = [e.points_px for e in item.scene().lanes]
        counts = culane.culane_counts([e.points_px for e in truth.lanes], predicted, SIZE_WH, (0.3, 0.5)).astype(float)
        assert reward["lane_f1"] == pytest.approx(np.mean([culane.f1_at(counts, index) for index in (0, 1)]))
    assert rewards[0]["lane_f1"] == pytest.approx(2 / 3) and rewards[1]["lane_f1"] == pytest.approx(0.5)


def test_box_closeness_by_hand():
    wider = placed([*car(CAR_CELLS[0], cell(19, 18)), *END])
    corner = (840 / 32) / 4  # one of four coordinates differs by one cell, in a picture of 840 px
    assert wider["box"] == pytest.approx((4 / 5 + 1 - corner / 18) / 2)
    other = placed([*car(*CAR_CELLS, word="<bus>"), *END])
    assert other["box"] == other["detection_f1"] == 0.0


def test_sign_hits_by_hand():
    beside = placed([*sign(SIGN_CELL + 1), *END])  # a cell is 1 / 32 of the width, the radius 2 %
    assert beside["sign_hits"] == 0.0
    two = placed([*sign(SIGN_CELL), *sign(cell(2, 2)), *END])
    assert two["sign_hits"] == pytest.approx(2 / 3)


def test_what_is_not_labelled_is_not_judged():
    truth = labels(known=("lanes",))
    reward = placed([*lane(*LANE_CELLS), *END], truth)
    assert math.isnan(reward["polygon_iou"]) and math.isnan(reward["detection_f1"]) and math.isnan(reward["sign_hits"])
    assert reward["overall"] == 1.0


PARTLY = {"labelled_classes": {"boxes": ("car", "truck"), "signs": ("stop",)}}
STRAY = [*PERFECT[:-1], *car(cell(25, 20), cell(27, 24), word="<cone>"), *sign(cell(5, 5), word="<yield>"), *END]


def test_classes_that_are_not_labelled_are_neither_right_nor_wrong():
    judged = placed(STRAY, labels(meta=PARTLY))
    assert set(judged.values()) == {1.0}
    assert placed(STRAY)["detection_f1"] < 1.0 > placed(STRAY)["sign_hits"]
    truck = placed([*PERFECT[:-1], *car(cell(25, 20), cell(27, 24), word="<truck>"), *END], labels(meta=PARTLY))
    assert truck["detection_f1"] < 1.0
    crowd = [*at(cell(24, 18)), *at(cell(30, 30))]
    ignored = placed([*PERFECT[:-1], *car(cell(25, 20), cell(27, 24)), *END], labels(meta={"ignore_xyxy_px": [np.ravel(crowd)]}))
    assert ignored["detection_f1"] == ignored["box"] == 1.0


def test_truncated_or_faulty_text_loses_its_format():
    assert placed(PERFECT, truncated=True)["format"] == 0.0
    assert placed([*PERFECT[:-1], cell(3, 3), *END])["format"] == 0.0
    assert placed([])["format"] == 0.0


# --- movement --------------------------------------------------------------------------------------------------------


def refined(ids, answers):
    """The refinement that answers each grid token of ``ids`` with the next of ``answers``."""
    text = [ID["<offset>"]]
    for token, answer in zip([t for t in ids if t < 1024], answers, strict=True):
        text += [token, *answer]
    return [*text, ID["</offset>"]]


STAY = [ID["<OFF_0_0>"]] * OFFSET_ROUNDS
DELETE = [TABLE.delete]


def moved(ids, answers, truth):
    (reward,) = driving_movement([Completion(truth, ids, refined(ids, answers))])
    return reward


def off_grid(shift_cells=0.4):
    """Labels a little right of the cells' centres, and the answers that reach them."""
    shift = np.array([shift_cells * 1640 / 32, 0.0])
    truth = labels(
        lanes=(Lane(at(*LANE_CELLS) + shift),),
        drivable=(DrivableArea(at(*AREA_CELLS) + shift),),
        boxes=(Box((at(*CAR_CELLS) + shift).reshape(-1), "car"),),
        signs=(Sign((at(SIGN_CELL) + shift)[0], "stop", "red"),),
    )
    cells = [t for t in PERFECT if t < 1024]
    targets = px_to_norm(at(*cells) + shift, SIZE_WH)
    return truth, offsets_for(cells, targets).tolist()


def test_never_moving_earns_no_gain():
    truth, right = off_grid()
    lazy, keen = moved(PERFECT, [STAY] * len(right), truth), moved(PERFECT, right, truth)
    for name in ("lane_gain", "polygon_gain", "box_refinement"):
        assert lazy[name] == 0.0
        assert keen[name] > 0.4  # the area was right but for 5 %: its gain is measured against the floor of 10 %
    assert keen["lane_f1"] == 1.0 > lazy["lane_f1"]
    assert keen["point_refinement"] == 1.0
    assert keen["overall"] > lazy["overall"] + 0.4


def test_point_refinement_counts_what_was_near_already():
    truth, right = off_grid(0.4)  # 20.5 px: off a lane's stroke of 15 px and within a sign's disc of 32.8 px
    lazy = moved(PERFECT, [STAY] * len(right), truth)
    # The slanted lane is 20.5 px (its end) and 15.04 px away: outside. Of the area's corners the lower left one is 20.5 px from
    # the outline, the upper left one 11.5 px; the other two lie on level edges. The sign is within its disc.
    assert lazy["point_refinement"] == pytest.approx(np.mean([0, 0, 0, 0, 1, 1, 1, 1]))


def test_moving_away_is_punished():
    away = [[ID["<OFF_-1_0>"]] * OFFSET_ROUNDS] * 10
    still, worse = moved(PERFECT, [STAY] * 10, labels()), moved(PERFECT, away, labels())
    assert still["point_refinement"] == 1.0 and still["lane_f1"] == still["detection_f1"] == 1.0
    assert worse["lane_gain"] == -1.0 and worse["box_refinement"] < -0.1 and worse["overall"] < still["overall"]


def test_deleting_what_is_there_is_punished_and_what_is_not_is_praised():
    nothing = labels(lanes=(), drivable=(), boxes=(), signs=())
    gone = moved(PERFECT, [DELETE] * 10, labels())
    assert gone["lane_gain"] == gone["polygon_gain"] == gone["box_refinement"] == gone["point_refinement"] == -1.0
    phantom = moved(PERFECT, [DELETE] * 10, nothing)
    assert phantom["lane_gain"] == phantom["box_refinement"] == phantom["point_refinement"] == 1.0
    kept = moved(PERFECT, [STAY] * 10, nothing)
    assert kept["lane_gain"] == kept["box_refinement"] == kept["point_refinement"] == 0.0
    assert kept["overall"] < phantom["overall"]


def test_deleting_what_no_label_can_tell_earns_nothing():
    kept, gone = [STAY] * 13, [*[STAY] * 10, *[DELETE] * 3]
    names = ("box_refinement", "point_refinement", "detection_f1", "sign_hits")
    partly = [{name: moved(STRAY, answers, labels(meta=PARTLY))[name] for name in names} for answers in (kept, gone)]
    assert partly[0] == partly[1]
    whole = [moved(STRAY, answers, labels()) for answers in (kept, gone)]
    assert all(whole[0][name] < whole[1][name] for name in names)


def test_an_answer_to_nothing_is_not_judged_by_movement():
    reward = moved(END, [], labels())
    for name in ("point_refinement", "lane_gain", "polygon_gain", "box_refinement"):
        assert math.isnan(reward[name])
    with pytest.raises(ValueError, match="refine_ids"):
        driving_movement([Completion(labels(), PERFECT)])


def test_the_canonical_answer_to_a_scene_scores_full_marks():
    truth, _ = off_grid(0.33)
    elements = canonical_elements(truth.lanes, truth.drivable, truth.boxes, truth.signs, SIZE_WH)
    (reward,) = driving_movement([Completion(truth, propose_ids(elements), refine_ids(elements))])
    assert reward["lane_f1"] == reward["detection_f1"] == reward["sign_hits"] == reward["point_refinement"] == 1.0
    assert reward["polygon_iou"] > 0.97


def test_weights_choose_what_counts():
    only = RewardSettings().driving_placement
    settings = RewardSettings(driving_placement=type(only)(0, 0, 1, 0, 0, 0, 0, 0))
    (reward,) = driving_placement([Completion(labels(), [*lane(*LANE_CELLS), *END])], settings)
    assert reward["overall"] == reward["lane_f1"] == 1.0
