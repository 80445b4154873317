"""Where things stand in front of the camera, and in what order they are drawn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.datasets.world.things import Spot, Thing
from training.datasets.world.view import View

F64 = npt.NDArray[np.float64]
_ALONG = ("wall", "rail", "fence")
_TALL = {"bridge": 6.0, "rail": 2.5, "wall": 2.5}  # seen from farther than their height says, metres


def place(view: View, things: list[Thing], time_s: float) -> list[tuple[Thing, Spot, Spot | None]]:
    """Things that may be seen, far to near, with where they stand; for pieces of a barrier also where they end."""
    if not things:
        return []
    table = np.array(
        [
            (
                t.s + t.speed * time_s,
                t.d + t.drift * time_s,
                *t.size_m,
                t.art in _ALONG,
                4.0 if t.label else 5.0,
                _TALL.get(t.art, 0.0),
            )
            for t in things
        ]
    )
    s, d, length, width, height, long, least_px, tall = table.T
    along = long > 0
    both_x, both_y, bearing = view.place(np.concatenate([s, s + length * along]), np.concatenate([d, d]))
    count = len(things)
    x, y, end_x, end_y = both_x[:count], both_y[:count], both_x[count:], both_y[count:]
    reach = np.maximum(length, np.abs(width))
    low, high = view.s_range
    half = view.camera.canvas_wh[0] / view.f * 0.62
    pixels = np.maximum(height, tall) * view.f / np.maximum(x, 1) * 448 / view.camera.size_wh[0]
    shown = (s > low) & (s < high) & (np.where(along, end_x, x + reach) > 1.5) & (pixels > least_px)
    shown &= np.abs(y) < half * np.maximum(np.maximum(x, end_x), 1) + reach + 2
    index = np.flatnonzero(shown)
    index = index[np.lexsort((-x[index], -_depth(x[index], end_x[index], d[index], along[index], view.d_m)))]
    z, end_z = view.ground_z(x[index]), view.ground_z(end_x[index])
    clip, end_clip = view.clip_row(np.maximum(x[index] - reach[index] / 2 * ~along[index], 1.3)), view.clip_row(end_x[index])
    columns = (x[index], y[index], z, bearing[index], clip)
    spots = [Spot(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    ends = [
        Spot(*row)
        for row in zip(*(c.tolist() for c in (end_x[index], end_y[index], end_z, bearing[index], end_clip)), strict=True)
    ]
    return [(things[i], spot, end if along[i] else None) for i, spot, end in zip(index.tolist(), spots, ends, strict=True)]


def _depth(x: F64, end_x: F64, d: F64, along: npt.NDArray[np.bool_], ego_d: float) -> F64:
    """Depth to sort by: what stands between ego's path and a piece of barrier comes after that piece."""
    piece, other = along.nonzero()[0], (~along).nonzero()[0]
    if not len(piece) or not len(other):
        return x
    within = (x[other, None] > x[piece]) & (x[other, None] < end_x[piece])
    before = (d[other, None] - d[piece]) * np.sign(ego_d - d[piece]) > 0
    nearest = np.where(within & before, x[piece] - 0.01, np.inf).min(1)
    depth = x.copy()
    depth[other] = np.minimum(x[other], nearest)
    return depth
