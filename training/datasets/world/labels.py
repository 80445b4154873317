"""Labels from the label pictures and the geometry: what a careful annotator would draw, in pixels of the photograph."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.types import Box, DrivableArea, Lane, Sign
from training.datasets.world.canvas import FIRST_SCENERY_ID, ROAD, Canvas
from training.datasets.world.kernels.lines import traces
from training.datasets.world.kernels.owners import survey
from training.datasets.world.kernels.polygons import simple
from training.datasets.world.paint import DrawnLine
from training.datasets.world.things import Thing

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]

MIN_PAINT = 0.2
MIN_BOX_PX = 6.0  # at 252 px image height
MIN_SIGN_PX = 5.0  # at 448 px image width
MIN_VISIBLE = 0.15
MIN_SPACING_PX = 1.5  # between neighbouring lines, at 448 px image width
MIN_AREA_SHARE = 0.003
MAX_AREAS = 3


def state(share: float) -> str:
    """The word for a visible share."""
    return "fully_visible" if share > 0.85 else "partly_occluded" if share >= 0.4 else "mostly_occluded"


def lanes(canvas: Canvas, drawn: Sequence[DrawnLine], owner: U8) -> tuple[Lane, ...]:
    """Lane lines bottom to top, cut at crests, at the far end, where scenery hides them, and at the image's border."""
    view, look = canvas.view, canvas.look
    width = owner.shape[1]
    nearby = [line for line in drawn if line.line.paint >= MIN_PAINT]
    if not nearby:
        return ()
    limits = (
        min(look.see_m, 0.14 / 0.13 * view.f), MIN_SPACING_PX * width / 448, -0.1 * width,
        canvas.image.shape[1] + 0.1 * width, 0.03 * width,
    )  # fmt: skip
    points, ends = traces(
        np.array([line.u for line in nearby]), np.array([line.there for line in nearby]), view.rows, view.row_x, limits,
        view.camera.lens, view.camera.level_R_cam, owner, ROAD, FIRST_SCENERY_ID,
    )  # fmt: skip
    ends = ends.tolist()
    found = [
        Lane(points[start:end], drawn_line.line.kind, drawn_line.line.color)
        for drawn_line, start, end in zip(nearby, [0, *ends[:-1]], ends, strict=True)
        if end > start
    ]
    return tuple(sorted(found, key=lambda lane: float(lane.points_px[0, 0])))


def drivable(owner: U8) -> tuple[DrivableArea, ...]:
    """Visible carriageway as few simple polygons; holes are cut open upwards, then vertices removed while the fit holds."""
    height, width = owner.shape
    mask = cv2.compare(owner, float(ROAD), cv2.CMP_EQ)
    close = max(round(5 * width / 448) | 1, 3)
    top = max(cv2.boundingRect(mask)[1] - 2 * close, 0)  # nothing to do above
    mask = mask[top:]
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((close, close), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    least = MIN_AREA_SHARE * width * height
    cut = False
    for i, contour in enumerate(contours):
        if tree[0][i][3] >= 0:
            if cv2.contourArea(contour) < 1.5 * least:
                cv2.drawContours(mask, [contour], -1, 255, -1)
            else:
                x, y = contour[contour[:, 0, 1].argmin(), 0]
                column = mask[:y, x]
                clear = int(np.flatnonzero(column == 0)[-1]) if (column == 0).any() else 0
                mask[clear : y + 1, x : x + 2] = 0
                cut = True
    if cut or len(contours) > 1:
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in sorted(contours, key=cv2.contourArea, reverse=True)[:MAX_AREAS]:
        if cv2.contourArea(contour) >= least and (polygon := _simplify(contour, mask.shape)) is not None:
            found.append(DrivableArea(polygon + np.array((0, top), np.float32)))
    return tuple(found)


def _simplify(contour: npt.NDArray[np.int32], shape: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
    """Fewest vertices with an IoU of 0.975 to the contour's inside, among a few tolerances; clockwise on the screen."""
    x, y, w, h = cv2.boundingRect(contour)
    local = contour - (x, y)
    target = np.zeros((h, w), np.uint8)
    cv2.fillPoly(target, [local], 1)
    area = int(cv2.countNonZero(target))
    best: npt.NDArray[np.int32] | None = None
    for tolerance in np.array([5.0, 2.8, 1.6, 0.8]) * shape[1] / 448:
        thin = cv2.approxPolyDP(local, float(tolerance), True)
        if len(thin) < 3:
            continue
        trial = np.zeros_like(target)
        cv2.fillPoly(trial, [thin], 1)
        both = int(cv2.countNonZero(cv2.bitwise_and(trial, target)))
        fits = both / max(area + int(cv2.countNonZero(trial)) - both, 1) >= 0.975
        if (fits or tolerance < 1.0) and simple(thin.reshape(-1, 2)):
            best = thin
            break
    if best is None:
        return None
    points = (best.reshape(-1, 2) + np.array((x, y))).astype(np.float32)
    signed = float(np.sum(points[:, 0] * np.roll(points[:, 1], -1) - np.roll(points[:, 0], -1) * points[:, 1]))
    return points if signed > 0 else points[::-1].copy()


def boxes_and_signs(canvas: Canvas, things: Sequence[tuple[int, Thing]], owner: U8) -> tuple[list[Box], list[Sign], U16]:
    """Boxes of what is visible, sign centres, and the instance picture (index into the boxes + 1).

    Args:
        canvas: holds how many pixels each thing had when it was drawn.
        things: ``(id in owner, thing)`` of everything that bears a label, nearest last.
        owner: id picture in the photograph.
    """
    camera = canvas.view.camera
    height, width = owner.shape
    boxes: list[Box] = []
    signs: list[Sign] = []
    instance = np.zeros(256, np.uint16)
    numbers = np.array([number for number, _ in reversed(things)], np.int64)
    shares, extents = survey(canvas.owner, owner, canvas.tally, numbers, camera.lens, camera.level_R_cam)
    for (number, thing), share, (count, x0, y0, x1, y1) in zip(reversed(things), shares.tolist(), extents.tolist(), strict=True):
        if share < MIN_VISIBLE or count < 4:
            continue
        attributes = {"visible_state": state(share), "track_id": str(thing.track)}
        if thing.art == "sign":
            if max(x1 - x0, y1 - y0) + 1 < MIN_SIGN_PX * width / 448:
                continue
            center = np.array([(x0 + x1) / 2, (y0 + y1) / 2], np.float32)
            signs.append(Sign(center, thing.label, thing.color_name, attributes=attributes))
            continue
        if y1 - y0 + 1 < MIN_BOX_PX * height / 252 or x1 - x0 < 1:
            continue
        touching = x0 <= 0 or y0 <= 0 or x1 >= width - 1 or y1 >= height - 1
        attributes["truncated"] = "yes" if touching else "no"
        if thing.blockage:
            attributes["road_blockage"] = thing.blockage
        xyxy = np.array([max(x0 - 0.5, 0), max(y0 - 0.5, 0), min(x1 + 0.5, width - 1), min(y1 + 0.5, height - 1)], np.float32)
        boxes.append(Box(xyxy, thing.label, attributes=attributes))
        instance[number] = len(boxes)
    return boxes, signs, instance


def density(count: int) -> str:
    """``traffic_density`` from the number of vehicles in sight."""
    return "no_traffic" if count == 0 else "light_traffic" if count <= 3 else "medium_traffic" if count <= 8 else "dense_traffic"
