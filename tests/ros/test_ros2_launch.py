"""``ros2 launch`` itself, as its users type it: needs a ROS 2 that is sourced, with this package in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from getok_drive_msgs.msg import Scene

from scripts.ros_environment import child_environment
from tests.ros.harness import ROOT, Client

pytest.importorskip("ros2launch", reason="ros2 launch is not on PyPI; with a ROS 2 from apt this test runs it")
_PATIENCE_S = 120.0  # ros2, both nodes and the model start meanwhile, in processes whose waiting the fair clock does not see


@pytest.fixture
def ros2() -> str:
    """The command, where it finds the package."""
    try:
        get_package_prefix("getok_drive")
    except PackageNotFoundError:
        pytest.skip("the package getok_drive is not installed in this ROS 2: colcon build in ros2_ws")
    return shutil.which("ros2") or pytest.skip("ros2 is not on PATH")


@pytest.mark.timeout(600)
def test_from_one_command_to_scenes_and_back(ros: Client, ros2: str) -> None:
    """Node and source come up below a namespace, the node becomes active by itself, and one Ctrl-C ends all of it."""
    patient = ros.folder / "patient.yaml"
    patient.write_text("/**:\n  ros__parameters: {max_age_s: 60.0, degrade: never}\n")
    scenes = ros.collect(Scene, "/robot/perception_node/front/scene")
    command = [
        ros2, "launch", str(ROOT / "launch" / "perception.launch.py"), "namespace:=robot", "cameras:=front,rear", "rate_hz:=2.0",
        f"source:={ros.picture()}", f"params_file:={patient}", "transport:=compressed",
    ]  # fmt: skip
    log: Path = ros.folder / "launch.log"
    with log.open("w") as out:
        launched = subprocess.Popen(command, env=child_environment(), stdout=out, stderr=out, start_new_session=True)
    try:
        ros.wait(lambda: scenes or launched.poll() is not None, _PATIENCE_S, "a scene")
        assert launched.poll() is None, f"exit code {launched.returncode}"
        assert scenes[0].camera == "front" and scenes[0].bundle_name == "nano"
        launched.send_signal(signal.SIGINT)
        assert launched.wait(30) == 0
        said = log.read_text()
        assert "[perception_node-1]: process has finished cleanly" in said, said
        assert "[camera_source-2]: process has finished cleanly" in said, said
    except BaseException:
        print(log.read_text(errors="replace"))
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):  # its nodes, too, are in its session
            os.killpg(launched.pid, signal.SIGKILL)
        launched.wait()
