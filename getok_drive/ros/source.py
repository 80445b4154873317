"""The executable ``camera_source``: a video file, image folder or the driving world as a ROS camera.

Parameters: ``source`` (image, folder, glob, video, camera number or ``world:SEED``), ``camera`` (its name), ``rate_hz`` (0: the
video's own), ``encoding`` (of ``image_raw``), ``loop``, ``max_frames`` (0: all), ``width_px`` (0: the source's own),
``height_m``, ``pitch_down_deg`` and ``fov_deg`` of the mount for sources without a calibration, ``calibration_out`` (where to
write the camera's calibration file, which the perception node can use), ``ground_truth`` (publish the labels, too; the driving
world has them).
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from getok_drive_msgs.msg import Scene
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from getok_drive.errors import InputError
from getok_drive.ros.convert import Context, scene_to_msg
from getok_drive.ros.feed import Calibrated, Picture, open_feed
from getok_drive.ros.labels import NAME as LABELS_NAME
from getok_drive.ros.process import run_node
from getok_drive.types import ImageBgr

# encoding -> (cv2 conversion from BGR or None, bytes per pixel)
ENCODERS: dict[str, tuple[int | None, int]] = {
    "bgr8": (None, 3),
    "rgb8": (cv2.COLOR_BGR2RGB, 3),
    "bgra8": (cv2.COLOR_BGR2BGRA, 4),
    "rgba8": (cv2.COLOR_BGR2RGBA, 4),
    "mono8": (cv2.COLOR_BGR2GRAY, 1),
}


def image_msg(image_bgr: ImageBgr, encoding: str = "bgr8") -> Image:
    """A picture as ``sensor_msgs/Image`` without stamp."""
    if encoding not in ENCODERS:
        raise InputError(f"encoding {encoding!r} cannot be made here; use one of {', '.join(ENCODERS)}")
    code, size = ENCODERS[encoding]
    data = np.ascontiguousarray(image_bgr if code is None else cv2.cvtColor(image_bgr, code))
    out = Image(height=data.shape[0], width=data.shape[1], encoding=encoding, step=data.shape[1] * size)
    out.data.frombytes(data.data)
    return out


def compressed_msg(image_bgr: ImageBgr, quality: int = 90) -> CompressedImage:
    """A picture as JPEG in ``sensor_msgs/CompressedImage`` without stamp."""
    out = CompressedImage(format="bgr8; jpeg compressed bgr8")
    out.data.frombytes(cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
    return out


def info_msg(calibrated: Calibrated) -> CameraInfo:
    """Intrinsics as ``sensor_msgs/CameraInfo`` without stamp."""
    camera = calibrated.camera
    out = CameraInfo(width=camera.size_wh[0], height=camera.size_wh[1], distortion_model=camera.model)
    out.k = camera.K.reshape(-1).tolist()
    out.d = camera.D.tolist() or [0.0] * 5
    out.r = np.eye(3).reshape(-1).tolist()
    out.p = np.hstack([camera.K, np.zeros((3, 1))]).reshape(-1).tolist()
    return out


class CameraSource(Node):  # type: ignore[misc]  # rclpy is untyped
    """Publishes ``CAMERA/image_raw``, ``CAMERA/image_raw/compressed`` and ``CAMERA/camera_info``, stamped when published.

    With ``ground_truth`` it publishes ``CAMERA/ground_truth`` with the same stamp, too.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__("camera_source", **node_options)
        defaults: dict[str, Any] = {
            "source": "world:0", "camera": "camera", "rate_hz": 15.0, "encoding": "bgr8", "loop": True, "max_frames": 0,
            "width_px": 0, "height_m": 1.4, "pitch_down_deg": 2.0, "fov_deg": 60.0, "calibration_out": "",
            "ground_truth": False,
        }  # fmt: skip
        for name, value in defaults.items():  # what reads as a number on the command line (a camera, 10 Hz) is taken as meant
            self.declare_parameter(name, value, ParameterDescriptor(name=name, dynamic_typing=True))
        get = {name: _as(value, self.get_parameter(name).value, name) for name, value in defaults.items()}
        self.finished = threading.Event()
        self._camera, self._encoding = str(get["camera"]), str(get["encoding"])
        image_msg(np.zeros((2, 2, 3), np.uint8), self._encoding)  # fails at once for an unknown encoding
        feed = open_feed(get["source"], get["width_px"], get["max_frames"])
        self._calibrated = feed.calibrated or Calibrated.guess(
            feed.size_wh, get["fov_deg"], get["height_m"], math.radians(get["pitch_down_deg"])
        )
        if get["calibration_out"]:
            write_calibration(Path(get["calibration_out"]), self._camera, self._calibrated)
        if get["ground_truth"] and not feed.labelled:
            raise InputError(f"ground_truth: {get['source']} has no labels; the driving world has them (source:=world:7)")
        self._frames: Iterator[Picture]
        if feed.preload:
            pictures = list(feed.frames())
            self._frames = itertools.cycle(pictures) if get["loop"] else iter(pictures)
        else:
            self._frames = feed.forever() if get["loop"] else feed.frames()
        prefix = self._camera
        self._raw = self.create_publisher(Image, f"{prefix}/image_raw", QoSProfile(depth=1))
        self._jpeg = self.create_publisher(CompressedImage, f"{prefix}/image_raw/compressed", QoSProfile(depth=1))
        self._info = self.create_publisher(CameraInfo, f"{prefix}/camera_info", QoSProfile(depth=1))
        self._labels = (
            self.create_publisher(Scene, f"{prefix}/{LABELS_NAME}", QoSProfile(depth=10)) if get["ground_truth"] else None
        )
        self.sent = 0
        rate_hz = get["rate_hz"] or feed.rate_hz
        self._timer = self.create_timer(1.0 / rate_hz, self._publish)
        self.get_logger().info(f"publishing {get['source']} at {rate_hz:g} Hz, {feed.size_wh[0]}x{feed.size_wh[1]} px")

    def _publish(self) -> None:
        picture = next(self._frames, None)
        if picture is None:
            self.get_logger().info(f"source ended after {self.sent} images")
            self._timer.cancel()
            self.finished.set()
            return
        info = info_msg(self._calibrated)
        info.header.stamp = self.get_clock().now().to_msg()
        info.header.frame_id = f"{self._camera}_optical_frame"
        self._info.publish(info)
        if self._labels is not None and picture.labels is not None:  # before the image: whoever has that can have this
            self._labels.publish(scene_to_msg(picture.labels, Context(info.header, self._camera)))
        for publisher in (self._raw, self._jpeg):
            if publisher.get_subscription_count() > 0:
                image = picture.image_bgr
                msg = image_msg(image, self._encoding) if publisher is self._raw else compressed_msg(image)
                msg.header = info.header
                publisher.publish(msg)
        self.sent += 1

    def release(self) -> None:
        """Says how much was sent; transport losses can be told from that."""
        self.get_logger().info(f"sent {self.sent} images")


def _as(default: Any, value: Any, name: str) -> Any:
    """A parameter's value in its default's type; a whole number counts as text and as a decimal number, too."""
    kind = type(default)
    if type(value) is int and kind in (str, float):
        value = kind(value)
    if type(value) is not kind:
        raise InputError(f"{name}: expected {kind.__name__}, got {value!r}")
    if name in ("rate_hz", "width_px", "max_frames") and not value >= 0:
        raise InputError(f"{name}: expected 0 (the source's own) or more, got {value}")
    if name == "fov_deg" and not 0.0 < value < 180.0:
        raise InputError(f"fov_deg: expected a horizontal field of view between 0 and 180 degrees, got {value}")
    return value


def write_calibration(path: Path, camera: str, calibrated: Calibrated) -> None:
    """Writes a calibration file as `calibration.load_calibration` reads it; in one step, so that no reader sees half of it."""
    x_m, y_m, z_m = calibrated.ground_SE3_cam.translation_m.tolist()
    quaternion = ", ".join(f"{value:.9f}" for value in calibrated.quaternion_xyzw())
    text = f"""ground_frame: base_link
cameras:
  {camera}:
    pose: {{translation_m: [{x_m:.6f}, {y_m:.6f}, {z_m:.6f}], quaternion_xyzw: [{quaternion}]}}
"""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def source_main(args: list[str] | None = None) -> int:
    """The executable ``camera_source``."""
    return run_node(CameraSource, threads=2, args=args)
