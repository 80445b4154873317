"""What flows between the stages: frozen, slotted dataclasses over numpy arrays.

Pixels follow OpenCV: integer coordinates are pixel centres, x to the right, y down. Points are ``(N, 2)`` float32 arrays of
``(x, y)`` in pixels of the *source* image. Stamps are the capture time in integer nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError

FloatArray = npt.NDArray[np.float32]
ImageBgr = npt.NDArray[np.uint8]

# Larger images are refused before anything is allocated for them (header bombs, broken messages).
MAX_IMAGE_PIXELS = 100_000_000


def _points(value: npt.ArrayLike, least: int, what: str) -> FloatArray:
    """Checked, read-only ``(N, 2)`` float32 copy of ``value`` with ``N >= least`` finite points."""
    points = np.array(value, dtype=np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < least:
        raise InputError(f"{what}: expected at least {least} (x, y) points, got an array of shape {points.shape}")
    if not np.isfinite(points).all():
        raise InputError(f"{what}: a coordinate is NaN or infinite")
    points.setflags(write=False)
    return points


def _confidence(value: float, what: str) -> None:
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{what}: confidence must lie in 0..1, got {value!r}")


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera image on its way in.

    Attributes:
        image_bgr: ``(H, W, 3)`` uint8, not copied: the producer must not write to it afterwards.
        stamp_ns: capture time, nanoseconds.
        source: file path, topic or ``world:SEED``; carried to every output.
        index: number of the frame within its source, from 0.
    """

    image_bgr: ImageBgr
    stamp_ns: int = 0
    source: str = ""
    index: int = 0

    def __post_init__(self) -> None:
        image = self.image_bgr
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise InputError(f"{self.source or 'frame'}: expected an (H, W, 3) uint8 BGR image, got {got}")
        if image.shape[0] < 1 or image.shape[1] < 1 or image.shape[0] * image.shape[1] > MAX_IMAGE_PIXELS:
            raise InputError(
                f"{self.source or 'frame'}: image of {image.shape[1]}x{image.shape[0]} px is empty or above the limit of "
                f"{MAX_IMAGE_PIXELS} px"
            )

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.image_bgr.shape[1], self.image_bgr.shape[0]


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane marking as an open polyline, ordered bottom to top: ``points_px (N >= 2, 2)``."""

    points_px: FloatArray
    type: str = "solid"
    color: str = "white"
    confidence: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "points_px", _points(self.points_px, 2, "lane"))
        _confidence(self.confidence, "lane")


@dataclass(frozen=True, slots=True)
class DrivableArea:
    """A drivable region as a simple polygon, clockwise on the screen, not closed twice: ``polygon_px (N >= 3, 2)``."""

    polygon_px: FloatArray
    confidence: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "polygon_px", _points(self.polygon_px, 3, "drivable area"))
        _confidence(self.confidence, "drivable area")


@dataclass(frozen=True, slots=True)
class Box:
    """A road user or obstacle: ``xyxy_px = (x0, y0, x1, y1)`` with ``x0 < x1`` and ``y0 < y1``.

    ``attributes`` maps an attribute's name to its value, e.g. ``{"visible_state": "partly_occluded"}``.
    """

    xyxy_px: FloatArray
    class_name: str
    confidence: float = 1.0
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        xyxy = _points(np.asarray(self.xyxy_px, dtype=np.float32).reshape(-1, 2), 2, "box").reshape(-1)
        if xyxy.shape != (4,) or not (xyxy[0] < xyxy[2] and xyxy[1] < xyxy[3]):
            raise InputError(f"box: expected x0 < x1 and y0 < y1, got {xyxy.tolist()}")
        object.__setattr__(self, "xyxy_px", xyxy)
        _confidence(self.confidence, "box")


@dataclass(frozen=True, slots=True)
class Sign:
    """A traffic sign or light as its centre point ``point_px (2,)``."""

    point_px: FloatArray
    class_name: str
    color: str = "white"
    confidence: float = 1.0
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "point_px", _points(np.reshape(self.point_px, (1, -1)), 1, "sign").reshape(2))
        _confidence(self.confidence, "sign")


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """How much of the model's text became elements, and why the rest did not.

    ``issues`` counts what was dropped by reason, e.g. ``{"lane_too_short": 1}``; empty means that every token was used. Not among
    them: ``deleted`` elements, which the model took back itself, ``repeated`` boxes and ``unsure`` elements, which are not handed
    over (`getok_drive.selecting`). ``elements`` are those that are.
    """

    tokens: int = 0
    passes: int = 0
    elements: int = 0
    deleted: int = 0
    repeated: int = 0
    unsure: int = 0
    issues: Mapping[str, int] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """Number of tokens or elements dropped, over all reasons."""
        return sum(self.issues.values())


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall time of each stage of one frame, milliseconds."""

    preprocess_ms: float = 0.0
    vision_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    parse_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything seen in one frame; the pipeline's only result."""

    image_size_wh: tuple[int, int]
    lanes: tuple[Lane, ...] = ()
    drivable: tuple[DrivableArea, ...] = ()
    boxes: tuple[Box, ...] = ()
    signs: tuple[Sign, ...] = ()
    stamp_ns: int = 0
    source: str = ""
    index: int = 0
    truncated: bool = False
    report: DecodeReport = field(default_factory=DecodeReport)
    timings: Timings = field(default_factory=Timings)
    bundle_name: str = ""
    bundle_sha256: str = ""

    @property
    def elements(self) -> int:
        """Number of elements of all kinds."""
        return len(self.lanes) + len(self.drivable) + len(self.boxes) + len(self.signs)

    def to_json(self) -> dict[str, Any]:
        """The scene as plain JSON values; the one line per frame of ``scenes.jsonl`` (coordinates rounded to 0.01 px)."""

        def xy(points: FloatArray) -> list[Any]:
            return np.round(points.astype(np.float64), 2).tolist()  # type: ignore[no-any-return]

        timings = {name: round(getattr(self.timings, name), 3) for name in Timings.__dataclass_fields__}
        return {
            "frame": self.index,
            "stamp_ns": self.stamp_ns,
            "source": self.source,
            "image_size_wh": list(self.image_size_wh),
            "lanes": [
                {"points_px": xy(e.points_px), "type": e.type, "color": e.color, "confidence": round(e.confidence, 4)}
                for e in self.lanes
            ],
            "drivable": [{"polygon_px": xy(e.polygon_px), "confidence": round(e.confidence, 4)} for e in self.drivable],
            "boxes": [
                {"xyxy_px": xy(e.xyxy_px), "class": e.class_name, "confidence": round(e.confidence, 4), **dict(e.attributes)}
                for e in self.boxes
            ],
            "signs": [
                {
                    "point_px": xy(e.point_px),
                    "class": e.class_name,
                    "color": e.color,
                    "confidence": round(e.confidence, 4),
                    **dict(e.attributes),
                }
                for e in self.signs
            ],
            "truncated": self.truncated,
            "decode_report": {
                "tokens": self.report.tokens,
                "passes": self.report.passes,
                "elements": self.report.elements,
                "deleted": self.report.deleted,
                "repeated": self.report.repeated,
                "unsure": self.report.unsure,
                "issues": dict(self.report.issues),
            },
            "timings_ms": timings,
            "bundle": {"name": self.bundle_name, "sha256": self.bundle_sha256},
        }
