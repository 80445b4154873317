"""Writing a run's results into a folder: ``scenes.jsonl``, overlay pictures, one MP4 for each moving picture."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from types import TracebackType
from typing import TextIO, cast

import cv2

from getok_drive.errors import InputError
from getok_drive.types import ImageBgr, Scene


class JsonLines:
    """``scenes.jsonl``: one line of JSON for each frame, complete after every frame."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO = path.open("w", encoding="utf-8")

    def write(self, scene: Scene) -> None:
        """Append one scene."""
        self._file.write(to_line(scene) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def to_line(scene: Scene) -> str:
    """The scene as one line of JSON, without a line break."""
    return json.dumps(scene.to_json(), separators=(",", ":"), allow_nan=False)


class OverlayFiles:
    """Overlay pictures below ``folder`` (PNG), and MP4 videos for frames of moving pictures.

    Args:
        folder: made when needed; the sources' own folders are kept below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []
        self._names: dict[Path, str] = {}  # which source took which file name
        self._video: cv2.VideoWriter | None = None
        self._video_key = ""
        self._video_size_wh = (0, 0)

    def write(self, overlay_bgr: ImageBgr, name: str, key: str, fps: float | None) -> Path:
        """Write one picture, or append it to its video.

        Args:
            overlay_bgr: what `overlay.draw` made.
            name: relative path of the source.
            key: tells sources apart whose names differ in their suffix only, and one video from the next.
            fps: frames per second when it belongs to a moving picture.

        Returns:
            The file.

        Raises:
            InputError: when it cannot be written.
        """
        if fps is None:
            path = self._path(name, key, ".png")
            done, data = cv2.imencode(".png", overlay_bgr, [cv2.IMWRITE_PNG_COMPRESSION, 3])
            if not done:
                raise InputError(f"{path}: OpenCV cannot encode this picture")
            path.write_bytes(data.tobytes())
            return path
        path = self._path(name, key, ".mp4")
        if self._video_key != key:
            self._open_video(path, key, overlay_bgr, fps)
        width, height = self._video_size_wh
        if overlay_bgr.shape[0] - height in (0, 1) and overlay_bgr.shape[1] - width in (0, 1):
            overlay_bgr = overlay_bgr[:height, :width]
        if overlay_bgr.shape[:2] != (height, width):  # a video has one size only
            overlay_bgr = cast(ImageBgr, cv2.resize(overlay_bgr, self._video_size_wh, interpolation=cv2.INTER_AREA))
        assert self._video is not None
        self._video.write(overlay_bgr)
        return path

    def close(self) -> None:
        """Finish the video in progress."""
        if self._video is not None:
            self._video.release()
        self._video, self._video_key = None, ""

    def __enter__(self) -> OverlayFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open_video(self, path: Path, key: str, overlay_bgr: ImageBgr, fps: float) -> None:
        self.close()
        height, width = (side - side % 2 for side in overlay_bgr.shape[:2])  # the codec wants even sides
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
        if not video.isOpened():
            raise InputError(f"{path}: OpenCV cannot write MP4 here; see getok-drive doctor")
        self._video, self._video_key, self._video_size_wh = video, key, (width, height)

    def _path(self, name: str, key: str, suffix: str) -> Path:
        """The file for a source; never outside the folder, never shared by two sources."""
        relative = PurePath(name)
        safe = PurePath(*[part for part in relative.parts if part not in ("..", relative.anchor)])
        path = self.folder / safe.with_suffix(suffix)
        if self._names.get(path, key) != key:
            path = self.folder / safe.with_name(f"{safe.name.replace('.', '_')}{suffix}")
        self._names[path] = key
        if not self.written or self.written[-1] != path:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.written.append(path)
        return path
