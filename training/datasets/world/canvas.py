"""The level picture under construction: colours, who owns each pixel, and the primitives that draw on both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.look import Bgr, Look
from training.datasets.world.view import View

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Point = tuple[float, float]
Points = Sequence[Point]
SHIFT = 4
NOBODY, ROAD, FIRST_THING_ID = 0, 1, 2
FIRST_SCENERY_ID = 240
POLE, BUILDING, VEGETATION, WALL, HOOD, BRIDGE = range(FIRST_SCENERY_ID, FIRST_SCENERY_ID + 6)

Mips = list[tuple[U8, U8]]  # a picture ``(h, w, 3)`` and its cover ``(h, w)``, then its halvings


def lighting(gain: Bgr, offset: Bgr) -> F64:
    """``(3, 4)`` matrix that lights a BGR picture."""
    return np.array([(gain[0], 0.0, 0.0, offset[0]), (0.0, gain[1], 0.0, offset[1]), (0.0, 0.0, gain[2], offset[2])])


def fixed(points: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Sub-pixel points as OpenCV's fixed-point integers; keep them within +-30000 px."""
    return (np.asarray(points) * (1 << SHIFT)).astype(np.int32)


@dataclass(slots=True)
class Canvas:
    """What the drawing functions share.

    Attributes:
        image: ``(H, W, 3)`` uint8; owner: ``(H, W)`` uint8: `NOBODY` (ground or sky), `ROAD`, then thing ids, then scenery.
        paint: ``(H, W)`` uint8, 255 on lane lines.
        glow: light sources ``(u, v, radius_px, BGR)`` added at the end.
        whole: pixel count of each thing when nothing stood before it yet; extent: the canvas box ``x0, y0, x1, y1`` it lies in.
    """

    view: View
    look: Look
    image: U8
    owner: U8
    paint: U8
    glow: list[tuple[float, float, float, Bgr]] = field(default_factory=list)
    whole: dict[int, int] = field(default_factory=dict)
    extent: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)

    @staticmethod
    def blank(view: View, look: Look) -> Canvas:
        """An empty picture for ``view``."""
        width, height = view.camera.canvas_wh
        return Canvas(
            view, look, np.empty((height, width, 3), np.uint8), np.zeros((height, width), np.uint8),
            np.zeros((height, width), np.uint8),
        )  # fmt: skip

    def lit(self, color: Bgr, x: float, y: float, shade: float = 1.0, lamp: float = 1.0) -> Bgr:
        """Colour of a surface at level-frame ``x, y`` after light and haze."""
        g, o = self.look.shade(x, y, lamp)
        return color[0] * g[0] * shade + o[0], color[1] * g[1] * shade + o[1], color[2] * g[2] * shade + o[2]

    def polygon(self, points: Points, color: Bgr, owner: int = -1, smooth: bool = True) -> None:
        """Fill a convex polygon of canvas points; its pixels go to ``owner`` if that is not negative."""
        shape = np.array([(int(u * 16), int(v * 16)) for u, v in points], np.int32)
        cv2.fillConvexPoly(self.image, shape, color, cv2.LINE_AA if smooth else cv2.LINE_8, SHIFT)
        if owner >= 0:
            cv2.fillConvexPoly(self.owner, shape, owner, cv2.LINE_8, SHIFT)

    def line(self, a: Point, b: Point, width_px: float, color: Bgr, owner: int = -1) -> None:
        """A straight bar of any width between two canvas points."""
        if width_px < 1.2:
            start, end = (int(a[0] * 16), int(a[1] * 16)), (int(b[0] * 16), int(b[1] * 16))
            cv2.line(self.image, start, end, color, 1, cv2.LINE_AA, SHIFT)
            if owner >= 0:
                cv2.line(self.owner, start, end, owner, 1, cv2.LINE_8, SHIFT)
            return
        du, dv = b[0] - a[0], b[1] - a[1]
        length = math.hypot(du, dv)
        if length > 1e-6:
            su, sv = -dv * width_px / 2 / length, du * width_px / 2 / length
            corners = ((a[0] + su, a[1] + sv), (b[0] + su, b[1] + sv), (b[0] - su, b[1] - sv), (a[0] - su, a[1] - sv))
            self.polygon(corners, color, owner)

    def sprite(
        self, mips: Mips, center_u: float, base_v: float, width_px: float, height_px: float, clip_v: float,
        light: F64, owner: int, flip: bool = False, hard: bool = False,
    ) -> None:  # fmt: skip
        """Paste an upright picture with its base at ``base_v``; rows below ``clip_v`` are hidden.

        Args:
            mips: the picture and its halvings.
            center_u, base_v, width_px, height_px: where it goes.
            clip_v: last row that shows.
            light: ``(3, 4)``, from the picture's channels to BGR; see `lighting`.
            owner: who gets its pixels.
            flip: mirrored left to right.
            hard: no soft rim; a third of the cost.
        """
        level, rows = 0, mips[0][1].shape[0]
        while level + 1 < len(mips) and rows >= 2 * height_px:
            level, rows = level + 1, rows // 2
        color, cover = mips[level]
        left, top = center_u - width_px / 2, base_v - height_px
        x0, y0 = max(math.floor(left), 0), max(math.floor(top), 0)
        x1 = min(math.ceil(left + width_px) + 1, self.image.shape[1])
        y1 = min(math.ceil(base_v) + 1, math.ceil(clip_v) + 1, self.image.shape[0])
        if x1 <= x0 or y1 <= y0:
            return
        size = (x1 - x0, y1 - y0)
        sx, sy = width_px / cover.shape[1], height_px / cover.shape[0]
        where = np.zeros((2, 3))
        where[0, 0], where[0, 2] = (-sx, left + width_px - 0.5 * sx - 0.5 - x0) if flip else (sx, left + 0.5 * sx - 0.5 - x0)
        where[1, 1], where[1, 2] = sy, top + 0.5 * sy - 0.5 - y0
        alpha = cv2.warpAffine(cover, where, size)
        _, mask = cv2.threshold(alpha, 127, 255, cv2.THRESH_BINARY)
        lit = cv2.transform(cv2.warpAffine(color, where, size, borderMode=cv2.BORDER_REPLICATE), light)
        region = self.image[y0:y1, x0:x1]
        if hard:
            cv2.copyTo(lit, mask, region)
        else:
            wide = cv2.cvtColor(alpha, cv2.COLOR_GRAY2BGR)
            behind = cv2.multiply(region, cv2.bitwise_not(wide), scale=1 / 255)
            cv2.add(behind, cv2.multiply(lit, wide, scale=1 / 255), dst=region)
        cv2.copyTo(np.full(mask.shape, owner, np.uint8), mask, self.owner[y0:y1, x0:x1])
        if owner < FIRST_SCENERY_ID:
            self.whole[owner] = self.whole.get(owner, 0) + cv2.countNonZero(mask)
            self.extent[owner] = (x0, y0, x1, y1)

    def count(self, thing: int, u0: float, v0: float, u1: float, v1: float) -> None:
        """Remember how many pixels ``thing`` has just been given within a box, and the box."""
        width, height = self.image.shape[1], self.image.shape[0]
        x0, y0 = min(max(int(u0) - 1, 0), width), min(max(int(v0) - 1, 0), height)
        x1, y1 = min(max(int(u1) + 3, 0), width), min(max(int(v1) + 3, 0), height)
        if x1 > x0 and y1 > y0:
            self.whole[thing] = int(np.count_nonzero(self.owner[y0:y1, x0:x1] == thing))
            self.extent[thing] = (x0, y0, x1, y1)
