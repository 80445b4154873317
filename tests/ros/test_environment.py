"""What a ROS process hands on to the next one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.ros_environment import child_environment, stay_on_this_machine


@pytest.mark.parametrize("wheels", [True, False])
def test_a_sourced_ros_keeps_its_libraries_and_the_wheels_look_for_theirs_again(
    monkeypatch: pytest.MonkeyPatch, wheels: bool
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/ros/humble/lib")
    monkeypatch.setenv("PYTHONPATH", "/opt/ros/humble/local/lib/python3.10/dist-packages")
    if wheels:
        monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    else:
        monkeypatch.delenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", raising=False)
    env = child_environment()
    assert env.get("LD_LIBRARY_PATH") == (None if wheels else "/opt/ros/humble/lib")
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in env
    ours, theirs = env["PYTHONPATH"].split(os.pathsep)
    assert (Path(ours) / "getok_drive").is_dir() and theirs == "/opt/ros/humble/local/lib/python3.10/dist-packages"


@pytest.mark.parametrize("distribution", ["humble", "jazzy", None])
def test_every_distribution_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch, distribution: str | None) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")  # both are put back afterwards, whatever happens between
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "0")
    if distribution:
        monkeypatch.setenv("ROS_DISTRO", distribution)
    else:
        monkeypatch.delenv("ROS_DISTRO", raising=False)
    stay_on_this_machine()
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert os.environ["ROS_LOCALHOST_ONLY"] == ("1" if distribution == "humble" else "0")
