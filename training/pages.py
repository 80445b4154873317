"""Pieces of self-contained HTML pages: style, tables, plots as SVG, pictures inside the page; nothing is fetched."""

from __future__ import annotations

import base64
import html
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.types import ImageBgr
from training.metrics.intervals import Estimate

FloatArray = npt.NDArray[np.float64]
COLORS = ("#2563eb", "#d97706", "#16a34a", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626", "#475569", "#a16207")

_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1c2024; background: #fff;
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .3rem } h2 { font-size: 1.15rem; margin: 2.4rem 0 .4rem; border-bottom: 1px solid #dde }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem }
nav { font-size: 13px; margin: .8rem 0 } nav a { margin-right: .9rem; color: #2563eb; text-decoration: none }
table { border-collapse: collapse; margin: .5rem 0 }
td, th { padding: .18rem .9rem .18rem 0; text-align: left; vertical-align: top }
th { font-weight: 500; color: #667; font-size: 13px }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } tr.head td { font-weight: 600 }
table.wide td { overflow-wrap: anywhere } table.wide td:first-child { white-space: nowrap }
table.estimates td:first-child { min-width: 13rem }
.matrix td { min-width: 2.6rem; padding: .15rem .4rem; text-align: right; font-variant-numeric: tabular-nums }
.matrix th { padding: .15rem .4rem } code { background: #f2f3f5; padding: .1rem .3rem; overflow-wrap: anywhere }
figure { margin: 0 0 1.2rem } img { width: 100%; display: block }
.grid { display: flex; flex-wrap: wrap; gap: 1.2rem 2rem; align-items: flex-start } .pairs { display: grid; gap: 1rem 1.4rem;
  grid-template-columns: repeat(auto-fill, minmax(460px, 1fr)) } .pairs figure { margin: 0 }
figcaption, .dim { color: #667; font-size: 13px }
.bar { background: #eef1f6; width: 220px; height: 12px; margin-top: 5px; position: relative }
.bar i, .bar b { position: absolute; top: 0; bottom: 0; display: block } .bar i { background: #bfd0f5 }
.bar b { background: #2563eb; width: 2px }
svg text { font: 11px system-ui, "DejaVu Sans", sans-serif; fill: #667 }
"""


def page(title: str, body: Sequence[str], path: Path) -> None:
    """Write a page."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    path.write_text(head + "".join(body) + "</html>\n", encoding="utf-8")


def heading(text: str) -> str:
    """A section's heading, which `contents` can point to."""
    return f'<h2 id="{_anchor(text)}">{html.escape(text)}</h2>'


def contents(headings: Sequence[str]) -> str:
    """Links to the sections of these names."""
    return "<nav>" + "".join(f'<a href="#{_anchor(text)}">{html.escape(text)}</a>' for text in headings) + "</nav>"


def _anchor(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def table(rows: Sequence[Sequence[object]], head: Sequence[str] = (), numbers_from: int = 1) -> str:
    """A table of texts; columns from ``numbers_from`` on are numbers and stand on the right."""

    def cell(value: object, column: int, tag: str) -> str:
        return f"<{tag}{' class=n' if column >= numbers_from else ''}>{html.escape(str(value))}</{tag}>"

    lines = ["<tr>" + "".join(cell(v, i, "th") for i, v in enumerate(head)) + "</tr>"] if head else []
    lines += ["<tr>" + "".join(cell(v, i, "td") for i, v in enumerate(row)) + "</tr>" for row in rows]
    return f"<table class=wide>{''.join(lines)}</table>"


def estimates(rows: Sequence[tuple[str, Estimate]], first: str = "", unbounded: Collection[str] = ()) -> str:
    """A table of numbers with their intervals, drawn beside them on a scale from 0 to 1.

    Args:
        rows: names and numbers.
        first: the row that stands out.
        unbounded: rows whose numbers have another scale: they are not drawn.
    """
    lines = []
    for name, e in rows:
        low, high = (value if np.isfinite(value) else e.value for value in (e.low, e.high))
        bar = ""
        if name not in unbounded and 0.0 <= low <= e.value <= high <= 1.0:
            interval = f'<i style="left:{low:.2%};width:{high - low:.2%}"></i>'
            bar = f'<div class=bar>{interval}<b style="left:calc({e.value:.2%} - 1px)"></b></div>'
        cells = "".join(f"<td class=n>{number(value)}</td>" for value in (e.value, e.low, e.high))
        lines.append(f"<tr{' class=head' if name == first else ''}><td>{html.escape(name)}</td>{cells}<td>{bar}</td></tr>")
    head = "<tr><th></th><th class=n>value</th><th class=n>from</th><th class=n>to (95 %)</th><th></th></tr>"
    return f"<table class=estimates>{head}{''.join(lines)}</table>"


def number(value: float) -> str:
    """Four decimals; a dash for what is not defined."""
    return f"{value:.4f}" if np.isfinite(value) else "–"


def matrix(words: Sequence[str], columns: Sequence[str], counts: FloatArray) -> str:
    """A confusion matrix, each row shaded by its shares."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    head = "<tr><th></th>" + "".join(f"<th>{html.escape(column)}</th>" for column in columns) + "</tr>"
    lines = []
    for word, row, share in zip(words, counts, shares, strict=True):
        cells = "".join(
            f'<td style="background:rgba(37,99,235,{0.55 * s:.2f})">{int(c)}</td>' for c, s in zip(row, share, strict=True)
        )
        lines.append(f"<tr><th>{html.escape(word)}</th>{cells}</tr>")
    return f"<table class=matrix>{head}{''.join(lines)}</table>"


def figure(image_bgr: ImageBgr, caption: str, alternative: str = "picture") -> str:
    """A picture inside the page, as JPEG."""
    _, jpeg = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, 82])
    data = base64.b64encode(jpeg.tobytes()).decode()
    return (
        f'<figure><img alt="{html.escape(alternative)}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def plot(
    lines: Sequence[tuple[FloatArray, str]],
    x_name: str,
    y_name: str,
    title: str,
    *,
    diagonal: bool = False,
    bars: FloatArray | None = None,
) -> str:
    """A 0..1 by 0..1 plot of polylines as SVG.

    Args:
        lines: ``(N, 2)`` points and colour of each; few points are marked.
        x_name: of the axis to the right.
        y_name: of the axis upwards.
        title: above the plot; it is cut to the plot's width, in full as a tooltip.
        diagonal: draw the line of equality.
        bars: ``(N, 3)`` from, to and height of bars behind the lines.
    """
    side, margin = 250, 40

    def at(x: float, y: float) -> tuple[float, float]:
        return margin + x * side, margin + (1.0 - y) * side

    shown = title if len(title) <= 44 else title[:43] + "…"
    width, height, middle = side + margin + 16, side + 2 * margin, margin + side / 2
    parts = [
        f'<svg width="{width}" height="{height}" role="img"><title>{html.escape(title)}</title>',
        f'<text x="{margin}" y="22" style="font-weight:600;fill:#1c2024">{html.escape(shown)}</text>',
        f'<text x="{middle}" y="{height - 6}" text-anchor="middle">{html.escape(x_name)}</text>',
        f'<text x="11" y="{middle}" text-anchor="middle" transform="rotate(-90 11 {middle})">{html.escape(y_name)}</text>',
    ]
    for left, right, top in np.zeros((0, 3)) if bars is None else bars:
        (x0, y0), (x1, y1) = at(left, top), at(right, 0.0)
        parts.append(f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0 - 1:.1f}" height="{y1 - y0:.1f}" fill="#e6ebf5"/>')
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        (x, bottom), (left, y) = at(tick, 0.0), at(0.0, tick)
        parts.append(f'<path d="M{x:.1f} {margin}V{bottom:.1f}M{left:.1f} {y:.1f}H{margin + side}" stroke="#dde" fill="none"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{left - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    if diagonal:
        (x0, y0), (x1, y1) = at(0.0, 0.0), at(1.0, 1.0)
        parts.append(f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke="#99a" stroke-dasharray="4 4"/>')
    for values, color in lines:
        points = [at(float(x), float(y)) for x, y in values]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2" stroke-linejoin="round"/>')
        if len(points) <= 20:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]
    return "".join([*parts, "</svg>"])
