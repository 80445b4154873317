"""An evaluation as one HTML file that needs nothing else: tables, curves, confusion, and the worst cases as pictures."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.tokens.confidence import Reliability
from getok_drive.types import ImageBgr, Scene
from training import pages
from training.metrics.frame import SIZES
from training.metrics.headlines import HEADLINES, UNITS
from training.metrics.summary import Numbers
from training.results import Case, PromptedCase, Report
from training.samples import Sample

FloatArray = npt.NDArray[np.float64]

_BOX_BGR, _SIGN_BGR, _AREA_BGR, _TARGET_BGR = (255, 200, 0), (255, 255, 255), (80, 200, 80), (60, 60, 230)
_LANE_BGR = {"white": (255, 120, 0), "yellow": (0, 215, 255)}
_MOST_ROWS = 14  # of a table; longer ones are folded by what stands before the slash of their names


def _resized(image_bgr: ImageBgr, width_px: int) -> tuple[ImageBgr, float]:
    scale = width_px / image_bgr.shape[1]
    size_wh = (width_px, max(1, round(image_bgr.shape[0] * scale)))
    return np.asarray(cv2.resize(image_bgr, size_wh, interpolation=cv2.INTER_LINEAR), dtype=np.uint8), scale


def _at(points_px: npt.ArrayLike, scale: float) -> npt.NDArray[np.int32]:
    points = (np.asarray(points_px, dtype=np.float64).reshape(-1, 2) + 0.5) * scale - 0.5
    return np.asarray(np.rint(np.clip(points, -1e4, 1e4)), dtype=np.int32)


def draw(image_bgr: ImageBgr, scene: Sample | Scene, width_px: int = 640) -> ImageBgr:
    """A picture ``width_px`` wide with lanes, areas, boxes and signs of a sample or a scene drawn in."""
    canvas, scale = _resized(image_bgr, width_px)
    tint = canvas.copy()
    for area in scene.drivable:
        cv2.fillPoly(tint, [_at(area.polygon_px, scale)], _AREA_BGR)
    canvas = np.asarray(cv2.addWeighted(canvas, 0.72, tint, 0.28, 0), dtype=np.uint8)
    for lane in scene.lanes:
        color = _LANE_BGR.get(lane.color, (255, 120, 0))
        cv2.polylines(canvas, [_at(lane.points_px, scale)], False, color, 2, cv2.LINE_AA)
    for box in scene.boxes:
        (x0, y0), (x1, y1) = _at(box.xyxy_px, scale).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), _BOX_BGR, 1)
        sure = "" if box.confidence == 1.0 else f" {box.confidence:.2f}"  # labels are sure
        _label(canvas, f"{box.class_name}{sure}", (x0, max(y0 - 3, 9)))
    for sign in scene.signs:
        x, y = _at(sign.point_px, scale)[0].tolist()
        cv2.drawMarker(canvas, (x, y), (0, 0, 0), cv2.MARKER_CROSS, 12, 3)  # seen on white signs too
        cv2.drawMarker(canvas, (x, y), _SIGN_BGR, cv2.MARKER_CROSS, 10, 1)
        _label(canvas, f"{sign.class_name} {sign.color}", (x + 6, y))
    return canvas


def _label(canvas: ImageBgr, text: str, xy: tuple[int, int]) -> None:
    cv2.putText(canvas, text, xy, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 2, cv2.LINE_AA)
    cv2.putText(canvas, text, xy, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA)


def _places(
    image_bgr: ImageBgr,
    masks: list[npt.NDArray[np.bool_]],
    boxes_px: npt.ArrayLike,
    points_px: npt.ArrayLike,
    width_px: int = 480,
) -> ImageBgr:
    """A picture with masks tinted, boxes and points drawn in."""
    tinted = image_bgr.copy()
    for mask in masks:
        tinted[mask] = _TARGET_BGR
    canvas, scale = _resized(np.asarray(cv2.addWeighted(image_bgr, 0.55, tinted, 0.45, 0), dtype=np.uint8), width_px)
    for box in np.asarray(boxes_px, dtype=np.float64).reshape(-1, 4):
        (x0, y0), (x1, y1) = _at(box, scale).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), _BOX_BGR, 2)
    for x, y in _at(points_px, scale).tolist():
        cv2.circle(canvas, (x, y), 5, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(canvas, (x, y), 4, _LANE_BGR["yellow"], -1, cv2.LINE_AA)
    return canvas


def _case(case: Case) -> str:
    pair = np.hstack([draw(case.sample.image_bgr, case.sample), draw(case.sample.image_bgr, case.scene)])
    note = f"{case.score.key}: {case.score.quality:.2f}" + (", truncated" if case.scene.truncated else "")
    return pages.figure(pair, f"{note} (left the labels, right the prediction)", "labels and prediction")


def _prompted_case(case: PromptedCase) -> str:
    query, answer, image = case.query, case.answer, case.sample.image_bgr
    masks = [target for target in query.targets if target.ndim == 2] + ([] if query.mask is None else [query.mask])
    points = np.concatenate([np.zeros((0, 2)), *(np.reshape(t, (-1, 2)) for t in query.targets if t.ndim == 1)])
    region = query.region_px.reshape(-1, 4) if len(query.region_px) == 2 else np.zeros((0, 4))
    boxes = np.concatenate([query.boxes_px, region])
    right = _places(
        image, [m.astype(bool) for m in masks], boxes, np.concatenate([points, query.region_px[: 0 if len(region) else None]])
    )
    said = _places(image, [] if answer.mask is None else [answer.mask], answer.boxes_px, answer.points_px)
    texts = [query.word or " / ".join(query.references), answer.word or answer.caption]
    words = f"; right: {texts[0]}, said: {texts[1] or 'nothing'}" if texts[0] else ""
    note = f"{query.task} “{query.text}”, {case.key}: {case.quality:.2f}{words}" + (", truncated" if answer.truncated else "")
    return pages.figure(np.hstack([right, said]), note, "what is right and the answer")


def _reliability(name: str, curve: Reliability) -> str:
    seen = curve.count > 0
    points = np.stack([curve.confidence[seen], curve.precision[seen]], axis=1)
    title = f"{name}: ECE {curve.ece:.3f}, n = {int(curve.count.sum())}"
    shares = curve.count / max(float(curve.count.sum()), 1.0)
    bars = np.stack([curve.edges[:-1], curve.edges[1:], shares], axis=1)
    return pages.plot([(points, pages.COLORS[0])], "confidence", "share that is right", title, diagonal=True, bars=bars)


def _section(kind: str, numbers: Numbers) -> list[str]:
    """The numbers of a kind; those with a slash in their names (classes, sizes, attributes) in tables of their own."""
    plain = [(name, e) for name, e in numbers.items() if "/" not in name or len(numbers) <= _MOST_ROWS]
    headline = HEADLINES[kind]
    unbounded = tuple(name for name, _ in plain if name.endswith(UNITS) or (name == headline.number and not headline.bounded))
    parts = [pages.heading(kind), pages.estimates(plain, headline.number, unbounded)]
    if any(name.startswith("f1_by_height") for name in numbers):
        limits = ", ".join(f"{size} from {least:.0%}" for size, (least, _) in SIZES.items())
        parts.append(f"<p class=dim>Heights of boxes, of the picture's height: {limits}.</p>")
    groups: dict[str, list[tuple[str, Any]]] = {}
    for name, e in numbers.items():
        if "/" in name and len(numbers) > _MOST_ROWS:
            before, _, after = name.rpartition("/")
            groups.setdefault(before, []).append((after, e))
    tables = [f"<div><h3>{html.escape(name)}</h3>{pages.estimates(rows)}</div>" for name, rows in groups.items()]
    return [*parts, f"<div class=grid>{''.join(tables)}</div>" if tables else ""]


def _curves(report: Report) -> list[str]:
    """Reliability, precision over recall, confusion."""
    body = []
    if report.reliability:
        body += [
            pages.heading("Confidence"),
            "<p class=dim>Points: how often a confidence is right. Bars: share of the predictions.</p>",
        ]
        body += ["<div class=grid>", *(_reliability(name, curve) for name, curve in report.reliability.items()), "</div>"]
    if report.curves:
        plots = [pages.plot([(values, pages.COLORS[2])], "recall", "precision", name) for name, values in report.curves.items()]
        body += [pages.heading("Precision and recall"), "<div class=grid>", *plots, "</div>"]
    if report.confusion:
        body.append(pages.heading("Confusion"))
        body.append("<p class=dim>Rows: labelled. Columns: answered; the last one, no valid answer.</p><div class=grid>")
        for attribute, (words, counts) in report.confusion.items():
            body.append(f"<div><h3>{html.escape(attribute)}</h3>{_confusion(words, counts)}</div>")
        body.append("</div>")
    return body


def _confusion(words: tuple[str, ...], counts: FloatArray) -> str:
    """The words that were labelled, by those that were labelled or answered."""
    labelled, answered = counts.sum(axis=1) > 0, counts.sum(axis=0) > 0
    answered[:-1] |= labelled
    columns = [name for name, used in zip((*words, "none"), answered, strict=True) if used]
    return pages.matrix([w for w, used in zip(words, labelled, strict=True) if used], columns, counts[labelled][:, answered])


def write_html(report: Report, path: Path) -> None:
    """Write the page; pictures and curves are inside it."""
    about = report.about
    headlines = [(HEADLINES[kind].title, numbers[HEADLINES[kind].number]) for kind, numbers in report.numbers.items()]
    unbounded = [headline.title for headline in HEADLINES.values() if not headline.bounded]
    body = [pages.heading("Headlines"), pages.estimates(headlines, unbounded=unbounded)]
    for kind, numbers in report.numbers.items():
        body += _section(kind, numbers)
    body += _curves(report)
    if report.worst:
        body += [pages.heading("Worst pictures"), "<p class=dim>By the mean over the kinds of the picture's own F1 or IoU.</p>"]
        body += [_case(case) for case in report.worst]
    if report.worst_prompted:
        body += [
            pages.heading("Worst answers"),
            "<p class=dim>Left what is right, or the region in question; right the answer.</p>",
        ]
        body += ["<div class=pairs>", *(_prompted_case(case) for case in report.worst_prompted), "</div>"]
    body += [pages.heading("Outputs"), pages.table([(k.replace("_", " "), _text(v)) for k, v in report.outputs.items()])]
    if report.speed:
        body += [pages.heading("Speed"), "<p class=dim>The model's part alone, without loading or drawing pictures.</p>"]
        body.append(pages.table([(name.replace("_", " "), f"{value:.2f}") for name, value in report.speed.items()]))
    flat = {
        **about.get("dataset", {}),
        "bundle": about.get("bundle"),
        "backend": about.get("backend"),
        **about.get("machine", {}),
    }
    flat["peak memory of the evaluation, MB"] = about.get("peak_memory_mb")
    flat = {name: _text(value) for name, value in flat.items() if value not in (None, [], "")}
    body += [pages.heading("What was run where"), pages.table(list(flat.items()), numbers_from=2)]
    names = [part.split(">", 1)[1][:-5] for part in body if part.startswith("<h2")]
    head = [
        "<h1>Evaluation</h1>",
        f"<p><code>{html.escape(str(about.get('command', '')))}</code></p>",
        f"<p class=dim>{report.frames} pictures. Intervals: 95 %, bootstrap over pictures (over sequences where known).</p>",
        pages.contents([html.unescape(name) for name in names]),
    ]
    pages.page("Evaluation", [*head, *body], path)


def _text(value: Any) -> str:
    """Mappings as ``a: 1, b: 2``; everything else as it is."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {each}" for name, each in value.items()) or "none"
    return str(value)
