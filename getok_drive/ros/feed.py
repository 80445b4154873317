"""What `camera_source` shows: any source of `getok_drive.sources` in one size, with the camera that took it. No rclpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from getok_drive.errors import InputError
from getok_drive.geometry.camera import SE3, CameraModel
from getok_drive.ros.labels import NAME as LABELS_NAME
from getok_drive.sources import open_source, procedural_world
from getok_drive.types import ImageBgr, Scene

_WORLD_FRAMES = 300  # rendered ahead when max_frames does not say; a loop shows them again
_WORLD_RATE_HZ = 15.0
_WORLD_WIDTH_PX = 640


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """Intrinsics and pose of a feed's camera."""

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
        x, y, z, w = q.tolist()
        return x, y, z, w


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One image of a feed, and what is in it where the source knows."""

    image_bgr: ImageBgr
    labels: Scene | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """Pictures of one size.

    Attributes:
        frames: starts the sequence from its beginning.
        size_wh: of every picture, pixels.
        rate_hz: the source's own rate.
        preload: making pictures is too slow for real time; take them all before the first is shown.
        calibrated: the camera, where the source knows it.
        labelled: every picture has labels.
    """

    frames: Callable[[], Iterator[Picture]]
    size_wh: tuple[int, int]
    rate_hz: float
    preload: bool = False
    calibrated: Calibrated | None = None
    labelled: bool = False

    def forever(self) -> Iterator[Picture]:
        """The pictures again and again, until there is none any more (files removed, camera unplugged)."""
        shown = True
        while shown:
            shown = False
            for picture in self.frames():
                shown = True
                yield picture


def open_feed(text: str, width_px: int = 0, max_frames: int = 0) -> Feed:
    """Opens a source.

    Args:
        text: as `getok_drive.sources.open_source` takes it.
        width_px: pictures are resized to this width; 0 keeps the first one's.
        max_frames: most pictures; 0 takes all.

    Raises:
        InputError: nothing is there or nothing of it can be read.
    """
    if text.startswith("world:"):
        return _world(text, width_px or _WORLD_WIDTH_PX, max_frames or _WORLD_FRAMES)
    source = open_source(text)
    first, problems = None, []
    for item in source:
        if item.frame is not None:
            first = item
            break
        problems.append(item.error)
    if first is None or first.frame is None:
        raise InputError(f"{text}: no picture in it can be read: {problems[0] if problems else 'it is empty'}")
    width, height = first.frame.size_wh
    scale = width_px / width if width_px else 1.0
    size_wh = (max(2, round(width * scale)), max(2, round(height * scale)))

    def frames() -> Iterator[Picture]:
        count = 0
        for item in source:
            if item.frame is None:
                continue
            if max_frames and count >= max_frames:
                return
            count += 1
            image = item.frame.image_bgr
            fits = (image.shape[1], image.shape[0]) == size_wh
            image = image if fits else np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)
            yield Picture(image)

    return Feed(frames, size_wh, first.fps or 10.0)


def _world(text: str, width_px: int, count: int) -> Feed:
    seed = text.removeprefix("world:")
    if not (seed.isascii() and seed.isdigit()):
        raise InputError(f"{text}: expected world:SEED with a whole number, such as world:7")
    world = procedural_world()
    size_wh = (width_px, 2 * round(width_px * 9 / 32))
    drive = world.Drive(int(seed), size_wh, _WORLD_RATE_HZ, count)
    meta = drive.frame(0).meta
    ego_SE3_cam = np.asarray(meta["ego_SE3_cam"])
    pose = SE3(ego_SE3_cam[:3, :3], ego_SE3_cam[:3, 3])
    calibrated = Calibrated(CameraModel(size_wh, meta["K"], meta["D"]), pose)

    def frames() -> Iterator[Picture]:
        for e in drive:
            yield Picture(e.image_bgr, Scene(e.size_wh, e.lanes, e.drivable, e.boxes, e.signs, bundle_name=LABELS_NAME))

    return Feed(frames, size_wh, _WORLD_RATE_HZ, preload=True, calibrated=calibrated, labelled=True)
