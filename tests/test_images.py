"""Image files: whatever may turn up gets the right picture or a clear reason."""

import contextlib
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from getok_drive.errors import InputError
from getok_drive.images import decode_image, read_image


def picture(width: int = 40, height: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 6 % 256, y * 8 % 256, (x + y) * 3 % 256], axis=2).astype(np.uint8)


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def png_header(width: int, height: int) -> bytes:
    """A PNG that only claims its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp", ".jpg"])
def test_colour(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix, picture()))
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape == (30, 40, 3)
    if suffix in (".png", ".bmp", ".tif", ".ppm"):
        np.testing.assert_array_equal(image, picture())


def test_grey_becomes_three_equal_channels():
    grey = picture()[:, :, 1]
    np.testing.assert_array_equal(decode_image(encoded(".png", grey), "x"), np.repeat(grey[:, :, None], 3, axis=2))


def test_alpha_is_dropped():
    image = np.dstack([picture(), np.full((30, 40), 128, np.uint8)])
    np.testing.assert_array_equal(decode_image(encoded(".png", image), "x"), picture())


def test_sixteen_bits_become_eight():
    image = picture().astype(np.uint16) * 257
    difference = decode_image(encoded(".png", image), "x").astype(int) - picture()
    assert abs(difference).max() <= 1
    grey = (picture()[:, :, 0].astype(np.uint16) * 257) + 100
    assert decode_image(encoded(".tif", grey), "x").shape == (30, 40, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.98, 0.6, 0.1])
def test_truncated_files_are_refused(suffix, share):
    data = encoded(suffix, np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="truncated"):
        decode_image(data[: int(len(data) * share)], "x.jpg")
    decode_image(data + b"\0" * 100, "x")  # cameras pad


def test_a_jpeg_whose_preview_is_whole_but_whose_picture_is_cut_is_refused():
    preview, data = encoded(".jpg", picture(16, 16)), encoded(".jpg", picture(400, 300))
    marker = b"\xff\xe1" + struct.pack(">H", len(preview) + 8) + b"Exif\0\0" + preview
    whole = data[:2] + marker + data[2:]
    assert decode_image(whole, "x").shape == (300, 400, 3)
    with pytest.raises(InputError, match="truncated"):
        decode_image(whole[:-400], "x")


def test_what_a_phone_appends_to_a_jpeg_is_not_looked_at():
    """Motion photos: a film after the picture, in which any two bytes occur."""
    rng = np.random.default_rng(0)
    data = encoded(".jpg", picture())
    for film in (b"\xff\xda", *(rng.integers(0, 256, 200_000, dtype=np.uint8).tobytes() for _ in range(4))):
        assert decode_image(data + film, "x").shape == (30, 40, 3)
        with pytest.raises(InputError, match="truncated"):
            decode_image(data[: data.index(b"\xff\xda") + 20], "x")


def test_a_progressive_jpeg_has_many_scans():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()
    assert data.count(b"\xff\xda") > 2
    assert decode_image(data, "x").shape == (60, 80, 3)
    with pytest.raises(InputError, match="truncated"):
        decode_image(data[: data.rindex(b"\xff\xda") + 20], "x")


@pytest.mark.parametrize("mode", ["lossy", "lossless"])
def test_a_small_webp_of_huge_size_is_refused_before_decoding(mode, monkeypatch):
    quality = 1 if mode == "lossy" else 101
    data = cv2.imencode(".webp", np.zeros((12_000, 9_000, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
    assert len(data) < 1 << 20
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(InputError, match="9000x12000 px"):
        decode_image(data, "x")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_that_claims_to_be_huge_is_refused_before_decoding(order, monkeypatch):
    def tiff(width: int, height: int) -> bytes:
        mark = b"II*\0" if order == "<" else b"MM\0*"
        entries = [(256, 4, 1, width), (257, 4, 1, height)]
        return mark + struct.pack(f"{order}IH", 8, 2) + b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)

    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(InputError, match="30000x20000 px"):
        decode_image(tiff(30_000, 20_000), "x")


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero"), tmp_path):  # reading the first two would never end
        with pytest.raises(InputError, match="not a file"):
            read_image(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, I am no picture", "not an image"),
        (b"\x00" * 5000, "not an image"),
        (b"\xff\xd8", "truncated"),
        (b"\xff\xd8\xff\xe0\x00\x00" * 3, "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (png_header(100_000, 100_000), "100000x100000 px"),
        (png_header(0, 10), "0x10 px"),
        (png_header(10, 10), "not an image|cannot be decoded"),
    ],
)
def test_other_bytes_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        decode_image(data, "name")


def test_a_jpeg_that_claims_to_be_huge_is_refused_before_decoding():
    data = bytearray(encoded(".jpg", picture()))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    with pytest.raises(InputError, match="65500x65500"):
        decode_image(bytes(data), "x")


def test_random_bytes_never_do_anything_but_raise_input_errors():
    rng = np.random.default_rng(0)
    whole = encoded(".jpg", picture()), encoded(".png", picture())
    for _ in range(300):
        data = bytearray(whole[int(rng.integers(2))])
        for _ in range(int(rng.integers(1, 8))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        with contextlib.suppress(InputError):
            assert decode_image(bytes(data), "x").shape[2] == 3
