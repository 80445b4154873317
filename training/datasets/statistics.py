"""What is in a data set: counts and measures, as a table, JSON and a page with bars."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from getok_drive.geometry.polyline import length
from getok_drive.types import Box, Sign
from training.samples import KINDS, Sample

Row = dict[str, Any]
BINS = {  # measure -> upper edges of its classes
    "box height / image height": (0.02, 0.05, 0.1, 0.2, 0.4, 1.01),
    "lane length / image height": (0.1, 0.2, 0.4, 0.8, 1.6, 9.0),
    "drivable share of the image": (0.05, 0.1, 0.2, 0.3, 0.45, 1.01),
    "vertices of a drivable area": (6, 12, 20, 32, 64, 9999),
    "regions of a phrase": (1, 2, 3, 6, 11, 9999),
    "words of a phrase": (3, 6, 12, 25, 50, 9999),
}


def measure(index: int, key: str, sample: Sample) -> Row:
    """The numbers of one sample that `Statistics` adds up."""
    width, height = sample.size_wh
    marked: list[Box | Sign] = [*sample.boxes, *sample.signs]
    areas = [float(shapely.Polygon(e.polygon_px).area) for e in sample.drivable]
    return {
        "size": f"{width}x{height}",
        "sequence": str(sample.meta.get("sequence") or key),
        "terms": str(sample.meta.get("terms", "")),
        "known": list(sample.known),
        "derived": list(sample.meta.get("derived", ())),
        "counts": {kind: len(getattr(sample, kind)) for kind in KINDS},
        "lanes": [f"{e.type} {e.color}" for e in sample.lanes],
        "boxes": [e.class_name for e in sample.boxes],
        "signs": [f"{e.class_name} {e.color}" for e in sample.signs],
        "visible_state": [e.attributes["visible_state"] for e in marked if "visible_state" in e.attributes],
        "scene": [f"{name}: {word}" for name, word in sample.scene.items()],
        "left_out": list(sample.meta.get("left_out", ())),
        "phrases": [phrase.task for phrase in sample.phrases],
        "regions of a phrase": [len(phrase.regions) for phrase in sample.phrases],
        "words of a phrase": [len((phrase.text + " " + phrase.answer).split()) for phrase in sample.phrases],
        "box height / image height": [float(e.xyxy_px[3] - e.xyxy_px[1]) / height for e in sample.boxes],
        "lane length / image height": [length(e.points_px) / height for e in sample.lanes],
        "drivable share of the image": [sum(areas) / (width * height)] if "drivable" in sample.known else [],
        "vertices of a drivable area": [len(e.polygon_px) for e in sample.drivable],
    }


@dataclass(slots=True)
class Statistics:
    """Sums over samples; `add` takes what `measure` returns."""

    pictures: int = 0
    words: dict[str, Counter[str]] = field(default_factory=dict)
    known: Counter[str] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)
    sequences: set[str] = field(default_factory=set)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Count one sample in."""
        self.pictures += 1
        self.sequences.add(row["sequence"])
        self.known.update(row["known"])
        self.elements.update({kind: row["counts"][kind] for kind in row["known"]})
        for name in ("lanes", "boxes", "signs", "phrases", "visible_state", "scene", "derived", "left_out"):
            self.words.setdefault(name, Counter()).update(row[name])
        self.words.setdefault("picture sizes", Counter())[row["size"]] += 1
        self.words.setdefault("terms", Counter())[row["terms"]] += 1
        for name in BINS:
            self.values.setdefault(name, []).extend(row[name])

    def histogram(self, name: str) -> dict[str, int]:
        """How many values of a measure lie in each of its classes."""
        edges = BINS[name]
        values = np.asarray(self.values.get(name, []), np.float64)
        lows = (0.0, *edges[:-1])
        labels = [
            f"{low:g} - {high:g}" if high < 2 or high != edges[-1] else f"above {low:g}"
            for low, high in zip(lows, edges, strict=True)
        ]
        at = np.searchsorted(edges, values, side="right")
        return {label: int((at == k).sum()) for k, label in enumerate(labels)}

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "pictures": self.pictures,
            "sequences": len(self.sequences),
            "known_in_pictures": dict(self.known),
            "elements": dict(self.elements),
            "words": {name: dict(counter.most_common()) for name, counter in self.words.items() if counter},
            "histograms": {name: self.histogram(name) for name in BINS if self.values.get(name)},
        }

    def table(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.pictures} pictures of {len(self.sequences)} sequences"]
        for kind in KINDS:
            known = self.known[kind]
            if known:
                count = self.elements[kind]
                lines.append(f"  {kind:9} known in {known:6d}   {count:7d} elements   {count / known:6.2f} a picture")
            else:
                lines.append(f"  {kind:9} not labelled")
        for name, counter in self.words.items():
            if counter:
                lines.append(f"  {name}: " + ", ".join(f"{word or '(none)'} {count}" for word, count in counter.most_common(12)))
        return "\n".join(lines)


def write_page(statistics: Statistics, title: str, path: Path) -> None:
    """The statistics as one HTML file with bars that needs nothing else."""
    data = statistics.to_json()
    groups = {"known in pictures": data["known_in_pictures"], "elements": data["elements"], **data["words"], **data["histograms"]}
    parts = []
    for name, counts in groups.items():
        most = max(counts.values(), default=0) or 1
        rows = "".join(
            f"<tr><td>{html.escape(word) or '(none)'}<td class=n>{count}<td><i style='width:{300 * count / most:.0f}px'></i>"
            for word, count in counts.items()
        )
        parts.append(f"<section><h2>{html.escape(name)}</h2><table>{rows}</table></section>")
    style = (
        "body{font:15px/1.4 system-ui,sans-serif;margin:2rem;color:#1c2024}h2{font-size:1rem}td{padding:.1rem .6rem .1rem 0}"
        ".n{text-align:right;font-variant-numeric:tabular-nums}i{display:inline-block;height:.7rem;background:#3a7bd5}"
        "main{display:flex;flex-wrap:wrap;gap:1rem 3rem}"
    )
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
    summary = f"<h1>{html.escape(title)}</h1><p>{data['pictures']} pictures of {data['sequences']} sequences</p>"
    path.write_text(f"{head}{summary}<main>{''.join(parts)}</main></html>\n", encoding="utf-8")
