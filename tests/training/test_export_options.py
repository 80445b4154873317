"""Options of ``training.export`` that go by kind of element: ``--rounds`` and ``--least-confidence``."""

from __future__ import annotations

import pytest

from getok_drive.errors import ConfigError
from training.export_options import least_confidence_by_kind, rounds_by_kind


@pytest.mark.parametrize(
    ("text", "rounds"),
    [("2", (2, 2, 2, 2)), ("3,box=1", (3, 3, 1, 3)), ("box=1", (3, 3, 1, 3)), ("1,lane=3,sign=2", (3, 1, 1, 2))],
)
def test_rounds_for_all_kinds_or_for_one(text, rounds):
    assert rounds_by_kind(text) == dict(zip(("lane", "drivable", "box", "sign"), rounds, strict=True))


@pytest.mark.parametrize("text", ["0", "4", "car=1", "box=", "3,", "box=1.5"])
def test_other_rounds_are_refused_by_name(text):
    with pytest.raises(ConfigError, match=r"--rounds .*such as 3,box=1"):
        rounds_by_kind(text)


def test_least_confidence_of_some_kinds():
    assert least_confidence_by_kind("box=0.2,sign=.25") == {"lane": 0.0, "drivable": 0.0, "box": 0.2, "sign": 0.25}


@pytest.mark.parametrize("text", ["0.2", "box=", "box=1.5", "box=nan", "car=0.2", "box=0.2,"])
def test_another_least_confidence_is_refused_by_name(text):
    with pytest.raises(ConfigError, match=r"--least-confidence .*such as box=0.2,sign=0.2"):
        least_confidence_by_kind(text)
