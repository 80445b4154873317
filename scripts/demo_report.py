"""What the demo shows: table, video and contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

_SHEET_COLUMNS, _SHEET_ROWS, _SHEET_WIDTH_PX = 3, 3, 640


def report(scenes: Sequence[Any], seconds: float) -> dict[str, Any]:
    """Numbers over all scenes: milliseconds for each stage, age at publication, counts."""
    stages: dict[str, list[float]] = {}
    for scene in scenes:
        for stage in scene.stages:
            stages.setdefault(stage.stage, []).append(stage.duration_ms)
    stages["age at publication"] = [scene.age_ms for scene in scenes]
    stages["node overhead (age - perceive)"] = [
        a - p for a, p in zip(stages["age at publication"], stages["perceive"], strict=True)
    ]
    counts = [len(s.lanes) + len(s.drivable_areas) + len(s.boxes) + len(s.signs) for s in scenes]
    return {
        "bundle": f"{scenes[-1].bundle_name} ({scenes[-1].bundle_sha256[:12]})",
        "scenes": len(scenes),
        "rate Hz": round(len(scenes) / seconds, 2),
        "images dropped for newer ones": int(sum(scene.dropped_since_last for scene in scenes[1:])),
        "elements per scene": round(float(np.mean(counts)), 2),
        "truncated scenes": int(sum(scene.truncated for scene in scenes)),
        "ms": {
            name: dict(zip(("p50", "p95", "max"), np.round(np.percentile(v, [50, 95, 100]), 2).tolist(), strict=True))
            for name, v in stages.items()
        },
    }


def table(summary: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [f"{name}: {value}" for name, value in summary.items() if name != "ms"]
    lines += ["", "| milliseconds | p50 | p95 | max |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {row['p50']:.1f} | {row['p95']:.1f} | {row['max']:.1f} |" for name, row in summary["ms"].items()]
    return "\n".join(lines)


def _decode(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def overlay_video(overlays: Sequence[tuple[int, bytes]], path: Path) -> None:
    """The overlays (one or more) as MP4 at the pace at which they came."""
    times_s = np.array([time_ns for time_ns, _ in overlays]) / 1e9
    rate_hz = (len(overlays) - 1) / (times_s[-1] - times_s[0]) if len(overlays) > 1 else 1.0
    height, width = (side - side % 2 for side in _decode(overlays[0][1]).shape[:2])
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), float(np.clip(rate_hz, 1.0, 60.0)), (width, height))
    for _, data in overlays:
        video.write(_decode(data)[:height, :width])
    video.release()


def contact_sheet(overlays: Sequence[tuple[int, bytes]], path: Path) -> None:
    """Pictures evenly spread over the recording, on one sheet."""
    cells = _SHEET_COLUMNS * _SHEET_ROWS
    chosen = [_decode(overlays[i][1]) for i in np.linspace(0, len(overlays) - 1, min(cells, len(overlays))).astype(int)]
    height = round(chosen[0].shape[0] * _SHEET_WIDTH_PX / chosen[0].shape[1])
    pictures = [cv2.resize(picture, (_SHEET_WIDTH_PX, height), interpolation=cv2.INTER_AREA) for picture in chosen]
    pictures += [np.zeros_like(pictures[0])] * (cells - len(pictures))
    rows = [np.hstack(pictures[i : i + _SHEET_COLUMNS]) for i in range(0, cells, _SHEET_COLUMNS)]
    cv2.imwrite(str(path), np.vstack(rows))
