"""The files of a run: nothing is overwritten, nothing lands outside, videos play."""

import json

import cv2
import numpy as np

from getok_drive.types import Lane, Scene
from getok_drive.views.files import JsonLines, OverlayFiles, to_line


def picture(value: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_every_line_is_complete_at_once(tmp_path):
    lines = JsonLines(tmp_path / "scenes.jsonl")
    for index in range(3):
        lines.write(Scene((64, 48), lanes=(Lane([[1, 40], [2.123456, 3]]),), index=index, source="a\nb"))
        read = [json.loads(line) for line in (tmp_path / "scenes.jsonl").read_text().splitlines()]
        assert [scene["frame"] for scene in read] == list(range(index + 1))
    lines.close()
    assert read[0]["lanes"][0]["points_px"] == [[1.0, 40.0], [2.12, 3.0]]
    assert "\n" not in to_line(Scene((1, 1), source="x\ny"))


def test_pictures_keep_their_folders_and_never_replace_one_another(tmp_path):
    with OverlayFiles(tmp_path) as files:
        paths = [
            files.write(picture(10 * i), name, name, None)
            for i, name in enumerate(("a/x.jpg", "a/x.png", "b/x.jpg", "x.tar.jpg"), start=1)
        ]
    assert len(set(paths)) == 4
    assert paths[0] == tmp_path / "a/x.png"
    assert [int(cv2.imread(str(path))[0, 0, 0]) for path in paths] == [10, 20, 30, 40]


def test_names_cannot_leave_the_folder(tmp_path):
    with OverlayFiles(tmp_path / "out") as files:
        for name in ("../../escape.jpg", "/etc/x.jpg", "a/../../b.jpg"):
            path = files.write(picture(1), name, name, None)
            assert path.resolve().is_relative_to((tmp_path / "out").resolve())
            assert path.is_file()


def test_each_moving_picture_becomes_one_video(tmp_path):
    with OverlayFiles(tmp_path) as files:
        for key, count in (("one", 4), ("two", 2)):
            for i in range(count):
                path = files.write(picture(20 * i, 65, 49), f"{key}.avi", key, 12.0)
                assert path == tmp_path / f"{key}.mp4"
    for key, count in (("one", 4), ("two", 2)):
        capture = cv2.VideoCapture(str(tmp_path / f"{key}.mp4"))
        assert capture.get(cv2.CAP_PROP_FPS) == 12.0
        values = []
        while (read := capture.read())[0]:
            values.append(int(read[1][20, 20, 0]))
            assert read[1].shape == (48, 64, 3)
        assert len(values) == count
        np.testing.assert_allclose(values, 20 * np.arange(count), atol=6)


def test_a_frame_of_another_size_does_not_end_a_video(tmp_path):
    with OverlayFiles(tmp_path) as files:
        files.write(picture(1, 64, 48), "v.avi", "v", 10.0)
        files.write(picture(2, 100, 80), "v.avi", "v", 10.0)
        files.write(picture(3, 20, 10), "v.avi", "v", 10.0)
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert sum(1 for _ in iter(lambda: capture.read()[0], False)) == 3
