"""The exact assignment against SciPy's; CULane's tolerant one by hand."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from training.metrics.assignment import assign, assign_culane, assign_within


def test_the_total_is_the_best_there_is():
    rng = np.random.default_rng(0)
    for case in range(400):
        scores = rng.normal(size=(rng.integers(1, 9), rng.integers(1, 9)))
        if case % 3 == 0:
            scores = np.round(scores)  # many ties
        rows, columns = assign(scores)
        best = scores[linear_sum_assignment(scores, maximize=True)].sum()
        assert scores[rows, columns].sum() == pytest.approx(best, abs=1e-9)
        assert len(set(columns.tolist())) == len(rows) == min(scores.shape)
        assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_an_empty_side_matches_nothing(shape):
    assert [len(side) for side in assign(np.zeros(shape))] == [0, 0]
    assert [len(side) for side in assign_within(np.zeros(shape), 1.0)] == [0, 0]


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        assign([[np.nan]])


def test_more_pairs_come_before_nearer_pairs():
    # the nearest pair (0, 0) would leave row 1 alone
    rows, columns = assign_within([[0.0, 9.0], [1.0, np.inf]], 10.0)
    assert list(zip(rows, columns, strict=True)) == [(0, 1), (1, 0)]


def test_the_limit_is_inclusive_and_infinity_never_matches():
    assert len(assign_within([[2.0]], 2.0)[0]) == 1
    assert len(assign_within([[2.1]], 2.0)[0]) == 0
    assert len(assign_within([[np.inf]], 2.0)[0]) == 0


def test_culanes_tolerance_keeps_the_first_of_two_nearly_equal_partners():
    assert assign([[0.500, 0.505]])[1].tolist() == [1]
    assert assign_culane([[0.500, 0.505]])[1].tolist() == [0]
    assert assign_culane([[0.500, 0.515]])[1].tolist() == [1]
    assert assign_culane([[0.500], [0.505]])[0].tolist() == [0]
