"""Says in the test report whether the ROS tests ran, and checks that the installed messages are the repository's."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.ros.conftest import HAS_ROS, REASON

MSGS = Path(__file__).parents[2] / "ros2_ws/src/getok_drive_msgs"


@pytest.mark.skipif(not HAS_ROS, reason=REASON)
def test_installed_messages_are_those_of_the_repository() -> None:
    for path in (*MSGS.glob("msg/*.msg"), *MSGS.glob("srv/*.srv")):
        module = importlib.import_module(f"getok_drive_msgs.{path.parent.name}")
        kinds = getattr(module, path.stem)
        if path.suffix == ".srv":
            want, got = path.read_text().split("---")[0], kinds.Request
        else:
            want, got = path.read_text(), kinds
        fields = re.findall(r"^[\w/]+(?:\[\])? +(\w+)\s*(?:#|$)", want, re.MULTILINE)
        assert list(got.get_fields_and_field_types()) == fields, f"{path.name}: run scripts/build_msgs.py again"


@pytest.mark.parametrize("path", [*MSGS.glob("msg/*.msg"), *MSGS.glob("srv/*.srv")], ids=lambda p: p.name)
def test_every_field_says_its_unit_or_meaning(path: Path) -> None:
    documented = 0
    for line in path.read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#") and line != "---" and "=" not in line:
            documented += 1
            assert "#" in line or line.startswith(("bool success", "std_msgs")), f"{path.name}: {line!r} has no comment"
            if re.match(r"(float|uint|int|PixelPoint|geometry)", line):
                units = r"px|metre|millisec|probability|frame|occurrences|tokens|passes|images|MODE|unit vector"
                assert re.search(units, line), f"{path.name}: {line!r} gives no unit"
    assert documented
