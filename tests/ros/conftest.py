"""Tests of the ROS side run real nodes over real DDS. Where ROS 2 is not installed, only those without rclpy are collected."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.ros_domain import free_domain
from scripts.ros_environment import stay_on_this_machine

REASON = (
    "ROS 2 is not installed here: pip install -e '.[ros]' and python scripts/build_msgs.py --install-tools (x86_64 Linux), "
    "or source a ROS 2 with getok_drive_msgs"
)
HAS_ROS = importlib.util.find_spec("rclpy") is not None and importlib.util.find_spec("getok_drive_msgs") is not None
_USES_ROS = re.compile(r"^(?:from|import) (?:rclpy|\w+_msgs|tests\.ros\.harness)\b", re.MULTILINE)
collect_ignore = [] if HAS_ROS else [p.name for p in Path(__file__).parent.glob("test_*.py") if _USES_ROS.search(p.read_text())]

PROFILE = Path(__file__).parents[2] / "ros2_ws/src/getok_drive/config/fastdds_large_images.xml"

if HAS_ROS:  # before rclpy is imported: the wheels' prefix, a domain of this run alone, the profile that the product ships
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    os.environ["ROS_DOMAIN_ID"] = os.environ.get("GETOK_TEST_DOMAIN_ID") or free_domain()
    stay_on_this_machine()
    # Messages then refuse what is not of the type of a field, as Humble's always do; those of Jazzy and Kilted only when asked.
    os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(PROFILE)


@pytest.fixture
def ros() -> Iterator[object]:
    """A client on the graph; ends the processes it started."""
    from tests.ros.harness import Client

    with Client() as client:
        yield client
