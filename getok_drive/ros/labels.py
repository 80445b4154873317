"""Labels in a bag: where they are, and how a scene is read back from its message. Needs no rclpy.

A labelled bag carries beside a camera's ``CAMERA/image_raw`` a topic ``CAMERA/ground_truth`` of type ``getok_drive_msgs/Scene``.
A label belongs to the image with the same ``header.stamp``, is in pixels of that image, and is complete: a kind of which it
has no element is labelled as absent. Who labels fewer kinds says so when scoring (``--tasks``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import GetokError, InputError
from getok_drive.types import Box, DrivableArea, Lane, Scene, Sign

NAME = "ground_truth"


def labels_topic(image_topic: str) -> str:
    """The topic with the labels of an image topic, e.g. ``/front/ground_truth`` of ``/front/image_raw/compressed``."""
    folder = image_topic.removesuffix("/compressed").rpartition("/")[0]
    return f"{folder}/{NAME}"


def frame_key(image_topic: str, stamp_ns: int) -> str:
    """The name of one image of a bag in ``scenes.jsonl`` and as a sample: its topic and its capture time."""
    return f"{image_topic}@{stamp_ns}"


def stamp_ns(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` in integer nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def stamp_ns_of(msg: Any) -> int:
    """The stamp of any message with a header, integer nanoseconds."""
    return stamp_ns(msg.header.stamp)


def scene_from_msg(msg: Any) -> Scene:
    """The elements of a ``getok_drive_msgs/Scene``, as rclpy or rosbags reads it; inverse of `convert.scene_to_msg` in pixels.

    Raises:
        InputError: an element that is no element; says which.
    """
    at = f"scene of {msg.camera or 'a camera'} at {stamp_ns_of(msg)} ns"
    where = at
    try:
        lanes, areas, boxes, signs = [], [], [], []
        for i, e in enumerate(msg.lanes):
            where = f"{at}: lanes[{i}]"
            lanes.append(Lane(_points(e.points_px), str(e.type), str(e.color), float(e.confidence)))
        for i, e in enumerate(msg.drivable_areas):
            where = f"{at}: drivable_areas[{i}]"
            areas.append(DrivableArea(_points(e.polygon_px), float(e.confidence)))
        for i, e in enumerate(msg.boxes):
            where = f"{at}: boxes[{i}]"
            corners = _points([e.top_left_px, e.bottom_right_px])
            boxes.append(Box(corners.reshape(-1), str(e.class_name), float(e.confidence), _attributes(e)))
        for i, e in enumerate(msg.signs):
            where = f"{at}: signs[{i}]"
            centre = _points([e.center_px])[0]
            signs.append(Sign(centre, str(e.class_name), str(e.color), float(e.confidence), _attributes(e)))
    except (GetokError, TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error
    return Scene(
        (int(msg.image_width), int(msg.image_height)), tuple(lanes), tuple(areas), tuple(boxes), tuple(signs),
        stamp_ns=stamp_ns_of(msg), truncated=bool(msg.truncated), bundle_name=str(msg.bundle_name),
        bundle_sha256=str(msg.bundle_sha256),
    )  # fmt: skip


def _points(points: Any) -> npt.NDArray[np.float32]:
    return np.array([[p.x, p.y] for p in points], dtype=np.float32).reshape(-1, 2)


def _attributes(element: Any) -> dict[str, str]:
    return {str(a.name): str(a.value) for a in element.attributes}
