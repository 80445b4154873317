"""Five ways of writing points: each reads what it wrote to its own resolution, and counts what nobody could read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from training.representations.forms import BINS, FORMS, TEXT_STEPS, read_lanes

STEP = {"text": 1 / TEXT_STEPS, "bins": 1 / BINS, "grid": 1 / 32, "grid-offset": 1 / 32, "grid-offsets": 1 / 32}
HEAD = ["<lane>", "<solid>", "<white>"]
points = hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(0, 1, width=32))


@pytest.mark.parametrize("name", FORMS)
@given(points=points)
def test_what_is_written_is_read_back_to_half_a_step(name, points):
    form = FORMS[name]
    found = form.read(form.write(points))
    assert found is not None
    assert np.abs(found - points).max() <= STEP[name] / 2 + 1e-9


def test_the_forms_of_one_point_by_hand():
    point = np.array([[0.512, 0.981]])
    assert "".join(FORMS["text"].write(point)) == "512,981;"
    assert FORMS["bins"].write(point) == ["<x_131>", "<y_251>"]
    assert FORMS["grid"].write(point) == ["<grid_16_31>"]


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("text", "512,98"), ("text", "512;981;"), ("text", "1001,0;"), ("text", "5,,1;"), ("text", "00512,1;"), ("text", "a,1;"),
        ("bins", ["<x_1>"]), ("bins", ["<y_1>", "<x_1>"]), ("bins", ["<x_1>", "<x_1>"]), ("bins", ["<x_256>", "<y_0>"]),
        ("grid", ["<grid_32_0>"]), ("grid", ["<OFF_0_0>"]),
    ],
)  # fmt: skip
def test_malformed_points_are_none(name, tokens):
    assert FORMS[name].read(list(tokens)) is None


def test_an_answer_is_read_and_its_faults_are_counted():
    form = FORMS["text"]
    good, bad, short = [*HEAD, *"1,2;3,4;"], [*HEAD, *"1,2;3"], [*HEAD, *"1,2;"]
    no_color = ["<lane>", "<solid>", *"1,2;3,4;"]
    read = read_lanes(form, [*good, *bad, *short, *no_color, *good, "</scene>", *bad])
    assert [len(lane) for lane in read.lanes] == [2, 2]
    assert np.allclose(read.lanes[0], [[0.001, 0.002], [0.003, 0.004]])
    assert (read.malformed, read.complete) == (3, True)
    unfinished = read_lanes(form, [*good, *bad])
    assert (len(unfinished.lanes), unfinished.malformed, unfinished.complete) == (1, 1, False)
    stray = read_lanes(form, ["1", *good, "</scene>"])
    assert (len(stray.lanes), stray.malformed, stray.complete) == (1, 1, False)
    empty = read_lanes(form, ["</scene>"])
    assert (empty.lanes, empty.malformed, empty.complete) == ([], 0, True)
    assert not read_lanes(form, []).complete


@given(st.lists(st.sampled_from([*HEAD, *"0129,;", "<x_3>", "<y_4>", "<grid_1_2>", "<OFF_0_0>", "</scene>", "x"]), max_size=40))
def test_reading_never_raises(tokens):
    for form in FORMS.values():
        read = read_lanes(form, tokens)
        begun = (tokens[: tokens.index("</scene>")] if "</scene>" in tokens else tokens).count("<lane>")
        assert begun <= len(read.lanes) + read.malformed <= begun + 1
