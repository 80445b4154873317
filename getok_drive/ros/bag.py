"""Writing bags with rosbags; messages stay serialised. Needs the packages rosbags and getok_drive_msgs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from getok_drive.errors import InputError


def typestore() -> Any:
    """rosbags' types of ROS 2 together with those of the installed `getok_drive_msgs`."""
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise InputError("bags need the package rosbags: pip install rosbags") from error
    store = get_typestore(Stores.ROS2_JAZZY)
    for folder in interface_folders():
        for path in sorted(folder.glob("*.msg")):
            store.register(get_types_from_msg(path.read_text(), f"getok_drive_msgs/msg/{path.stem}"))
        return store
    raise InputError("getok_drive_msgs is not installed: python scripts/build_msgs.py, or colcon build in ros2_ws")


def interface_folders() -> Iterator[Path]:
    """Folders with the installed definitions of our messages."""
    for prefix in (*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix):
        folder = Path(prefix) / "share" / "getok_drive_msgs" / "msg"
        if prefix and folder.is_dir():
            yield folder


class BagWriter:
    """A rosbag2 folder with one MCAP file; topics are declared as they come.

    Args:
        path: the folder; it must not exist yet.
    """

    def __init__(self, path: Path) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        if path.exists():
            raise InputError(f"{path} exists already; choose another folder or remove it")
        self.path = path
        self.counts: dict[str, int] = {}
        self._types = typestore()
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()

    def write(self, topic: str, msgtype: str, time_ns: int, data: bytes) -> None:
        """Appends one serialised message, e.g. of type ``getok_drive_msgs/msg/Scene``, received at ``time_ns``."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, msgtype, typestore=self._types)
        self._writer.write(self._connections[topic], time_ns, data)
        self.counts[topic] = self.counts.get(topic, 0) + 1


def type_name(kind: Any) -> str:
    """``package/msg/Name`` of an rclpy message class."""
    package, folder, _ = kind.__module__.split(".", 2)
    return f"{package}/{folder}/{kind.__name__}"
