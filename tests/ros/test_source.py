"""Parameters of the camera source: numbers are taken as they are meant, and those that make no sense are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from getok_drive.errors import InputError

pytest.importorskip("rclpy", reason="needs ROS 2")
source = pytest.importorskip("getok_drive.ros.source", reason="needs ROS 2's messages")


@pytest.mark.parametrize(
    ("name", "default", "value"),
    [("rate_hz", 15.0, -1.0), ("rate_hz", 15.0, float("nan")), ("width_px", 0, -640), ("max_frames", 0, -1),
     ("fov_deg", 60.0, 0), ("fov_deg", 60.0, 180.0), ("camera", "camera", 1.5)],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(name: str, default: Any, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected"):
        source._as(default, value, name)


def test_whole_numbers_are_taken_as_meant() -> None:
    assert source._as("world:0", 0, "source") == "0" and source._as(15.0, 10, "rate_hz") == 10.0
    assert source._as(0, 0, "width_px") == 0 and source._as(60.0, 90, "fov_deg") == 90.0
