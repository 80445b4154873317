"""``getok-drive bench``: where the time of a frame goes, stage by stage, and how much memory it takes."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from getok_drive.errors import InputError
from getok_drive.images import decode_image
from getok_drive.machine import cores, cpu_name
from getok_drive.pipeline import Perceiver
from getok_drive.sources import open_source, procedural_world
from getok_drive.types import Frame, Scene

_WARM_UP_FRAMES = 3
_SIZE_WH = (1280, 720)


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What was measured.

    Attributes:
        stages_ms: name of a stage to its times, one for each frame.
        tokens: per frame.
        passes: runs of the decoder per frame, the prefill among them.
        elements: per frame.
        peak_memory_mb: of the whole process so far.
        frames_per_s: decoding the image to the scene, one frame after the other.
        facts: what it was measured on and with.
    """

    stages_ms: dict[str, list[float]]
    tokens: list[int]
    passes: list[int]
    elements: list[int]
    peak_memory_mb: float
    frames_per_s: float
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        stages = {name: {"p50": _percentile(times, 50), "p95": _percentile(times, 95)} for name, times in self.stages_ms.items()}
        counts = {"tokens": self.tokens, "decoder_passes": self.passes, "elements": self.elements}
        per_frame = {name: {"mean": round(float(np.mean(values)), 1), "max": max(values)} for name, values in counts.items()}
        return {
            "stages_ms": stages,
            "per_frame": per_frame,
            "frames_per_s": round(self.frames_per_s, 2),
            "peak_memory_mb": round(self.peak_memory_mb, 1),
            **self.facts,
        }

    def table(self) -> str:
        """The same as text."""
        data = self.to_json()
        rows = [f"{'stage':<16}{'p50 ms':>10}{'p95 ms':>10}"]
        rows += [f"{name:<16}{row['p50']:>10.3f}{row['p95']:>10.3f}" for name, row in data["stages_ms"].items()]
        rows += ["", f"{'per frame':<16}{'mean':>10}{'max':>10}"]
        rows += [f"{name.replace('_', ' '):<16}{row['mean']:>10.1f}{row['max']:>10}" for name, row in data["per_frame"].items()]
        rows += ["", f"frames/s        {data['frames_per_s']:>10.2f}", f"peak memory MB  {data['peak_memory_mb']:>10.1f}", ""]
        rows += [f"{name:<16}{value}" for name, value in self.facts.items()]
        return "\n".join(rows)


def measure(source: str | None, open_perceiver: Callable[[], Perceiver], frames: int) -> BenchReport:
    """Run frames one after the other and take the time of every stage.

    Every image is first packed as a JPEG in memory, so that decoding an image is part of the measurement for every source.

    Args:
        source: as for ``getok-drive run``; None: the procedural world's test frames, or noise where there is no checkout.
        open_perceiver: makes the pipeline.
        frames: how many to measure; a shorter source is repeated.

    Raises:
        InputError: the source has no usable frame.
    """
    packed, description = _packed_frames(source, frames)
    perceiver = open_perceiver()
    for data in packed[:_WARM_UP_FRAMES]:
        perceiver.run(Frame(decode_image(data, "bench")))
    scenes: list[Scene] = []
    decode_ms: list[float] = []
    start = time.perf_counter()
    for index in range(frames):
        before = time.perf_counter()
        image = decode_image(packed[index % len(packed)], "bench")
        decode_ms.append(1e3 * (time.perf_counter() - before))
        scenes.append(perceiver.run(Frame(image, index=index)))
    elapsed_s = time.perf_counter() - start
    timings = [scene.timings for scene in scenes]
    tokens = [scene.report.tokens for scene in scenes]
    passes = [scene.report.passes + 1 for scene in scenes]
    stages = {
        "decode image": decode_ms,
        "preprocess": [t.preprocess_ms for t in timings],
        "vision": [t.vision_ms for t in timings],
        "prefill": [t.prefill_ms for t in timings],
        "decode tokens": [t.decode_ms for t in timings],
        "per token": [t.decode_ms / max(count, 1) for t, count in zip(timings, tokens, strict=True)],
        "per pass": [t.decode_ms / max(count - 1, 1) for t, count in zip(timings, passes, strict=True)],
        "parse": [t.parse_ms for t in timings],
        "total": [t.total_ms + d for t, d in zip(timings, decode_ms, strict=True)],
    }
    facts = {
        "frames": frames,
        "source": description,
        "backend": f"{perceiver.backend.name} on {perceiver.backend.device}",
        "bundle": f"{perceiver.bundle.name} {perceiver.bundle.sha256[:12]}",
        "machine": machine(),
        "truncated": sum(scene.truncated for scene in scenes),
        "invalid": sum(scene.report.dropped > 0 for scene in scenes),
    }
    return BenchReport(stages, tokens, passes, [scene.elements for scene in scenes], peak_memory_mb(), frames / elapsed_s, facts)


def _packed_frames(source: str | None, frames: int) -> tuple[list[bytes], str]:
    if source is None:
        return _default_frames(frames)
    packed = []
    for item in open_source(source):
        if item.frame is not None:
            packed.append(_pack(item.frame.image_bgr))
        if len(packed) == frames:
            break
    if not packed:
        raise InputError(f"{source}: no frame could be read")
    return packed, source


def _default_frames(frames: int) -> tuple[list[bytes], str]:
    try:
        world = procedural_world()
    except InputError:
        rng = np.random.default_rng(0)
        width, height = _SIZE_WH
        noise = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(min(frames, 4))]
        return [_pack(image) for image in noise], "noise, 1280x720 (no checkout with the procedural world)"
    seeds = list(world.TEST_SEEDS)[: min(frames, 50)]
    return [_pack(world.render(seed, _SIZE_WH).image_bgr) for seed in seeds], f"world:test, {len(seeds)} frames of 1280x720"


def _pack(image_bgr: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return bytes(cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())


def _percentile(values: list[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 4)


def peak_memory_mb() -> float:
    """Highest resident memory of this process so far, in 10**6 bytes; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def machine() -> str:
    """The processor and how many cores this process may use."""
    return f"{cpu_name()}, {cores()} cores, Python {platform.python_version()}"
