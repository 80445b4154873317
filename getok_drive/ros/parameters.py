"""`NodeParams` as ROS parameters: descriptors with ranges, and reading them back."""

from __future__ import annotations

from dataclasses import fields

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from getok_drive.ros.params import NodeParams


def descriptor(name: str) -> ParameterDescriptor:
    """What ``ros2 param describe`` shows for one setting."""
    info = NodeParams.__dataclass_fields__[name]
    meta = info.metadata
    notes = []
    if meta["choices"]:
        notes.append("one of " + ", ".join(meta["choices"]))
    if meta["unit"]:
        notes.append(f"unit {meta['unit']}")
    if meta["when"] != "always":
        notes.append(f"may change only while {'not active' if meta['when'] == 'inactive' else 'unconfigured'}")
    out = ParameterDescriptor(name=name, description=meta["description"], additional_constraints="; ".join(notes))
    if meta["low"] is not None:
        if isinstance(info.default, float):
            out.floating_point_range = [FloatingPointRange(from_value=float(meta["low"]), to_value=float(meta["high"]), step=0.0)]
        else:
            out.integer_range = [IntegerRange(from_value=int(meta["low"]), to_value=int(meta["high"]), step=1)]
    return out


def declare(node: Node) -> None:
    """Declares every setting with its default, description and range."""
    for info in fields(NodeParams):
        default = info.default
        if isinstance(default, tuple):
            default = list(default) or [""]  # an empty list has no type in ROS; empty words are left out when read
        node.declare_parameter(info.name, default, descriptor(info.name))


def read(node: Node) -> NodeParams:
    """The parameters' present values; raises `ConfigError` for one that does not fit."""
    return NodeParams(**{info.name: node.get_parameter(info.name).value for info in fields(NodeParams)})
