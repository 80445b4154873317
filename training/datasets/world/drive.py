"""A continuous drive: the same world frame after frame, with tracks, ego motion and a calibrated camera."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from training.datasets.world import scene
from training.datasets.world.camera import Camera
from training.datasets.world.dice import Dice
from training.datasets.world.things import Thing
from training.samples import Sample

_CRUISE_M_S = {"highway": 25.0, "rural": 19.0, "urban": 10.0, "residential": 8.0, "unpaved": 8.0}
_AHEAD_M = 200.0
_STAMP_0_NS = 1_700_000_000_000_000_000


class Drive:
    """An iterable of samples along one road, the same every time for the same arguments.

    Each sample's ``meta`` holds ``stamp_ns``, ``index``, ``sequence``, the camera (``K`` 3x3, ``D`` 5, ``ego_SE3_cam`` 4x4) and
    the ego pose ``world_SE3_ego`` (4x4); boxes and signs carry ``attributes["track_id"]``, which stays with a thing.

    Args:
        seed: the world, not negative.
        size_wh: image size, pixels.
        rate_hz: frames a second.
        frames: number of frames.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(self, seed: int, size_wh: tuple[int, int] = (1280, 720), rate_hz: float = 15.0, frames: int = 300) -> None:
        if seed < 0 or frames < 1 or not 0 < rate_hz <= 1000:
            raise ValueError(f"world: a drive needs seed >= 0, frames >= 1, 0 < rate_hz <= 1000; got {seed}, {frames}, {rate_hz}")
        self.seed, self.size_wh, self.rate_hz, self.frames = seed, size_wh, float(rate_hz), frames
        rng = Dice(seed, 4242)
        duration_s = frames / self.rate_hz
        first = scene.create(seed, _AHEAD_M)  # the road's kind decides the speed, the speed the length
        self.speed_m_s = _CRUISE_M_S[first.road.kind] * rng.uniform(0.85, 1.1)
        self.world = scene.create(seed, _AHEAD_M + 40.0 + math.ceil(2.2 * self.speed_m_s * duration_s))
        leaders = [t for t in self.world.things if t.art == "vehicle" and t.speed > 0 and abs(t.d) < 1.0 and t.s > 0]
        if leaders:
            self.speed_m_s = leaders[0].speed
        self.world.ego_d = float(np.clip(self.world.ego_d, -0.4, 0.4))
        self.world.lens = replace(self.world.lens, motion_px=0.0)
        self.world.things = [thing for thing in self.world.things if not self._in_the_way(thing)]
        self._sway, self._phase = rng.uniform(0.05, 0.25), rng.uniform(0, 2 * math.pi)
        camera = Camera(self.world.rig, size_wh)
        self.k, self.d, self.ego_SE3_cam = camera.k, camera.d, camera.ego_SE3_cam

    def _in_the_way(self, thing: Thing) -> bool:
        """Whether ego would run into a thing that does not drive along in its lane."""
        if thing.art not in ("vehicle", "person", "rider", "obstacle"):
            return False
        closing = self.speed_m_s - thing.speed
        if abs(closing) < 0.5:
            return False
        meeting_s = max(thing.s / closing, 0.0)
        across = thing.size_m[1] if abs(math.sin(thing.heading)) < 0.7 else thing.size_m[0]
        return abs(thing.d + thing.drift * meeting_s) < 1.5 + across / 2

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[Sample]:
        for index in range(self.frames):
            yield self.frame(index)

    def frame(self, index: int) -> Sample:
        """The sample at ``index``, 0 to ``frames - 1``."""
        if not 0 <= index < self.frames:
            raise IndexError(f"world: frame {index} of a drive of {self.frames} frames")
        time_s = index / self.rate_hz
        omega = 0.5
        d_m = self.world.ego_d + self._sway * math.sin(omega * time_s + self._phase)
        drift = self._sway * omega * math.cos(omega * time_s + self._phase)
        sample = scene.picture(
            self.world, self.size_wh, s_m=self.speed_m_s * time_s, d_m=d_m,
            dyaw_rad=math.atan2(drift, self.speed_m_s), time_s=time_s, stream=index,
        )  # fmt: skip
        stamp_ns = _STAMP_0_NS + round(index * 1e9 / self.rate_hz)
        meta = {**sample.meta, "stamp_ns": stamp_ns, "index": index, "sequence": f"world-drive:{self.seed}"}
        return replace(sample, meta=meta)
