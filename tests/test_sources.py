"""Sources: every file that may turn up gets the right picture or a clear reason, and one bad file ends nothing."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from getok_drive.errors import InputError
from getok_drive.ros.feed import open_feed
from getok_drive.sources import open_source
from tests.test_images import encoded, picture


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


@pytest.mark.parametrize("text", ["nothing/here.png", "nothing*", "world:", "world:-1", "world:x", "world:²", "987654", "²"])
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


def test_a_camera_can_be_used_twice_and_its_end_is_told(tmp_path, monkeypatch):
    """A video stands for the camera: OpenCV reads both alike."""
    write_video(tmp_path / "clip.mp4", 4)
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda what: real(str(tmp_path / "clip.mp4") if what == 3 else what))
    source = open_source("3")
    assert source.total is None
    for _ in range(2):  # as `open_feed` does: a first look at one picture, then all from the beginning
        assert next(iter(source)).frame is not None
    *frames, end = source
    assert [item.frame.index for item in frames] == [0, 1, 2, 3] and frames[0].frame.source == "camera:3"
    assert end.frame is None and "camera:3: gives no more pictures" in end.error

    feed = open_feed("3", max_frames=2)
    assert len(list(feed.frames())) == 2 and len(list(feed.frames())) == 2
    again = feed.forever()
    assert [next(again).image_bgr.shape for _ in range(5)] == [(48, 64, 3)] * 5


def test_a_feed_that_has_run_dry_ends(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(".png", picture()))
    pictures = open_feed(str(tmp_path)).forever()
    assert next(pictures).image_bgr.shape == (30, 40, 3)
    (tmp_path / "a.png").unlink()
    assert next(pictures, None) is None


def test_the_world_drives():
    source = open_source("world:3")
    frames = [item.frame for item, _ in zip(source, range(3), strict=False)]
    assert source.total and source.total > 3
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[0].stamp_ns < frames[1].stamp_ns
    assert not np.array_equal(frames[0].image_bgr, frames[2].image_bgr)
    assert {frame.source for frame in frames} == {"world:3"}


def test_without_numba_the_world_says_what_to_install():
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "from getok_drive.errors import InputError\n"
        "from getok_drive.sources import open_source\n"
        "try:\n    next(iter(open_source('world:3')))\n"
        "except InputError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert "needs numba; install it: pip install -e '.[world]'" in done.stdout
