"""The level picture under construction: colours, who owns each pixel, and the primitives that draw on both."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world.look import Bgr, Look
from training.datasets.world.view import View

U8 = npt.NDArray[np.uint8]
SHIFT = 4
FIRST_SCENERY_ID = 60000
POLE, BUILDING, VEGETATION, WALL, HOOD, BRIDGE = range(FIRST_SCENERY_ID, FIRST_SCENERY_ID + 6)


def fixed(points: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Sub-pixel points as OpenCV's fixed-point integers, kept within its range."""
    return np.clip(np.asarray(points, dtype=np.float64) * (1 << SHIFT), -(1 << 19), 1 << 19).astype(np.int32)


@dataclass(slots=True)
class Canvas:
    """What the drawing functions share.

    Attributes:
        image: ``(H, W, 3)`` uint8; owner: ``(H, W)`` uint16, 0 ground or sky, then thing ids, then scenery.
        road: ``(H, W)`` uint8, 255 on the drivable carriageway; paint: 255 on lane lines.
        glow: light sources ``(u, v, radius_px, BGR)`` added at the end.
        whole: pixel count of each thing when nothing stood before it yet.
    """

    view: View
    look: Look
    image: U8
    owner: npt.NDArray[np.uint16]
    road: U8
    paint: U8
    glow: list[tuple[float, float, float, Bgr]] = field(default_factory=list)
    whole: dict[int, int] = field(default_factory=dict)

    @staticmethod
    def blank(view: View, look: Look) -> Canvas:
        """An empty picture for ``view``."""
        width, height = view.camera.canvas_wh
        return Canvas(
            view, look, np.empty((height, width, 3), np.uint8), np.zeros((height, width), np.uint16),
            np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8),
        )  # fmt: skip

    def polygon(self, points: npt.ArrayLike, color: Bgr, owner: int = -1, smooth: bool = True, convex: bool = True) -> None:
        """Fill a polygon of canvas points in ``color``; pixels go to ``owner`` if it is not negative."""
        shape = fixed(points)
        line = cv2.LINE_AA if smooth else cv2.LINE_8
        if convex:
            cv2.fillConvexPoly(self.image, shape, color, line, SHIFT)
            if owner >= 0:
                cv2.fillConvexPoly(self.owner, shape, owner, cv2.LINE_8, SHIFT)
        else:
            cv2.fillPoly(self.image, [shape], color, line, SHIFT)
            if owner >= 0:
                cv2.fillPoly(self.owner, [shape], owner, cv2.LINE_8, SHIFT)

    def image_fill(self, shape: npt.NDArray[np.int32], color: Bgr, smooth: int, owner: int) -> None:
        """`polygon` for convex shapes that are fixed-point already."""
        cv2.fillConvexPoly(self.image, shape, color, smooth, SHIFT)
        cv2.fillConvexPoly(self.owner, shape, owner, cv2.LINE_8, SHIFT)

    def line(self, a: npt.ArrayLike, b: npt.ArrayLike, width_px: float, color: Bgr, owner: int = -1) -> None:
        """A straight bar of any width between two canvas points."""
        start, end = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        along = end - start
        length = float(np.hypot(*along))
        if length < 1e-6:
            return
        if width_px < 1.2:  # thin: one anti-aliased line, faded to its true coverage by the caller's colour
            cv2.line(self.image, fixed(start), fixed(end), color, 1, cv2.LINE_AA, SHIFT)
            if owner >= 0:
                cv2.line(self.owner, fixed(start), fixed(end), owner, 1, cv2.LINE_8, SHIFT)
            return
        side = np.array([-along[1], along[0]]) * (width_px / 2 / length)
        self.polygon([start + side, end + side, end - side, start - side], color, owner)

    def sprite(
        self, mips: list[U8], center_u: float, base_v: float, width_px: float, height_px: float, clip_v: float,
        gain: Bgr, offset: Bgr, owner: int, flip: bool = False, hard: bool = False,
    ) -> bool:  # fmt: skip
        """Paste an upright BGRA sprite with its base at ``base_v``; rows below ``clip_v`` are hidden. True if any pixel was drawn."""
        level = int(np.clip(np.floor(np.log2(max(mips[0].shape[0] / max(height_px, 1.0), 1.0))), 0, len(mips) - 1))
        source = mips[level]
        left, top = center_u - width_px / 2, base_v - height_px
        x0, y0 = max(int(np.floor(left)), 0), max(int(np.floor(top)), 0)
        x1 = min(int(np.ceil(left + width_px)) + 1, self.image.shape[1])
        y1 = min(int(np.ceil(base_v)) + 1, int(np.ceil(clip_v)) + 1, self.image.shape[0])
        if x1 <= x0 or y1 <= y0:
            return False
        sx, sy = width_px / source.shape[1], height_px / source.shape[0]
        move = np.array([[sx, 0, left + 0.5 * sx - 0.5 - x0], [0, sy, top + 0.5 * sy - 0.5 - y0]])
        if flip:
            move[0] = (-sx, 0, left + width_px - 0.5 * sx - 0.5 - x0)
        patch = cv2.warpAffine(source, move, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
        alpha = patch[..., 3]
        region = self.image[y0:y1, x0:x1]
        color = np.ascontiguousarray(patch[..., :3])
        if gain != (1.0, 1.0, 1.0) or max(offset) > 1:
            color = cv2.multiply(color, (*gain, 0.0))
            color = cv2.add(color, (*offset, 0.0))
        mask = cv2.compare(alpha, 127, cv2.CMP_GT)
        if hard or color.size > 30000:
            cv2.copyTo(color, mask, region)
        else:
            weight = (alpha.astype(np.int16)[..., None] * 257) >> 8
            region[:] = region + (((color.astype(np.int16) - region) * weight.astype(np.int32)) >> 8)
        if owner >= 0:
            part = self.owner[y0:y1, x0:x1]
            part[mask > 0] = owner
            if owner < FIRST_SCENERY_ID:
                self.whole[owner] = self.whole.get(owner, 0) + int(cv2.countNonZero(mask))
        return True

    def count(self, thing: int, low: npt.ArrayLike, high: npt.ArrayLike) -> None:
        """Remember how many pixels ``thing`` has just been given within the box ``low``..``high``."""
        x0, y0 = np.maximum(np.floor(np.asarray(low)).astype(int) - 1, 0)
        x1, y1 = np.maximum(np.ceil(np.asarray(high)).astype(int) + 2, 0)
        self.whole[thing] = self.whole.get(thing, 0) + int(np.count_nonzero(self.owner[y0:y1, x0:x1] == thing))
