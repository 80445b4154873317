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
_HALF = slice(None, None, 2)
_JOINTS_M = 35.0  # how far they can be seen
_SOFTENED = 1.25  # contrast that enlarging takes from the texture


def _strip(canvas: Canvas, left: Knots, right: Knots) -> npt.NDArray[np.int32]:
    """Outline of the ground between two lateral offsets: every row near the horizon, every sixth farther down."""
    view = canvas.view
    count = len(view.rows)
    pick_rows = np.array([*range(min(24, count - 1)), *range(24, count - 1, 6), count - 1])
    s, x, y, rows = view.row_s[pick_rows], view.row_x[pick_rows], view.row_y[pick_rows], view.rows[pick_rows].copy()
    cos = view.row_cos[pick_rows]
    rows[-1] += 2
    n = len(rows)
    outline = np.empty((2 * n, 2))
    for part, (knots_s, knots_d), way in ((outline[:n], left, 1), (outline[n:], right, -1)):
        d = knots_d[0] if len(knots_d) == 1 else np.interp(s, knots_s, knots_d)
        part[:, 0] = np.minimum(np.maximum(view.cx - view.f * (y + d / cos) / x, -20000), 20000)[::way]
        part[:, 1] = rows[::way]
    return fixed(outline)


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
    x, cos, ds = view.row_x[_HALF], view.row_cos[_HALF], 2 * view.row_ds[_HALF]
    shifts = rng.generator.uniform(0, 512, 4).astype(np.float32)
    fade = 1.0 / (1.0 + (x / 55.0) ** 2)
    rows = np.zeros((len(x), 12), np.float32)
    rows[:, kernel.SCALE], rows[:, kernel.MIDDLE] = x * cos / view.f, view.row_y[_HALF] * cos
    rows[:, kernel.S], rows[:, kernel.TURN] = view.row_s[_HALF], view.row_tan[_HALF]
    rows[:, kernel.ACROSS], rows[:, kernel.ALONG] = _mip(x / view.f), _mip(np.maximum(ds / 2, x / view.f * 1.5))
    rows[:, kernel.SOFT] = (0.4 + 0.9 * fade) * (_SOFTENED / 128)
    rows[:, kernel.HARD] = rng.uniform(0.5, 1.6) * fade * (_SOFTENED / 128)
    rows[:, kernel.CLEAR] = np.exp(-x / look.visibility_m) * 128
    slow = rng.uniform(0.04, 0.14) / 128
    tracks = _tracks(rng, road.lane_width_m)
    joint_m = rng.uniform(4, 6) if road.concrete else 1.0
    if road.concrete:
        rows[:, kernel.JOINT] = np.where(x <= _JOINTS_M, np.maximum(ds, 0.05), 0.0)
    if look.beam > 0:
        rows[:, kernel.BEAM] = look.beam * (1 - np.exp(-((x / 4.5) ** 2))) * np.exp(-x / 28.0)
        rows[:, kernel.ASIDE] = x / (view.f * (2.5 + 0.22 * x))
    return kernel.relief(  # type: ignore[no-any-return]
        rows, np.float32(view.cx), hard, (textures.asphalt(), textures.terrain(), textures.blotches()), shifts, np.float32(slow),
        tracks, (road.lane_d[0] if road.lane_d else 0.0, road.lane_width_m), joint_m, _cast(shadows, hard.shape, view.horizon),
        np.float32(max(look.shadow, 0.35) / 255), np.float32(sum(look.ambient) / 3),
    )  # fmt: skip


def _mip(metres: F64) -> F64:
    """Texels a metre: 3 cm each, doubled until as wide as ``metres``; fractal noise allows it."""
    return np.asarray(np.exp2(-np.ceil(np.log2(np.maximum(metres / 0.03, 1.0)))) / 0.03)


def _tracks(rng: Dice, width: float) -> F32:
    """Tyre tracks and the oil stripe over the width of a lane."""
    x = np.linspace(-0.5, 0.5, 128)
    strength, oil = rng.uniform(-0.09, 0.09), rng.uniform(0.0, 0.16)
    profile = 1 + strength * np.exp(-(((np.abs(x) * width - 0.8) / 0.3) ** 2)) - oil * np.exp(-((x * width / 0.35) ** 2))
    return profile.astype(np.float32)


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
