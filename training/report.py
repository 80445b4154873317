"""An evaluation as one HTML file that needs nothing else: tables, curves, and the worst pictures."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.tokens.confidence import Reliability
from getok_drive.types import ImageBgr, Scene
from training.metrics.headlines import HEADLINES
from training.metrics.intervals import Estimate
from training.results import Case, Report
from training.samples import Sample

FloatArray = npt.NDArray[np.float64]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2024; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; margin: .6rem 0 }
td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums } tr.head td { font-weight: 600; border-top: 1px solid #ccd }
code { background: #f2f3f5; padding: .1rem .3rem; overflow-wrap: anywhere } figure { margin: 0 0 1.4rem } img { width: 100% }
.grid { display: flex; flex-wrap: wrap; gap: 1.5rem } figcaption, .dim { color: #667 }
svg text { font: 11px system-ui, sans-serif; fill: #667 }
"""
_BOX_BGR, _SIGN_BGR, _AREA_BGR = (255, 200, 0), (255, 255, 255), (80, 200, 80)
_LANE_BGR = {"white": (255, 120, 0), "yellow": (0, 215, 255)}


def draw(image_bgr: ImageBgr, scene: Sample | Scene, width_px: int = 640) -> ImageBgr:
    """A picture ``width_px`` wide with lanes, areas, boxes and signs of a sample or a scene drawn in."""
    scale = width_px / image_bgr.shape[1]
    size_wh = (width_px, max(1, round(image_bgr.shape[0] * scale)))
    canvas = np.asarray(cv2.resize(image_bgr, size_wh, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)

    def at(points_px: npt.ArrayLike) -> npt.NDArray[np.int32]:
        points = (np.asarray(points_px, dtype=np.float64).reshape(-1, 2) + 0.5) * scale - 0.5
        return np.asarray(np.rint(np.clip(points, -1e4, 1e4)), dtype=np.int32)

    tint = canvas.copy()
    for area in scene.drivable:
        cv2.fillPoly(tint, [at(area.polygon_px)], _AREA_BGR)
    canvas = np.asarray(cv2.addWeighted(canvas, 0.72, tint, 0.28, 0), dtype=np.uint8)
    for lane in scene.lanes:
        cv2.polylines(canvas, [at(lane.points_px)], False, _LANE_BGR.get(lane.color, (255, 120, 0)), 2, cv2.LINE_AA)
    for box in scene.boxes:
        (x0, y0), (x1, y1) = at(box.xyxy_px).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), _BOX_BGR, 1)
        _label(canvas, f"{box.class_name} {box.confidence:.2f}", (x0, max(y0 - 3, 9)))
    for sign in scene.signs:
        x, y = at(sign.point_px)[0].tolist()
        cv2.drawMarker(canvas, (x, y), _SIGN_BGR, cv2.MARKER_CROSS, 10, 1)
        _label(canvas, f"{sign.class_name} {sign.color}", (x + 6, y))
    return canvas


def _label(canvas: ImageBgr, text: str, xy: tuple[int, int]) -> None:
    cv2.putText(canvas, text, xy, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 2, cv2.LINE_AA)
    cv2.putText(canvas, text, xy, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA)


def _case(case: Case) -> str:
    pair = np.hstack([draw(case.sample.image_bgr, case.sample), draw(case.sample.image_bgr, case.scene)])
    _, jpeg = cv2.imencode(".jpg", pair, [cv2.IMWRITE_JPEG_QUALITY, 80])
    data = base64.b64encode(jpeg.tobytes()).decode()
    note = f"{case.score.key}: {case.score.quality:.2f}" + (", truncated" if case.scene.truncated else "")
    return (
        f'<figure><img alt="labels and prediction" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{html.escape(note)} (left the labels, right the prediction)</figcaption></figure>"
    )


def _plot(points: list[tuple[FloatArray, str]], x_name: str, y_name: str, title: str, diagonal: bool = False) -> str:
    """A 0..1 by 0..1 plot of polylines as SVG."""
    side, margin = 260, 34

    def to_x(value: float) -> float:
        return margin + value * side

    def to_y(value: float) -> float:
        return margin + (1.0 - value) * side

    parts = [
        f'<svg width="{side + 2 * margin}" height="{side + 2 * margin}" role="img" aria-label="{html.escape(title)}">',
        f'<text x="{margin}" y="18" style="font-weight:600">{html.escape(title)}</text>',
        f'<rect x="{margin}" y="{margin}" width="{side}" height="{side}" fill="none" stroke="#ccd"/>',
        f'<text x="{margin + side / 2}" y="{side + 2 * margin - 4}" text-anchor="middle">{html.escape(x_name)}</text>',
        f'<text x="10" y="{margin + side / 2}" text-anchor="middle" transform="rotate(-90 10 {margin + side / 2})">'
        f"{html.escape(y_name)}</text>",
    ]
    for tick in (0.0, 0.5, 1.0):
        parts.append(f'<text x="{to_x(tick)}" y="{margin + side + 14}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{margin - 4}" y="{to_y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    if diagonal:
        parts.append(f'<line x1="{to_x(0)}" y1="{to_y(0)}" x2="{to_x(1)}" y2="{to_y(1)}" stroke="#bbc" stroke-dasharray="4 4"/>')
    for values, color in points:
        path = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in values)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        if len(values) <= 20:
            parts += [f'<circle cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="3" fill="{color}"/>' for x, y in values]
    return "".join([*parts, "</svg>"])


def _reliability(name: str, curve: Reliability) -> str:
    seen = curve.count > 0
    points = np.stack([curve.confidence[seen], curve.precision[seen]], axis=1)
    title = f"{name}: ECE {curve.ece:.3f}, n = {int(curve.count.sum())}"
    return _plot([(points, "#2563eb")], "confidence", "share that is right", title, diagonal=True)


def _table(rows: list[tuple[str, Estimate]], first: str) -> str:
    cells = "".join(
        f"<tr{' class=head' if name == first else ''}><td>{html.escape(name)}</td><td class=n>{e.value:.4f}</td>"
        f"<td class=n>{e.low:.4f}</td><td class=n>{e.high:.4f}</td></tr>"
        for name, e in rows
    )
    return f"<table><tr><th></th><th>value</th><th>from</th><th>to (95 %)</th></tr>{cells}</table>"


def _pairs_table(values: dict[str, Any]) -> str:
    rows = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in values.items())
    return f"<table>{rows}</table>"


def write_html(report: Report, path: Path) -> None:
    """Write the page; pictures and curves are inside it."""
    about = report.about
    curves = dict(report.curves)
    body = [
        "<h1>Evaluation</h1>",
        f"<p><code>{html.escape(str(about.get('command', '')))}</code></p>",
        f"<p class=dim>{report.frames} pictures. Intervals: 95 %, bootstrap over pictures (over sequences where known).</p>",
        "<h2>Headlines</h2>",
        _table([(HEADLINES[kind].title, n[HEADLINES[kind].number]) for kind, n in report.numbers.items()], ""),
    ]
    for kind, numbers in report.numbers.items():
        body += [f"<h2>{html.escape(kind)}</h2>", _table(list(numbers.items()), HEADLINES[kind].number)]
    body += ["<h2>Outputs</h2>", _pairs_table(report.outputs)]
    if report.speed:
        speed = {name: f"{value:.2f}" for name, value in report.speed.items()}
        body += [
            "<h2>Speed</h2>",
            "<p class=dim>The pipeline alone, without loading or drawing pictures.</p>",
            _pairs_table(speed),
        ]
    body += ["<h2>Is the confidence right?</h2><div class=grid>"]
    body += [_reliability(name, curve) for name, curve in report.reliability.items()]
    body += ["</div>"]
    if curves:
        plots = [_plot([(values, "#16a34a")], "recall", "precision", name) for name, values in curves.items()]
        body += ["<h2>Precision and recall</h2><div class=grid>", *plots, "</div>"]
    flat = {"peak memory of the evaluation, MB": about.get("peak_memory_mb"), **about.get("dataset", {})}
    flat |= {"bundle": about.get("bundle"), "backend": about.get("backend"), **about.get("machine", {})}
    body += ["<h2>What was run where</h2>", _pairs_table(flat)]
    if report.worst:
        body += ["<h2>Worst cases</h2>", "<p class=dim>Mean over the kinds of the picture's own F1 or IoU.</p>"]
        body += [_case(case) for case in report.worst]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title><style>{_STYLE}</style>'
    path.write_text(head + "".join(body) + "</html>\n", encoding="utf-8")
