"""A scene drawn over its picture: translucent drivable area, lanes coloured by type, labelled boxes and signs.

Boxes and signs that are likelier wrong than nine in ten are drawn thin and without a label, so that guesses do not hide the rest.
"""

from __future__ import annotations

import math
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.types import Box, FloatArray, ImageBgr, Lane, Scene, Sign

Color = tuple[int, int, int]  # BGR, 0..255

LEAST_WIDTH_PX = 960  # smaller pictures are enlarged, so that labels stay legible
MOST_PIXELS = 1 << 24  # larger ones are reduced
FAINT = 0.1  # confidence below which a box or a sign is a guess
LANE_COLORS: dict[str, Color] = {"solid": (255, 180, 30), "dashed": (60, 220, 120), "double": (220, 80, 235)}
PAINT_COLORS: dict[str, Color] = {"white": (255, 255, 255), "yellow": (40, 215, 255)}
DRIVABLE_COLOR: Color = (110, 190, 60)
BOX_COLORS: dict[str, Color] = {
    "car": (60, 160, 255), "truck": (40, 110, 245), "bus": (30, 90, 220), "two_wheeler": (230, 90, 190),
    "pedestrian": (110, 70, 250),
}  # fmt: skip
OBSTACLE_COLOR: Color = (0, 215, 255)
SIGN_COLORS: dict[str, Color] = {
    "red": (50, 50, 230), "yellow": (40, 215, 255), "green": (80, 200, 60), "blue": (230, 120, 40), "white": (245, 245, 245),
    "orange": (30, 140, 255), "black": (40, 40, 40),
}  # fmt: skip
OTHER_COLOR: Color = (200, 200, 200)
DARK: Color = (25, 25, 25)

_SHIFT = 4  # OpenCV's coordinates then have steps of 1/16 px
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LINE = cv2.LINE_AA


def draw(image_bgr: ImageBgr, scene: Scene, labels: bool = True, width_px: int | None = None) -> ImageBgr:
    """A new picture with the scene drawn over the image.

    Args:
        image_bgr: ``(H, W, 3)`` the image that the scene belongs to; not changed.
        scene: coordinates in pixels of that image.
        labels: whether to write classes, confidences and the line at the bottom.
        width_px: of the result. The image is resized before anything is drawn, so a small result costs little.

    Returns:
        ``(H', W', 3)``; ``width_px`` wide, or else the image's size, or a whole multiple where it is narrower than
        ``LEAST_WIDTH_PX``, or less where it has more than ``MOST_PIXELS``.
    """
    height, width = image_bgr.shape[:2]
    factor = width_px / width if width_px else float(max(1, math.ceil(LEAST_WIDTH_PX / width)))
    if width * height * factor**2 > MOST_PIXELS:
        factor = min(1.0, math.sqrt(MOST_PIXELS / (width * height)))
    if factor == 1.0:
        canvas = image_bgr.copy()
    else:
        size_wh = max(1, round(width * factor)), max(1, round(height * factor))
        # Down to half the size linear interpolation misses no pixel, and averaging over areas takes six times as long.
        how = cv2.INTER_CUBIC if factor > 1.0 else cv2.INTER_LINEAR if factor > 0.5 else cv2.INTER_AREA
        canvas = cast(ImageBgr, cv2.resize(image_bgr, size_wh, interpolation=how))
    pen = _Pen(canvas, factor)
    pen.areas([area.polygon_px for area in scene.drivable])
    for lane in scene.lanes:
        pen.lane(lane)
    near_first = sorted(scene.boxes, key=lambda box: -float(box.xyxy_px[3]))
    for box in reversed(near_first):  # near ones on top
        pen.box(box)
    for sign in scene.signs:
        pen.sign(sign)
    if labels:
        pen.caption(scene)
        for box in near_first:
            if box.confidence >= FAINT:
                pen.box_label(box)
        for sign in scene.signs:
            if sign.confidence >= FAINT:
                pen.sign_label(sign)
    return canvas


class _Pen:
    """Draws on one canvas in pixels of the source image; line widths follow the picture's size."""

    def __init__(self, canvas: ImageBgr, factor: float) -> None:
        self.canvas = canvas
        self.factor = factor
        self.unit: float = max(1.0, min(canvas.shape[:2]) / 540)
        self.font_scale = 0.42 * self.unit
        self.font_width = max(1, round(0.9 * self.unit))
        self.plates: list[tuple[int, int, int, int]] = []  # x0, y0, x1, y1 of the labels so far

    def fixed(self, points_px: FloatArray) -> npt.NDArray[np.int32]:
        """Source pixels as OpenCV's fixed-point coordinates on the canvas, kept within what OpenCV can draw."""
        moved = (points_px.astype(np.float64) + 0.5) * self.factor - 0.5
        return np.round(moved.clip(-16000, 32000) * (1 << _SHIFT)).astype(np.int32)

    def width(self, units: float) -> int:
        return max(1, int(units * self.unit + 0.5))

    def areas(self, polygons: list[FloatArray]) -> None:
        if not polygons:
            return
        outlines = [self.fixed(polygon) for polygon in polygons]
        tinted = self.canvas.copy()
        for outline in outlines:
            cv2.fillPoly(tinted, [outline], DRIVABLE_COLOR, _LINE, _SHIFT)
        cv2.addWeighted(tinted, 0.32, self.canvas, 0.68, 0.0, dst=self.canvas)
        cv2.polylines(self.canvas, outlines, True, DRIVABLE_COLOR, self.width(1), _LINE, _SHIFT)

    def lane(self, lane: Lane) -> None:
        """A dark casing, the type's colour, and the paint's colour as a thin core."""
        line = [self.fixed(lane.points_px)]
        layers = ((DARK, 6.0), (LANE_COLORS.get(lane.type, OTHER_COLOR), 4.0), (PAINT_COLORS.get(lane.color, OTHER_COLOR), 1.2))
        for color, units in layers:
            cv2.polylines(self.canvas, line, False, color, self.width(units), _LINE, _SHIFT)

    def box(self, box: Box) -> None:
        first, second = self.fixed(box.xyxy_px.reshape(2, 2)).tolist()
        color = BOX_COLORS.get(box.class_name, OBSTACLE_COLOR)
        for ink, units in ((color, 0.6),) if box.confidence < FAINT else ((DARK, 3.0), (color, 1.6)):
            cv2.rectangle(self.canvas, first, second, ink, self.width(units), _LINE, _SHIFT)

    def box_label(self, box: Box) -> None:
        x0, y0, _, y1 = (self.fixed(box.xyxy_px.reshape(2, 2)) >> _SHIFT).ravel().tolist()
        color = BOX_COLORS.get(box.class_name, OBSTACLE_COLOR)
        self.label(f"{box.class_name} {box.confidence:.2f}", x0, (y0 - 2, y1 + 3), color)

    def sign(self, sign: Sign) -> None:
        centre = tuple(self.fixed(sign.point_px.reshape(1, 2))[0].tolist())
        radius = self.width(6.0) << _SHIFT
        if sign.confidence < FAINT:
            cv2.circle(self.canvas, centre, radius // 2, SIGN_COLORS.get(sign.color, OTHER_COLOR), self.width(0.6), _LINE, _SHIFT)
            return
        cv2.circle(self.canvas, centre, radius, DARK, self.width(4.0), _LINE, _SHIFT)
        cv2.circle(self.canvas, centre, radius, (255, 255, 255), self.width(2.2), _LINE, _SHIFT)
        cv2.circle(self.canvas, centre, radius // 2, SIGN_COLORS.get(sign.color, OTHER_COLOR), -1, _LINE, _SHIFT)

    def sign_label(self, sign: Sign) -> None:
        x, y = (self.fixed(sign.point_px.reshape(1, 2))[0] >> _SHIFT).tolist()
        gap = self.width(9.0)
        color = SIGN_COLORS.get(sign.color, OTHER_COLOR)
        self.label(f"{sign.class_name} {sign.confidence:.2f}", x - gap, (y - gap, y + gap), color)

    def label(self, text: str, x: int, above_below: tuple[int, int], color: Color) -> None:
        """Text on a plate of the given colour, above or below an element, where no other plate is yet."""
        (text_width, text_height), below = cv2.getTextSize(text, _FONT, self.font_scale, self.font_width)
        pad = self.width(2.5)
        width, height = text_width + 2 * pad, text_height + below + 2 * pad
        x = int(np.clip(x, 0, max(self.canvas.shape[1] - width, 0)))
        tops = [above_below[0] - height, above_below[1], *(above_below[0] - height * times for times in (2, 3, 4))]
        tops = [int(np.clip(top, 0, max(self.canvas.shape[0] - height, 0))) for top in tops]
        top = next((top for top in tops if self._is_free(x, top, width, height)), tops[0])
        self.plates.append((x, top, x + width, top + height))
        cv2.rectangle(self.canvas, (x, top), (x + width - 1, top + height - 1), color, -1)
        luminance = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2]
        ink = DARK if luminance > 120 else (255, 255, 255)
        foot = (x + pad, top + pad + text_height)
        cv2.putText(self.canvas, text, foot, _FONT, self.font_scale, ink, self.font_width, _LINE)

    def _is_free(self, x: int, y: int, width: int, height: int) -> bool:
        return all(x >= x1 or x + width <= x0 or y >= y1 or y + height <= y0 for x0, y0, x1, y1 in self.plates)

    def caption(self, scene: Scene) -> None:
        """One line at the bottom: counts, time, bundle, and whether the budget was reached."""
        counts = {"lanes": scene.lanes, "drivable": scene.drivable, "boxes": scene.boxes, "signs": scene.signs}
        parts = [", ".join(f"{len(elements)} {name}" for name, elements in counts.items())]
        if scene.timings.total_ms:
            parts.append(f"{scene.timings.total_ms:.0f} ms")
        if scene.bundle_name:
            parts.append(f"{scene.bundle_name} {scene.bundle_sha256[:8]}")
        if scene.truncated:
            parts.append("TRUNCATED")
        text = "   ".join(parts)
        (width, height), below = cv2.getTextSize(text, _FONT, self.font_scale, self.font_width)
        pad = self.width(4.0)
        top = max(self.canvas.shape[0] - height - below - 2 * pad, 0)
        plate = self.canvas[top:, : width + 2 * pad]
        np.copyto(plate, (plate * 0.35).astype(np.uint8))
        self.plates.append((0, top, plate.shape[1], self.canvas.shape[0]))
        foot = (pad, self.canvas.shape[0] - below - pad)
        cv2.putText(self.canvas, text, foot, _FONT, self.font_scale, (240, 240, 240), self.font_width, _LINE)
