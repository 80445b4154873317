"""Calibration from outside: `sensor_msgs/CameraInfo` and the YAML file of camera poses.

The file (angles in degrees, lengths in metres; all entries but one pose per camera are optional)::

    ground_frame: base_link          # x forward, y left, z up, origin on the ground
    cameras:
      front:                         # a name of the node's parameter "cameras"
        mount: {height_m: 1.4, x_m: 1.5, y_m: 0.0, pitch_down_deg: 3.0, roll_deg: 0.0, yaw_left_deg: 0.0}
      rear:
        pose: {translation_m: [0, 0, 1.2], quaternion_xyzw: [-0.5, -0.5, 0.5, 0.5]}   # ground_SE3_camera (optical frame)
        intrinsics: {image_size_wh: [1280, 720], K: [9 numbers], D: [numbers], model: plumb_bob}   # overrides camera_info
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from getok_drive.errors import CalibrationError
from getok_drive.geometry.camera import SE3, CameraModel

_MOUNT_KEYS = {"height_m", "x_m", "y_m", "pitch_down_deg", "roll_deg", "yaw_left_deg"}
_POSE_KEYS = {"translation_m", "quaternion_xyzw"}
_INTRINSICS_KEYS = {"image_size_wh", "K", "D", "model"}


@dataclass(frozen=True, slots=True)
class CameraCalibration:
    """Pose of one camera and, where the file gives them, its intrinsics."""

    ground_SE3_cam: SE3
    camera: CameraModel | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the calibration file says; empty when there is none."""

    ground_frame: str = "base_link"
    cameras: Mapping[str, CameraCalibration] = field(default_factory=dict)


def camera_from_info(info: Any) -> CameraModel | None:
    """The camera model in a CameraInfo message; None when the driver publishes an uncalibrated one (K all zero).

    Binning and region of interest are as REP 104 has them: the message describes the whole sensor, ``roi`` the part that is
    sent, in unbinned pixels. A ``roi`` without a size is the whole image.

    Raises:
        CalibrationError: A value is NaN, infinite or impossible.
    """
    k = [float(v) for v in getattr(info, "k", getattr(info, "K", ()))]  # rosbags names the field K
    d = [float(v) for v in getattr(info, "d", getattr(info, "D", ()))]
    if not any(k):  # NaN counts as true: it goes on and is refused
        return None
    model = str(info.distortion_model) or "plumb_bob"
    camera = CameraModel((int(info.width), int(info.height)), k, d, "equidistant" if model == "fisheye" else model)  # type: ignore[arg-type]
    binning = max(int(info.binning_x), 1), max(int(info.binning_y), 1)  # 0 means 1
    offset_px = int(info.roi.x_offset), int(info.roi.y_offset)
    window_wh = int(info.roi.width) or camera.size_wh[0] - offset_px[0], int(info.roi.height) or camera.size_wh[1] - offset_px[1]
    if binning == (1, 1) and window_wh == camera.size_wh:
        return camera
    return camera.windowed(offset_px, window_wh, binning)


def load_calibration(path: str | Path, names: tuple[str, ...]) -> Calibration:
    """Reads and checks the calibration file.

    Args:
        path: the file; an empty string gives an empty calibration.
        names: the node's cameras; the file may hold more, and a camera that it lacks stays uncalibrated.

    Raises:
        CalibrationError: The file cannot be read or an entry is wrong; the message names file and entry.
    """
    if not str(path):
        return Calibration()
    import yaml

    path = Path(path).expanduser()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CalibrationError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("cameras"), dict):
        raise CalibrationError(
            f"{path}: expected a mapping with an entry 'cameras'; see getok_drive/ros/calibration.py for the format"
        )
    found = {}
    for name in names:
        if name not in content["cameras"]:
            continue
        try:
            found[name] = _camera_entry(content["cameras"][name])
        except (AttributeError, CalibrationError, KeyError, TypeError, ValueError) as error:  # a word where a mapping should be
            raise CalibrationError(
                f"{path}: cameras.{name}: {error if not isinstance(error, KeyError) else f'{error} is missing'}"
            ) from error
    if not found:
        raise CalibrationError(f"{path}: has cameras {sorted(content['cameras'])} but none of {list(names)}")
    return Calibration(str(content.get("ground_frame", "base_link")), found)


def _camera_entry(entry: Mapping[str, Any]) -> CameraCalibration:
    unknown = set(entry) - {"mount", "pose", "intrinsics"}
    if unknown or ("mount" in entry) == ("pose" in entry):
        raise CalibrationError(f"expected exactly one of mount and pose, and optionally intrinsics; got {sorted(entry)}")
    if "mount" in entry:
        mount = {key: float(value) for key, value in _known(entry, "mount", _MOUNT_KEYS).items()}
        pose = SE3.from_mount(
            height_m=mount["height_m"],
            x_m=mount.get("x_m", 0.0),
            y_m=mount.get("y_m", 0.0),
            pitch_down_rad=math.radians(mount.get("pitch_down_deg", 0.0)),
            roll_rad=math.radians(mount.get("roll_deg", 0.0)),
            yaw_rad=math.radians(mount.get("yaw_left_deg", 0.0)),
        )
    else:
        given = _known(entry, "pose", _POSE_KEYS)
        pose = SE3.from_quaternion(given["quaternion_xyzw"], given["translation_m"])
    camera = None
    if "intrinsics" in entry:
        values = _known(entry, "intrinsics", _INTRINSICS_KEYS)
        width, height = values["image_size_wh"]
        camera = CameraModel((int(width), int(height)), values["K"], values.get("D", []), values.get("model", "plumb_bob"))
    return CameraCalibration(pose, camera)


def _known(entry: Mapping[str, Any], part: str, keys: set[str]) -> Mapping[str, Any]:
    """A part of the entry; a misspelt optional key must not count as one that was left out."""
    values: Mapping[str, Any] = entry[part]
    if unknown := set(values.keys()) - keys:
        raise CalibrationError(f"{part}: unknown {sorted(map(str, unknown))}; use {sorted(keys)}")
    return values
