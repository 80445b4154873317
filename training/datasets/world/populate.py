"""Puts traffic, people, obstacles, signs and scenery on a road."""

from __future__ import annotations

import numpy as np

from training.datasets.world import furniture, meshes, sprites
from training.datasets.world.dice import Dice, clamp, pick
from training.datasets.world.look import Look
from training.datasets.world.road import Road
from training.datasets.world.things import Thing

Rng = Dice
_DENSITY = (0.0, 0.35, 1.0, 2.2)
_MODEL_ODDS = (0.2, 0.15, 0.09, 0.19, 0.07, 0.07, 0.06, 0.06, 0.05, 0.01, 0.03, 0.02)


def populate(rng: Rng, road: Road, look: Look, length_m: float) -> list[Thing]:
    """All things between the camera and ``length_m`` ahead, at time 0."""
    things = traffic(rng, road, length_m)
    if road.kind in ("urban", "residential"):
        things += _town(rng, road, length_m)
    else:
        things += _country(rng, road, length_m)
    things += furniture.place_signs(rng, road, length_m)
    if rng.random() < 0.24:
        things += furniture.place_obstacles(rng, road, length_m)
    things += _masts(rng, road, length_m)
    for number, thing in enumerate(things):
        thing.track = number
    return things


def vehicle(rng: Rng, s: float, d: float, speed: float, heading: float, model: str = "") -> Thing:
    """A vehicle of one of `meshes.MODELS`, by their usual shares unless told."""
    name = model or pick(rng, meshes.MODELS, _MODEL_ODDS)
    mesh = meshes.mesh(name)
    scale = rng.uniform(0.93, 1.06)
    return Thing(
        "vehicle", s, d, tuple(v * scale for v in mesh.size_m), mesh.class_name, model=name, scale=scale,  # type: ignore[arg-type]
        heading=heading, speed=speed, seed=rng.integers(1 << 31), braking=rng.random() < 0.25,
    )  # fmt: skip


def traffic(rng: Rng, road: Road, length_m: float) -> list[Thing]:
    """Moving vehicles and two-wheelers in every lane, without overlaps; parked cars are the town's."""
    found: list[Thing] = []
    density = pick(rng, _DENSITY, [0.12, 0.33, 0.35, 0.2])
    base = {"highway": 24.0, "rural": 19.0, "urban": 9.0, "residential": 7.0, "unpaved": 8.0}[road.kind]
    if density > 2:
        base *= 0.45
    for lane, direction in zip(road.lane_d, road.lane_dir, strict=True):
        if density == 0:
            break
        headway = max(rng.uniform(28, 75) / density, 11.0)
        speed = base * rng.uniform(0.85, 1.15)
        s = rng.uniform(-25, 20)
        ego_lane = direction > 0 and abs(lane) < 0.5
        if ego_lane:
            s = rng.uniform(8, 45) / max(density, 0.7) + 6
        while s < length_m:
            start, stop = (-1e9, 1e9)
            if direction in (2, 3) and len(road.edges[1][0]) > 1:
                start, stop = (road.edges[1][0][1], 1e9) if direction == 2 else (-1e9, road.edges[1][0][0])
            if start <= s <= stop:
                sign = 1 if direction > 0 else -1
                d = lane + rng.normal(0, 0.18)
                heading = (0.0 if sign > 0 else np.pi) + rng.normal(0, 0.015)
                if rng.random() < (0.22 if road.kind in ("urban", "residential") else 0.05):
                    d += rng.uniform(-0.9, 0.9)
                    found.append(rider(rng, s, d, sign * speed * 0.7, heading))
                else:
                    found.append(vehicle(rng, s, d, sign * speed, heading))
                s += found[-1].size_m[0]
            s += headway * rng.uniform(0.35, 1.8) + 3.0
    return found


def rider(rng: Rng, s: float, d: float, speed: float, heading: float) -> Thing:
    """Someone on two wheels."""
    index = rng.integers(sprites.RIDERS)
    index -= index % 3 == 0  # riding along the road: seen from behind or before
    return Thing("rider", s, d, (1.8, 1.25, 1.72), "two_wheeler", index=max(index, 1), heading=heading, speed=speed)


def _town(rng: Rng, road: Road, length_m: float) -> list[Thing]:
    found: list[Thing] = []
    parked = rng.random() < 0.7
    for band in road.bands:
        side = 1.0 if band.left[1][0] > 0 else -1.0
        inner = band.right[1][0] if side > 0 else band.left[1][0]
        outer = band.left[1][0] if side > 0 else band.right[1][0]
        if band.material == "parking" and parked:
            s = rng.uniform(-8, 10)
            while s < min(length_m, length_m):
                car = vehicle(rng, s, (inner + outer) / 2 + rng.normal(0, 0.08), 0.0, 0.0 if rng.random() < 0.7 else np.pi)
                if car.size_m[0] < 6 and not road.in_junction(s, 6):
                    found.append(car)
                s += 5.2 + rng.exponential(4.0)
        if band.material in ("pavement", "grass", "dry", "dirt"):
            for _ in range(rng.poisson(length_m / 45 * (1.5 if road.kind == "urban" else 0.5))):
                s, d = (
                    rng.uniform(4, min(length_m, 90 if length_m < 400 else length_m)),
                    rng.uniform(min(inner, outer) + 0.3, max(inner, outer) - 0.2),
                )
                found.append(person(rng, s, d, pick(rng, [-1.3, 1.2, 0.0])))
            found += _fronts(rng, road, side, outer, length_m)
    for s0, length in road.crossings:
        for _ in range(rng.poisson(0.8)):
            d = rng.uniform(road.edges[1][1][0] - 1, road.edges[0][1][0] + 1)
            found.append(person(rng, s0 + rng.uniform(0.3, length), d, 0.0, pick(rng, [-1.2, 1.2])))
    if rng.random() < 0.08:
        found.append(person(rng, rng.uniform(9, 40), rng.uniform(-3, 3), 0.0, pick(rng, [-1.2, 1.2])))
    for junction in road.junctions:
        for _ in range(rng.poisson(0.7)):
            side = pick(rng, [-1.0, 1.0])
            car = vehicle(rng, junction.s_m + rng.uniform(-2, 2), side * rng.uniform(1, 18), 0.0, side * np.pi / 2)
            if car.size_m[0] < 6:
                found.append(car)
    return found


def person(rng: Rng, s: float, d: float, speed: float, drift: float = 0.0) -> Thing:
    """Someone on foot."""
    height = clamp(rng.normal(1.7, 0.1), 1.1, 1.95)
    return Thing("person", s, d, (0.5, 0.5 * height, height), "pedestrian", index=rng.integers(sprites.PEOPLE), speed=speed,
                 drift=drift, flip=rng.random() < 0.5)  # fmt: skip


def _fronts(rng: Rng, road: Road, side: float, outer: float, length_m: float) -> list[Thing]:
    """Houses, garden walls and street trees behind a pavement."""
    found: list[Thing] = []
    close = rng.uniform(0.0, 1.5) if road.kind == "urban" else rng.uniform(3, 9)
    built = pick(rng, [0.95, 0.6, 0.2], [0.5, 0.3, 0.2])
    s = rng.uniform(-10, 5)
    while s < min(length_m, 130 if length_m < 400 else length_m):
        width = rng.uniform(9, 26)
        if not road.in_junction(s + width / 2, width / 2 + 1):
            if rng.random() < built:
                height = rng.uniform(6, 15) * (1.7 if rng.random() < 0.12 else 1.0)
                found.append(Thing("building", s + width / 2, outer + side * (close + rng.uniform(0, 0.6)),
                                   (width, rng.uniform(8, 14), height), index=rng.integers(32)))  # fmt: skip
            else:
                found += [_tree(rng, s + rng.uniform(0, width), outer + side * rng.uniform(1, 9)) for _ in range(2)]
        s += width + (rng.uniform(0, 8) if rng.random() < 0.4 else 0.0)
    if rng.random() < 0.35:
        step = rng.uniform(9, 18)
        for s in np.arange(rng.uniform(4, 20), min(length_m, 120), step):
            found.append(_tree(rng, float(s), outer - side * 0.9, 0.8))
    return found


def _tree(rng: Rng, s: float, d: float, scale: float = 1.0) -> Thing:
    if rng.random() < 0.22:
        h = rng.uniform(0.8, 2.2)
        return Thing("bush", s, d, (1.0, h * 1.7, h), index=rng.integers(sprites.BUSHES), flip=rng.random() < 0.5)
    height = rng.uniform(5, 13) * scale
    return Thing("tree", s, d, (1.0, height * 0.75, height), index=rng.integers(sprites.TREES), flip=rng.random() < 0.5)


def _country(rng: Rng, road: Road, length_m: float) -> list[Thing]:
    found: list[Thing] = []
    highway = road.kind == "highway"
    density = pick(rng, [2, 8, 15, 24], [0.2, 0.35, 0.3, 0.15]) * length_m / 260
    for side, edge in ((1.0, road.outer_left_d), (-1.0, road.outer_right_d)):
        base = road.verge_d(side)
        other = base != edge
        setback = rng.uniform(2.0, 9.0) if not highway else rng.uniform(4.0, 14.0)
        for _ in range(rng.poisson(density)):
            found.append(_tree(rng, rng.uniform(5, length_m), base + side * (setback + abs(rng.normal(0, 9)))))
        for _ in range(rng.poisson(density * 0.15)):
            s = rng.uniform(25, length_m)
            found.append(Thing("building", s, base + side * rng.uniform(14, 40), (rng.uniform(8, 30), 10.0,
                               rng.uniform(3.5, 9)), index=rng.integers(32)))  # fmt: skip
        odds = [0.12, 0.6, 0.28, 0.0] if other else [0.41, 0.2, 0.25, 0.14]
        style = pick(rng, ["none", "wall", "rail", "fence"], odds)
        if style != "none":
            height = {"wall": rng.uniform(0.8, 1.1), "rail": 0.75, "fence": rng.uniform(1.1, 2.2)}[style]
            grey = rng.uniform(110, 190)
            color = {"wall": (grey, grey * 1.01, grey * 1.02), "rail": (165.0, 168.0, 170.0), "fence": (95.0, 100.0, 105.0)}[
                style
            ]
            if style == "wall" and not other and highway and rng.random() < 0.3:
                height = rng.uniform(2.5, 4.5)
            found += _row(style, road, edge + side * rng.uniform(0.2, 0.8), height, color, length_m)
    if rng.random() < (0.2 if highway else 0.06):
        grey = rng.uniform(95, 165)
        size = (rng.uniform(9, 24), 0.0, rng.uniform(1.2, 2.4))
        found.append(Thing("bridge", rng.uniform(25, 160), 0.0, size, color=(grey, grey, grey)))
    return found


def _row(style: str, road: Road, d: float, height: float, color: tuple[float, ...], length_m: float) -> list[Thing]:
    """Pieces of a barrier, longer far away, so that each has one depth."""
    found, s = [], -6.0
    while s < length_m:
        length = min(max(s * 0.2, 5.0), 28.0) if length_m < 400 else 8.0
        if not road.in_junction(s + length / 2, length / 2 + 2):
            found.append(Thing(style, s, d, (length, 0.2, height), color=color))  # type: ignore[arg-type]
        s += length
    return found


def _masts(rng: Rng, road: Road, length_m: float) -> list[Thing]:
    """Street lamps and utility poles in a row."""
    found: list[Thing] = []
    if rng.random() < 0.55:
        step, art = rng.uniform(22, 45), "lamp" if rng.random() < 0.7 or road.kind == "urban" else "mast"
        height, grey = rng.uniform(6, 10.5), rng.uniform(70, 150)
        sides = [(-1.0, road.outer_right_d)] if rng.random() < 0.6 else [(-1.0, road.outer_right_d), (1.0, road.outer_left_d)]
        for side, edge in sides:
            for s in np.arange(rng.uniform(3, step), min(length_m, 240 if length_m < 400 else length_m), step):
                if not road.in_junction(float(s), 1):
                    found.append(Thing(art, float(s), edge + side * 0.9, (0.2, -side * 2.0, height), color=(grey, grey, grey)))
    return found
