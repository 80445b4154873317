"""BDD100K images: detection, drivable area and lanes, in every form in which their JSON labels are handed out.

- Scalabel (2020 on): ``labels/det_20/det_SPLIT.json``, ``labels/drivable/polygons/drivable_SPLIT.json``,
  ``labels/lane/polygons/lane_SPLIT.json``;
- the first release: ``labels/bdd100k_labels_images_SPLIT.json`` with all three, ``labels/100k/SPLIT/NAME.json`` per picture;
- photographs in ``images/100k/SPLIT/``;
- ``labels/lane/masks/SPLIT/NAME.png`` and ``labels/drivable/masks/SPLIT/NAME.png``, which the benchmark's own metrics are
  computed on, become ``masks["bdd100k_lane"]`` and ``masks["bdd100k_drivable"]`` where they are there.

What is known of a picture depends on the files that are there and list it. A stripe of paint is drawn as its two edges: two
lines of one category that run side by side become their middle. Lines across the road, kerbs and crossings are not lane lines
and are left out. Signs have no class in BDD100K, only lights do: signs are known in pictures without other signs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from getok_drive.errors import ConfigError, InputError
from getok_drive.geometry.polyline import points_at_rows
from getok_drive.types import Box, ImageBgr, Lane, Sign
from training.datasets.boxes import center, clipped, join_riders, state_attributes
from training.datasets.masks import drivable_areas
from training.datasets.reading import Found, Labels, SampleList, official, read_json, read_mask, same_size
from training.metrics.raster import fill_polygons

TERMS = "BDD100K (Berkeley): pictures and labels for non-commercial research and education; BSD-3-Clause toolkit"
BOXES = {
    "car": "car", "truck": "truck", "bus": "bus", "person": "pedestrian", "pedestrian": "pedestrian",
    "other person": "pedestrian",
    "bike": "two_wheeler", "bicycle": "two_wheeler", "motor": "two_wheeler", "motorcycle": "two_wheeler", "rider": "two_wheeler",
    "trailer": "truck",
}  # fmt: skip
LAMPS = {"red": "red", "r": "red", "yellow": "yellow", "y": "yellow", "green": "green", "g": "green"}
DRIVABLE = ("drivable area", "area/drivable", "area/alternative", "direct", "alternative")
LANES = tuple(f"{count} {color}" for count in ("single", "double") for color in ("white", "yellow", "other"))
PARTS = {  # file -> kinds that it labels
    "labels/det_20/det_{}.json": ("boxes",),
    "labels/drivable/polygons/drivable_{}.json": ("drivable",),
    "labels/lane/polygons/lane_{}.json": ("lanes",),
    "labels/bdd100k_labels_images_{}.json": ("boxes", "drivable", "lanes"),
}
MAX_STRIPE_SHARE = 0.03  # of the image width: two lines of a category further apart than this are two stripes


def open_samples(path: Path, split: str = "all") -> SampleList:
    """Boxes, drivable areas, lanes and traffic lights of BDD100K.

    Args:
        path: the folder that holds ``images`` and ``labels`` (their parent ``bdd100k`` serves as well).
        split: ``train``, ``val``, ``test`` or ``all``.

    Raises:
        ConfigError: no photographs or no labels for the split.
        InputError: a label file that is not BDD100K's.
    """
    root = path / "bdd100k" if (path / "bdd100k").is_dir() else path
    folders = official({part: root / "images" / "100k" / part for part in ("train", "val", "test")}, split, "bdd100k")
    found, skipped = [], []
    for folder in folders:
        records = _records(root, folder.name)
        if not records and split != "all":
            raise ConfigError(
                f"bdd100k: no labels for {folder.name}; expected for example {root / next(iter(PARTS)).format(folder.name)}"
            )
        for name, (file, objects, known) in sorted(records.items()):
            image = folder / name
            if image.exists():
                found.append(Found(f"images/100k/{folder.name}/{name}", image.stem, image, (file, objects, known)))
            else:
                skipped.append((name, f"no such picture in {folder}"))
    return SampleList("bdd100k", TERMS, found, _labels, skipped)


def _records(root: Path, part: str) -> dict[str, tuple[Path, list[Any] | None, tuple[str, ...]]]:
    """Picture name -> (label file, objects, or None where each picture has a file of its own, the kinds known of it).

    Each file lists its own pictures: detection has 137 fewer for training than there are, of which no boxes are known.
    """
    every = ("lanes", "drivable", "boxes")
    each = root / "labels" / "100k" / part
    if each.is_dir():
        return {f"{file.stem}.jpg": (file, None, every) for file in sorted(each.glob("*.json"))}
    records: dict[str, tuple[Path, list[Any], set[str]]] = {}
    known: set[str] = set()
    for pattern, kinds in PARTS.items():
        file = root / pattern.format(part)
        if not file.exists() or known.issuperset(kinds):
            continue
        known.update(kinds)
        frames = read_json(file)
        frames = frames.get("frames", frames) if isinstance(frames, dict) else frames
        if not isinstance(frames, list):
            raise InputError(f"{file}: expected a list of frames")
        for frame in frames:
            if not isinstance(frame, dict) or "name" not in frame:
                raise InputError(f"{file}: a frame without a name; is it a BDD100K label file?")
            _, objects, listed = records.setdefault(str(frame["name"]), (file, [], set()))
            objects += frame.get("labels") or []
            listed.update(kinds)
    return {
        name: (file, objects, tuple(kind for kind in every if kind in listed))
        for name, (file, objects, listed) in records.items()
    }


def _labels(item: Found, image: ImageBgr) -> Labels:
    file, objects, known = item.label
    try:
        if objects is None:
            record = read_json(file)
            objects = [entry for frame in record["frames"] for entry in frame["objects"]]
        return replace(_of(objects, known, image), masks=_masks(item.image, image))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{file}: {item.name}: not a BDD100K label ({type(error).__name__}: {error})") from error


def _masks(path: Path, image: ImageBgr) -> dict[str, np.ndarray]:
    """The benchmark's label pictures of a photograph ``ROOT/images/100k/SPLIT/NAME.jpg``, as far as they are there."""
    root, part = path.parents[3], path.parent.name
    found = {}
    for kind in ("lane", "drivable"):
        file = root / "labels" / kind / "masks" / part / f"{path.stem}.png"
        if file.exists():
            mask = read_mask(file)
            if mask.ndim != 2:
                raise InputError(f"{file}: expected one byte a pixel; is it a colormap? The masks lie in labels/{kind}/masks")
            same_size(image, mask, file)
            found[f"bdd100k_{kind}"] = mask
    return found


def _of(objects: Iterable[Mapping[str, Any]], known: tuple[str, ...], image: ImageBgr) -> Labels:
    size_wh = (image.shape[1], image.shape[0])
    boxes: list[tuple[Box, str]] = []
    lights: list[Sign] = []
    areas: list[np.ndarray] = []
    edges: list[tuple[tuple[str, str], np.ndarray]] = []
    left_out: Counter[str] = Counter()
    for entry in objects:
        category = str(entry["category"])
        attributes = entry.get("attributes") or {}
        if isinstance(box := entry.get("box2d"), Mapping):
            xyxy = clipped([box[side] for side in ("x1", "y1", "x2", "y2")], size_wh)
            states = state_attributes(attributes.get("occluded"), attributes.get("truncated"))
            if xyxy is not None and category in BOXES:
                boxes.append((Box(xyxy, BOXES[category], attributes=states), category))
            elif xyxy is not None and category == "traffic light":
                lamp = str(attributes.get("trafficLightColor", attributes.get("color", ""))).lower()
                lights.append(Sign(center(xyxy), "traffic_light", LAMPS.get(lamp, "black"), attributes=states))
            else:
                left_out[category] += 1
        for part in _outlines(entry.get("poly2d")):
            if category in DRIVABLE:
                areas.append(part)
            elif (line := _line_words(category, attributes)) is not None:
                edges.append((line, part))
            else:
                left_out[category] += 1
    unnamed = left_out["traffic sign"] > 0
    signs_known = "boxes" in known and not unnamed
    return Labels(
        (*known, "signs") if signs_known else known,
        lanes=_stripes(edges, size_wh[0]) if "lanes" in known else (),
        drivable=drivable_areas(fill_polygons(areas, size_wh)) if areas and "drivable" in known else (),
        boxes=join_riders(boxes) if "boxes" in known else (),
        signs=tuple(lights) if signs_known else (),
        meta={
            "derived": ("lanes",),
            "left_out": dict(left_out),
            "labelled_classes": {"boxes": tuple(dict.fromkeys(BOXES.values())), "signs": ("traffic_light",)},
        },
    )


def _line_words(category: str, attributes: Mapping[str, Any]) -> tuple[str, str] | None:
    """Type and colour of a lane line, or None for what is no line along the road."""
    text = str(attributes.get("laneTypes", "")) if category == "lane" else category.removeprefix("lane/")
    direction = attributes.get("laneDirection", attributes.get("direction", "parallel"))
    if text not in LANES or direction != "parallel":
        return None
    count, color = text.split()
    style = attributes.get("laneStyle", attributes.get("style", "solid"))
    kind = "double" if count == "double" else "dashed" if style == "dashed" else "solid"
    return kind, "yellow" if color == "yellow" else "white"


def _outlines(poly2d: Any) -> list[np.ndarray]:
    """Polylines and polygons of a label, curves drawn out: ``CCC`` are the controls and the end of a cubic Bezier."""
    if not poly2d:
        return []
    if isinstance(poly2d[0], Mapping):
        parts = [(part["vertices"], part.get("types") or "L" * len(part["vertices"])) for part in poly2d]
    else:  # one outline of [x, y, "L"]
        parts = [([point[:2] for point in poly2d], "".join(str(point[2]) for point in poly2d))]
    outlines = []
    for vertices, types in parts:
        points = np.asarray(vertices, np.float64).reshape(-1, 2)
        if len(types) != len(points):
            raise ValueError(f"poly2d: {len(points)} vertices and {len(types)} types")
        drawn = [points[:1]]
        at = 1
        while at < len(points):
            if types[at] == "C" and at + 2 < len(points):
                p0, (p1, p2, p3) = drawn[-1][-1], points[at : at + 3]
                t = np.linspace(0, 1, 13)[1:, None]
                drawn.append((1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t**2 * p2 + t**3 * p3)
                at += 3
            else:
                drawn.append(points[at : at + 1])
                at += 1
        outline = np.concatenate(drawn)
        if len(outline) >= 2:
            outlines.append(outline)
    return outlines


def _stripes(edges: list[tuple[tuple[str, str], np.ndarray]], width_px: int) -> tuple[Lane, ...]:
    """Lane lines from the edges of paint: nearest pairs of one category become their middle, single edges stay."""
    lines = [(words, points if points[0, 1] >= points[-1, 1] else points[::-1]) for words, points in edges]
    pairs = []
    for i, (words, a) in enumerate(lines):
        for j in range(i + 1, len(lines)):
            if lines[j][0] == words and (gap := _gap(a, lines[j][1])) is not None and gap < MAX_STRIPE_SHARE * width_px:
                pairs.append((gap, i, j))
    free = set(range(len(lines)))
    lanes = []
    for _, i, j in sorted(pairs):
        if i in free and j in free:
            free -= {i, j}
            lanes.append(Lane(_middle(lines[i][1], lines[j][1]), *lines[i][0]))
    lanes += [Lane(lines[i][1], *lines[i][0]) for i in sorted(free)]
    return tuple(sorted(lanes, key=lambda lane: float(lane.points_px[0, 0])))


def _common_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """16 rows that both lines reach, from the bottom up; empty when they hardly overlap."""
    bottom, top = min(a[:, 1].max(), b[:, 1].max()), max(a[:, 1].min(), b[:, 1].min())
    shorter = min(np.ptp(a[:, 1]), np.ptp(b[:, 1]))
    return np.linspace(bottom, top, 16) if shorter > 0 and bottom - top >= 0.6 * shorter else np.empty(0)


def _gap(a: np.ndarray, b: np.ndarray) -> float | None:
    """Median distance along the rows that both lines reach; None when they do not run side by side."""
    rows = _common_rows(a, b)
    if not len(rows):
        return None
    gaps = points_at_rows(a, rows) - points_at_rows(b, rows)
    gaps = gaps[np.isfinite(gaps)]
    return float(np.median(np.abs(gaps))) if len(gaps) >= 4 else None


def _middle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The line midway between two edges of a stripe, over the rows that both reach, the ends carried on to the longer one's."""
    rows = _common_rows(a, b)
    x = (points_at_rows(a, rows) + points_at_rows(b, rows)) / 2
    good = np.isfinite(x)
    return np.column_stack([x[good], rows[good]]).astype(np.float32)
