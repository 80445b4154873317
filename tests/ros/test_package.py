"""package.xml says what the code needs, in the format that ROS reads."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKSPACE = ROOT / "ros2_ws/src"
CODE = [*(ROOT / "getok_drive/ros").glob("*.py"), *(ROOT / "launch").glob("*.py")]
OPTIONAL = {"vision_msgs", "tf2_msgs"}  # used where they are installed
PYTHON = {"numpy": "python3-numpy", "cv2": "python3-opencv", "yaml": "python3-yaml"}
TOOLS = {"launch", "launch_ros", "rclpy", "ament_index_python"}


def imported() -> set[str]:
    """Top-level packages that the ROS side imports."""
    found = set()
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
    return found


def test_every_import_is_a_dependency_and_every_dependency_is_imported() -> None:
    declared = {e.text for e in ET.parse(WORKSPACE / "getok_drive/package.xml").iter("exec_depend")}
    names = imported()
    needed = {name for name in names if name.endswith(("_msgs", "_interfaces", "_srvs")) or name in TOOLS} - OPTIONAL
    needed |= {PYTHON[name] for name in names & set(PYTHON)}
    assert {"rclpy", "sensor_msgs", "getok_drive_msgs", "launch_ros"} <= needed
    assert needed <= declared <= needed | OPTIONAL


@pytest.mark.parametrize("name", ["getok_drive", "getok_drive_msgs"])
def test_ros_can_read_the_package(name: str) -> None:
    package = pytest.importorskip("catkin_pkg.package", reason="catkin-pkg comes with ros2_ws/requirements-build.txt")
    warnings: list[str] = []
    found = package.parse_package(str(WORKSPACE / name / "package.xml"), warnings=warnings)
    found.validate(warnings=warnings)
    assert not warnings
    assert (found.name, found.package_format) == (name, 3) and found.licenses == ["Apache-2.0"]
    assert found.get_build_type() == {"getok_drive": "ament_python", "getok_drive_msgs": "ament_cmake"}[name]


def test_the_messages_are_all_built() -> None:
    cmake = (WORKSPACE / "getok_drive_msgs/CMakeLists.txt").read_text()
    folder = WORKSPACE / "getok_drive_msgs"
    for path in (*folder.glob("msg/*.msg"), *folder.glob("srv/*.srv")):
        assert f'"{path.parent.name}/{path.name}"' in cmake
    depends = {e.text for e in ET.parse(folder / "package.xml").iter("depend")}
    listed = cmake.split("DEPENDENCIES")[1].split(")")[0].split()
    assert depends == set(listed) and all(f"find_package({name} REQUIRED)" in cmake for name in depends)
