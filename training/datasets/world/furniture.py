"""Puts traffic signs, lights, gantries and static obstacles on a road."""

from __future__ import annotations

from training.datasets.world import obstacles, signs
from training.datasets.world.dice import Dice, pick
from training.datasets.world.road import Road
from training.datasets.world.things import Thing


def place_signs(rng: Dice, road: Road, length_m: float) -> list[Thing]:
    """Signs beside and above the road, and the lights of a junction."""
    found: list[Thing] = []
    names = list(signs.FACES)
    odds = [float(signs.ODDS[name]) for name in names]
    for i, (name, _) in enumerate(names):
        if name == "traffic_light" or (name in ("stop", "yield", "crosswalk") and road.kind == "highway"):
            odds[i] = 0
    for _ in range(rng.poisson(2.2 * max(length_m / 260, 1))):
        name, color = pick(rng, names, odds)
        side = -road.side if rng.random() < 0.85 else road.side
        edge = road.outer_right_d if side < 0 else road.outer_left_d
        s = rng.uniform(7, min(75.0, length_m)) if length_m < 400 else rng.uniform(7, length_m)
        width = signs.FACES[(name, color)][0]
        if name == "direction" and color != "white" and road.kind == "highway" and rng.random() < 0.45:
            found += _gantry(rng, road, s + 25, color)
            continue
        scale = rng.uniform(0.85, 1.15) * (1.25 if road.kind == "highway" else 1.0)
        found.append(
            sign(
                rng,
                name,
                color,
                s,
                edge + side * (rng.uniform(0.5, 2.2) + width * scale / 2),
                rng.uniform(1.5, 2.4),
                scale,
            )
        )
    for junction in road.junctions:
        if road.kind == "urban" and rng.random() < 0.6:
            lamp = pick(rng, ["red", "green", "yellow"], [0.45, 0.42, 0.13])
            s = junction.span[0] - 3.0
            for d, base in ((road.outer_right_d - 0.6, 2.3), (road.outer_left_d + 0.6, 2.3)):
                found.append(sign(rng, "traffic_light", lamp, s, d, base, 1.0))
            if rng.random() < 0.6:
                beyond = junction.span[1] + 2.0
                found.append(sign(rng, "traffic_light", lamp, beyond, rng.uniform(-2.5, 1), 5.0, 1.1))
    return found


def sign(rng: Dice, name: str, color: str, s: float, d: float, base: float, scale: float) -> Thing:
    """A sign or light whose lower edge is ``base`` metres above the ground."""
    width, height = signs.FACES[(name, color)]
    index = rng.integers(signs.VARIANTS)
    size, turn = (0.1, width * scale, height * scale), rng.normal(0, 0.12)
    return Thing("sign", s, d, size, name, color, index=index, base_m=base, heading=turn)


def _gantry(rng: Dice, road: Road, s: float, color: str) -> list[Thing]:
    left, right = road.edges[0][1][0] + 1.5, min(road.edges[1][1]) - 2.5
    found = [Thing("gantry", s + 0.3, (left + right) / 2, (0.5, left - right, 6.4), color=(135.0, 138.0, 140.0))]
    for _ in range(rng.integers(1, 4)):
        d = rng.uniform(right + 2, left - 2)
        if all(abs(d - other.d) > 4.6 for other in found[1:]):
            found.append(sign(rng, "direction", color, s, d, 5.4, 1.15))
    return found


def place_obstacles(rng: Dice, road: Road, length_m: float) -> list[Thing]:
    """Something static on or beside the own carriageway."""
    found: list[Thing] = []
    right, left = min(road.edges[1][1]), road.edges[0][1][0]
    s = rng.uniform(9, 50)
    kind = pick(rng, ["cone", "barrier", "debris", "fallen_tree", "works"], [0.24, 0.2, 0.2, 0.14, 0.22])

    def put(name: str, at_s: float, at_d: float, scale: float = 1.0) -> None:
        width, height = obstacles.SIZE_M[name]
        found.append(Thing("obstacle", at_s, at_d, (0.4, width * scale, height * scale), name, model=name,
                           index=rng.integers(obstacles.VARIANTS[name]), flip=rng.random() < 0.5))  # fmt: skip

    side = right if rng.random() < 0.7 else left
    toward = 1.0 if side == right else -1.0
    if kind == "debris":
        for _ in range(rng.integers(1, 3)):
            put("debris", s * 0.6 + rng.uniform(0, 4), rng.uniform(right, left), rng.uniform(0.9, 2.2))
    elif kind == "fallen_tree":
        put("fallen_tree", s, side + toward * rng.uniform(-1, 4), rng.uniform(0.7, 1.3))
    else:
        depth = rng.uniform(0.3, road.lane_width_m * 1.2)
        count = rng.integers(3, 10)
        for i in range(count):
            reach = min(1.0, i / max(count * 0.5, 1)) * depth
            put("cone" if kind != "barrier" else "barrier", s + i * rng.uniform(2.2, 3.4), side + toward * reach)
        if kind == "works":
            put("works", s + count * 3.0, side + toward * (depth * 0.5 - 0.6), rng.uniform(0.9, 1.2))
            if rng.random() < 0.6:
                put("barrier", s + count * 2.8, side + toward * depth * 0.4)
    for thing in found:
        thing.blockage = _blockage(thing, left, right)
    return found


def _blockage(thing: Thing, left: float, right: float) -> str:
    """How much of the carriageway ``right..left`` an obstacle takes: fully when no gap of 2.2 m is left beside it."""
    low, high = max(thing.d - thing.size_m[1] / 2, right), min(thing.d + thing.size_m[1] / 2, left)
    if high - low < 0.25:
        return "not_blocking"
    return "fully_blocking" if max(low - right, left - high) < 2.2 else "partly_blocking"
