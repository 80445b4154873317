"""Where `camera_source` gets its pictures: videos, image folders, and the driving world of the checkout. No rclpy."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from getok_drive.errors import InputError
from getok_drive.geometry.camera import SE3, CameraModel
from getok_drive.types import ImageBgr

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_WORLD_FRAMES = 300  # rendered ahead when max_frames does not say; a loop shows them again


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """Intrinsics and pose of a source's camera."""

    camera: CameraModel
    ground_SE3_cam: SE3

    @classmethod
    def guess(cls, size_wh: tuple[int, int], fov_deg: float, height_m: float, pitch_down_rad: float) -> Calibrated:
        """A distortion-free camera of the given horizontal field of view, for pictures of unknown origin."""
        width, height = size_wh
        focal_px = width / 2 / math.tan(math.radians(fov_deg) / 2)
        K = np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]])
        return cls(CameraModel(size_wh, K), SE3.from_mount(height_m=height_m, pitch_down_rad=pitch_down_rad))

    def quaternion_xyzw(self) -> tuple[float, float, float, float]:
        """Rotation of ``ground_SE3_cam`` as a unit quaternion (Shepperd's method: the largest component first)."""
        m = self.ground_SE3_cam.rotation
        squares = np.array([m[0, 0] - m[1, 1] - m[2, 2], m[1, 1] - m[0, 0] - m[2, 2], m[2, 2] - m[0, 0] - m[1, 1], np.trace(m)])
        q = np.zeros(4)
        i = int(np.argmax(squares))
        q[i] = 0.5 * math.sqrt(1.0 + squares[i])
        if i == 3:
            q[:3] = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]) / (4 * q[3])
        else:
            j, k = (i + 1) % 3, (i + 2) % 3
            q[j], q[k] = (m[j, i] + m[i, j]) / (4 * q[i]), (m[k, i] + m[i, k]) / (4 * q[i])
            q[3] = (m[k, j] - m[j, k]) / (4 * q[i])
        return tuple(q.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A sequence of pictures of one size.

    Attributes:
        make: starts the sequence from its beginning.
        size_wh: of every picture, pixels.
        rate_hz: the source's own rate.
        preload: making pictures is too slow for real time; take them all before the first is shown.
        calibrated: the camera, where the source knows it.
    """

    make: Callable[[], Iterator[ImageBgr]]
    size_wh: tuple[int, int]
    rate_hz: float
    preload: bool = False
    calibrated: Calibrated | None = None

    @property
    def frames(self) -> Iterator[ImageBgr]:
        """The pictures once."""
        return self.make()

    def forever(self) -> Iterator[ImageBgr]:
        """The pictures again and again."""
        while True:
            yield from self.make()


def open_source(spec: str, width_px: int = 0, max_frames: int = 0) -> Source:
    """Opens a video, an image, a folder of images (searched recursively, sorted) or ``world:SEED``.

    Args:
        spec: what to open.
        width_px: pictures are resized to this width; 0 keeps them.
        max_frames: most pictures; 0 takes all.

    Raises:
        InputError: Nothing is there or it cannot be read.
    """
    if spec.startswith("world"):
        return _world(spec, width_px or 640, max_frames or _WORLD_FRAMES)
    path = Path(spec).expanduser()
    if not path.exists():
        raise InputError(f"source {spec!r}: no such file or folder; give a video, an image, a folder of images or world:SEED")
    if path.is_dir() or path.suffix.lower() in _IMAGES:
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _IMAGES) if path.is_dir() else [path]
        make, rate_hz = (lambda: _images(files)), 10.0
    else:
        make, rate_hz = (lambda: _video(path)), _video_rate_hz(path)
    first = next(make(), None)
    if first is None:
        raise InputError(f"source {spec!r}: no readable picture in it")
    scale = width_px / first.shape[1] if width_px else 1.0
    size_wh = (max(2, round(first.shape[1] * scale)), max(2, round(first.shape[0] * scale)))

    def sized() -> Iterator[ImageBgr]:
        for number, image in enumerate(make()):
            if max_frames and number >= max_frames:
                return
            same = (image.shape[1], image.shape[0]) == size_wh
            yield image if same else np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    return Source(sized, size_wh, rate_hz)


def _images(files: list[Path]) -> Iterator[ImageBgr]:
    for file in files:
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is not None:
            yield np.asarray(image, dtype=np.uint8)


def _video_rate_hz(path: Path) -> float:
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise InputError(f"source {path}: cannot be read as a video")
        rate_hz = float(video.get(cv2.CAP_PROP_FPS))
        return rate_hz if 1.0 <= rate_hz <= 240.0 else 25.0
    finally:
        video.release()


def _video(path: Path) -> Iterator[ImageBgr]:
    video = cv2.VideoCapture(str(path))
    try:
        while True:
            good, image = video.read()
            if not good:
                return
            yield np.asarray(image, dtype=np.uint8)
    finally:
        video.release()


def _world(spec: str, width_px: int, frames: int) -> Source:
    """The driving world lives beside the package, in the checkout's `training`; the runtime does not depend on it."""
    _, _, seed = spec.partition(":")
    if not seed.isdigit():
        raise InputError(f"source {spec!r}: expected world:SEED with a whole number, e.g. world:7")
    try:
        world: Any = importlib.import_module("training.datasets.world")
    except ImportError as error:
        raise InputError(
            f"source {spec!r}: the driving world needs the repository's training package; run from a checkout"
        ) from error
    raise NotImplementedError(world, frames, width_px)
