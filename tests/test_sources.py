"""Sources: every file that may turn up gets the right picture or a clear reason, and one bad file ends nothing."""

import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest

from getok_drive.errors import InputError
from getok_drive.sources import decode_image, open_source, read_image


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


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "z.png").write_bytes(encoded(".png", picture()))
    (tmp_path / "a/one.JPG").write_bytes(encoded(".jpg", picture()))
    (tmp_path / "a/b/two.png").write_bytes(encoded(".png", picture()))
    (tmp_path / "a/broken.jpg").write_bytes(b"")
    (tmp_path / "a/notes.txt").write_text("not for us")
    return tmp_path


def names(source) -> list[str]:
    return [item.name for item in source]


def test_folders_are_searched_recursively_and_in_order(folder):
    source = open_source(str(folder))
    assert names(source) == ["a/b/two.png", "a/broken.jpg", "a/one.JPG", "z.png"]
    assert source.total == 4
    items = list(source)
    assert [item.frame is None for item in items] == [False, True, False, False]
    assert "empty" in items[1].error and "broken.jpg" in items[1].error
    assert items[0].frame.source == str(folder / "a/b/two.png")
    assert all(item.fps is None for item in items)
    assert names(open_source(str(folder), exclude=folder / "a")) == ["z.png"]


def test_globs(folder):
    assert names(open_source(f"{folder}/**/*.png")) == ["a/b/two.png", "z.png"]
    assert names(open_source(f"{folder}/a/*.JPG")) == ["one.JPG"]
    assert names(open_source(f"{folder}/?.png")) == ["z.png"]


def test_a_name_with_brackets_is_a_file_first(tmp_path):
    (tmp_path / "a[1].png").write_bytes(encoded(".png", picture()))
    assert names(open_source(str(tmp_path / "a[1].png"))) == ["a[1].png"]


def test_a_single_file_is_tried_whatever_its_name(folder):
    (item,) = open_source(str(folder / "a/notes.txt"))
    assert "not an image" in item.error


@pytest.mark.parametrize("text", ["nothing/here.png", "nothing*", "world:", "world:-1", "world:x", "987654"])
def test_what_is_not_there_is_refused_at_once(text):
    with pytest.raises(InputError):
        open_source(text)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no images or videos"):
        open_source(str(tmp_path))


def write_video(path, frames: int, size_wh=(64, 48)) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, size_wh)
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((size_wh[1], size_wh[0], 3), 20 * i % 256, np.uint8))
    writer.release()


def test_videos(tmp_path):
    write_video(tmp_path / "clip.mp4", 7)
    source = open_source(str(tmp_path / "clip.mp4"))
    items = list(source)
    assert source.total == len(items) == 7
    assert [item.frame.index for item in items] == list(range(7))
    assert [item.frame.stamp_ns for item in items] == [100_000_000 * i for i in range(7)]
    assert {item.fps for item in items} == {10.0}
    assert {item.frame.source for item in items} == {str(tmp_path / "clip.mp4")}
    assert abs(items[3].frame.image_bgr.astype(int) - 60).max() < 12


def test_damaged_videos(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 120, 160, 3), dtype=np.uint8)
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 120))
    for image in noise:
        writer.write(image)
    writer.release()
    data = (tmp_path / "clip.avi").read_bytes()
    (tmp_path / "clip.avi").write_bytes(data[: len(data) // 2])
    *frames, last = open_source(str(tmp_path / "clip.avi"))
    assert last.frame is None and "truncated or damaged" in last.error
    assert 0 < len(frames) < 30
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 100)
    (item,) = open_source(str(tmp_path / "junk.mp4"))
    assert "not a video" in item.error


def test_the_world_drives():
    source = open_source("world:3")
    frames = [item.frame for item, _ in zip(source, range(3), strict=False)]
    assert source.total and source.total > 3
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[0].stamp_ns < frames[1].stamp_ns
    assert not np.array_equal(frames[0].image_bgr, frames[2].image_bgr)
    assert {frame.source for frame in frames} == {"world:3"}
