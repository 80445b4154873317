"""ros2 launch getok_drive replay.launch.py bag:=/path/to/bag out:=/path/to/results

Runs a recorded bag through the perception pipeline: a bag with scenes, an overlay video and a report come out.
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

# name, default (None: must be given), description
ARGUMENTS = (
    ("bag", None, "bag to read: a folder, an .mcap or a .db3 file"),
    ("out", "replay", "folder for the results"),
    ("bundle", "nano", "model bundle: name or folder"),
    ("backend", "onnx", "inference backend"),
    ("calibration", "", "calibration file with the cameras' poses"),
    ("ground_frame", "", "frame on the ground: camera poses from the bag's /tf_static instead of the calibration file"),
    ("topics", "", "image topics, separated by commas; empty: all in the bag"),
    ("tasks", "", "kinds that the bag's labels cover, separated by commas; empty: all"),
    ("realtime", "false", "true: at the bag's own pace, dropping what comes too fast, as on the robot"),
)


def launch_setup(context):
    """The one process for the given arguments."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    command = ["ros2", "run", "getok_drive", "replay", value["bag"], "--out", value["out"]]
    command += ["--bundle", value["bundle"], "--backend", value["backend"]]
    if value["calibration"]:
        command += ["--calibration", value["calibration"]]
    if value["ground_frame"]:
        command += ["--ground-frame", value["ground_frame"]]
    if value["topics"]:
        command += ["--topics", *[topic.strip() for topic in value["topics"].split(",")]]
    if value["tasks"]:
        command += ["--tasks", value["tasks"]]
    if value["realtime"].lower() in ("true", "1", "yes"):
        command.append("--realtime")
    return [ExecuteProcess(cmd=command, output="screen")]


def generate_launch_description():
    """What ros2 launch asks for."""
    declared = [
        DeclareLaunchArgument(name, description=text, **({} if default is None else {"default_value": default}))
        for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=launch_setup)])
