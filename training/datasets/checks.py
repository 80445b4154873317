"""What can be wrong with a label, and with a data set as a whole."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely

from getok_drive.errors import InputError
from getok_drive.tokens.elements import canonical_elements
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.vocab import ROAD_BLOCKAGES, SURFACE_CONDITIONS, TRAFFIC_DENSITIES, VISIBLE_STATES
from getok_drive.types import Box, Sign
from training.datasets.shapes import decode_rle
from training.samples import KINDS, Phrase, Sample

ATTRIBUTES = {"visible_state": VISIBLE_STATES, "road_blockage": ROAD_BLOCKAGES, "truncated": ("yes", "no")}
SCENE = {"surface_condition": SURFACE_CONDITIONS, "traffic_density": TRAFFIC_DENSITIES}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong (``error``) or worth a look (``warning``)."""

    key: str
    level: str
    text: str

    def to_json(self) -> dict[str, str]:
        """The problem as plain values."""
        return {"name": self.key, "level": self.level, "text": self.text}


@dataclass(frozen=True, slots=True)
class Finding:
    """A picture's problems, and what is needed to compare it with the others."""

    key: str
    problems: tuple[Problem, ...]
    sequence: str
    split: str
    digest: str


def examined(index: int, key: str, sample: Sample) -> Finding:
    """Check one sample; see `check_sample`."""
    digest = hashlib.sha256(sample.image_bgr.tobytes()).hexdigest()
    problems = tuple(Problem(key, level, text) for level, text in check_sample(sample))
    return Finding(key, problems, str(sample.meta.get("sequence", "")), str(sample.meta.get("split", "")), digest)


def check_sample(sample: Sample) -> list[tuple[str, str]]:
    """Problems of one sample as ``(error | warning, text)``.

    Errors: elements of unlabelled kinds, words outside the token table, geometry far outside the picture, lanes that do not run
    bottom to top, areas that cross themselves, masks of another size, phrases about places outside the picture. Warnings: areas
    that overlap, boxes given twice, elements that do not fit into one scene's text, no sequence, no terms.
    """
    found: list[tuple[str, str]] = []
    width, height = sample.size_wh
    unknown = [kind for kind in sample.known if kind not in KINDS]
    if unknown:
        found.append(("error", f"known: {', '.join(unknown)} is no kind"))
    for kind in KINDS:
        if getattr(sample, kind) and kind not in sample.known:
            found.append(("error", f"has {kind}, which are not declared as known"))
    groups = {
        "lane": [e.points_px for e in sample.lanes],
        "drivable area": [e.polygon_px for e in sample.drivable],
        "box": [e.xyxy_px.reshape(2, 2) for e in sample.boxes],
        "sign": [e.point_px.reshape(1, 2) for e in sample.signs],
    }
    for what, arrays in groups.items():
        margin = np.array([width, height]) * (0.5 if what == "lane" else 0.0) + 1.0  # lanes may run on beside the picture
        for number, points in enumerate(arrays):
            if (points < -margin).any() or (points > np.array([width, height]) - 1 + margin).any():
                found.append(("error", f"{what} {number} lies outside the picture of {width}x{height} px"))
    for number, points in enumerate(groups["lane"]):
        if (np.diff(points[:, 1]) > 0.5).any():
            found.append(("error" if points[0, 1] < points[-1, 1] else "warning", f"lane {number} does not run bottom to top"))
    polygons = [shapely.Polygon(points) for points in groups["drivable area"]]
    for number, polygon in enumerate(polygons):
        if not polygon.is_valid:
            found.append(("error", f"drivable area {number}: {shapely.is_valid_reason(polygon)}"))
    if all(p.is_valid for p in polygons) and sum(p.area for p in polygons) > 1.01 * shapely.union_all(polygons).area + 1:
        found.append(("warning", "drivable areas overlap"))
    found += [("warning", f"boxes {i} and {j} are the same") for i, j in _twice(sample)]
    marked: list[Box | Sign] = [*sample.boxes, *sample.signs]
    for element in marked:
        for name, words in ATTRIBUTES.items():
            if name in element.attributes and element.attributes[name] not in words:
                found.append(("error", f"{name} is {element.attributes[name]!r}; use {', '.join(words)}"))
    for name, words in SCENE.items():
        if name in sample.scene and sample.scene[name] not in words:
            found.append(("error", f"{name} is {sample.scene[name]!r}; use {', '.join(words)}"))
    for name, mask in sample.masks.items():
        if mask.shape[:2] != (height, width):
            found.append(("error", f"mask {name} has {mask.shape[1]}x{mask.shape[0]} px"))
    for name in ("sequence", "terms"):
        if not sample.meta.get(name):
            found.append(("warning", f"meta.{name} is missing"))
    return found + _about_phrases(sample) + _as_text(sample)


def _about_phrases(sample: Sample) -> list[tuple[str, str]]:
    """Regions outside the picture, masks of another size or without a pixel, points without places, phrases given twice."""
    width, height = sample.size_wh
    found: list[tuple[str, str]] = []
    for number, phrase in enumerate(sample.phrases):
        what = f"phrase {number} ({phrase.text[:40]!r})"
        for region in (*phrase.regions, *phrase.candidates):
            for points in (region.xyxy_px, region.point_px):
                corners = np.zeros((0, 2)) if points is None else points.reshape(-1, 2)
                if (corners < -1.0).any() or (corners > np.array([width, height])).any():
                    found.append(("error", f"{what}: a region lies outside the picture of {width}x{height} px"))
            if phrase.task == "point" and region.point_px is None and region.rle is None:
                found.append(("warning", f"{what}: a region to point at without a point or a mask"))
        for rle in (phrase.ignore, *(region.rle for region in phrase.regions)):
            if rle is None:
                continue
            if list(rle["size"]) != [height, width]:
                found.append(("error", f"{what}: a mask of {rle['size'][1]}x{rle['size'][0]} px"))
            elif not decode_rle(rle["counts"], (height, width)).any():
                found.append(("warning", f"{what}: an empty mask"))
    texts = [(phrase.task, phrase.text, _places(phrase)) for phrase in sample.phrases]
    twice = len(texts) - len(set(texts))
    return [*found, ("warning", f"{twice} phrases are given more than once")] if twice else found


def _places(phrase: Phrase) -> str:
    """The places of a phrase as text, to tell phrases apart."""
    return repr([(None if a is None else a.tolist()) for r in phrase.regions for a in (r.xyxy_px, r.point_px)])


def _as_text(sample: Sample) -> list[tuple[str, str]]:
    """Whether the scene can be written in tokens, and how much of it falls by the limits."""
    elements = (sample.lanes, sample.drivable, sample.boxes, sample.signs)
    try:
        canonical = canonical_elements(*elements, sample.size_wh)
    except InputError as error:
        return [("error", str(error))]
    limits, found = Limits(), []
    for kind, given in zip(("lane", "drivable", "box", "sign"), elements, strict=True):
        kept = sum(element.kind == kind for element in canonical)
        if len(given) > limits.elements(kind):
            found.append(("warning", f"{len(given)} {kind} elements, a scene's text holds {limits.elements(kind)}"))
        elif kept < len(given):
            found.append(("warning", f"{len(given) - kept} {kind} elements are too small to be written"))
    return found


def _twice(sample: Sample) -> list[tuple[int, int]]:
    """Pairs of boxes of one class whose corners lie within a pixel."""
    if len(sample.boxes) < 2:
        return []
    corners = np.stack([box.xyxy_px for box in sample.boxes])
    same = (np.abs(corners[:, None] - corners[None]).max(axis=2) <= 1.0) & ~np.tri(len(corners), dtype=bool)
    return [(int(i), int(j)) for i, j in np.argwhere(same) if sample.boxes[i].class_name == sample.boxes[j].class_name]


def check_set(findings: Iterable[Finding]) -> list[Problem]:
    """Problems between pictures: one sequence or one and the same picture in two splits, a picture given twice."""
    splits: dict[str, set[str]] = defaultdict(set)
    first: dict[str, Finding] = {}
    problems = []
    for finding in findings:
        if finding.split:
            splits[finding.sequence].add(finding.split)
        before = first.setdefault(finding.digest, finding)
        if before is not finding:
            leak = finding.split != before.split
            text = f"the same picture as {before.key}" + (f", which is in {before.split}" if leak else "")
            problems.append(Problem(finding.key, "error" if leak else "warning", text))
    for sequence, names in splits.items():
        if len(names) > 1:
            problems.append(Problem(sequence, "error", f"the sequence is in {' and '.join(sorted(names))}: a leak"))
    return problems
