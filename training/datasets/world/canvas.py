"""The level picture under construction: colours, who owns each pixel, and the primitives that draw on both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.kernels.sprite import paste
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

Mips = list[npt.NDArray[np.uint32]]  # a picture ``(h, w)``, colour and cover as in `kernels.sprite.level`, then its halvings
Light = tuple[Bgr, Bgr, Bgr, Bgr]  # columns of a matrix from a picture's three channels to BGR, and an offset


def lighting(gain: Bgr, offset: Bgr) -> Light:
    """Light on a BGR picture."""
    return (gain[0], 0.0, 0.0), (0.0, gain[1], 0.0), (0.0, 0.0, gain[2]), offset


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
        tally: ``(256, 5)`` int32 by owner: pixels of each thing when nothing stood before it yet, and the canvas box
            ``x0, y0, x1, y1`` it lies in.
    """

    view: View
    look: Look
    image: U8
    owner: U8
    paint: U8
    glow: list[tuple[float, float, float, Bgr]] = field(default_factory=list)
    tally: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((256, 5), np.int32))

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
        shape = np.array([int(c * 16) for point in points for c in point], np.int32).reshape(-1, 2)
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
        light: Light, owner: int, flip: bool = False, hard: bool = False,
    ) -> None:  # fmt: skip
        """Paste an upright picture with its base at ``base_v``; rows below ``clip_v`` are hidden.

        Args:
            mips: the picture and its halvings.
            center_u, base_v, width_px, height_px: where it goes.
            clip_v: last row that shows.
            light: from the picture's channels to BGR; see `lighting`.
            owner: who gets its pixels.
            flip: mirrored left to right.
            hard: no soft rim.
        """
        level, rows = 0, mips[0].shape[0]
        while level + 1 < len(mips) and rows >= 2 * height_px:
            level, rows = level + 1, rows // 2
        paste(
            self.image, self.owner, self.tally, mips[level], center_u - width_px / 2, base_v - height_px, width_px, height_px,
            clip_v, light, owner, flip, hard,
        )  # fmt: skip

    def count(self, thing: int, u0: float, v0: float, u1: float, v1: float) -> None:
        """Remember how many pixels ``thing`` has just been given within a box, and the box."""
        width, height = self.image.shape[1], self.image.shape[0]
        x0, y0 = min(max(int(u0) - 1, 0), width), min(max(int(v0) - 1, 0), height)
        x1, y1 = min(max(int(u1) + 3, 0), width), min(max(int(v1) + 3, 0), height)
        if x1 > x0 and y1 > y0:
            self.tally[thing] = np.count_nonzero(self.owner[y0:y1, x0:x1] == thing), x0, y0, x1, y1
