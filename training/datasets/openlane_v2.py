"""OpenLane-V2, subset A or B with lane segments: ``SPLIT/SEGMENT/info/STAMP-ls.json`` and the front camera's pictures.

Lines are labelled in metres of the car's frame and projected here: ``p_cam = R^T (p_ego - t)``, ``uv = K p_cam``. Every point
has its own height, so slopes are right. What is hidden is not known: lines run on behind cars and crests, except that a line
ends where it would go down the picture again. Lines without paint (type 0, for example in junctions) are left out; colours are
read from the picture. Traffic elements are boxes in the front picture; lane-control signs have no class of their own here and
become ``mandatory`` or ``prohibition``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.geometry.polyline import clip_polyline, length, resample
from getok_drive.types import ImageBgr, Lane, Sign
from training.datasets.boxes import center, clipped
from training.datasets.paint import lane_look
from training.datasets.reading import Found, Labels, SampleList, official, read_json

TERMS = "OpenLane-V2: CC BY-NC-SA 4.0 with the terms of Argoverse 2 and nuScenes; no commercial use"
CAMERAS = ("ring_front_center", "CAM_FRONT")  # subset A, subset B
LINE_TYPES = {1: "solid", 2: "dashed"}  # 0: no line
LAMPS = {0: "black", 1: "red", 2: "green", 3: "yellow"}  # attribute of category 1
PROHIBITIONS = (7, 8, 10)  # no left turn, no right turn, no U-turn; other attributes of category 2 say where to go
NEAR_M = 1.0  # in front of the camera
JOIN_M = 0.3  # ends that lie this near continue each other
STEP_M = 0.5
MIN_LENGTH_SHARE = 0.02  # of the image height
F64 = npt.NDArray[np.float64]


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Lane lines and traffic elements of the front camera.

    Args:
        path: the root that holds ``train``, ``val`` and ``test``.
        split: ``train``, ``val``, ``test`` (no labels) or ``all``.

    Raises:
        ConfigError: no such folder.
    """
    found, skipped = [], []
    for folder in official({part: path / part for part in ("train", "val", "test")}, split, "openlane_v2"):
        for info in sorted(folder.glob("*/info/*-ls.json")):
            stamp = info.stem.removesuffix("-ls")
            places = [info.parent.parent / "image" / camera / f"{stamp}.jpg" for camera in CAMERAS]
            image = next((place for place in places if place.exists()), None)
            name = str(info.relative_to(path))
            if image is None:
                skipped.append((name, f"no {' or '.join(CAMERAS)} picture of this stamp in image/"))
            else:
                sequence = f"{folder.name}/{info.parent.parent.name}"
                found.append(Found(str(image.relative_to(path)), sequence, image, info))
    return SampleList("openlane_v2", TERMS, found, _labels, skipped)


def _labels(item: Found, image: ImageBgr) -> Labels:
    record = read_json(item.label)
    if not record.get("annotation"):
        raise InputError(f"{item.label}: no annotation; the test part is published without")
    camera = record["sensor"][item.image.parent.name]
    rotation, translation = (np.asarray(camera["extrinsic"][name], np.float64) for name in ("rotation", "translation"))
    intrinsics = np.asarray(camera["intrinsic"]["K"], np.float64)
    if rotation.shape != (3, 3) or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
        raise InputError(f"{item.label}: the camera's rotation is no rotation matrix of 3x3")
    size_wh = (image.shape[1], image.shape[0])
    lanes = []
    for kind, line in _lines(record["annotation"]["lane_segment"]):
        points = _projected(line, rotation, translation.reshape(3), intrinsics, size_wh)
        if points is not None:
            lanes.append(Lane(points.astype(np.float32), kind, lane_look(image, points)[1]))
    ego_from_camera = np.eye(4)
    ego_from_camera[:3, :3], ego_from_camera[:3, 3] = rotation, translation.reshape(3)
    return Labels(
        ("lanes", "signs"),
        lanes=tuple(sorted(lanes, key=lambda lane: float(lane.points_px[0, 0]))),
        signs=_signs(record["annotation"].get("traffic_element", ()), size_wh),
        meta={
            "derived": ("lanes", "lane_color", "sign_color"),
            "labelled_classes": {"signs": ("traffic_light", "mandatory", "prohibition")},
            "K": intrinsics,
            "ego_SE3_cam": ego_from_camera,
            "stamp_ns": int(record.get("timestamp", 0)),
        },
    )


def _lines(segments: Sequence[Mapping[str, Any]]) -> list[tuple[str, F64]]:
    """Painted lines ``(type, (N, 3) metres)``, joined end to end; each once, though it bounds two segments."""
    lines: list[tuple[str, F64]] = []
    for segment in segments:
        for side in ("left", "right"):
            kind = LINE_TYPES.get(int(segment[f"{side}_laneline_type"]))
            points = np.asarray(segment[f"{side}_laneline"], np.float64).reshape(-1, 3)
            if kind and len(points) >= 2 and not any(k == kind and _same(points, other) for k, other in lines):
                lines.append((kind, points))
    joined = True
    while joined:
        joined = False
        for i, (kind, a) in enumerate(lines):
            after = next(
                (j for j, (k, b) in enumerate(lines) if j != i and k == kind and np.linalg.norm(a[-1] - b[0]) < JOIN_M), None
            )
            if after is not None:
                lines[i] = (kind, np.concatenate([a, lines[after][1][1:]]))
                del lines[after]
                joined = True
                break
    return lines


def _same(a: F64, b: F64) -> bool:
    """Whether two lines have the same ends, in either direction."""
    ends = b[[0, -1]]
    return any(np.linalg.norm(a[[0, -1]] - other, axis=1).max() < JOIN_M for other in (ends, ends[::-1]))


def _projected(line_m: F64, rotation: F64, translation_m: F64, intrinsics: F64, size_wh: tuple[int, int]) -> F64 | None:
    """The longest part of a line that the picture shows, bottom to top; None when there is next to nothing."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line_m, axis=0), axis=1))])
    at = np.linspace(0.0, along[-1], max(int(along[-1] / STEP_M) + 1, 2))
    dense = np.column_stack([np.interp(at, along, line_m[:, axis]) for axis in range(3)])
    camera_m = (dense - translation_m) @ rotation  # R^T (p - t), as rows
    parts = np.split(camera_m, np.flatnonzero(np.diff((camera_m[:, 2] > NEAR_M).astype(int))) + 1)
    best: F64 | None = None
    for part in parts:
        if len(part) < 2 or part[0, 2] <= NEAR_M:
            continue
        part = part if part[0, 2] <= part[-1, 2] else part[::-1]  # nearest first
        uvw = part @ intrinsics.T
        for piece in clip_polyline(uvw[:, :2] / uvw[:, 2:], size_wh):
            down = np.flatnonzero(np.diff(piece[:, 1]) > 0.5)
            visible = piece[: down[0] + 1] if len(down) else piece  # behind a crest
            if len(visible) >= 2 and (best is None or length(visible) > length(best)):
                best = visible
    if best is None or length(best) < MIN_LENGTH_SHARE * size_wh[1]:
        return None
    return resample(best, step_px=max(size_wh[1] / 100, 1.0))


def _signs(elements: Sequence[Mapping[str, Any]], size_wh: tuple[int, int]) -> tuple[Sign, ...]:
    signs = []
    for element in elements:
        corners = clipped(np.asarray(element["points"], np.float32).reshape(4), size_wh)
        if corners is None:
            continue
        attribute = int(element["attribute"])
        if int(element["category"]) == 1:
            signs.append(Sign(center(corners), "traffic_light", LAMPS.get(attribute, "black")))
        elif attribute in PROHIBITIONS:
            signs.append(Sign(center(corners), "prohibition", "red"))
        else:
            signs.append(Sign(center(corners), "mandatory", "blue"))
    return tuple(signs)
