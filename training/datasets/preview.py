"""Pictures with their labels drawn in, as pages to look through."""

from __future__ import annotations

import html
from collections import Counter
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from getok_drive.errors import ConfigError
from getok_drive.types import ImageBgr
from training.datasets.phrases import region_mask
from training.datasets.walk import Dataset, walk
from training.report import draw
from training.samples import KINDS, Phrase, Sample

PER_PAGE = 60
MOST_PHRASES = 8  # drawn into a picture
COLORS_BGR = (
    (60, 20, 220), (200, 90, 20), (40, 140, 20), (190, 30, 150), (20, 110, 210), (150, 130, 0), (90, 60, 120), (60, 60, 60),
)  # fmt: skip
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1rem; color: #1c2024; background: #fafafa }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: .8rem }
figure { margin: 0; background: #fff; box-shadow: 0 1px 3px #0003 } img { width: 100%; display: block }
figcaption { padding: .3rem .5rem; overflow-wrap: anywhere } small { color: #667 } nav a { margin-right: .5rem }
ol { margin: .3rem 0; padding-left: 1.4rem }
input { width: 24rem; max-width: 90%; padding: .3rem; margin: .6rem 0 } [hidden] { display: none }
"""
_FILTER = """
const box = document.querySelector('input');
box.addEventListener('input', () => document.querySelectorAll('figure').forEach(
  f => f.hidden = !box.value.toLowerCase().split(/\\s+/).every(w => f.textContent.toLowerCase().includes(w))));
"""


def write_preview(dataset: Dataset, out: Path, *, every: int = 1, width_px: int = 480, jobs: int = 1) -> list[tuple[str, str]]:
    """Write ``index.html``, further pages and the pictures.

    Args:
        dataset: what to show.
        out: folder.
        every: only every Nth picture.
        width_px: of the pictures, 64 or more.
        jobs: processes.

    Returns:
        ``(name, reason)`` of the pictures that could not be shown.

    Raises:
        ConfigError: ``every`` below 1 or ``width_px`` below 64.
    """
    if every < 1 or width_px < 64:
        raise ConfigError(f"preview: expected --every of 1 or more and --width of 64 or more, got {every} and {width_px}")
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    figures: list[str] = []
    skipped = list(dataset.skipped)
    indices = range(0, len(dataset), every)
    for key, figure, error in walk(dataset, partial(_figure, out=out, width_px=width_px), jobs, "drawing", indices):
        if error is not None:
            skipped.append((key, error))
        else:
            figures.append(figure)
    pages = max(-(-len(figures) // PER_PAGE), 1)
    names = ["index.html", *(f"page{number}.html" for number in range(2, pages + 1))]
    links = "".join(f"<a href={name}>{number}</a>" for number, name in enumerate(names, 1)) if pages > 1 else ""
    title = html.escape(f"{dataset.name} ({dataset.split})")
    left_out = "".join(f"<li>{html.escape(name)}: {html.escape(reason)}" for name, reason in skipped)
    for number, name in enumerate(names):
        shown = "".join(figures[number * PER_PAGE : (number + 1) * PER_PAGE])
        tail = f"<h2>Left out</h2><ul>{left_out}</ul>" if left_out and number == pages - 1 else ""
        text = (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
            f"<p>{len(figures)} pictures; green: drivable, blue and yellow lines: lanes, light blue: boxes, crosses: signs</p>"
            f"<nav>{links}</nav><input placeholder='show only captions with these words, e.g. truck partly'>"
            f"<main>{shown}</main>{tail}<nav>{links}</nav><script>{_FILTER}</script></html>\n"
        )
        (out / name).write_text(text, encoding="utf-8")
    return skipped


def _figure(index: int, key: str, sample: Sample, out: Path, width_px: int) -> str:
    """Draw one sample; its piece of the page."""
    name = f"pictures/{index:07d}.jpg"
    picture = draw(sample.image_bgr, sample, width_px)
    shown = sample.phrases[:MOST_PHRASES]
    for number, phrase in enumerate(shown):
        picture = _drawn(picture, phrase, number, sample.size_wh)
    (out / name).write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes())
    counts = Counter(
        [f"{e.type} {e.color} lane" for e in sample.lanes]
        + ["drivable area"] * len(sample.drivable)
        + [" ".join([e.class_name, *(v for k, v in e.attributes.items() if k == "visible_state")]) for e in sample.boxes]
        + [f"{e.class_name} {e.color}" for e in sample.signs]
        + [f"{phrase.task} phrase" for phrase in sample.phrases]
    )
    said = ", ".join(f"{count} {word}" for word, count in counts.items()) or "nothing"
    unknown = [] if sample.phrases and not sample.known else [kind for kind in KINDS if kind not in sample.known]
    notes = [f"derived: {', '.join(sample.meta['derived'])}"] if sample.meta.get("derived") else []
    notes += [f"not labelled: {', '.join(unknown)}"] if unknown else []
    notes += [f"sequence {sample.meta['sequence']}"] if sample.meta.get("sequence") else []
    rows = [f"<li style='color:{_hex(number)}'>{_said(phrase)}" for number, phrase in enumerate(shown)]
    more = f"<li>... and {len(sample.phrases) - len(shown)} more" if len(sample.phrases) > len(shown) else ""
    texts = f"<ol>{''.join(rows)}{more}</ol>" if rows else ""
    caption = f"<b>{html.escape(key)}</b><br>{html.escape(said)}<br>{texts}<small>{html.escape('; '.join(notes))}</small>"
    return f"<figure><a href={name}><img loading=lazy alt='' src={name}></a><figcaption>{caption}</figcaption></figure>"


def _hex(number: int) -> str:
    blue, green, red = COLORS_BGR[number % len(COLORS_BGR)]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _said(phrase: Phrase) -> str:
    """A phrase as a line of HTML: its task, text, answer and how many places it means."""
    places = f"{len(phrase.regions)} region{'s' if len(phrase.regions) != 1 else ''}"
    candidates = f" of {len(phrase.candidates)}" if phrase.candidates else ""
    answer = f" &rarr; {html.escape(phrase.answer)}" if phrase.answer else ""
    return f"<i>{phrase.task}</i> {html.escape(phrase.text)}{answer} ({places}{candidates})"


def _drawn(picture: ImageBgr, phrase: Phrase, number: int, size_wh: tuple[int, int]) -> ImageBgr:
    """The regions of a phrase in its colour and with its number; masks tinted."""
    color = COLORS_BGR[number % len(COLORS_BGR)]
    scale = picture.shape[1] / size_wh[0]
    canvas = picture.copy()
    for region in phrase.regions:
        mask = region_mask(region)
        if mask is not None and mask.shape == (size_wh[1], size_wh[0]):
            seen = cv2.resize(mask.astype(np.uint8), (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_NEAREST) > 0
            canvas[seen] = (0.55 * canvas[seen] + 0.45 * np.array(color)).astype(np.uint8)
    for region in phrase.regions:
        corner = None
        if region.xyxy_px is not None:
            x0, y0, x1, y1 = np.rint((region.xyxy_px.astype(np.float64) + 0.5) * scale - 0.5).astype(int).tolist()
            cv2.rectangle(canvas, (x0, y0), (x1, y1), color, 2, cv2.LINE_AA)
            corner = (x0 + 2, y0 + 12)
        if region.point_px is not None:
            x, y = np.rint((region.point_px.astype(np.float64) + 0.5) * scale - 0.5).astype(int).tolist()
            cv2.circle(canvas, (x, y), 5, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(canvas, (x, y), 4, color, -1, cv2.LINE_AA)
            corner = (x + 6, y + 4)
        if corner is not None:
            for ink, thickness in (((255, 255, 255), 3), (color, 1)):
                cv2.putText(canvas, str(number + 1), corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, thickness, cv2.LINE_AA)
    return canvas
