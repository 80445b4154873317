"""Launch files and the thin ROS package: contract with stand-ins for `launch`, and the real thing where there is a launch_ros."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from getok_drive.ros.params import NodeParams

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ros2_ws" / "src" / "getok_drive"


class Recorded:
    """Stands for any class of launch and launch_ros: keeps its name and arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


def stand_ins(arguments: dict[str, str]) -> dict[str, types.ModuleType]:
    """Modules that record what a launch file builds. ``LaunchConfiguration.perform`` answers from ``arguments``."""

    class LaunchConfiguration(Recorded):
        def perform(self, context: object) -> str:
            return arguments[self.args[0]]

    names = {
        "launch": ["LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument", "EmitEvent", "ExecuteProcess", "OpaqueFunction", "RegisterEventHandler",
                           "SetEnvironmentVariable"],
        "launch.substitutions": [],
        "launch.events": ["matches_action"],
        "launch_ros": [], "launch_ros.actions": ["LifecycleNode", "Node"], "launch_ros.event_handlers": ["OnStateTransition"],
        "launch_ros.events": [], "launch_ros.events.lifecycle": ["ChangeState"],
        "ament_index_python": [], "ament_index_python.packages": [],
        "lifecycle_msgs": [], "lifecycle_msgs.msg": [],
    }  # fmt: skip
    modules = {name: types.ModuleType(name) for name in names}
    for name, classes in names.items():
        for kind in classes:
            setattr(modules[name], kind, type(kind, (Recorded,), {}))
    modules["launch.substitutions"].LaunchConfiguration = LaunchConfiguration  # type: ignore[attr-defined]
    modules["ament_index_python.packages"].get_package_share_directory = lambda name: str(PACKAGE)  # type: ignore[attr-defined]
    transition = type("Transition", (), {"TRANSITION_CONFIGURE": 1, "TRANSITION_ACTIVATE": 3})
    modules["lifecycle_msgs.msg"].Transition = transition  # type: ignore[attr-defined]
    return modules


def launch(name: str, monkeypatch: pytest.MonkeyPatch, **arguments: str) -> tuple[dict[str, str], list[Recorded]]:
    """Imports a launch file; gives its declared arguments with defaults, and the actions for ``arguments``."""
    values: dict[str, str] = {}
    for module_name, module in stand_ins(values).items():
        monkeypatch.setitem(sys.modules, module_name, module)
    spec = importlib.util.spec_from_file_location("launch_file", ROOT / "launch" / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    *declared, opaque = module.generate_launch_description().args[0]
    defaults = {action.args[0]: action.kwargs.get("default_value", "") for action in declared}
    assert all(action.kwargs["description"] for action in declared)
    assert set(arguments) <= set(defaults)
    values.update({**defaults, **arguments})
    return defaults, opaque.kwargs["function"](None)


def kinds(actions: list[Recorded], kind: str) -> list[Recorded]:
    return [action for action in actions if type(action).__name__ == kind]


def test_perception_launch_names_real_executables_files_and_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults, actions = launch(
        "perception.launch.py",
        monkeypatch,
        cameras="front, rear",
        source="world:7",
        rviz="true",
        record="/tmp/x",
        namespace="car",
    )
    assert {"cameras", "bundle", "backend", "calibration", "namespace", "rviz", "record", "source"} <= set(defaults)
    (node,) = kinds(actions, "LifecycleNode")
    source, rviz = kinds(actions, "Node")
    for action in (node, source):
        executable = PACKAGE / "scripts" / action.kwargs["executable"]
        assert os.access(executable, os.X_OK), executable
        assert executable.read_text().startswith("#!/usr/bin/env python3")
    file, given = node.kwargs["parameters"]
    declared = set(NodeParams.__dataclass_fields__) | {"use_sim_time"}
    assert set(given) <= declared
    assert set(yaml.safe_load(Path(file).read_text())["/**"]["ros__parameters"]) <= declared
    NodeParams(**{key: value for key, value in given.items() if key != "use_sim_time"})
    assert given["cameras"] == ["front", "rear"] and source.kwargs["parameters"][0]["camera"] == "front"
    from_source = (ROOT / "getok_drive/ros/source.py").read_text()
    assert all(f'"{key}":' in from_source for key in source.kwargs["parameters"][0])
    assert Path(rviz.kwargs["arguments"][1]).is_file()
    record = kinds(actions, "ExecuteProcess")[0].kwargs["cmd"]
    pattern = re.compile(record[record.index("-e") + 1])
    assert pattern.fullmatch("/car/perception_node/front/scene") and pattern.fullmatch("/car/front/camera_info")
    assert not pattern.fullmatch("/car/front/image_raw")
    _, actions = launch("perception.launch.py", monkeypatch, record="/tmp/x", record_images="true", transport="compressed")
    record = kinds(actions, "ExecuteProcess")[0].kwargs["cmd"]
    pattern = re.compile(record[record.index("-e") + 1])
    assert pattern.fullmatch("/front/image_raw/compressed") and pattern.fullmatch("/front/ground_truth")
    assert not pattern.fullmatch("/front/image_raw")


def test_perception_launch_activates_after_configuring_only(monkeypatch: pytest.MonkeyPatch) -> None:
    _, actions = launch("perception.launch.py", monkeypatch)
    (handler,) = kinds(actions, "RegisterEventHandler")
    on = handler.args[0].kwargs
    assert (on["start_state"], on["goal_state"]) == ("configuring", "inactive")
    assert on["entities"][0].kwargs["event"].kwargs["transition_id"] == 3
    (configure,) = kinds(actions, "EmitEvent")
    assert configure.kwargs["event"].kwargs["transition_id"] == 1
    assert not kinds(actions, "Node") and not kinds(actions, "ExecuteProcess")
    _, manual = launch("perception.launch.py", monkeypatch, autostart="false")
    assert not kinds(manual, "EmitEvent") and not kinds(manual, "RegisterEventHandler")


def test_perception_launch_sets_the_profile_unless_the_user_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    _, actions = launch("perception.launch.py", monkeypatch)
    found = {variable.args[0]: Path(variable.args[1]) for variable in kinds(actions, "SetEnvironmentVariable")}
    assert set(found) == set(names) and all(path.is_file() for path in found.values())
    monkeypatch.setenv(names[0], "/etc/our_discovery_server.xml")
    _, actions = launch("perception.launch.py", monkeypatch)
    assert not kinds(actions, "SetEnvironmentVariable")


def test_rviz_shows_every_camera_in_its_ground_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    _, actions = launch("perception.launch.py", monkeypatch, rviz="true", cameras="front,rear", ground_frame="base_footprint")
    path = Path(kinds(actions, "Node")[0].kwargs["arguments"][1])
    made = yaml.safe_load(path.read_text())["Visualization Manager"]
    path.unlink()
    topics = {display["Topic"]["Value"] for display in made["Displays"] if "Topic" in display}
    outputs = ("drivable_grid", "markers", "overlay/compressed")
    assert topics == {f"perception_node/{camera}/{output}" for camera in ("front", "rear") for output in outputs}
    assert made["Global Options"]["Fixed Frame"] == "base_footprint"
    assert sum(display["Name"] == "Grid" for display in made["Displays"]) == 1
    with pytest.raises(ValueError, match="names no camera"):
        launch("perception.launch.py", monkeypatch, cameras=" , ")


def test_replay_launch_gives_a_command_that_replay_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    from getok_drive.ros.replay import parser

    defaults, actions = launch(
        "replay.launch.py", monkeypatch, bag="b.mcap", topics="/a/image_raw, /b/image_raw", realtime="true", calibration="c.yaml",
        tasks="lanes, signs", ground_frame="base_link",
    )  # fmt: skip
    (process,) = actions
    command = process.kwargs["cmd"]
    assert command[:3] == ["ros2", "run", "getok_drive"] and os.access(PACKAGE / "scripts" / command[3], os.X_OK)
    options = parser().parse_args(command[4:])
    assert str(options.bag) == "b.mcap" and options.topics == ["/a/image_raw", "/b/image_raw"] and options.realtime
    assert options.tasks == ("lanes", "signs") and options.ground_frame == "base_link"
    assert defaults["bag"] == ""  # it has no default: launch asks for it


def test_the_page_lists_all_launch_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults, _ = launch("perception.launch.py", monkeypatch)
    defaults["params_file"] = "config/" + Path(defaults["params_file"]).name
    page = (ROOT / "docs/ros.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`)? ?\|", page.split("## Launch")[1].split("## Topics")[0], re.MULTILINE))
    assert rows == defaults


def test_package_installs_what_ros_looks_for(tmp_path: Path) -> None:
    """`ros2 launch` and `ros2 run` find a package by its marker, share/ and lib/; asked of setup.py itself."""
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", tmp_path, "install_data", "--install-dir", tmp_path],
        cwd=PACKAGE, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for path in ("share/ament_index/resource_index/packages/getok_drive", "share/getok_drive/package.xml"):
        assert (tmp_path / path).is_file(), path
    installed = {p.name for p in (tmp_path / "share/getok_drive/launch").iterdir()}
    assert installed == {"perception.launch.py", "replay.launch.py"}
    assert {p.name for p in (tmp_path / "share/getok_drive/config").iterdir()} == {p.name for p in (PACKAGE / "config").iterdir()}
    for executable in (tmp_path / "lib/getok_drive").iterdir():
        assert os.access(executable, os.X_OK), executable


def test_no_init_file_shadows_the_launch_module() -> None:
    assert not (ROOT / "launch" / "__init__.py").exists()


def test_viewers_show_topics_that_the_node_publishes() -> None:
    outputs = (ROOT / "getok_drive/ros/outputs.py").read_text()
    rviz = yaml.safe_load((PACKAGE / "config/perception.rviz").read_text())
    topics = [d["Topic"]["Value"] for d in rviz["Visualization Manager"]["Displays"] if "Topic" in d]
    foxglove = (PACKAGE / "config/foxglove_layout.json").read_text()
    json.loads(foxglove)
    topics += re.findall(r"/(perception_node/[\w/]+)", foxglove)
    assert len(topics) >= 6
    for topic in topics:
        assert f'"{topic.removeprefix("perception_node/")}"' in outputs, topic


def test_perception_launch_with_the_real_launch_module() -> None:
    pytest.importorskip("launch_ros", reason="launch_ros is not on PyPI; with a ROS 2 from apt this test runs the launch file")
    from launch import LaunchContext

    spec = importlib.util.spec_from_file_location("launch_file", ROOT / "launch" / "perception.launch.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = LaunchContext()
    for entity in module.generate_launch_description().entities[:-1]:
        entity.execute(context)
    assert module.launch_setup(context)
