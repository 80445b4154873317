"""Reading and writing bags with the package rosbags; messages stay serialised. Needs no rclpy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from getok_drive.errors import InputError

IMAGE_TYPES = {"sensor_msgs/msg/Image": False, "sensor_msgs/msg/CompressedImage": True}  # whether it is compressed
SCENE_TYPE = "getok_drive_msgs/msg/Scene"
_CHECKOUT = Path(__file__).parents[2] / "ros2_ws" / "src" / "getok_drive_msgs" / "msg"


def typestore() -> Any:
    """rosbags' types of ROS 2 together with those of `getok_drive_msgs`, as installed or else as in the checkout."""
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
    """Folders with the definitions of our messages."""
    for prefix in (*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix):
        folder = Path(prefix) / "share" / "getok_drive_msgs" / "msg"
        if prefix and folder.is_dir():
            yield folder
    if _CHECKOUT.is_dir():
        yield _CHECKOUT


def open_bag(path: Path) -> Any:
    """An open `rosbags.highlevel.AnyReader`; the caller closes it.

    Args:
        path: a bag folder, an ``.mcap`` or a ``.db3`` file.

    Raises:
        InputError: nothing there, or not a bag.
    """
    if not path.exists():
        raise InputError(f"{path}: no such bag")
    types = typestore()
    from rosbags.highlevel import AnyReader

    try:
        reader = AnyReader([path], default_typestore=types)
        reader.open()
    except Exception as error:  # rosbags' own errors have no common base for damaged files
        how = "where a recorder was killed, mcap recover FILE (MCAP) or ros2 bag reindex FOLDER mends it"
        raise InputError(f"{path}: cannot be read as a bag: {error}; {how}") from error
    return reader


def read_messages(reader: Any, connections: Sequence[Any]) -> Iterator[tuple[Any, int, Any]]:
    """Connection, time of recording (ns) and serialised message, in the order of recording.

    Raises:
        InputError: the bag is damaged; says after how many messages.
    """
    count = 0
    try:
        for item in reader.messages(connections) if connections else ():  # rosbags reads no filter as everything
            yield item
            count += 1
    except Exception as error:  # see open_bag; what the consumer raises does not come here
        raise InputError(f"the bag is damaged after {count} messages: {error}; try mcap recover, or ros2 bag reindex") from error


def cameras_of(connections: Sequence[Any], topics: Sequence[str] = ()) -> dict[str, tuple[str, str, bool]]:
    """Cameras in a bag: name -> (image topic, info topic, compressed); a raw topic is preferred to its compressed twin.

    Args:
        connections: of the open bag.
        topics: image topics wanted; empty: all but recorded overlays.

    Raises:
        InputError: a wanted topic is not there, or there are no images at all.
    """
    found = {c.topic: IMAGE_TYPES[c.msgtype] for c in connections if c.msgtype in IMAGE_TYPES}
    missing = [topic for topic in topics if topic not in found]
    if missing or not found:
        known = ", ".join(sorted(found)) or "none"
        raise InputError(f"bag has no image topic {missing[0] if missing else ''}; its image topics: {known}")
    originals = [topic for topic in found if "/overlay" not in topic]  # a recorded result is no camera
    wanted = topics or [t for t in originals if not (found[t] and t.removesuffix("/compressed") in found)]
    cameras: dict[str, tuple[str, str, bool]] = {}
    for topic in sorted(wanted):
        base = topic.removesuffix("/compressed")
        folder = base.rsplit("/", 1)[0]
        name = "".join(c if c.isascii() and c.isalnum() else "_" for c in folder.strip("/")) or base.strip("/").replace("/", "_")
        name = name if name not in cameras else topic.strip("/").replace("/", "_")
        name = f"camera_{name}" if name[0].isdigit() else name  # it becomes part of topic names
        cameras[name] = (topic, f"{folder}/camera_info", found[topic])
    return cameras


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
