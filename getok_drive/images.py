"""Image files and their bytes as BGR pictures, or a clear reason why not."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from getok_drive.errors import InputError
from getok_drive.types import MAX_IMAGE_PIXELS, ImageBgr

MAX_FILE_BYTES = 1 << 29


def read_image(file: Path) -> ImageBgr:
    """An image file as ``(H, W, 3)`` uint8 BGR, upright.

    Grey images get three equal channels, an alpha channel is dropped, 16 bits are scaled down to 8, and the orientation that a
    camera noted (EXIF) is applied.

    Raises:
        InputError: unreadable, empty, cut off, not an image, or too large.
    """
    try:
        size = file.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(f"{file}: {size >> 20} MiB are more than the {MAX_FILE_BYTES >> 20} MiB that an image file may have")
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    return decode_image(data, str(file))


def decode_image(data: bytes, name: str) -> ImageBgr:
    """The same for the bytes of a file.

    Args:
        data: JPEG, PNG or whatever else OpenCV reads.
        name: for the messages.

    Raises:
        InputError: see `read_image`.
    """
    if not data:
        raise InputError(f"{name}: the file is empty")
    declared = _declared_size(data)
    if declared and (min(declared) < 1 or declared[0] * declared[1] > MAX_IMAGE_PIXELS):
        raise InputError(f"{name}: {declared[0]}x{declared[1]} px; an image may have 1 to {MAX_IMAGE_PIXELS} pixels")
    if _is_cut_off(data):
        raise InputError(f"{name}: the file is truncated (its end is missing); copy it again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(f"{name}: cannot be decoded: {error.err}") from error
    if image is None:
        raise InputError(f"{name}: not an image that OpenCV can decode; convert it to PNG or JPEG")
    return np.ascontiguousarray(image, dtype=np.uint8)


def _declared_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG's or JPEG's header claims, before anything is allocated for them."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; OpenCV would fill the rest with grey and say nothing."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in data[-1024:] and b"IEND" not in data
    if data[:2] == b"\xff\xd8":  # neither marker can occur inside compressed data
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda") or b"\xff\xda" not in data
    return False
