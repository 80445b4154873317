"""Credit of single decisions, worked by hand on scenes of few tokens."""

from __future__ import annotations

import numpy as np
import pytest

from getok_drive.tokens.vocab import OFFSET_ROUNDS
from getok_drive.types import Lane
from tests.training.test_rewards_driving import (
    AREA_CELLS,
    CAR_CELLS,
    DELETE,
    END,
    LANE_CELLS,
    PARTLY,
    PERFECT,
    STAY,
    STRAY,
    area,
    at,
    car,
    cell,
    labels,
    lane,
    off_grid,
    refined,
)
from training.rewards import Completion, RewardSettings
from training.rewards.credit import placement_credit
from training.rewards.credit_movement import movement_credit
from training.rewards.driving import completed_scenes
from training.rewards.driving_movement import refined as judged

ONLY_LANES = labels(drivable=(), boxes=(), signs=(), known=("lanes",))
FAR_CELLS = [cell(28, 30), cell(29, 24), cell(30, 18)]
SETTINGS = RewardSettings()
LANE = SETTINGS.driving_placement.lane_f1 + SETTINGS.driving_placement.lane_closeness


def placement(truth, *answers):
    batch = [Completion(truth, ids) for ids in answers]
    return placement_credit(batch, *completed_scenes(batch), len(answers), SETTINGS)


def movement(truth, *answers):
    batch = [Completion(truth, PERFECT, refined(PERFECT, own)) for own in answers]
    return movement_credit(judged(batch, SETTINGS), len(answers), SETTINGS)


def test_a_lane_is_held_against_the_group_and_against_half_the_f1():
    right, nothing = placement(ONLY_LANES, [*lane(*LANE_CELLS), *END], END)
    worth = LANE * (1.0 - 0.5 * 2 * 1 / (1 + 2))  # D = 2 sum q / (P + L): one written, two labelled
    place = worth - worth / 2  # the other answer earned nothing on this label
    np.testing.assert_allclose(right, [worth / 2, 0, 0, place, place, place, place])  # the words are not judged, the end is
    np.testing.assert_allclose(nothing, [-worth / 2])


def test_a_lane_without_a_label_is_pushed_away():
    right, wrong = placement(ONLY_LANES, [*lane(*LANE_CELLS), *END], [*lane(*FAR_CELLS), *END])
    half_f1 = 0.5 * 2 * 1 / (2 + 2)
    assert wrong[0] == pytest.approx(LANE * ((0.0 - half_f1) - (0.5 - half_f1)))
    np.testing.assert_allclose(wrong[3:], -LANE * half_f1 / 2)  # the other answer has nothing there
    assert (right[3:] > 0).all()


def test_what_may_be_there_and_what_may_not_are_held_against_the_group_alike():
    """Each against the mean of what the group has there, real or not."""
    for cells, others in ((LANE_CELLS, FAR_CELLS), (FAR_CELLS, LANE_CELLS)):
        truth = labels(lanes=(Lane(at(*cells)),), drivable=(), boxes=(), signs=(), known=("lanes",))
        right, wrong = placement(truth, [*lane(*cells), *END], [*lane(*others), *END])
        half_f1 = 0.5 * 2 * 1 / (2 + 2)
        assert right[3] == pytest.approx(LANE * (1 - half_f1) / 2) and wrong[3] == pytest.approx(-LANE * half_f1 / 2)


def test_ending_a_lane_to_begin_the_next_one_pays_no_more_than_a_further_point():
    """What all answers do after a lane is no reason to have ended it there."""
    truth = labels(lanes=(*labels().lanes, Lane(at(*FAR_CELLS))), drivable=(), boxes=(), signs=(), known=("lanes",))
    short, long = ([*lane(*cells), *lane(*FAR_CELLS), *END] for cells in (LANE_CELLS[:2], LANE_CELLS))
    early, late = placement(truth, short, long)
    end, point = early[len(lane(*LANE_CELLS[:2]))], early[len(lane(*LANE_CELLS[:2])) - 1]
    assert end == pytest.approx(point) and end < 0  # the next lane is as good in both
    assert late[len(lane(*LANE_CELLS))] > 0


def test_the_choice_after_a_lane_is_held_against_the_same_choice_elsewhere():
    truth = labels(lanes=(*labels().lanes, Lane(at(*FAR_CELLS))), drivable=(), boxes=(), signs=(), known=("lanes",))
    first = lane(*LANE_CELLS)
    both, one, none = placement(truth, [*first, *lane(*FAR_CELLS), *END], [*first, *END], END)
    half_f1 = 3 / (3 + 3 * len(truth.lanes))
    assert both[len(first)] - both[len(first) - 1] == pytest.approx(LANE * (1.0 - half_f1) / 2)  # less the lane's own place
    assert one[len(first)] - one[len(first) - 1] == pytest.approx(-LANE * (1.0 - half_f1) / 2)
    assert none[0] == pytest.approx(-2 * one[0]) and one[0] == both[0] > 0


def test_a_lucky_box_does_not_pay_the_lane():
    truth = labels(drivable=(), signs=(), known=("lanes", "boxes"))
    with_box, without = placement(truth, [*lane(*LANE_CELLS), *car(*CAR_CELLS), *END], [*lane(*LANE_CELLS), *END])
    np.testing.assert_array_equal(with_box[3:6], 0.0)
    np.testing.assert_array_equal(without[3:6], 0.0)
    assert with_box[6] > 0 and (with_box[7:10] > 0).all()  # writing it, its class, its corners


def test_a_copy_of_a_lane_is_not_paid_twice():
    first = lane(*LANE_CELLS)
    once, twice = placement(ONLY_LANES, [*first, *END], [*first, *first, *END])
    stops, goes_on = once[-1] - once[-2], twice[len(first)] - twice[len(first) - 1]
    assert stops > 0 > goes_on


def test_equal_areas_teach_nothing_about_their_place():
    truth = labels(lanes=(), boxes=(), signs=(), known=("drivable",))
    *same, missing = placement(truth, *[[*area(*AREA_CELLS), *END]] * 3, END)
    for own in same:
        np.testing.assert_allclose(own[1:], own[1], atol=1e-12)  # all of it alike: against the answer that has none
        assert own[0] > 0 > missing[0]


def test_kinds_that_are_not_labelled_or_not_paid_earn_nothing():
    answers = [[*lane(*LANE_CELLS), *car(*CAR_CELLS), *END], [*lane(*FAR_CELLS), *car(*CAR_CELLS), *END]]
    for own in placement(ONLY_LANES, *answers):
        assert not own[7:].any()
    free = RewardSettings(driving_placement=type(SETTINGS.driving_placement)(lane_f1=0, lane_closeness=0))
    batch = [Completion(ONLY_LANES, ids) for ids in answers]
    assert not np.concatenate(placement_credit(batch, *completed_scenes(batch), 2, free)).any()


def test_classes_that_are_not_labelled_earn_nothing_and_change_nothing():
    truth = labels(meta=PARTLY)
    (plain, other), (stray, again) = (placement(truth, answer, END) for answer in (PERFECT, STRAY))
    inner = len(PERFECT) - 1
    np.testing.assert_array_equal(stray[:inner], plain[:inner])
    assert not stray[inner:].any()
    np.testing.assert_array_equal(other, again)
    assert placement(labels(), STRAY, END)[0][inner:].any()


def test_what_the_refinement_takes_back_is_as_if_it_had_not_been_written():
    far, near = lane(*FAR_CELLS), lane(*LANE_CELLS)
    stay, gone = [STAY] * len(LANE_CELLS), [DELETE] * len(FAR_CELLS)
    batch = [
        Completion(ONLY_LANES, ids, refined(ids, answers))
        for ids, answers in (([*far, *near, *END], [*gone, *stay]), ([*near, *END], stay), (END, []))
    ]
    taken_back, without, _ = placement_credit(batch, *completed_scenes(batch), 3, SETTINGS)
    assert not taken_back[: len(far)].any() and without[0] > 0
    np.testing.assert_array_equal(taken_back[len(far) :], without)


def test_points_that_were_mended_are_paid_and_the_others_are_not():
    truth, right = off_grid()
    keen, lazy = movement(truth, right, [STAY] * len(right))
    np.testing.assert_allclose(keen, -lazy)  # two answers: what one is above the mean, the other is below
    ids = refined(PERFECT, right)
    given_back = [at for at, token in enumerate(ids) if token < 1024]
    assert not keen[given_back].any() and not keen[[0, -1]].any()
    first = given_back[0] + 1
    assert (keen[first : first + OFFSET_ROUNDS] > 0.5).all()
    sign = given_back[-1] + 1
    np.testing.assert_array_equal(keen[sign : sign + OFFSET_ROUNDS], 0.0)  # its disc held it before, too


def test_deleting_a_lane_that_is_there_is_the_worst_of_answers():
    truth, right = off_grid()
    deleted = [*[DELETE] * 3, *right[3:]]
    keen, lazy, gone = movement(truth, right, [STAY] * len(right), deleted)
    assert gone[2] < lazy[2] < keen[2]
    assert gone.shape == (len(refined(PERFECT, deleted)),)
