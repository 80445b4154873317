import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from getok_drive.errors import InputError
from getok_drive.tokens.confidence import (
    Calibration,
    calibrate,
    delete_probability,
    element_confidence,
    fit_temperature,
    neighbourhood_mass,
    reliability,
    token_probability,
)
from getok_drive.tokens.vocab import GRID_SIZE, TABLE, TOKEN_ID, TOKENS


@given(st.integers(0, GRID_SIZE**2 - 1))
def test_neighbourhood_is_the_3_by_3_cells_around(cell):
    probs = np.random.default_rng(cell).random(len(TOKENS))
    column, row = cell % GRID_SIZE, cell // GRID_SIZE
    near = [
        probs[j * GRID_SIZE + i] for j in range(GRID_SIZE) for i in range(GRID_SIZE) if abs(i - column) <= 1 and abs(j - row) <= 1
    ]
    assert neighbourhood_mass(probs, cell) == pytest.approx(sum(near))
    assert token_probability(probs, cell) == pytest.approx(sum(near))
    batch = neighbourhood_mass(np.stack([probs, probs[::-1]]), np.array([cell, cell]))
    assert batch.tolist() == pytest.approx([sum(near), neighbourhood_mass(probs[::-1], cell)])


def test_other_tokens_stand_for_themselves():
    probs = np.random.default_rng(0).random(len(TOKENS))
    assert token_probability(probs, TOKEN_ID["<car>"]) == probs[TOKEN_ID["<car>"]]
    assert delete_probability(probs) == probs[TABLE.delete]


def test_element_confidence_by_hand():
    assert element_confidence([0.9, 0.5], [0.81, 1.0]) == pytest.approx(0.45 * 0.9)
    assert element_confidence([1.0], [0.5], [0.5]) == pytest.approx(0.25)
    assert element_confidence([1.0000001, float("nan")], [1.0]) == 0.0
    assert element_confidence([1.5], [2.0]) == 1.0


def test_calibration_keeps_order_and_identity():
    c = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    assert calibrate(c, 1.0, 0.0) == pytest.approx(c, abs=2e-6)
    assert (np.diff(calibrate(c, 3.0, -1.0)) > 0).all()
    assert calibrate([0.5], 2.0, 0.0)[0] == 0.5
    assert Calibration()(0.123) == 0.123
    for wrong in ((0.0, 0.0), (-1.0, 0.0), (1.0, math.nan)):
        with pytest.raises(InputError):
            Calibration(*wrong)


@pytest.mark.parametrize(("temperature", "bias"), [(2.0, -0.7), (0.5, 0.4), (1.0, 0.0)])
def test_the_fit_finds_the_temperature_that_made_the_data(temperature, bias):
    rng = np.random.default_rng(3)
    confidence = rng.beta(2, 1, 40_000)
    hit = rng.random(40_000) < calibrate(confidence, temperature, bias)
    fitted = fit_temperature(confidence, hit)
    assert fitted == pytest.approx((temperature, bias), abs=0.06)
    before, after = reliability(confidence, hit), reliability(calibrate(confidence, *fitted), hit)
    assert after.ece < 0.01
    assert after.brier <= before.brier + 1e-6


@pytest.mark.parametrize(
    ("confidence", "hit"),
    [
        ([0.9], [1]),
        ([0.9] * 50, [1] * 50),
        ([0.2] * 50, [0] * 50),
        ([0.1, 0.9], [0, 1]),
        ([0.0, 1.0], [1, 0]),
        ([0.9, 0.1] * 30, [0, 1] * 30),
    ],
)
def test_the_fit_stays_finite_on_hard_data(confidence, hit):
    temperature, bias = fit_temperature(confidence, hit)
    assert 0 < temperature <= 100 and math.isfinite(bias)
    Calibration(temperature, bias)


def test_reliability_by_hand():
    result = reliability([0.1, 0.3, 0.8, 0.9, 1.0], [0, 1, 1, 0, 1], bins=2)
    assert result.count.tolist() == [2, 3]
    assert result.confidence.tolist() == pytest.approx([0.2, 0.9])
    assert result.precision.tolist() == pytest.approx([0.5, 2 / 3])
    assert result.ece == pytest.approx(2 / 5 * 0.3 + 3 / 5 * (0.9 - 2 / 3))
    assert result.brier == pytest.approx((0.01 + 0.49 + 0.04 + 0.81 + 0) / 5)
    assert np.isnan(reliability([0.9], [1], bins=4).precision[:3]).all()


@pytest.mark.parametrize("arguments", [([], []), ([0.5], [1, 0]), ([1.5], [1]), ([np.nan], [1]), ([0.5], [0.5])])
def test_wrong_data_is_named(arguments):
    with pytest.raises(InputError):
        reliability(*arguments)
    with pytest.raises(InputError):
        fit_temperature(*arguments)
    with pytest.raises(InputError):
        reliability([0.5], [1], bins=0)
