"""The cameras' poses from `/tf_static`. No rclpy: transform messages come in, poses go out."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np

from getok_drive.errors import CalibrationError
from getok_drive.geometry.camera import SE3

_MOST_FRAMES = 10_000  # of one robot; more is nonsense from outside, and memory


class StaticTransforms:
    """The trees of static transforms that the graph has told of. Thread-safe.

    What moves (`/tf`) is left out on purpose: a camera's pose on the vehicle does not, and a pose that is looked up late would
    be wrong without a word.
    """

    def __init__(self, problem: str = "") -> None:
        """``problem``: why there will be no transforms, if that is known already."""
        self._lock = threading.Lock()
        self._parents: dict[str, tuple[str, SE3]] = {}  # child -> (parent, parent_SE3_child)
        self._broken: dict[str, str] = {}
        self._problem = problem
        self.version = 0  # grows with every change

    def put(self, transforms: Iterable[Any]) -> None:
        """Takes over ``geometry_msgs/TransformStamped`` messages: a child frame's newest holds, a broken one is remembered."""
        with self._lock:
            for msg in transforms:
                child, parent = _name(msg.child_frame_id), _name(msg.header.frame_id)
                q, t = msg.transform.rotation, msg.transform.translation
                try:
                    pose = SE3.from_quaternion((q.x, q.y, q.z, q.w), (t.x, t.y, t.z))
                except CalibrationError as error:
                    if child in self._broken or len(self._broken) < _MOST_FRAMES:
                        self._broken[child] = f"the transform from {parent!r} to {child!r} is broken: {error}"
                        self.version += 1
                    continue
                known = self._parents.get(child)
                same = known is not None and known[0] == parent and _equal(known[1], pose) and child not in self._broken
                if not same and (known is not None or len(self._parents) < _MOST_FRAMES):
                    self._parents[child] = parent, pose
                    self._broken.pop(child, None)
                    self.version += 1

    def lookup(self, target: str, source: str) -> SE3:
        """``target_SE3_source``: takes points of frame ``source`` to frame ``target``.

        Raises:
            CalibrationError: there is no chain of static transforms between the two; says where it ends.
        """
        target, source = _name(target), _name(source)
        with self._lock:
            if self._problem:
                raise CalibrationError(self._problem)
            if not self._parents and not self._broken:
                raise CalibrationError("nothing on /tf_static yet; start robot_state_publisher or static_transform_publisher")
            from_source, from_target = self._chain(source), self._chain(target)
        for frame, frame_SE3_source in from_source.items():
            if frame in from_target:
                return from_target[frame].inverse() @ frame_SE3_source
        raise CalibrationError(
            f"no static transform from {source!r} to {target!r} on /tf_static: the one's tree ends at "
            f"{list(from_source)[-1]!r}, the other's at {list(from_target)[-1]!r}"
        )

    def _chain(self, frame: str) -> dict[str, SE3]:
        """``ancestor -> ancestor_SE3_frame`` from the frame itself up to its root."""
        chain = {frame: SE3(np.eye(3), np.zeros(3))}
        at = frame
        while at in self._parents or at in self._broken:
            if at in self._broken:
                raise CalibrationError(self._broken[at])
            parent, parent_SE3_at = self._parents[at]
            if parent in chain:
                raise CalibrationError(f"the frames of /tf_static run in a circle at {parent!r}")
            chain[parent] = parent_SE3_at @ chain[at]
            at = parent
        return chain


def _name(frame: str) -> str:
    return str(frame).lstrip("/")  # as tf2 has it; ROS 1 drivers still send a slash


def _equal(a: SE3, b: SE3) -> bool:
    return np.array_equal(a.rotation, b.rotation) and np.array_equal(a.translation_m, b.translation_m)
