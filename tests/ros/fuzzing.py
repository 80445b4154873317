"""Random image messages: right, wrong, and not even messages."""

from __future__ import annotations

import random
from collections.abc import Iterator

import cv2
import numpy as np
import rclpy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from getok_drive.ros.images import ENCODINGS

_JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))[1].tobytes()
_PNG = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
_LAST_ENCODING = 0x0B00  # PL_CDR2, little endian: the largest that Cyclone DDS lets pass
_EDGES = (0, 1, 2, 7, 64, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1)


def _bytes(rng: random.Random, most: int = 20_000) -> bytes:
    return rng.randbytes(rng.choice((0, 1, rng.randrange(most))))


def _mutated(rng: random.Random, data: bytes) -> bytes:
    """Some bytes changed, perhaps cut off or with something appended."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        if out:
            out[rng.randrange(len(out))] = rng.randrange(256)
    kind = rng.randrange(4)
    return bytes(out[: rng.randrange(len(out) + 1)]) if kind == 0 else bytes(out) + _bytes(rng, 100) if kind == 1 else bytes(out)


def image(rng: random.Random, now_ns: int) -> Image:
    """An Image whose fields mostly contradict one another; some are right."""
    width, height = rng.randrange(1, 80), rng.randrange(1, 60)
    encoding = rng.choice((*ENCODINGS, "", "bgr9", "ÿ" * rng.randrange(30)))
    step = width * rng.choice((1, 2, 3, 4, 6, 8))
    size = step * height * rng.choice((2, 3)) // 2 if encoding.startswith("nv") else step * height
    out = Image(width=width, height=height, encoding=encoding, step=step, is_bigendian=rng.randrange(2))
    if rng.random() < 0.3:
        setattr(out, rng.choice(("width", "height", "step")), rng.choice(_EDGES))
    out.data.frombytes(rng.randbytes(size) if rng.random() < 0.7 else _bytes(rng))
    _stamp(rng, out, now_ns)
    return out


def compressed(rng: random.Random, now_ns: int) -> CompressedImage:
    """A CompressedImage of random bytes, or of a damaged JPEG or PNG; some are right."""
    data = rng.choice((_JPEG, _PNG, _mutated(rng, _JPEG), _mutated(rng, _PNG), _bytes(rng)))
    out = CompressedImage(format=rng.choice(("jpeg", "png", "", "bgr8; jpeg compressed bgr8", "ÿ")))
    out.data.frombytes(data)
    _stamp(rng, out, now_ns)
    return out


def _stamp(rng: random.Random, msg: Image | CompressedImage, now_ns: int) -> None:
    shift_ns = rng.choice((0, 0, 0, 0, 0, 0, 10**12, -(10**12), -now_ns))
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(min(max(now_ns + shift_ns, 0), 2**31 * 10**9 - 1), 10**9)
    msg.header.frame_id = rng.choice(("camera", "", "/", "ü" * 40))


def serialised(rng: random.Random, kind: type, now_ns: int) -> bytes:
    """One message as bytes; one in five is damaged on the way.

    As DDS carries them: none is shorter than CDR's header of 4 bytes, and each is filled up with zeros to a multiple of 4.
    """
    data = bytes(serialize_message(image(rng, now_ns) if kind is Image else compressed(rng, now_ns)))
    damaged = _mutated(rng, data) if rng.random() < 0.2 else data
    damaged = damaged if len(damaged) >= 4 else data[:4]
    return damaged + bytes(-len(damaged) % 4)


def messages(seed: int, kind: type, count: int, clock: Iterator[int]) -> Iterator[bytes]:
    """``count`` random messages, the same for the same seed and clock."""
    rng = random.Random(seed)
    for _ in range(count):
        yield serialised(rng, kind, next(clock))


def is_handed_over(data: bytes) -> bool:
    """Whether the middleware gives a message to a node of another process at all.

    Fast DDS gives it whatever was sent. Cyclone DDS looks at the encoding that the message's first two bytes name
    (``CDR_ENC_IS_VALID`` in its ``q_protocol.h``, which puts the second byte first) and throws those that it does not know away
    with the packet they came in, reliable or not. The receiving process logs "malformed packet"; neither its subscription nor
    its event ``message_lost`` tells of it, so no node can count them. What is sent next arrives.
    """
    encoding = int.from_bytes(data[:2], "little")
    known = encoding <= _LAST_ENCODING and encoding not in (0x0400, 0x0500)
    return known or rclpy.get_rmw_implementation_identifier() != "rmw_cyclonedds_cpp"
