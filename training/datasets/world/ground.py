"""The ground: bands of material, markings, texture, cast shadows, distance haze and headlights, in that order."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world import paint, textures
from training.datasets.world.canvas import NOBODY, ROAD, SHIFT, Canvas, fixed
from training.datasets.world.dice import Dice, pick
from training.datasets.world.kernels import ground as kernel
from training.datasets.world.road import Junction, Knots
from training.datasets.world.shadows import Shadow

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
_JOINTS_M = 35.0  # how far they can be seen


def _strip(canvas: Canvas, left: Knots, right: Knots) -> npt.NDArray[np.int32]:
    """Outline of the ground between two lateral offsets."""
    view = canvas.view
    outline: npt.NDArray[np.int32] = kernel.strip(
        view.rows, view.row_s, view.row_x, view.row_y, view.row_cos, np.array(left), np.array(right), view.cx, view.f
    )
    return outline


def _open_area(canvas: Canvas, junction: Junction) -> npt.NDArray[np.int32] | None:
    """Outline of a side road's arms with rounded corners."""
    road, view = canvas.view.road, canvas.view
    first, last = junction.span
    left, right, corner = road.outer_left_d, road.outer_right_d, 4.0
    bend = np.linspace(0, np.pi / 2, 6)
    far_left = left + (60.0 if junction.left else 0.0)
    far_right = right - (60.0 if junction.right else 0.0)
    points: list[tuple[float, float]] = []
    sides = ((far_left, left, 1.0, junction.left), (far_right, right, -1.0, junction.right))
    for far, near, sign, there in sides:
        arc = [(first - corner * (1 - np.sin(b)), near + sign * corner * (1 - np.cos(b))) for b in bend]
        back = [(last + corner * (1 - np.sin(b)), near + sign * corner * (1 - np.cos(b))) for b in bend]
        part = [*arc, (first, far), (last, far), *back[::-1]] if there else [(first, near), (last, near)]
        points += part if sign > 0 else part[::-1]
    s, d = np.array(points).T
    x, y, _ = view.place(np.clip(s, *view.s_range), d)
    if x.min() < 1.0:
        x = np.maximum(x, 1.0)
    if x.min() > 200:
        return None
    row = view.cy + view.f * (view.height_m - view.ground_z(x)) / x
    hidden = row > view.clip_row(x) + 0.75
    uv = np.column_stack([view.cx - view.f * y / x, np.where(hidden, view.clip_row(x), row)])
    return fixed(uv)


def draw(canvas: Canvas, rng: Dice, shadows: list[Shadow], drawn_lines: list[paint.DrawnLine]) -> None:
    """Draw everything flat below the horizon.

    Args:
        canvas: sky and backdrop are there already.
        rng: for the texture's place.
        shadows: of what stands on it.
        drawn_lines: filled with the lane lines, for the labels.
    """
    view, look, road = canvas.view, canvas.look, canvas.view.road
    top = view.horizon
    verge = look.materials[pick(rng, ["grass", "dry", "dirt"], [0.55, 0.3, 0.15])]
    cv2.rectangle(canvas.image, (0, top), (canvas.image.shape[1], canvas.image.shape[0]), verge, -1)
    canvas.owner[top:] = NOBODY
    small = ((len(view.rows) + 1) // 2, (canvas.image.shape[1] + 1) // 2)
    hard = np.zeros(small, np.uint8)  # paved, at half size: takes the asphalt's texture
    for band in road.bands:
        outline = _strip(canvas, band.left, band.right)
        cv2.fillPoly(canvas.image, [outline], look.materials[band.material], cv2.LINE_AA, SHIFT)
        if band.material in ("shoulder", "parking", "pavement"):
            cv2.fillPoly(hard, [_halved(outline, top)], 1, cv2.LINE_8, SHIFT)
    _kerbs(canvas)
    areas = [_strip(canvas, *edges) for edges in (road.edges, road.other) if edges is not None]
    areas += [area for junction in road.junctions if (area := _open_area(canvas, junction)) is not None]
    for area in areas:
        cv2.fillPoly(canvas.image, [area], look.materials["road"], cv2.LINE_AA, SHIFT)
        cv2.fillPoly(canvas.owner, [area], ROAD, cv2.LINE_8, SHIFT)
        cv2.fillPoly(hard, [_halved(area, top)], 1, cv2.LINE_8, SHIFT)
    unseen = int(np.count_nonzero(view.row_x > 1.3 * look.see_m))  # rows lost in fog or night
    canvas.owner[top : top + unseen] = NOBODY
    gain, rough = _relief(canvas, rng, hard, shadows)
    paint.draw(canvas, rng, rough, drawn_lines)
    _finish(canvas, gain)


def _halved(outline: npt.NDArray[np.int32], top: int) -> npt.NDArray[np.int32]:
    """A fixed-point outline on the half-size picture of the ground rows, which begin at ``top``."""
    return (outline - (0, top << SHIFT)) >> 1


def _kerbs(canvas: Canvas) -> None:
    """Kerb stones as bright strips beside a pavement."""
    road = canvas.view.road
    for band in road.bands:
        if band.material == "pavement":
            left_side = band.right[1][0] > 0
            inner = band.right if left_side else band.left
            width = 0.22 if left_side else -0.22
            outline = _strip(canvas, inner, (inner[0], tuple(d + width for d in inner[1])))
            cv2.fillPoly(canvas.image, [outline], canvas.look.materials["kerb"], cv2.LINE_AA, SHIFT)


def _relief(canvas: Canvas, rng: Dice, hard: U8, shadows: list[Shadow]) -> tuple[U8, U8]:
    """Gain of the ground, 128 is 1, by texture, shadow, haze and headlights, and noise for worn paint; both at half size."""
    view, road, look = canvas.view, canvas.view.road, canvas.look
    shifts = rng.generator.uniform(0, 512, 4).astype(np.float32)
    rows = kernel.describe(
        view.row_x, view.row_y, view.row_s, view.row_cos, view.row_tan, view.row_ds, view.f, rng.uniform(0.5, 1.6),
        look.visibility_m, _JOINTS_M if road.concrete else 0.0, look.beam,
    )  # fmt: skip
    slow = rng.uniform(0.04, 0.14) / 128
    worn = kernel.tracks(road.lane_width_m, rng.uniform(-0.09, 0.09), rng.uniform(0.0, 0.16))
    joint_m = rng.uniform(4, 6) if road.concrete else 1.0
    return kernel.relief(  # type: ignore[no-any-return]
        rows, np.float32(view.cx), hard, (textures.asphalt(), textures.terrain(), textures.blotches()), shifts, np.float32(slow),
        worn, (road.lane_d[0] if road.lane_d else 0.0, road.lane_width_m), joint_m, _cast(shadows, hard.shape, view.horizon),
        np.float32(max(look.shadow, 0.35) / 255), np.float32(sum(look.ambient) / 3),
    )  # fmt: skip


def _cast(shadows: list[Shadow], shape: tuple[int, ...], top: int) -> tuple[U8, U8]:
    """Cast shadows at half size, closed ones and those that light falls through; without rows where there are none."""
    closed = np.zeros(shape if shadows else (0, 0), np.uint8)
    leafy = np.zeros(shape if any(leaves for _, leaves in shadows) else (0, 0), np.uint8)
    for outline, leaves in shadows:
        cv2.fillPoly(leafy if leaves else closed, [_halved(fixed(outline), top)], 255, cv2.LINE_AA, SHIFT)
    return closed, leafy


def _finish(canvas: Canvas, gain: U8) -> None:
    """Apply the relief, the colour of the light and the haze to the ground rows."""
    view, look = canvas.view, canvas.look
    ground = canvas.image[view.horizon :]
    eight = cv2.resize(gain, (ground.shape[1], ground.shape[0]), interpolation=cv2.INTER_LINEAR)
    cv2.multiply(ground, cv2.cvtColor(eight, cv2.COLOR_GRAY2BGR), dst=ground, scale=1 / 128)
    if look.beam <= 0 and look.ambient != (1.0, 1.0, 1.0):
        ground[:] = cv2.transform(ground, np.diag(look.ambient))
    clear = np.exp(-view.row_x / look.visibility_m)
    far = int(np.count_nonzero(clear < 0.985))
    if far:
        haze = np.round((1 - clear[:far])[:, None] * np.array(look.haze)).astype(np.uint8)
        cv2.add(ground[:far], np.repeat(haze[:, None], ground.shape[1], axis=1), dst=ground[:far])
