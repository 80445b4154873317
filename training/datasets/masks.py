"""Semantic masks -> elements: drivable polygons and boxes from components. Lanes from paint are in `training.datasets.paint`.

What comes out is *derived*: readers say so in ``meta["derived"]``, and boxes carry ``attributes["derived"]``.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from getok_drive.types import Box, DrivableArea, FloatArray

Mask = npt.NDArray[np.bool_] | npt.NDArray[np.uint8]
U8 = npt.NDArray[np.uint8]

MAX_AREAS = 3
MIN_AREA_SHARE = 0.003  # of the image; smaller regions are dropped, smaller holes are filled
MIN_IOU = 0.975  # of a simplified polygon with the region that it describes
TOLERANCES_PX = (5.0, 4.0, 3.2, 2.5, 2.0, 1.6, 1.2, 0.9, 0.6)  # of the outline, at 448 px image width; coarsest first
MIN_BOX_SHARE = 0.024  # of the image height: 6 px at 252 px


def drivable_areas(mask: Mask) -> tuple[DrivableArea, ...]:
    """A road mask as few simple polygons without holes, clockwise on the screen, largest first.

    Specks and slits of a few pixels are closed; a hole is opened to the outside by a cut upwards (a car standing on the road
    becomes a notch) or filled when it is small; regions under 0.3 % of the image are dropped, and all but the largest three.
    Vertices are removed while the IoU with the region stays at least `MIN_IOU`.

    Args:
        mask: ``(H, W)``, true where one could drive.
    """
    road = np.asarray(mask != 0, dtype=np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    road = np.asarray(cv2.morphologyEx(road, cv2.MORPH_CLOSE, kernel), dtype=np.uint8)
    road = np.asarray(cv2.morphologyEx(road, cv2.MORPH_OPEN, kernel), dtype=np.uint8)
    least_px = MIN_AREA_SHARE * road.size
    _open_holes(road, least_px)
    contours, _ = cv2.findContours(road, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in sorted(contours, key=cv2.contourArea, reverse=True)[:MAX_AREAS]:
        if cv2.contourArea(contour) >= least_px and (polygon := _simplified(contour, road.shape[1])) is not None:
            found.append(DrivableArea(polygon))
    return tuple(found)


def _open_holes(road: U8, least_px: float) -> None:
    """Fill small holes of ``road`` in place and cut the others open, two pixels wide, from their top upwards."""
    contours, tree = cv2.findContours(road, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    holes = [contour for index, contour in enumerate(contours) if tree[0][index][3] >= 0]
    small = [contour for contour in holes if cv2.contourArea(contour) < least_px]
    cv2.drawContours(road, small, -1, 1, -1)  # before the cuts, of which none may end in one
    for contour in holes:
        if cv2.contourArea(contour) >= least_px:
            x, y = contour[contour[:, 0, 1].argmin(), 0]
            outside = np.flatnonzero(road[:y, x] == 0)
            road[int(outside[-1]) if len(outside) else 0 : y + 1, x : x + 2] = 0


def _simplified(contour: npt.NDArray[np.int32], width_px: int) -> FloatArray | None:
    """The coarsest outline that still covers the region, clockwise on the screen; None when the region has no inside.

    A contour runs through pixel centres; the region ends half a pixel further out.
    """
    grown = shapely.buffer(shapely.polygons(contour.reshape(-1, 2)), 0.5, join_style="mitre")
    parts = [shapely.Polygon(part.exterior) for part in shapely.get_parts(grown) if part.geom_type == "Polygon"]
    if not parts:
        return None
    region = outline = max(parts, key=lambda part: float(part.area))
    for tolerance in TOLERANCES_PX:
        outline = shapely.simplify(region, tolerance * width_px / 448, preserve_topology=True)
        both = shapely.intersection(outline, region).area
        if both >= MIN_IOU * (outline.area + region.area - both):
            break
    points = shapely.get_coordinates(outline)[:-1].astype(np.float32)
    clockwise = shapely.LinearRing(points).is_ccw  # shapely's y points up, the screen's down
    return points if clockwise else points[::-1].copy()


def component_boxes(mask: Mask, class_name: str, min_height_share: float = MIN_BOX_SHARE) -> tuple[Box, ...]:
    """A box around every connected component of a class; objects that touch in the picture become one box.

    Args:
        mask: ``(H, W)``, true on the class.
        class_name: the boxes' class.
        min_height_share: components lower than this share of the image height, or filling under a quarter of their box, are
        left out.

    Returns:
        Boxes whose edges lie half a pixel outside the outermost pixel centres, clipped to the image, with the attributes
        ``derived`` = ``components`` and ``truncated`` (touches the image's border).
    """
    height, width = mask.shape[:2]
    count, _, stats, _ = cv2.connectedComponentsWithStats(np.asarray(mask != 0, dtype=np.uint8), connectivity=8)
    least_px = max(min_height_share * height, 2.0)
    boxes = []
    for x, y, w, h, area in stats[1:count].tolist():
        if h < least_px or w < 2 or area < 0.25 * w * h:
            continue
        truncated = x == 0 or y == 0 or x + w == width or y + h == height
        xyxy = [max(x - 0.5, 0.0), max(y - 0.5, 0.0), min(x + w - 0.5, width - 1.0), min(y + h - 0.5, height - 1.0)]
        attributes = {"derived": "components", "truncated": "yes" if truncated else "no"}
        boxes.append(Box(np.array(xyxy, np.float32), class_name, attributes=attributes))
    return tuple(boxes)


def mask_box(mask: Mask) -> FloatArray | None:
    """``(4,)`` extent ``x0, y0, x1, y1`` of a mask's true pixels, half a pixel outside their centres; None when it is empty."""
    x, y, w, h = cv2.boundingRect(np.asarray(mask != 0, dtype=np.uint8))
    return np.array([x - 0.5, y - 0.5, x + w - 0.5, y + h - 0.5], np.float32) if w else None


def from_colors(mask_bgr: U8, colors_rgb: dict[str, int]) -> npt.NDArray[np.uint8]:
    """A colour-coded label picture as class numbers.

    Args:
        mask_bgr: ``(H, W, 3)``.
        colors_rgb: ``"#402020"``-like hexadecimal RGB -> class number.

    Returns:
        ``(H, W)`` class numbers; 255 where the colour is in no entry.
    """
    if mask_bgr.ndim != 3:
        raise ValueError("expected a colour label picture, got a grey one")
    channels = mask_bgr.astype(np.uint32)
    code = channels[:, :, 2] << 16 | channels[:, :, 1] << 8 | channels[:, :, 0]
    keys = np.array([int(text.lstrip("#"), 16) for text in colors_rgb], np.uint32)
    numbers = np.array(list(colors_rgb.values()), np.uint8)
    order = np.argsort(keys)
    at = np.minimum(np.searchsorted(keys[order], code), len(keys) - 1)
    return np.where(keys[order][at] == code, numbers[order][at], np.uint8(255)).astype(np.uint8)
