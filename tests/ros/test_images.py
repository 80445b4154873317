"""Every encoding shows the right colours, and everything that can be wrong with an image has its own name."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from getok_drive.errors import InputError
from getok_drive.ros.images import ENCODINGS, FrameRejected, compressed_to_bgr, image_to_bgr

WIDTH, HEIGHT = 32, 16
BGR = (40, 200, 120)  # one colour in which all three channels differ


def message(encoding: str, data: np.ndarray | bytes, step: int, **changes: object) -> SimpleNamespace:
    fields = {"width": WIDTH, "height": HEIGHT, "encoding": encoding, "step": step, "is_bigendian": 0, "data": bytes(data)}
    return SimpleNamespace(**{**fields, **changes})


def encode(encoding: str) -> tuple[np.ndarray, int]:
    """A picture of the one colour as the encoding stores it, and its step; written down here, not taken from the code."""
    b, g, r = BGR
    grey = round(0.114 * b + 0.587 * g + 0.299 * r)
    flat = np.zeros((HEIGHT, WIDTH, 3), np.uint8) + np.array(BGR, np.uint8)
    yuv = cv2.cvtColor(flat, cv2.COLOR_BGR2YUV_I420)
    y, u, v = int(yuv[0, 0]), int(yuv[HEIGHT, 0]), int(yuv[HEIGHT + HEIGHT // 4, 0])
    if encoding in ("nv12", "nv21"):
        pair = (u, v) if encoding == "nv12" else (v, u)
        return np.concatenate([np.full(HEIGHT * WIDTH, y), np.tile(pair, HEIGHT * WIDTH // 4)]).astype(np.uint8), WIDTH
    if encoding.startswith("bayer_"):
        letters = {"r": r, "g": g, "b": b}
        cell = np.array([letters[c] for c in encoding[6:10]]).reshape(2, 2)
        mosaic = np.tile(cell, (HEIGHT // 2, WIDTH // 2))
        return (mosaic.astype(np.uint8), WIDTH) if encoding.endswith("8") else ((mosaic * 256).astype("<u2"), WIDTH * 2)
    pixel = {
        "bgr8": (b, g, r), "8UC3": (b, g, r), "rgb8": (r, g, b),
        "bgra8": (b, g, r, 9), "8UC4": (b, g, r, 9), "rgba8": (r, g, b, 9),
        "mono8": (grey,), "8UC1": (grey,), "mono16": (grey * 256,), "16UC1": (grey * 256,),
        "bgr16": (b * 256, g * 256, r * 256), "16UC3": (b * 256, g * 256, r * 256), "rgb16": (r * 256, g * 256, b * 256),
        "bgra16": (b * 256, g * 256, r * 256, 9), "rgba16": (r * 256, g * 256, b * 256, 9),
    }.get(encoding)  # fmt: skip
    if pixel is None:  # packed YUV: two pixels share u and v
        quad = (u, y, v, y) if encoding in ("yuv422", "uyvy") else (y, u, y, v)
        return np.tile(quad, HEIGHT * WIDTH // 2).astype(np.uint8), WIDTH * 2
    wide = encoding.endswith("16") or encoding.startswith("16")
    data = np.tile(pixel, HEIGHT * WIDTH).astype("<u2" if wide else np.uint8)
    return data, WIDTH * len(pixel) * (2 if wide else 1)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_colours_are_right(encoding: str) -> None:
    data, step = encode(encoding)
    image = image_to_bgr(message(encoding, data, step))
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    grey = round(0.114 * BGR[0] + 0.587 * BGR[1] + 0.299 * BGR[2])
    want = (grey,) * 3 if encoding in ("mono8", "8UC1", "mono16", "16UC1") else BGR
    np.testing.assert_allclose(image[4:-4, 4:-4].reshape(-1, 3).mean(axis=0), want, atol=4)


def test_encodings_asked_for_are_there() -> None:
    asked = {"bgr8", "rgb8", "mono8", "bgra8", "rgba8", "yuv422", "nv12", "mono16", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8",
             "bayer_grbg8"}  # fmt: skip
    assert asked <= set(ENCODINGS)


def test_padded_rows_and_big_endian() -> None:
    data, step = encode("bgr8")
    padded = np.hstack([data.reshape(HEIGHT, step), np.full((HEIGHT, 5), 255, np.uint8)])
    np.testing.assert_array_equal(image_to_bgr(message("bgr8", padded, step + 5)), image_to_bgr(message("bgr8", data, step)))
    data, step = encode("mono16")
    swapped = image_to_bgr(message("mono16", data.byteswap(), step, is_bigendian=1))
    np.testing.assert_array_equal(swapped, image_to_bgr(message("mono16", data, step)))


def test_twelve_bit_pictures_use_the_whole_range() -> None:
    data = np.full(WIDTH * HEIGHT, 4095, "<u2")
    assert (image_to_bgr(message("mono16", data, WIDTH * 2), mono16_bits=12) == 255).all()
    assert (image_to_bgr(message("mono16", data, WIDTH * 2), mono16_bits=16) == 15).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 0}, "empty_image"),
        ({"height": 0}, "empty_image"),
        ({"width": 100_000, "height": 100_000, "step": 300_000}, "image_too_large"),
        ({"encoding": "jpeg-of-a-cat"}, "unknown_encoding"),
        ({"encoding": ""}, "unknown_encoding"),
        ({"step": WIDTH * 3 - 1}, "wrong_step"),
        ({"step": 0}, "wrong_step"),
        ({"height": HEIGHT + 1}, "wrong_size"),
        ({"data": b""}, "wrong_size"),
        ({"encoding": "nv12", "step": WIDTH, "height": HEIGHT - 1}, "wrong_size"),
        ({"encoding": "yuv422", "step": WIDTH * 2, "width": WIDTH - 1}, "wrong_size"),
    ],
)
def test_broken_images_are_named(changes: dict, reason: str) -> None:
    data, step = encode("bgr8")
    with pytest.raises(FrameRejected) as caught:
        image_to_bgr(message(**{"encoding": "bgr8", "data": data, "step": step, **changes}))
    assert caught.value.reason == reason and isinstance(caught.value, InputError)


def test_compressed_images() -> None:
    flat = np.zeros((HEIGHT, WIDTH, 3), np.uint8) + np.array(BGR, np.uint8)
    jpeg = cv2.imencode(".jpg", flat)[1].tobytes()
    png = cv2.imencode(".png", flat)[1].tobytes()
    np.testing.assert_allclose(compressed_to_bgr(SimpleNamespace(data=jpeg, format="jpeg")), flat, atol=4)
    np.testing.assert_array_equal(compressed_to_bgr(SimpleNamespace(data=png, format="")), flat)
    bomb = png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:]
    start = jpeg.index(b"\xff\xc0")
    jpeg_bomb = jpeg[: start + 5] + b"\xff\xff\xff\xff" + jpeg[start + 9 :]
    for data, reason in ((b"", "empty_image"), (b"not a picture", "corrupt_image"), (jpeg[:40], "corrupt_image"),
                         (bomb, "corrupt_image"), (jpeg_bomb, "corrupt_image")):  # fmt: skip
        with pytest.raises(FrameRejected) as caught:
            compressed_to_bgr(SimpleNamespace(data=data, format="jpeg"))
        assert caught.value.reason == reason


@settings(max_examples=300)
@given(
    encoding=st.sampled_from([*ENCODINGS, "x"]), width=st.integers(0, 40), height=st.integers(0, 40), step=st.integers(0, 300),
    size=st.integers(0, 5000), big=st.booleans(),
)  # fmt: skip
def test_any_fields_give_an_image_or_a_reason(encoding: str, width: int, height: int, step: int, size: int, big: bool) -> None:
    fields = {"width": width, "height": height, "is_bigendian": big}
    try:
        image = image_to_bgr(message(encoding, np.zeros(size, np.uint8), step, **fields))
    except FrameRejected as error:
        assert error.reason
    else:
        assert image.shape == (height, width, 3)
