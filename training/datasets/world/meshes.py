"""Vehicle meshes in metres: polygons in drawing order, origin on the ground under the middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Point = tuple[float, float, float]

# name -> (class, length, width, height, belt, base_rear, roof_rear, roof_front, base_front, hood height); x by length, belt and
# hood by height
CARS: dict[str, tuple[str, float, float, float, float, float, float, float, float, float]] = {
    "sedan": ("car", 4.7, 1.82, 1.45, 0.64, -0.32, -0.19, 0.06, 0.22, 0.55),
    "hatch": ("car", 4.1, 1.76, 1.5, 0.62, -0.47, -0.38, 0.08, 0.24, 0.56),
    "wagon": ("car", 4.7, 1.82, 1.48, 0.63, -0.48, -0.4, 0.07, 0.23, 0.55),
    "suv": ("car", 4.6, 1.9, 1.72, 0.62, -0.48, -0.41, 0.09, 0.24, 0.57),
    "pickup": ("car", 5.4, 1.95, 1.8, 0.58, -0.1, -0.04, 0.13, 0.24, 0.53),
    "minivan": ("car", 4.9, 1.95, 1.8, 0.58, -0.48, -0.43, 0.16, 0.33, 0.52),
    "van": ("car", 5.2, 2.0, 2.25, 0.52, -0.495, -0.48, 0.24, 0.36, 0.45),
}
TRUCKS = {"box_truck": ("truck", 7.5, 2.4, 3.2), "semi": ("truck", 15.0, 2.55, 3.9), "tanker": ("truck", 10.0, 2.5, 3.4)}
BUSES = {"bus": ("bus", 11.5, 2.55, 3.1), "coach": ("bus", 12.0, 2.55, 3.6)}
MODELS = (*CARS, *TRUCKS, *BUSES)


@dataclass(frozen=True, slots=True)
class Mesh:
    """Polygons in drawing order, outward winding.

    Attributes:
        points: ``(3, N)`` metres; face ``i`` is ``starts[i]:ends[i]``; following: index of each point's successor in its face.
        materials, sides, fine, part: per face; fine ones are decals on a coarse face; a truck's box is part 1, its cab 2.
    """

    class_name: str
    size_m: Point
    points: F64
    starts: list[int]
    ends: list[int]
    following: npt.NDArray[np.int64]
    materials: list[str]
    sides: list[str]
    fine: list[bool]
    part: list[int]
    parts: bool


class _Builder:
    def __init__(self) -> None:
        self.faces: list[tuple[F64, str, str, bool, int]] = []
        self.part = 0

    def add(self, points: Sequence[Point], material: str, side: str, fine: bool = False) -> None:
        """Add a face; ``side`` tells which way it looks, which fixes its winding."""
        array = np.array(points, dtype=np.float64)
        normal = np.cross(array[1] - array[0], array[2] - array[0])
        toward = {"left": (0, 1, 0), "right": (0, -1, 0), "rear": (-1, 0, 0.02), "front": (1, 0, 0.02), "top": (0, 0, 1)}[side]
        if normal @ np.array(toward) < 0:
            array = array[::-1]
        self.faces.append((array, material, side, fine, self.part))

    def both(self, points: Sequence[tuple[float, float]], y: float | Sequence[float], material: str, fine: bool = False) -> None:
        """A polygon in ``(x, z)`` on both flanks at ``y``."""
        ys = [y] * len(points) if isinstance(y, (int, float)) else list(y)
        for sign, side in ((1, "left"), (-1, "right")):
            self.add([(x, sign * w, z) for (x, z), w in zip(points, ys, strict=True)], material, side, fine)

    def across(
        self, a: tuple[float, float], b: tuple[float, float], ya: float, yb: float, material: str, side: str, fine: bool = False
    ) -> None:
        """A quad from flank to flank between the profile points ``a`` and ``b``."""
        self.add([(a[0], -ya, a[1]), (a[0], ya, a[1]), (b[0], yb, b[1]), (b[0], -yb, b[1])], material, side, fine)

    def patch(self, x: float, y0: float, y1: float, z0: float, z1: float, material: str, side: str) -> None:
        """A decal on the rear or front."""
        self.add([(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)], material, side, True)

    def wheel(self, x: float, y: float, radius: float) -> None:
        """Wheel and hub on both flanks, with the dark arch above."""
        turn = np.linspace(0, 2 * np.pi, 11)[:-1]
        self.both(
            [(x + 1.22 * radius * np.cos(t), radius + 1.22 * radius * np.sin(t)) for t in turn[:6]], y + 0.004, "dark", True
        )
        self.both([(x + radius * np.cos(t), radius + radius * np.sin(t)) for t in turn], y + 0.008, "tyre")
        self.both([(x + 0.58 * radius * np.cos(t), radius + 0.58 * radius * np.sin(t)) for t in turn], y + 0.012, "hub", True)

    def block(self, x0: float, x1: float, y: float, z0: float, z1: float, material: str) -> None:
        """A plain box."""
        self.across((x0, z0), (x0, z1), y, y, material, "rear")
        self.across((x1, z0), (x1, z1), y, y, material, "front")
        self.across((x0, z1), (x1, z1), y, y, material, "top")
        self.both([(x0, z0), (x0, z1), (x1, z1), (x1, z0)], y, material)

    def mesh(self, class_name: str, size: Point, coarse: bool) -> Mesh:
        """Everything added so far; ``coarse`` leaves most decals out."""
        faces = [f for f in self.faces if not (coarse and f[3] and f[1] not in ("glass", "tail"))]
        ends = np.cumsum([len(f[0]) for f in faces]).tolist()
        starts = [0, *ends[:-1]]
        following = np.arange(1, ends[-1] + 1)
        following[np.array(ends) - 1] = starts
        return Mesh(
            class_name, size, np.concatenate([f[0] for f in faces]).T.copy(), starts, ends, following, [f[1] for f in faces],
            [f[2] for f in faces], [f[3] for f in faces], [f[4] for f in faces], any(f[4] for f in faces),
        )  # fmt: skip


def _lerp(p: tuple[float, float], q: tuple[float, float], t: float) -> tuple[float, float]:
    """The point at share ``t`` of the way from ``p`` to ``q``."""
    return p[0] + (q[0] - p[0]) * t, p[1] + (q[1] - p[1]) * t


def _tyres(b: _Builder, xs: tuple[float, float], y: float, radius: float) -> None:
    """The tyres' tread, seen from behind and before under the body."""
    for sign in (-1, 1):
        b.add(
            [(xs[0], sign * y, 0), (xs[0], sign * (y - 0.24), 0), (xs[0], sign * (y - 0.24), radius), (xs[0], sign * y, radius)],
            "tyre",
            "rear",
        )
        b.add(
            [(xs[1], sign * y, 0), (xs[1], sign * (y - 0.24), 0), (xs[1], sign * (y - 0.24), radius), (xs[1], sign * y, radius)],
            "tyre",
            "front",
        )


def _car(name: str, coarse: bool) -> Mesh:
    cls, length, width, height, belt, r0, r1, f1, f0, hood = CARS[name]
    b = _Builder()
    y, top = width / 2, width / 2 * 0.76
    zb, zh, z0, zm = belt * height, hood * height, 0.2, 0.36 * height
    rear, front = -length / 2, length / 2
    xr, rr, rf, xf = (s * length for s in (r0, r1, f1, f0))
    yb = y * 0.95
    _tyres(b, (rear + 0.3, front - 0.3), y - 0.02, 0.3)
    b.across((rear + 0.25, 0.12), (rear + 0.25, z0 + 0.1), y * 0.9, y * 0.9, "dark", "rear")
    b.across((front - 0.25, 0.12), (front - 0.25, z0 + 0.1), y * 0.9, y * 0.9, "dark", "front")
    house = [(xr, zb), (rr, height), (rf, height), (xf, zb)]
    b.across((xr, zb), (rr, height), yb, top, "body", "rear")
    g0, g1 = 0.1, 0.88
    b.across(_lerp(house[0], house[1], g0), _lerp(house[0], house[1], g1), yb * 0.88, top * 0.93, "glass", "rear", True)
    b.across(_lerp(house[0], house[1], g0), _lerp(house[0], house[1], 0.45), yb * 0.88, yb * 0.86, "inside", "rear", True)
    b.across((rf, height), (xf, zb), top, yb, "body", "front")
    b.across(_lerp(house[3], house[2], g0), _lerp(house[3], house[2], g1), yb * 0.92, top * 0.95, "glass", "front", True)
    b.across(_lerp(house[3], house[2], g0), _lerp(house[3], house[2], 0.4), yb * 0.92, yb * 0.9, "inside", "front", True)
    b.across((rr, height), (rf, height), top, top, "roof", "top")
    b.both(house, [yb, top, top, yb], "body")
    middle = 0.5 * (rr + rf) + 0.1
    for a, c in ((0.0, middle - 0.06), (middle + 0.06, 0.0)):
        low0, low1 = (xr + 0.16 * (rr - xr) + 0.12, c) if c and not a else (a, xf - 0.2 * (xf - rf) - 0.05)
        top0, top1 = (rr + 0.1, c) if c and not a else (a, rf - 0.06)
        yl, yt = yb - 0.1 * (yb - top) + 0.006, top + 0.13 * (yb - top) + 0.006
        pane = [(low0, zb + 0.03), (top0, height - 0.09), (top1, height - 0.09), (low1, zb + 0.03)]
        b.both(pane, [yl, yt, yt, yl], "glass", True)
    nose = front - 0.09
    if name == "pickup":
        b.across((rear, zb), (xr, zb), y * 0.9, y * 0.9, "dark", "top")
    else:
        b.across((rear + 0.03, zb * 0.98), (xr, zb), y * 0.94, yb, "body", "top")
    b.across((xf, zb), (nose, zh), yb, y * 0.94, "body", "top")
    lower = [
        (rear + 0.04, z0),
        (rear, zm),
        (rear + 0.03, zb * 0.98),
        (xr, zb),
        (xf, zb),
        (nose, zh),
        (front, zm),
        (front - 0.05, z0),
    ]
    plan = [y * 0.93, y * 0.93, y * 0.94, y, y, y * 0.93, y * 0.9, y * 0.9]
    b.both(lower, plan, "body")
    b.both(
        [(rear + 0.12, z0 + 0.1), (rear + 0.1, zm), (front - 0.16, zm * 0.96), (front - 0.14, z0 + 0.1)], y + 0.001, "lower", True
    )
    b.both([(rear + 0.04, z0), (rear + 0.03, z0 + 0.13), (front - 0.04, z0 + 0.13), (front - 0.05, z0)], y + 0.002, "trim", True)
    b.across((rear, zm), (rear + 0.03, zb * 0.98), y * 0.93, y * 0.94, "body", "rear")
    b.across((rear + 0.04, z0), (rear, zm), y * 0.93, y * 0.93, "bumper", "rear")
    b.across((front, zm), (nose, zh), y * 0.9, y * 0.93, "body", "front")
    b.across((front - 0.05, z0), (front, zm), y * 0.9, y * 0.9, "bumper", "front")
    tall = name in ("van", "minivan", "suv", "hatch")
    lamp0, lamp1 = (zm + 0.2, zb + 0.02) if tall else (zm + 0.1, zb - 0.1)
    for sign in (-1, 1):
        inner = 0.74 if tall else 0.52
        b.patch(rear - 0.01, sign * y * 0.92, sign * y * inner, lamp0, lamp1, "tail", "rear")
        b.patch(front + 0.01, sign * y * 0.88, sign * y * 0.58, zh - 0.21, zh - 0.08, "head", "front")
    b.patch(rear - 0.012, -0.27, 0.27, zm - (0.02 if tall else 0.2), zm + (0.12 if tall else -0.06), "plate", "rear")
    b.patch(front + 0.01, -y * 0.5, y * 0.5, zm - 0.08, zh - 0.1, "dark", "front")
    b.patch(front + 0.012, -0.26, 0.26, zm - 0.26, zm - 0.13, "plate", "front")
    b.wheel(-0.29 * length, y, 0.33)
    b.wheel(0.315 * length, y, 0.33)
    return b.mesh(cls, (length, width, height), coarse)


def _truck(name: str, coarse: bool) -> Mesh:
    cls, length, width, height = TRUCKS[name]
    b = _Builder()
    y, rear, front = width / 2, -length / 2, length / 2
    cab = 2.1
    cab_height = 2.6 if name != "semi" else 3.2
    box_floor = 1.05
    gap = 0.25 if name == "box_truck" else 0.8
    _tyres(b, (rear + 0.8, front - 0.9), y - 0.05, 0.9)
    b.block(rear + 0.3, front - 0.2, y * 0.75, 0.55, box_floor, "dark")
    b.part = 1
    b.block(rear, front - cab - gap, y, box_floor, height, "box")
    x1, z1, z2 = front - cab - gap - 1.0, box_floor + 0.6, height - 0.6
    b.both([(rear + 1.2, z1), (rear + 1.2, z2), (x1, z2), (x1, z1)], y + 0.01, "livery", True)
    b.patch(rear - 0.01, -0.03, 0.03, box_floor, height, "trim", "rear")
    for sign in (-1, 1):
        b.patch(rear - 0.012, sign * y, sign * (y - 0.07), box_floor, height, "trim", "rear")
        b.patch(rear - 0.02, sign * y * 0.95, sign * y * 0.72, 0.78, 1.0, "tail", "rear")
        b.patch(rear - 0.02, sign * y * 0.98, sign * y * 0.45, 0.25, 0.85, "tyre", "rear")
    b.patch(rear - 0.015, -y, y, height - 0.12, height, "trim", "rear")
    b.patch(rear - 0.022, -0.27, 0.27, 0.8, 0.95, "plate", "rear")
    b.patch(rear - 0.02, -y * 0.95, y * 0.95, 0.5, 0.6, "trim", "rear")
    for x in (rear + 1.2, rear + 2.5) if name != "box_truck" else (rear + 1.5,):
        b.wheel(x, y - 0.03, 0.5)
    b.part = 2
    x0 = front - cab
    b.block(x0, front, y * 0.97, 0.45, cab_height, "body")
    b.patch(front + 0.01, -y * 0.88, y * 0.88, cab_height * 0.52, cab_height - 0.35, "glass", "front")
    b.patch(front + 0.01, -y * 0.5, y * 0.5, 0.8, cab_height * 0.45, "dark", "front")
    for sign in (-1, 1):
        b.patch(front + 0.012, sign * y * 0.93, sign * y * 0.66, 0.6, 0.85, "head", "front")
    z1, z2 = cab_height * 0.52, cab_height - 0.4
    b.both([(x0 + 0.9, z1), (x0 + 0.9, z2), (front - 0.15, z2), (front - 0.05, z1)], y * 0.97 + 0.01, "glass", True)
    b.wheel(front - 1.1, y * 0.97, 0.5)
    return b.mesh(cls, (length, width, height), coarse)


def _bus(name: str, coarse: bool) -> Mesh:
    cls, length, width, height = BUSES[name]
    b = _Builder()
    y, rear, front = width / 2, -length / 2, length / 2
    low = 1.0 if name == "bus" else 1.5
    _tyres(b, (rear + 1.5, front - 1.5), y - 0.05, 0.5)
    b.block(rear, front, y, 0.35, height, "body")
    b.both([(rear, 0.35), (rear, 0.8), (front, 0.8), (front, 0.35)], y + 0.004, "livery", True)
    count = 6
    span = (length - 1.0) / count
    for i in range(count):
        x = rear + 0.5 + i * span
        b.both(
            [(x + 0.08, low), (x + 0.08, height - 0.45), (x + span - 0.08, height - 0.45), (x + span - 0.08, low)],
            y + 0.01,
            "glass",
            True,
        )
    b.patch(rear - 0.01, -y * 0.85, y * 0.85, height * 0.55, height - 0.5, "glass", "rear")
    b.patch(rear - 0.01, -y * 0.7, y * 0.7, 0.9, height * 0.46, "livery", "rear")
    b.patch(rear - 0.02, -0.27, 0.27, 0.6, 0.75, "plate", "rear")
    b.patch(front + 0.01, -y * 0.92, y * 0.92, height * 0.36, height - 0.55, "glass", "front")
    b.patch(front + 0.015, -y * 0.6, y * 0.6, height - 0.45, height - 0.15, "sign", "front")
    for sign in (-1, 1):
        b.patch(rear - 0.02, sign * y * 0.97, sign * y * 0.8, 0.75, 1.25, "tail", "rear")
        b.patch(front + 0.012, sign * y * 0.93, sign * y * 0.66, 0.6, 0.85, "head", "front")
    b.wheel(rear + 2.6, y, 0.48)
    b.wheel(front - 2.6, y, 0.48)
    return b.mesh(cls, (length, width, height), coarse)


@lru_cache(maxsize=64)
def mesh(name: str, coarse: bool = False) -> Mesh:
    """The mesh of one of `MODELS`; ``coarse`` for one of a few pixels."""
    build = _car if name in CARS else _truck if name in TRUCKS else _bus
    return build(name, coarse)


def visible(shape: Mesh, u: F64, v: F64, ahead: float, least_px2: float = 0.0) -> list[int]:
    """Faces that show, in drawing order.

    Args:
        shape: the mesh; u, v: its points on the picture.
        ahead: positive when it is seen from behind: then a truck's cab comes before its box.
        least_px2: faces below this area are left out.
    """
    doubled = np.add.reduceat(u * v[shape.following] - u[shape.following] * v, shape.starts)
    order: list[int] = (doubled < -2 * least_px2).nonzero()[0].tolist()
    if shape.parts and ahead > 0:
        order.sort(key=lambda i: (shape.part[i] != 0, -shape.part[i]))
    return order
