"""``training.export --rounds``: a number for all kinds, or for one."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from getok_drive.errors import ConfigError
from training.export import _parse_rounds


@pytest.mark.parametrize(
    ("text", "rounds"),
    [("2", (2, 2, 2, 2)), ("3,box=1", (3, 3, 1, 3)), ("box=1", (3, 3, 1, 3)), ("1,lane=3,sign=2", (3, 1, 1, 2))],
)
def test_rounds_for_all_kinds_or_for_one(text, rounds):
    assert _parse_rounds(text) == dict(zip(("lane", "drivable", "box", "sign"), rounds, strict=True))


@pytest.mark.parametrize("text", ["0", "4", "car=1", "box=", "3,", "box=1.5"])
def test_other_rounds_are_refused_by_name(text):
    with pytest.raises(ConfigError, match=r"--rounds .*such as 3,box=1"):
        _parse_rounds(text)
