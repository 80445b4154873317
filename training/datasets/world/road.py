"""The road: a centre line with curvature and slope, and a cross-section in ``(s, d)``: metres along, metres to the left."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from training.datasets.world.dice import Dice

F64 = npt.NDArray[np.float64]
STEP_M = 2.0
Knots = tuple[tuple[float, ...], tuple[float, ...]]  # s values, d values


def constant(d: float) -> Knots:
    """A lateral offset that does not change along the road."""
    return ((0.0,), (d,))


@dataclass(slots=True)
class Line:
    """One painted line.

    Attributes:
        kind: ``solid``, ``dashed`` or ``double``; ``color``: ``white`` or ``yellow``.
        offset: ``d`` as knots over ``s``; from ``start_m`` to ``end_m``.
        paint: 0..1, how much paint is left; below 0.2 nobody would label it.
        dash_m, period_m, phase_m: dashes (a row of studs is a very short dash).
        partner_dashed: of a double line, the second stripe is dashed.
    """

    kind: str
    color: str
    offset: Knots
    start_m: float = -1e9
    end_m: float = 1e9
    width_m: float = 0.14
    paint: float = 1.0
    dash_m: float = 3.0
    period_m: float = 9.0
    phase_m: float = 0.0
    partner_dashed: bool = False

    def at(self, s: F64) -> F64:
        """``d`` at ``s``, metres."""
        knots, offsets = self.offset
        return np.full(len(s), offsets[0]) if len(knots) == 1 else np.asarray(np.interp(s, knots, offsets), dtype=np.float64)


@dataclass(slots=True)
class Band:
    """A strip of one material between two offsets: ``road``, ``shoulder``, ``pavement``, ``grass``, ``dirt``, ``median``."""

    left: Knots
    right: Knots
    material: str


@dataclass(slots=True)
class Junction:
    """A side road crossing at ``s_m``: ``width_m`` along the road; arms to the left and right."""

    s_m: float
    width_m: float
    left: bool
    right: bool

    @property
    def span(self) -> tuple[float, float]:
        """First and last ``s`` of the open area."""
        return self.s_m - self.width_m / 2, self.s_m + self.width_m / 2


@dataclass(slots=True)
class Road:
    """Everything flat: shape, cross-section, lines, crossings.

    Attributes:
        kind: ``highway``, ``rural``, ``urban``, ``residential``, ``unpaved``.
        s, x, y, z, theta: centre line samples every `STEP_M`, world frame, metres and radians.
        lane_d: centres of the lanes; ``lane_dir`` +1 with ego, -1 against.
        ego_d: centre of the ego lane.
        edges: left and right edge of the drivable carriageway that ego is on.
        crossings: ``(s, length_m)`` zebra crossings; stop_lines: ``s`` and d range; arrows: ``(s, d, kind)``.
    """

    kind: str
    s: F64
    x: F64
    y: F64
    z: F64
    theta: F64
    lane_width_m: float = 3.5
    lane_d: list[float] = field(default_factory=list)
    lane_dir: list[int] = field(default_factory=list)
    ego_d: float = 0.0
    edges: tuple[Knots, Knots] = (constant(1.75), constant(-1.75))
    other: tuple[Knots, Knots] | None = None
    bands: list[Band] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    junctions: list[Junction] = field(default_factory=list)
    crossings: list[tuple[float, float]] = field(default_factory=list)
    stop_lines: list[tuple[float, float, float]] = field(default_factory=list)
    arrows: list[tuple[float, float, str]] = field(default_factory=list)
    outer_left_d: float = 6.0
    outer_right_d: float = -6.0
    concrete: bool = False
    seams: bool = False
    side: float = 1.0  # +1 drives on the right, -1 on the left

    @property
    def end_m(self) -> float:
        """Last sampled ``s``."""
        return float(self.s[-1])

    def in_junction(self, s: float, margin: float) -> bool:
        """Whether ``s`` lies in a junction or less than ``margin`` metres from one."""
        return any(j.span[0] - margin < s < j.span[1] + margin for j in self.junctions)

    def verge_d(self, side: float) -> float:
        """Where open country begins on a side (+1 left, -1 right): beyond the other carriageway if that lies there."""
        if self.other is not None and self.other[0][1][0] * side > 0:
            return side * (max(abs(self.other[0][1][0]), abs(self.other[1][1][0])) + 3.0)
        return self.outer_left_d if side > 0 else self.outer_right_d

    def pose(self, s: float, d: float = 0.0) -> tuple[float, float, float, float, float]:
        """World ``x, y, z``, heading and slope at ``(s, d)``."""
        theta = float(np.interp(s, self.s, self.theta))
        x = float(np.interp(s, self.s, self.x)) - d * np.sin(theta)
        y = float(np.interp(s, self.s, self.y)) + d * np.cos(theta)
        z, ahead = np.interp([s, s + 1.0], self.s, self.z)
        return x, y, float(z), theta, float(ahead - z)


def mirror(road: Road) -> None:
    """Turn right-hand traffic into left-hand traffic, in place."""

    def flip(knots: Knots) -> Knots:
        return knots[0], tuple(-d for d in knots[1])

    road.side = -road.side
    road.lane_d = [-d for d in road.lane_d]
    road.edges = (flip(road.edges[1]), flip(road.edges[0]))
    road.other = (flip(road.other[1]), flip(road.other[0])) if road.other else None
    road.outer_left_d, road.outer_right_d = -road.outer_right_d, -road.outer_left_d
    for band in road.bands:
        band.left, band.right = flip(band.right), flip(band.left)
    for line in road.lines:
        line.offset = flip(line.offset)
    for junction in road.junctions:
        junction.left, junction.right = junction.right, junction.left
    road.stop_lines = [(s, -low, -high) for s, high, low in road.stop_lines]
    road.arrows = [(s, -d, {"left": "right", "right": "left"}.get(kind, kind)) for s, d, kind in road.arrows]


def shape(rng: Dice, kind: str, length_m: float) -> Road:
    """A centre line from ``s = -40`` m: curvature runs linearly between random values (clothoids), slope likewise."""
    s = np.arange(-40.0, length_m + STEP_M, STEP_M)
    bend = {"highway": 0.0016, "rural": 0.005, "urban": 0.0022, "residential": 0.005, "unpaved": 0.008}[kind]
    knots = np.arange(-40.0, length_m + 120.0, rng.uniform(60, 140))
    straight = rng.random(len(knots)) < 0.4
    kappa = np.interp(s, knots, np.where(straight, 0.0, rng.generator.normal(0, bend, len(knots))))
    hill = {"highway": 0.018, "rural": 0.035, "urban": 0.014, "residential": 0.025, "unpaved": 0.04}[kind]
    knots = np.arange(-40.0, length_m + 160.0, rng.uniform(70, 180))
    flat = rng.random() < 0.45
    slope = np.zeros(len(s))
    if not flat:
        slope = np.interp(s, knots, rng.generator.normal(0, hill, len(knots)))
        slope = np.convolve(np.concatenate([np.full(10, slope[0]), slope, np.full(10, slope[-1])]), np.full(21, 1 / 21), "valid")
    theta = np.cumsum(kappa) * STEP_M
    return Road(
        kind=kind, s=s, theta=theta,
        x=np.cumsum(np.cos(theta)) * STEP_M, y=np.cumsum(np.sin(theta)) * STEP_M, z=np.cumsum(slope) * STEP_M,
    )  # fmt: skip
