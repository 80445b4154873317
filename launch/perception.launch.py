"""ros2 launch getok_drive perception.launch.py

Starts the perception node and drives it to active; a camera source, RViz and a recorder on request. ``-s`` lists all arguments.
"""

import copy
import os
import tempfile
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from launch import LaunchDescription

PACKAGE = "getok_drive"
CONFIG = Path(get_package_share_directory(PACKAGE)) / "config"

# name, default, description
ARGUMENTS = (
    ("cameras", "camera", "camera names, separated by commas"),
    ("transport", "raw", "raw or compressed"),
    ("bundle", "nano", "model bundle: name or folder"),
    ("backend", "onnx", "inference backend"),
    ("calibration", "", "calibration file with the cameras' poses"),
    ("ground_frame", "", "frame on the ground: camera poses from /tf_static instead of the calibration file"),
    ("params_file", str(CONFIG / "perception.yaml"), "parameter file; the arguments above win"),
    ("namespace", "", "namespace of all nodes"),
    ("source", "", "a video, an image folder or world:SEED to publish as the first camera; empty: real cameras"),
    ("rate_hz", "15.0", "rate of source, Hz"),
    ("ground_truth", "false", "true: source publishes its labels, too (world:SEED only)"),
    ("rviz", "false", "true: start RViz with everything shown"),
    ("record", "", "folder to record the results to as MCAP; empty: nothing is recorded"),
    ("record_images", "false", "true: record the cameras' images and labels, too, so that the bag can be replayed"),
    ("autostart", "true", "false: leave the lifecycle to somebody else"),
    ("use_sim_time", "false", "true: take the time from /clock"),
)
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # Humble and Jazzy; Kilted
FLAGS = ("ground_truth", "rviz", "record_images", "autostart", "use_sim_time")


def rviz_config(cameras, ground_frame):
    """The shipped RViz configuration, or a copy made for several cameras or another ground frame."""
    shipped = CONFIG / "perception.rviz"
    if len(cameras) == 1 and ground_frame in ("", "base_link"):
        return str(shipped)
    config = yaml.safe_load(shipped.read_text())
    manager = config["Visualization Manager"]
    displays = []
    for display in manager["Displays"]:
        if len(cameras) == 1 or "Topic" not in display:
            displays.append(display)
            continue
        for camera in cameras:  # as the node names its outputs: perception_node/CAMERA/...
            one = copy.deepcopy(display)
            one["Name"] = f"{display['Name']} {camera}"
            one["Topic"]["Value"] = display["Topic"]["Value"].replace("perception_node/", f"perception_node/{camera}/")
            displays.append(one)
    manager["Displays"] = displays
    manager["Global Options"]["Fixed Frame"] = ground_frame or manager["Global Options"]["Fixed Frame"]
    with tempfile.NamedTemporaryFile("w", prefix="getok_drive_", suffix=".rviz", delete=False) as file:
        yaml.safe_dump(config, file, sort_keys=False)
    return file.name


def launch_setup(context):
    """The actions for the given arguments."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    yes = {name: value[name].lower() in ("true", "1", "yes") for name in FLAGS}
    cameras = [name.strip() for name in value["cameras"].split(",") if name.strip()]
    if not cameras:
        raise ValueError("cameras:= names no camera; leave it out, or give names separated by commas")
    calibration = value["calibration"]
    actions = []
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):  # a profile of the user's own (discovery, networks) stays
        profile = str(CONFIG / "fastdds_large_images.xml")
        actions += [SetEnvironmentVariable(name, profile) for name in PROFILE_VARIABLES]

    node = LifecycleNode(
        package=PACKAGE,
        executable="perception_node",
        name="perception_node",
        namespace=value["namespace"],
        output="screen",
        parameters=[
            value["params_file"],
            {
                "cameras": cameras,
                "transport": value["transport"],
                "bundle": value["bundle"],
                "backend": value["backend"],
                "calibration": calibration,
                "ground_frame": value["ground_frame"],
                "use_sim_time": yes["use_sim_time"],
            },
        ],
    )
    actions.append(node)
    if yes["autostart"]:
        activate = EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=Transition.TRANSITION_ACTIVATE)
        )
        # From configuring only: with the goal state alone, a deactivation would be answered by another activation.
        actions.append(
            RegisterEventHandler(
                OnStateTransition(
                    target_lifecycle_node=node, start_state="configuring", goal_state="inactive", entities=[activate]
                )
            )
        )
        actions.append(
            EmitEvent(
                event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=Transition.TRANSITION_CONFIGURE)
            )
        )
    if value["source"]:
        actions.append(
            Node(
                package=PACKAGE,
                executable="camera_source",
                name="camera_source",
                namespace=value["namespace"],
                output="screen",
                parameters=[
                    {
                        "source": value["source"],
                        "camera": cameras[0],
                        "rate_hz": float(value["rate_hz"]),
                        "ground_truth": yes["ground_truth"],
                    }
                ],
            )
        )
    if yes["rviz"]:
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                name="rviz2",
                namespace=value["namespace"],
                arguments=["-d", rviz_config(cameras, value["ground_frame"])],
                parameters=[{"use_sim_time": yes["use_sim_time"]}],
            )
        )
    if value["record"]:
        prefix = f"/{value['namespace'].strip('/')}/".replace("//", "/")
        outputs = rf"{prefix}perception_node/.*|/diagnostics|{prefix}[^/]+/camera_info"
        if yes["record_images"]:
            images = "image_raw/compressed" if value["transport"] == "compressed" else "image_raw"
            outputs += rf"|{prefix}[^/]+/({images}|ground_truth)"
        actions.append(
            ExecuteProcess(cmd=["ros2", "bag", "record", "-s", "mcap", "-o", value["record"], "-e", outputs], output="screen")
        )
    return actions


def generate_launch_description():
    """What ros2 launch asks for."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS]
    return LaunchDescription([*declared, OpaqueFunction(function=launch_setup)])
