"""More of what is rare, for training: people, riders, big vehicles, obstacles and signs; what is added has each class alike.

A plain scene has two signs and two people, mostly far off; a model needs thousands of each class, near and far, before it
reads their places. Distances are spread evenly in their logarithm, so that every size in the picture is as common as another.
"""

from __future__ import annotations

import math

from training.datasets.world import furniture, meshes, populate, signs
from training.datasets.world.dice import Dice, pick
from training.datasets.world.road import Road
from training.datasets.world.things import Thing

_MODELS = (tuple(meshes.CARS), tuple(meshes.TRUCKS), tuple(meshes.BUSES))
_FACES: dict[str, list[str]] = {}
for _name, _color in signs.FACES:
    _FACES.setdefault(_name, []).append(_color)


def crowd(rng: Dice, road: Road, length_m: float, things: list[Thing]) -> list[Thing]:
    """What comes on top of the ``things`` of a plain scene."""
    found: list[Thing] = []
    for _ in range(rng.poisson(1.5)):
        found += _vehicle(rng, road, things + found)
    for _ in range(rng.poisson(1.2)):
        direction = pick(rng, [1.0, -1.0])
        heading = 0.0 if direction > 0 else math.pi
        found.append(populate.rider(rng, _distance(rng, 6, 50), _across(rng, road), direction * 5.0, heading))
    for _ in range(rng.poisson(2.0)):
        found += _people(rng, road)
    if rng.random() < 0.4:
        found += furniture.place_obstacles(rng, road, length_m)
    for _ in range(rng.poisson(5.0)):
        found.append(_sign(rng, road))
    for number, thing in enumerate(found, len(things)):
        thing.track = number
    return found


def _distance(rng: Dice, near_m: float, far_m: float) -> float:
    return near_m * (far_m / near_m) ** rng.random()


def _across(rng: Dice, road: Road) -> float:
    """An offset on the road or up to 3 m beside it."""
    return rng.uniform(road.outer_right_d - 3.0, road.outer_left_d + 3.0)


def _vehicle(rng: Dice, road: Road, there: list[Thing]) -> list[Thing]:
    """One in a lane, where no other stands."""
    lane, direction = pick(rng, list(zip(road.lane_d, road.lane_dir, strict=True)))
    s, d = _distance(rng, 9, 90), lane + rng.normal(0, 0.2)
    heading = 0.0 if direction > 0 else math.pi
    new = populate.vehicle(rng, s, d, pick(rng, [0.0, 12.0]), heading, pick(rng, pick(rng, _MODELS)))
    room = [(t.size_m[0] + new.size_m[0]) / 2 + 1.0 for t in there]
    if any(abs(t.s - s) < m and abs(t.d - d) < 2.6 for t, m in zip(there, room, strict=True) if t.art == "vehicle"):
        return []
    return [new]


def _people(rng: Dice, road: Road) -> list[Thing]:
    """One to three side by side."""
    s, d = _distance(rng, 4.5, 45), _across(rng, road)
    step = rng.uniform(0.5, 1.1)
    return [
        populate.person(rng, s + rng.normal(0, 0.6), d + step * i, pick(rng, [-1.3, 0.0, 1.2]), pick(rng, [-1.2, 0.0, 1.2]))
        for i in range(pick(rng, [1, 2, 3], [0.65, 0.25, 0.1]))
    ]


def _sign(rng: Dice, road: Road) -> Thing:
    """Beside the road, or a light above it."""
    name = pick(rng, list(_FACES))
    color = pick(rng, _FACES[name])
    s = _distance(rng, 6.0, 60.0)
    if name == "traffic_light" and rng.random() < 0.4:
        return furniture.sign(rng, name, color, s, rng.uniform(road.outer_right_d, road.outer_left_d), rng.uniform(4.5, 5.5), 1.1)
    side = pick(rng, [-1.0, 1.0])
    edge = road.outer_right_d if side < 0 else road.outer_left_d
    width, _ = signs.FACES[(name, color)]
    return furniture.sign(
        rng, name, color, s, edge + side * (rng.uniform(0.2, 3.0) + width / 2), rng.uniform(1.0, 3.2), rng.uniform(0.85, 1.3)
    )
