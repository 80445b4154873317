"""Image files and their bytes as BGR pictures, or a clear reason why not."""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from getok_drive.errors import InputError
from getok_drive.types import MAX_IMAGE_PIXELS, ImageBgr

MAX_FILE_BYTES = 1 << 29

_PNG = b"\x89PNG\r\n\x1a\n"
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # in compressed data, 0xFF is followed by 0 or by a restart's number


def read_image(file: Path) -> ImageBgr:
    """An image file as ``(H, W, 3)`` uint8 BGR, upright.

    Grey images get three equal channels, an alpha channel is dropped, 16 bits are scaled down to 8, and the orientation that a
    camera noted (EXIF) is applied.

    Raises:
        InputError: unreadable, empty, cut off, not an image, or too large.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device might never end
            raise InputError(f"{file}: not a file; a camera is named by its number (0 for /dev/video0)")
        if status.st_size > MAX_FILE_BYTES:
            raise InputError(
                f"{file}: {status.st_size >> 20} MiB are more than the {MAX_FILE_BYTES >> 20} MiB that an image file may have"
            )
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
    """Width and height that the header claims, before anything is allocated for them; None for formats not looked into."""
    if data[:8] == _PNG and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data[:2] == b"\xff\xd8":
        for marker, at in _jpeg_markers(data):
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):  # a start of frame
                height, width = struct.unpack(">HH", data[at + 5 : at + 9])
                return width, height
        return None
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp_size(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(data, "<" if data[:1] == b"I" else ">")
    if data[:4] == b"GIF8" and len(data) >= 10:
        width, height = struct.unpack("<HH", data[6:10])
        return width, height
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Of the first chunk: lossy, lossless or extended (RFC 9649)."""
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if data[12:16] == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes, order: str) -> tuple[int, int] | None:
    """Of the first directory: its tags ImageWidth (256) and ImageLength (257), as 16 or 32 bits."""
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        found: dict[int, int] = {}
        for entry in range(count):
            tag, kind = struct.unpack_from(f"{order}HH", data, at + 2 + 12 * entry)
            if tag in (256, 257):
                (found[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, at + 10 + 12 * entry)
    except struct.error:
        return None
    return (found[256], found[257]) if len(found) == 2 else None


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; OpenCV would fill the rest with grey and say nothing."""
    if data[:8] == _PNG:
        return data.rfind(b"IEND") < 0  # from behind, where it is
    if data[:2] == b"\xff\xd8":
        markers = [marker for marker, _ in _jpeg_markers(data)]
        return _START_OF_SCAN not in markers or markers[-1] != _END_OF_IMAGE
    return False


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers of a JPEG and where they are, up to the first end of image: what phones append (previews, a film) is not looked at.

    Segments are stepped over as a whole, so that the markers of a preview inside one do not count.
    """
    at = 2
    while found := _MARKER.search(data, at):
        at, marker = found.start(), data[found.start() + 1]
        yield marker, at
        if marker == _END_OF_IMAGE:
            return
        alone = marker in (0x01, 0xD8)  # without a length
        at += 2 if alone else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
