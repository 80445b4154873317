"""Listening to `/tf_static`."""

from __future__ import annotations

import importlib.util
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription

from getok_drive.ros.transforms import StaticTransforms

_ABSENT = "the package tf2_msgs is not installed: apt install ros-$ROS_DISTRO-tf2-msgs (beside wheels: scripts/build_msgs.py)"


class Listener:
    """A subscription of `/tf_static` and the ``tree`` that it fills; without the package tf2_msgs that is empty and says why."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._subscription: Subscription | None = None
        if importlib.util.find_spec("tf2_msgs") is None:
            self.tree = StaticTransforms(_ABSENT)
            return
        from tf2_msgs.msg import TFMessage

        self.tree = tree = StaticTransforms()

        def take(msg: Any) -> None:
            tree.put(msg.transforms)

        # As tf2_ros has it: every broadcaster's latest message is kept for those who come later.
        qos = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        group = MutuallyExclusiveCallbackGroup()
        self._subscription = node.create_subscription(TFMessage, "/tf_static", take, qos, callback_group=group)

    def stop(self) -> None:
        """Stops to listen."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
