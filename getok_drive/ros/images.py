"""ROS image messages to BGR pictures; everything that can be wrong with one is named.

Works on anything with the message's fields (rclpy messages, rosbags' dataclasses), so it needs no rclpy.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.images import decode_image
from getok_drive.types import MAX_IMAGE_PIXELS, ImageBgr

# ROS names a Bayer pattern by its first row and the second row's start; OpenCV's plain names start one pixel later, hence
# its aliases with four letters, which agree with ROS.
_BAYER = {
    "rggb": cv2.COLOR_BayerRGGB2BGR, "bggr": cv2.COLOR_BayerBGGR2BGR,
    "gbrg": cv2.COLOR_BayerGBRG2BGR, "grbg": cv2.COLOR_BayerGRBG2BGR,
}  # fmt: skip

# encoding -> (channels in memory, bytes per channel, cv2 conversion to BGR or None)
_PACKED: dict[str, tuple[int, int, int | None]] = {
    "bgr8": (3, 1, None), "8UC3": (3, 1, None), "rgb8": (3, 1, cv2.COLOR_RGB2BGR),
    "bgra8": (4, 1, cv2.COLOR_BGRA2BGR), "8UC4": (4, 1, cv2.COLOR_BGRA2BGR), "rgba8": (4, 1, cv2.COLOR_RGBA2BGR),
    "mono8": (1, 1, cv2.COLOR_GRAY2BGR), "8UC1": (1, 1, cv2.COLOR_GRAY2BGR),
    "mono16": (1, 2, cv2.COLOR_GRAY2BGR), "16UC1": (1, 2, cv2.COLOR_GRAY2BGR),
    "bgr16": (3, 2, None), "16UC3": (3, 2, None), "rgb16": (3, 2, cv2.COLOR_RGB2BGR),
    "bgra16": (4, 2, cv2.COLOR_BGRA2BGR), "rgba16": (4, 2, cv2.COLOR_RGBA2BGR),
    "yuv422": (2, 1, cv2.COLOR_YUV2BGR_UYVY), "uyvy": (2, 1, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": (2, 1, cv2.COLOR_YUV2BGR_YUY2), "yuyv": (2, 1, cv2.COLOR_YUV2BGR_YUY2),
    **{f"bayer_{name}8": (1, 1, code) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": (1, 2, code) for name, code in _BAYER.items()},
}  # fmt: skip
_SEMIPLANAR = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}

ENCODINGS: tuple[str, ...] = (*_PACKED, *_SEMIPLANAR)


class FrameRejected(InputError):
    """A frame that cannot be used; ``reason`` is a short machine-readable word that diagnostics count by."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def image_to_bgr(msg: Any, mono16_bits: int = 16) -> ImageBgr:
    """A ``sensor_msgs/Image`` as ``(H, W, 3)`` uint8 BGR; shares memory with the message where no conversion is needed.

    Args:
        msg: the message.
        mono16_bits: significant bits of 16-bit encodings; the upper eight of them are kept.

    Raises:
        FrameRejected: With reason ``empty_image``, ``image_too_large``, ``unknown_encoding``, ``wrong_step`` or ``wrong_size``.
    """
    width, height, step, encoding = int(msg.width), int(msg.height), int(msg.step), str(msg.encoding)
    if width < 1 or height < 1:
        raise FrameRejected("empty_image", f"image of {width}x{height} px")
    if width * height > MAX_IMAGE_PIXELS:
        raise FrameRejected("image_too_large", f"image of {width}x{height} px is above the limit of {MAX_IMAGE_PIXELS} px")
    if encoding in _SEMIPLANAR:
        channels, depth, rows = 1, 1, height * 3 // 2
        if width % 2 or height % 2:
            raise FrameRejected("wrong_size", f"{encoding} needs even width and height, got {width}x{height} px")
    elif encoding in _PACKED:
        (channels, depth, _), rows = _PACKED[encoding], height
        if channels == 2 and width % 2:
            raise FrameRejected("wrong_size", f"{encoding} needs an even width, got {width} px")
    else:
        raise FrameRejected("unknown_encoding", f"encoding {encoding[:40]!r} is not supported; use one of {', '.join(ENCODINGS)}")
    if step < width * channels * depth:
        raise FrameRejected("wrong_step", f"step is {step} bytes but a row of {encoding} takes {width * channels * depth}")
    data = np.frombuffer(msg.data, dtype=np.uint8)
    if data.size != step * rows:
        raise FrameRejected("wrong_size", f"data has {data.size} bytes but step x rows is {step} x {rows} = {step * rows}")
    picture = data.reshape(rows, step)[:, : width * channels * depth]
    if encoding in _SEMIPLANAR:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), _SEMIPLANAR[encoding]), dtype=np.uint8)
    if depth == 2:
        picture = _to_8bit(picture, bool(msg.is_bigendian), mono16_bits)
    picture = picture.reshape(height, width, channels) if channels > 1 else picture
    code = _PACKED[encoding][2]
    if code is None:
        return np.ascontiguousarray(picture)
    if encoding.startswith("bayer_") and (width < 2 or height < 2):
        raise FrameRejected("wrong_size", f"{encoding} needs at least 2x2 px, got {width}x{height} px")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), code), dtype=np.uint8)


def _to_8bit(rows: npt.NDArray[np.uint8], big_endian: bool, bits: int) -> npt.NDArray[np.uint8]:
    values = np.ascontiguousarray(rows).view(">u2" if big_endian else "<u2")
    shifted: npt.NDArray[np.uint16] = np.right_shift(values, bits - 8)
    return np.minimum(shifted, 255).astype(np.uint8)


def compressed_to_bgr(msg: Any) -> ImageBgr:
    """A ``sensor_msgs/CompressedImage`` (JPEG, PNG and whatever else OpenCV reads) as ``(H, W, 3)`` uint8 BGR.

    The stored bytes decide, not the field ``format``. The header's size is looked at before anything is unpacked.

    Raises:
        FrameRejected: With reason ``empty_image`` or ``corrupt_image``.
    """
    data = bytes(msg.data)
    if not data:
        raise FrameRejected("empty_image", "compressed image without data")
    try:
        return decode_image(data, f"compressed image (format {str(msg.format)[:40]!r})")
    except InputError as error:
        raise FrameRejected("corrupt_image", str(error)) from error
