"""Every reward against numbers worked by hand, and against what reward hacking tries."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from getok_drive.errors import ConfigError
from training.rewards import Grounding, Refinement, RewardSettings, movement_rewards, placement_rewards
from training.rewards.matching import Label, Predicted, inside, l1_scores, match, similarity_parts
from training.rewards.movement import box_refinement, mask_gain, point_refinement, point_scores, reachable_px, relative_gain
from training.rewards.placement import mask_iou, nearest_spacing, non_repetition, point_quality, semantic_points
from training.rewards.settings import PlacementWeights, weighted

SETTINGS = RewardSettings()


def rectangle(x0, y0, x1, y1, size=100):
    """Pixels x0..x1-1, y0..y1-1."""
    mask = np.zeros((size, size), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def points(*xy):
    return np.array(xy, dtype=np.float64).reshape(-1, 2)


LEFT = Label(rectangle(10, 10, 30, 30))  # box (9.5, 9.5, 29.5, 29.5), area 400, scale 20
RIGHT = Label(rectangle(60, 10, 80, 30))


# --- matching, eq. 6-9 -----------------------------------------------------------------------------------------------


def test_equations_6_to_8_by_hand():
    # box moved right by 10 of 20: IoU 10 / 30; corners differ by (10, 0, 10, 0), mean 5: 1 - 5 / 18; 1 of 2 points inside
    p = Predicted(points((15, 15), (35, 15)), np.array([19.5, 9.5, 39.5, 29.5]))
    parts = similarity_parts([p], [LEFT], 18.0)[:, 0, 0]
    assert parts == pytest.approx([1 / 3, 0.5, 13 / 18])


def test_l1_score_is_clipped():
    boxes = np.array([[0.0, 0, 10, 10], [100.0, 0, 110, 10]])
    assert l1_scores(boxes, boxes[:1], 18.0) == pytest.approx(np.array([[1.0], [0.0]]))


def test_matching_maximises_the_total_and_drops_pairs_that_share_nothing():
    p, g = match(np.array([[2.0, 1.9], [1.9, 0.0]]))  # greedy would take 2.0 and leave 0.0
    assert list(zip(p, g, strict=True)) == [(0, 1), (1, 0)]
    assert [len(side) for side in match(np.zeros((3, 2)))] == [0, 0]
    assert [len(side) for side in match(np.zeros((0, 2)))] == [0, 0]


def test_inside_takes_the_nearest_pixel_and_nothing_outside():
    mask = rectangle(0, 0, 2, 2, size=2)
    assert inside(points((-0.5, 0), (-0.51, 0), (1.49, 1.49), (1.5, 1)), mask).tolist() == [True, False, True, False]


def test_an_empty_label_is_refused():
    with pytest.raises(ValueError, match="with a pixel"):
        Label(np.zeros((4, 4), dtype=bool))


# --- placement, eq. 10-12 --------------------------------------------------------------------------------------------


def test_equation_11_by_hand():
    assert nearest_spacing(points((0, 0), (3, 4), (3, 10))) == pytest.approx((5 + 5 + 6) / 3)
    assert nearest_spacing(points((7, 7))) == 0.0
    assert nearest_spacing(points((7, 7), (7, 7))) == 0.0


def test_equation_10_by_hand():
    # 4 points, 3 inside; neighbours 4 px apart; scale 20: spread = 4 / (0.3 * 20) = 2/3
    four = points((12, 12), (16, 12), (12, 16), (8, 12))
    saturation = 1 - math.exp(-4 / 5)
    expected = saturation * (0.6 * 0.75 + 0.4 * 2 / 3) - 0.02 * 4
    assert point_quality(four, LEFT, SETTINGS) == pytest.approx(expected)
    assert point_quality(points(), LEFT, SETTINGS) == 0.0


def test_equation_12_weighs_by_points_and_counts_unmatched_predictions():
    first = Predicted(points((12, 12), (20, 20)))
    stray = Predicted(points((50, 50), (51, 50), (52, 50)))
    quality = point_quality(first.points_px, LEFT, SETTINGS)
    assert quality == pytest.approx((1 - math.exp(-2 / 5)) * 1.0 - 0.04)  # both inside, 11.3 px apart: spread 1
    pairs = np.array([0]), np.array([0])
    assert semantic_points([first], [LEFT], pairs, SETTINGS) == pytest.approx(quality)
    assert semantic_points([first, stray], [LEFT], pairs, SETTINGS) == pytest.approx(2 * quality / 5)
    assert semantic_points([first, Predicted(points())], [LEFT], pairs, SETTINGS) == pytest.approx(2 * quality / 3)


def test_the_best_number_of_points_is_eleven_or_twelve():
    """d/dm of 1 - exp(-m / 5) - 0.02 m is 0 at m = 5 ln 10 = 11.5."""
    label = Label(rectangle(0, 0, 100, 100))
    lattice = points(*[(5 + 10 * i, 5 + 10 * j) for j in range(10) for i in range(10)])
    values = [point_quality(lattice[:m], label, RewardSettings(spread_scale=0.05)) for m in range(1, 101)]
    assert int(np.argmax(values)) + 1 in (11, 12)
    assert values[-1] < 0 < values[0]


def grounding(predicted, labels=(LEFT, RIGHT), well_formed=True):
    return Grounding(tuple(predicted), tuple(labels), well_formed)


def perfect(label, count=9):
    x0, y0 = (label.box_xyxy_px[:2] + 0.5).astype(int)
    spots = points(*[(x0 + 3 + 7 * (k % 3), y0 + 3 + 7 * (k // 3)) for k in range(count)])
    return Predicted(spots, label.box_xyxy_px, label.mask)


def test_a_perfect_answer_and_its_parts():
    (reward,) = placement_rewards([grounding([perfect(LEFT), perfect(RIGHT)])])
    assert reward["mask_iou"] == reward["box"] == reward["format"] == reward["non_repetition"] == 1.0
    quality = 1 - math.exp(-9 / 5) - 0.18  # every point inside, spacing 7 > 0.3 * 20
    assert reward["points"] == pytest.approx(quality)
    weights = np.array([0.5, 0.5, 1, 1, 1])
    assert reward["overall"] == pytest.approx(weights @ [1, 1, 1, 1, quality] / weights.sum())


def test_a_missed_label_halves_mask_and_box():
    (reward,) = placement_rewards([grounding([perfect(LEFT)])])
    assert reward["mask_iou"] == reward["box"] == 0.5
    (surplus,) = placement_rewards([grounding([perfect(LEFT)] * 2, [LEFT])])
    assert surplus["mask_iou"] == surplus["box"] == 0.5
    assert surplus["non_repetition"] == 0.5


def test_box_is_the_mean_of_iou_and_corner_score():
    moved = Predicted(points((15, 15)), np.array([19.5, 9.5, 39.5, 29.5]), None)
    (reward,) = placement_rewards([grounding([moved], [LEFT])])
    assert reward["box"] == pytest.approx((1 / 3 + 13 / 18) / 2)
    assert reward["mask_iou"] == 0.0


def test_mask_iou_by_hand():
    half = Predicted(points((15, 15)), None, rectangle(10, 10, 30, 20))
    assert mask_iou([half], [LEFT], (np.array([0]), np.array([0]))) == 0.5


def test_an_empty_answer_earns_only_its_format():
    (reward,) = placement_rewards([grounding([])])
    assert {name: value for name, value in reward.items() if value} == {"overall": pytest.approx(0.125), "format": 1.0}
    (rightly,) = placement_rewards([grounding([], [])])
    assert rightly["overall"] == 1.0
    (wrongly,) = placement_rewards([grounding([perfect(LEFT)], [])])
    assert wrongly["mask_iou"] == wrongly["box"] == wrongly["points"] == 0.0


def test_all_points_equal_lose_spread_and_repetition():
    same = Predicted(points(*[(15, 15)] * 9), LEFT.box_xyxy_px, LEFT.mask)
    (hacked,), (honest,) = placement_rewards([grounding([same], [LEFT])]), placement_rewards([grounding([perfect(LEFT)], [LEFT])])
    assert hacked["non_repetition"] == pytest.approx(1 / 9)
    assert hacked["points"] == pytest.approx((1 - math.exp(-9 / 5)) * 0.6 - 0.18)
    assert hacked["overall"] < honest["overall"] - 0.15


def test_every_token_earns_no_points():
    everything = points(*[(i * 3.1, j * 3.1) for j in range(32) for i in range(32)])
    (reward,) = placement_rewards([grounding([Predicted(everything)], [LEFT])])
    assert reward["points"] == reward["mask_iou"] == reward["box"] == 0.0


def test_non_repetition_counts_points_and_instances():
    a = Predicted(points((1, 1), (2, 2), (1, 1)))
    assert non_repetition([a], 1) == pytest.approx(2 / 3)
    b = Predicted(points((2, 2), (1, 1)))
    assert non_repetition([b, Predicted(points((1, 1), (2, 2)))], 2) == 0.5  # one set of points in another order
    assert non_repetition([Predicted(points(), LEFT.box_xyxy_px)] * 4, 4) == 0.25
    assert non_repetition([], 1) == 0.0


def test_a_malformed_answer_loses_its_format():
    (reward,) = placement_rewards([grounding([perfect(LEFT)], [LEFT], well_formed=False)])
    assert reward["format"] == 0.0


# --- movement, eq. 13 ------------------------------------------------------------------------------------------------


def test_equation_13_case_by_case():
    cases = [  # inside before, inside after, deleted, hopeless -> score
        (1, 0, 0, 0, -1), (1, 0, 1, 0, -1), (1, 1, 1, 0, -1), (0, 1, 0, 0, 1), (1, 1, 0, 0, 1),
        (0, 0, 1, 1, 1), (0, 0, 1, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, 0), (0, 1, 1, 0, 0),
    ]  # fmt: skip
    *arguments, expected = np.array(cases).T
    assert point_scores(*(column.astype(bool) for column in arguments)).tolist() == expected.tolist()


def test_reachable_places():
    one = reachable_px(points((10, 20)), (2.0, 4.0), 1)[0]
    assert len(one) == 9 and one.min(axis=0).tolist() == [8, 16] and one.max(axis=0).tolist() == [12, 24]
    three = reachable_px(points((0, 0)), (4.0, 4.0), 3)[0]
    assert len(three) == 225 and three.max() == 7.0  # 4 + 2 + 1


def test_point_refinement_by_hand():
    mask = rectangle(10, 10, 30, 30)
    coarse = points((8, 15), (15, 15), (15, 15), (60, 60), (8, 15))
    refined = points((11, 15), (15, 15), (5, 15), (60, 60), (5, 15))
    deleted = np.array([False, False, False, True, False])
    # moved in +1, stayed in +1, moved out -1, deleted what cannot reach +1, moved away outside 0
    assert point_refinement(coarse, refined, deleted, mask, (3.0, 3.0)) == pytest.approx(2 / 5)
    near = point_refinement(points((8, 15)), points((8, 15)), np.array([True]), mask, (3.0, 3.0))
    assert near == 0.0  # deleted although one offset would have reached the mask
    assert math.isnan(point_refinement(points(), points(), np.zeros(0, bool), mask, (3.0, 3.0)))


def test_relative_gain():
    before, after = [0.5, 0.5, 0.5, 1.0, 0.98, 0.0, 0.05], [0.75, 0.25, 0.5, 0.0, 1.0, 0.5, 0.0]
    assert relative_gain(before, after, 0.1) == pytest.approx([0.5, -0.5, 0.0, -1.0, 0.2, 0.5, -0.5])


def test_box_refinement_by_hand():
    label = np.array([[0.0, 0, 10, 10]])
    half = np.array([[0.0, 0, 10, 5]])  # IoU 0.5
    most = np.array([[0.0, 0, 10, 8]])  # IoU 0.8
    no, yes = np.array([False]), np.array([True])
    assert box_refinement(half, most, no, label, 0.1) == pytest.approx([0.6])
    assert box_refinement(half, half, no, label, 0.1) == [0.0]
    assert box_refinement(most, half, no, label, 0.1) == pytest.approx([-0.375])
    assert box_refinement(half, most, yes, label, 0.1) == [-1.0]
    none = np.full((1, 4), np.nan)
    assert box_refinement(half, most, yes, none, 0.1) == [1.0]
    assert box_refinement(half, most, no, none, 0.1) == [0.0]


def test_mask_gain_by_hand():
    half = rectangle(10, 10, 30, 20)
    assert mask_gain(half, LEFT.mask, LEFT.mask, 0.1) == 1.0
    assert mask_gain(LEFT.mask, half, LEFT.mask, 0.1) == -0.5
    assert mask_gain(None, half, LEFT.mask, 0.1) == 0.5
    assert mask_gain(half, None, LEFT.mask, 0.1) == -1.0


def refinement(before, after, deleted=None, box_deleted=(False,)):
    gone = np.zeros(len(before.points_px), bool) if deleted is None else np.array(deleted)
    return Refinement((before,), (after,), (gone,), (LEFT,), (3.0, 3.0), box_deleted=box_deleted)


def test_movement_never_moving_earns_no_gain():
    coarse = Predicted(points((8, 15), (15, 15)), np.array([6.5, 9.5, 29.5, 29.5]), rectangle(10, 10, 30, 20))
    better = Predicted(points((11, 15), (15, 15)), LEFT.box_xyxy_px, LEFT.mask)
    lazy, keen = movement_rewards([refinement(coarse, coarse), refinement(coarse, better)])
    assert lazy["box_refinement"] == lazy["mask_gain"] == 0.0
    assert lazy["point_refinement"] == 0.5
    assert keen["box_refinement"] == keen["mask_gain"] == keen["point_refinement"] == keen["overall"] == 1.0
    (gone,) = movement_rewards([refinement(coarse, Predicted(coarse.points_px, coarse.box_xyxy_px), [True, True], (True,))])
    assert gone["box_refinement"] == gone["mask_gain"] == -1.0
    assert gone["point_refinement"] == -0.5  # the inside point -1, the near one 0
    assert gone["overall"] < lazy["overall"] < keen["overall"]


def test_movement_of_nothing_is_not_judged():
    (reward,) = movement_rewards([Refinement((), (), (), (LEFT,), (3.0, 3.0))])
    assert math.isnan(reward["point_refinement"]) and math.isnan(reward["mask_gain"])
    assert reward["overall"] == 1.0  # its format alone
    stray = Predicted(points((80, 80)), np.array([75.0, 75, 85, 85]))
    lost = Refinement((stray,), (stray,), (np.array([True]),), (LEFT,), (3.0, 3.0), box_deleted=(True,))
    (reward,) = movement_rewards([lost])
    assert reward["point_refinement"] == reward["box_refinement"] == 1.0


# --- settings --------------------------------------------------------------------------------------------------------


def test_overall_leaves_out_what_is_not_labelled():
    rewards = {"format": 1.0, "non_repetition": 1.0, "mask_iou": 0.0, "box": float("nan"), "points": 0.5}
    assert weighted(rewards, PlacementWeights())["overall"] == pytest.approx((0.5 + 0.5 + 0.5) / 3.0)
    assert weighted(rewards, PlacementWeights(0, 0, 0, 1, 0))["overall"] == 0.0
    with pytest.raises(ConfigError, match="weights"):
        weighted({"format": 1.0}, PlacementWeights())


def test_senseless_constants_are_refused():
    with pytest.raises(ConfigError, match="spread_scale"):
        RewardSettings(spread_scale=0.0)


def test_rewards_need_neither_torch_nor_opencv():
    code = "import sys, training.rewards; sys.exit(bool({'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
