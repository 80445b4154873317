"""Where frames come from: image files, folders, globs, videos, cameras and the procedural world, one bad item at a time.

A `Source` yields `Item`s: a frame, or the reason why there is none. Only a source as a whole that cannot be used (nothing there,
no such camera) raises.
"""

from __future__ import annotations

import glob
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from getok_drive.errors import InputError
from getok_drive.images import read_image
from getok_drive.types import Frame

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"))
VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".hevc", ".h264"))
WORLD_SIZE_WH = (896, 504)


@dataclass(frozen=True, slots=True)
class Item:
    """One frame, or why it is missing.

    Attributes:
        name: relative path for output files, without a suffix for cameras and the world.
        frame: the image, or None.
        error: what is wrong and how to mend it; empty when there is a frame.
        fps: frames per second when the frame belongs to a moving picture, else None.
        decode_ms: time that reading and decoding took.
    """

    name: str
    frame: Frame | None = None
    error: str = ""
    fps: float | None = None
    decode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Source:
    """Frames to come.

    Attributes:
        total: how many items there are (an estimate for videos), or None when endless.
        items: makes the iterator.
    """

    total: int | None
    items: Callable[[], Iterator[Item]]

    def __iter__(self) -> Iterator[Item]:
        return self.items()


def open_source(text: str, exclude: Path | None = None) -> Source:
    """The source that a command line names.

    Args:
        text: an image, a folder (searched recursively), a glob (``**`` too), a video, a camera's number, or ``world:SEED``.
        exclude: a folder that is not searched, such as that of earlier results.

    Raises:
        InputError: nothing there, or nothing that could be an image or video.
    """
    path = Path(text)
    if text.startswith("world:"):
        return _world(text)
    if _is_number(text) and not path.exists():
        return _camera(int(text))
    if path.is_dir():
        known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in known and not p.is_dir() and not _within(p, exclude))
        if not files:
            raise InputError(f"{text}: no images or videos in this folder (looked for {', '.join(sorted(IMAGE_SUFFIXES))} ...)")
        return _files(files, path)
    if path.exists():
        return _files([path], path.parent)
    if glob.has_magic(text):
        files = [Path(p) for p in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 (it may be absolute)
        files = [file for file in files if not file.is_dir() and not _within(file, exclude)]
        if not files:
            raise InputError(f"{text}: no file matches; quote the pattern so that the shell leaves it alone")
        return _files(files, Path(*_parts_before_magic(Path(text))))
    raise InputError(f"{text}: no such file or folder; a source is an image, folder, glob, video, camera number or world:SEED")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()  # digits of other scripts are digits, too, but not all are numbers


def _within(file: Path, folder: Path | None) -> bool:
    return folder is not None and file.resolve().is_relative_to(folder.resolve())


def _parts_before_magic(pattern: Path) -> list[str]:
    parts: list[str] = []
    for part in pattern.parent.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts


def _files(files: list[Path], root: Path) -> Source:
    def items() -> Iterator[Item]:
        for file in files:
            name = str(file.relative_to(root)) if file.is_relative_to(root) else file.name
            if file.suffix.lower() in VIDEO_SUFFIXES:
                yield from _video_items(file, name)
            else:
                yield _image_item(file, name)

    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    return Source(len(files) - len(videos) + sum(max(_video_length(file), 1) for file in videos), items)


# --- image files ---------------------------------------------------------------------------------------------------------


def _image_item(file: Path, name: str) -> Item:
    start = time.perf_counter()
    try:
        frame = Frame(read_image(file), source=str(file))
    except InputError as error:
        return Item(name, error=str(error))
    return Item(name, frame, decode_ms=1e3 * (time.perf_counter() - start))


# --- moving pictures -----------------------------------------------------------------------------------------------------


def _video_length(file: Path) -> int:
    capture = cv2.VideoCapture(str(file))
    try:
        return _declared_frames(capture) if capture.isOpened() else 1
    finally:
        capture.release()


def _declared_frames(capture: cv2.VideoCapture) -> int:
    """What the container says, 0 where it says nothing sensible."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e8 else 0


def _video_items(file: Path, name: str) -> Iterator[Item]:
    capture = cv2.VideoCapture(str(file))
    try:
        if not capture.isOpened():
            yield Item(name, error=f"{file}: not a video that OpenCV can open; convert it to MP4 (H.264)")
            return
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 1.0 <= fps <= 1000.0 else 30.0
        declared = _declared_frames(capture)
        count = 0
        for item in _captured(capture, name, str(file), fps, live=False):
            count += 1
            yield item
        if count == 0 or count < 0.9 * declared:
            yield Item(name, error=f"{file}: the video ends after {count} of {declared} frames; it is truncated or damaged")
    finally:
        capture.release()


def _camera(number: int) -> Source:
    opened = [_open_camera(number)]  # at once, so that a camera that is not there is told before a model is loaded

    def items() -> Iterator[Item]:
        capture = opened.pop() if opened else _open_camera(number)
        name, source = f"camera{number}", f"camera:{number}"
        try:
            yield from _captured(capture, name, source, capture.get(cv2.CAP_PROP_FPS) or 30.0, live=True)
            yield Item(name, error=f"{source}: gives no more pictures; was it unplugged, or is it used by another program?")
        finally:
            capture.release()

    return Source(None, items)


def _open_camera(number: int) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise InputError(f"camera {number} cannot be opened; check that it is connected and that no other program uses it")
    return capture


def _captured(capture: cv2.VideoCapture, name: str, source: str, fps: float, live: bool) -> Iterator[Item]:
    index = 0
    while True:
        start = time.perf_counter()
        stamp_ns = time.time_ns() if live else round(index / fps * 1e9)
        found, image = capture.read()
        if not found:
            return
        frame = Frame(np.ascontiguousarray(image, dtype=np.uint8), stamp_ns=stamp_ns, source=source, index=index)
        yield Item(name, frame, fps=fps, decode_ms=1e3 * (time.perf_counter() - start))
        index += 1


def _world(text: str) -> Source:
    seed_text = text.removeprefix("world:")
    if not _is_number(seed_text):
        raise InputError(f"{text}: expected world:SEED with a whole number, such as world:7")
    world = procedural_world()
    drive = world.Drive(int(seed_text), WORLD_SIZE_WH)

    def items() -> Iterator[Item]:
        start = time.perf_counter()
        for index, sample in enumerate(drive):
            frame = Frame(sample.image_bgr, stamp_ns=int(sample.meta["stamp_ns"]), source=text, index=index)
            yield Item(f"world_{seed_text}", frame, fps=drive.rate_hz, decode_ms=1e3 * (time.perf_counter() - start))
            start = time.perf_counter()

    return Source(len(drive), items)


def procedural_world() -> Any:
    """The module ``training.datasets.world`` of the checkout that this package is installed from.

    Raises:
        InputError: when there is no checkout, or it lacks what training needs.
    """
    return on_checkout("training.datasets.world")


def on_checkout(module: str) -> Any:
    """A module of ``training``, from the checkout that this package is installed from.

    Imported by name: the runtime does not depend on training.

    Raises:
        InputError: when there is no checkout, or it lacks what the module needs.
    """
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "training/__init__.py").is_file() and str(checkout) not in sys.path:
        sys.path.append(str(checkout))
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if (error.name or "training").partition(".")[0] == "training":
            message = f"{module} is part of the repository, not of the package; install from a checkout: pip install -e ."
        else:
            message = f"{module} needs {error.name}; install it: pip install -e '.[world]', or '.[train]' for all of training"
        raise InputError(f"{message} ({error})") from error
