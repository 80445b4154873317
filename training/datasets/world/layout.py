"""Cross-sections: which lanes, lines, edges, shoulders, junctions and crossings a road has (right-hand traffic)."""

from __future__ import annotations

import numpy as np

from training.datasets.world.dice import Dice, clamp, pick
from training.datasets.world.road import Band, Junction, Knots, Line, Road, constant

Rng = Dice


def _dashes(rng: Rng, kind: str) -> tuple[float, float]:
    """Dash length and period, metres, of one of the usual national patterns."""
    highway = ((3.0, 12.0), (3.0, 9.0), (6.0, 18.0), (6.0, 15.0), (0.25, 7.3))
    town = ((3.0, 9.0), (2.0, 6.0), (1.5, 4.5), (3.0, 6.0), (4.0, 6.0))
    pool = highway if kind in ("highway", "rural") else town
    return pool[rng.integers(len(pool))]


def _line(rng: Rng, kind: str, color: str, offset: Knots, pattern: tuple[float, float], paint: float, width: float) -> Line:
    dash, period = pattern
    return Line(
        kind, color, offset, width_m=width, paint=clamp(paint + rng.normal(0, 0.08), 0.0, 1.0),
        dash_m=dash, period_m=period, phase_m=rng.uniform(0, period), partner_dashed=rng.random() < 0.3,
    )  # fmt: skip


def build(rng: Rng, road: Road, length_m: float) -> None:
    """Fill in the cross-section of ``road`` from ``rng``."""
    kind = road.kind
    road.concrete = kind == "highway" and rng.random() < 0.4
    road.seams = rng.random() < (0.8 if road.concrete else 0.12)
    width = {"highway": 3.65, "rural": 3.3, "urban": 3.2, "residential": 2.9, "unpaved": 2.7}[kind] + rng.normal(0, 0.15)
    road.lane_width_m = width
    if kind == "highway":
        ahead, oncoming = pick(rng, [2, 3, 4, 5], [0.3, 0.35, 0.25, 0.1]), 0
    elif kind == "urban":
        ahead = pick(rng, [1, 2, 3], [0.5, 0.35, 0.15])
        oncoming = 0 if rng.random() < 0.15 else int(np.clip(ahead + rng.integers(-1, 1), 1, 3))
    else:
        ahead, oncoming = 1, 1
    ego_lane = rng.integers(ahead)
    shift = width * (ego_lane + 0.5)  # puts d = 0 on the centre of the ego lane
    left, right = shift + oncoming * width, shift - ahead * width
    road.lane_d = [shift - (i + 0.5) * width for i in range(ahead)] + [shift + (i + 0.5) * width for i in range(oncoming)]
    road.lane_dir = [1] * ahead + [-1] * oncoming
    paint = pick(rng, [1.0, 0.85, 0.6, 0.4, 0.1], [0.42, 0.28, 0.16, 0.1, 0.04])
    if kind == "unpaved" or (kind == "residential" and rng.random() < 0.65):
        paint = 0.0
    line_width = rng.uniform(0.1, 0.2)
    right_knots = _ramp(rng, road, right, width, length_m) if kind == "highway" else constant(right)
    road.edges = (constant(left), right_knots)
    if paint > 0:
        _lines(rng, road, shift, left, right, right_knots, ahead, oncoming, paint, line_width)
    _sides(rng, road, left, right, right_knots)
    if kind in ("urban", "residential", "rural") and rng.random() < (0.65 if kind == "urban" else 0.3):
        _junction(rng, road, shift, left, right, paint)
    if kind in ("urban", "highway") and paint > 0 and rng.random() < 0.25:
        s0 = rng.uniform(8, 40)
        road.arrows = [(s0 + 0.5 * i, d, pick(rng, ["ahead", "left", "right"])) for i, d in enumerate(road.lane_d[:ahead])]


def _ramp(rng: Rng, road: Road, right: float, width: float, length_m: float) -> Knots:
    """Right edge of a highway: sometimes a lane begins (merge) or ends (exit) there."""
    if rng.random() > 0.3:
        return constant(right)
    s0, taper = rng.uniform(10, 140), rng.uniform(40, 90)
    road.lane_d.insert(0, right - width / 2)  # traffic may use it once it is there
    road.lane_dir.insert(0, 2 if rng.random() < 0.5 else 3)
    if road.lane_dir[0] == 2:
        return ((s0, s0 + taper), (right, right - width))
    return ((s0, s0 + taper), (right - width, right))


def _lines(
    rng: Rng, road: Road, shift: float, left: float, right: float, right_knots: Knots,
    ahead: int, oncoming: int, paint: float, line_width: float,
) -> None:  # fmt: skip
    """Paint between and beside the lanes."""
    kind, width = road.kind, road.lane_width_m
    pattern = _dashes(rng, kind)
    american = rng.random() < 0.55
    yellow = "yellow" if american else "white"
    add = road.lines.append
    for i in range(1, ahead):
        style = pick(rng, ["dashed", "solid", "double"], [0.86, 0.1, 0.04])
        add(_line(rng, style, "white", constant(shift - i * width), pattern, paint, line_width))
    for i in range(1, oncoming):
        add(_line(rng, "dashed", "white", constant(shift + i * width), pattern, paint, line_width))
    edge_odds = {"highway": 0.97, "rural": 0.75, "urban": 0.35}.get(kind, 0.15)
    if oncoming:
        style = pick(rng, ["dashed", "solid", "double"], [0.34, 0.2, 0.46])
        add(_line(rng, style, yellow if rng.random() < 0.9 else "yellow", constant(shift), pattern, paint, line_width))
        if rng.random() < edge_odds:
            add(_line(rng, "solid", "white", constant(left - 0.1), pattern, paint, line_width))
    elif rng.random() < max(edge_odds, 0.5):
        add(_line(rng, "double" if rng.random() < 0.08 else "solid", yellow, constant(left - 0.1), pattern, paint, line_width))
    if rng.random() < edge_odds:
        inset = (right_knots[0], tuple(d + 0.1 for d in right_knots[1]))
        add(_line(rng, "solid", "white", inset, pattern, paint, line_width))
    if len(right_knots[0]) > 1:
        merge = _line(
            rng, "dashed", "white", constant(right), (min(pattern[0], 2.0), min(pattern[1], 5.0)), paint, line_width * 1.3
        )
        s0, s1 = right_knots[0]
        merge.start_m, merge.end_m = (s0 + 20.0, 1e9) if right_knots[1][0] > right_knots[1][1] else (-1e9, s1 - 20.0)
        add(merge)


def _sides(rng: Rng, road: Road, left: float, right: float, right_knots: Knots) -> None:
    """Shoulders, pavements, verges and, on highways, the other carriageway."""
    kind = road.kind
    verge = pick(rng, ["grass", "dry", "dirt"], [0.5, 0.3, 0.2])

    def beyond(knots: Knots, distance: float) -> Knots:
        return knots[0], tuple(d + distance for d in knots[1])

    if kind == "highway":
        inner, outer = rng.uniform(0.4, 3.0), rng.uniform(0.8, 3.4)
        road.bands.append(Band(constant(left + inner), constant(left), "shoulder"))
        road.bands.append(Band(right_knots, beyond(right_knots, -outer), "shoulder"))
        road.outer_left_d, road.outer_right_d = (
            left + inner,
            right - outer - (road.lane_width_m if len(right_knots[0]) > 1 else 0),
        )
        if rng.random() < 0.75:
            gap = pick(rng, [1.0, 2.5, 9.0, 16.0], [0.35, 0.25, 0.25, 0.15])
            lanes = rng.integers(2, 5)
            near = left + inner + gap
            far = near + 1.0 + lanes * road.lane_width_m
            road.bands.insert(0, Band(constant(far + 2.5), constant(near), "shoulder"))
            road.other = (constant(far), constant(near + 1.0))
            road.lane_d += [near + 1.0 + (i + 0.5) * road.lane_width_m for i in range(lanes)]
            road.lane_dir += [-1] * lanes
            pattern = _dashes(rng, kind)
            for i in range(lanes + 1):
                style = "solid" if i in (0, lanes) else "dashed"
                road.lines.append(_line(rng, style, "white", constant(near + 1.0 + i * road.lane_width_m), pattern, 0.8, 0.14))
            if gap > 5:
                road.bands.append(Band(constant(near), constant(left + inner), verge))
    elif kind in ("urban", "residential"):
        parking = pick(rng, [0.0, 2.2]) if rng.random() < 0.6 else 0.0
        walk = rng.uniform(1.8, 5.0)
        if parking:
            road.bands += [Band(constant(left + parking), constant(left), "parking")]
            road.bands += [Band(constant(right), constant(right - parking), "parking")]
        road.outer_left_d, road.outer_right_d = left + parking, right - parking
        paved = "pavement" if kind == "urban" or rng.random() < 0.6 else verge
        road.bands.append(Band(constant(left + parking + walk), constant(left + parking), paved))
        road.bands.append(Band(constant(right - parking), constant(right - parking - walk), paved))
    else:
        soft = rng.uniform(0.2, 1.6)
        material = "shoulder" if rng.random() < 0.5 and kind == "rural" else "dirt"
        road.bands += [
            Band(constant(left + soft), constant(left), material),
            Band(constant(right), constant(right - soft), material),
        ]
        road.outer_left_d, road.outer_right_d = left + soft, right - soft


def _junction(rng: Rng, road: Road, shift: float, left: float, right: float, paint: float) -> None:
    """A crossing or a side road, perhaps with zebra crossings and a stop line; lane lines stop at it."""
    s = rng.uniform(14, 70)
    arms = rng.integers(1, 4)
    junction = Junction(s, rng.uniform(6, 14), bool(arms & 1), bool(arms & 2))
    road.junctions.append(junction)
    first, last = junction.span
    if paint > 0 and rng.random() < 0.55:
        road.crossings.append((first - 4.5, rng.uniform(2.5, 3.5)))
        if rng.random() < 0.5:
            road.crossings.append((last + 1.5, rng.uniform(2.5, 3.5)))
        road.stop_lines.append((first - 6.5, shift, right))
    elif paint > 0 and rng.random() < 0.5:
        road.stop_lines.append((first - 2.0, shift, right))
    cut = (first - 6.5 if road.crossings else first - 1.5, last + (6.0 if len(road.crossings) > 1 else 1.5))
    if arms == 3 or rng.random() < 0.4:
        after = []
        for line in road.lines:
            rest = Line(**{name: getattr(line, name) for name in Line.__dataclass_fields__})
            line.end_m, rest.start_m = cut[0], cut[1]
            after.append(rest)
        road.lines += after
