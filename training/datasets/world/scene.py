"""One scene from a seed, and its picture with labels from any pose along the road."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from getok_drive.tokens.vocab import BOX_CLASSES
from training.datasets.world import (
    buildings,
    crowd,
    effects,
    flanks,
    ground,
    labels,
    layout,
    look,
    obstacles,
    paint,
    placing,
    populate,
    road,
    scenery,
    shadows,
    signs,
    sky,
    sprites,
    vehicles,
)
from training.datasets.world.camera import CAMERA_FORWARD_M, Camera, Rig
from training.datasets.world.canvas import (
    BRIDGE,
    BUILDING,
    FIRST_SCENERY_ID,
    FIRST_THING_ID,
    HOOD,
    NOBODY,
    POLE,
    ROAD,
    VEGETATION,
    WALL,
    Canvas,
    lighting,
)  # fmt: skip
from training.datasets.world.dice import Dice, clamp, pick
from training.datasets.world.kernels.lens import owners_seen
from training.datasets.world.things import Spot, Thing
from training.datasets.world.view import REACH_M, View
from training.samples import Sample

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
SEMANTIC = (
    "sky",
    "road",
    "lane_paint",
    "ground",
    "vehicle",
    "person",
    "obstacle",
    "sign",
    "pole",
    "building",
    "vegetation",
    "wall",
    "own_car",
)


@dataclass(slots=True)
class World:
    """Everything that a seed decides."""

    seed: int
    rig: Rig
    road: road.Road
    look: look.Look
    lens: effects.Lens
    things: list[Thing]
    layers: list[tuple[str, float, float, int]]
    flanks: list[flanks.Flank]
    ego_d: float
    ego_yaw: float
    crowded: bool


def create(seed: int, length_m: float = 200.0, crowded: bool = False) -> World:
    """The world of ``seed`` with ``length_m`` of road ahead, ``crowded`` with more of what is rare."""
    rng = Dice(seed, int(length_m))
    rig = Rig.sample(rng)
    kind = pick(rng, ["highway", "rural", "urban", "residential", "unpaved"], [0.42, 0.17, 0.28, 0.1, 0.03])
    way = road.shape(rng, kind, length_m + REACH_M)
    layout.build(rng, way, length_m)
    if rng.random() < 0.22:
        road.mirror(way)
    mood = look.sample(rng, kind)
    lens = effects.sample(rng, mood)
    things = populate.populate(rng, way, mood, length_m)
    if crowded:
        things += crowd.crowd(Dice(seed, int(length_m), 1), way, length_m, things)
    layers: list[tuple[str, float, float, int]] = []
    if rng.random() < 0.5:
        layers.append(("hill", rng.uniform(0.02, 0.12), 1500.0, rng.integers(4096)))
    if kind == "urban" and rng.random() < 0.6:
        layers.append(("town", rng.uniform(0.03, 0.09), 400.0, rng.integers(4096)))
    if rng.random() < 0.8:
        layers.append(("trees", rng.uniform(0.015, 0.07), 320.0, rng.integers(4096)))
    if rng.random() < 0.06:
        ego_d, ego_yaw = rng.uniform(-2, 2), rng.normal(0, 0.06)  # changing lanes
    else:
        ego_d, ego_yaw = clamp(rng.normal(0, 0.3), -0.8, 0.8), rng.normal(0, 0.01)
    things = [t for t in things if not (abs(t.d - ego_d) < 1.8 and -6 < t.s < 5.5 + t.size_m[0] / 2 and t.label in BOX_CLASSES)]
    beside = flanks.sample(rng, way)
    things = [
        t for t in things if not (t.art == "building" and any(f.d_m * t.d > 0 and abs(t.d) + 6 > abs(f.d_m) for f in beside))
    ]
    return World(seed, rig, way, mood, lens, things, layers, beside, ego_d, ego_yaw, crowded)


def picture(
    world: World, size_wh: tuple[int, int], masks: bool = False, *, s_m: float = 0.0, d_m: float | None = None,
    dyaw_rad: float | None = None, time_s: float = 0.0, stream: int = 0,
) -> Sample:  # fmt: skip
    """Render ``world`` from the ego camera at ``(s, d)`` on its road after ``time_s`` seconds."""
    camera = Camera(world.rig, size_wh)
    d_m = world.ego_d if d_m is None else d_m
    dyaw_rad = world.ego_yaw if dyaw_rad is None else dyaw_rad
    view = View(world.road, camera, s_m, d_m, dyaw_rad)
    canvas = Canvas.blank(view, world.look)
    rng = Dice(world.seed, 77)
    sky.sky(canvas, rng)
    sky.backdrop(canvas, world.layers)
    placed = placing.place(view, world.things, time_s)
    drawn: list[paint.DrawnLine] = []
    ground.draw(canvas, rng, shadows.outlines(canvas, placed, world.flanks), drawn)
    if world.look.surface == "wet":
        effects.wet(canvas)
    labelled = []
    for flank in world.flanks:
        flanks.draw(canvas, flank)
    named = sum(bool(thing.label) for thing, _, _ in placed)
    number = FIRST_THING_ID - max(named - (FIRST_SCENERY_ID - FIRST_THING_ID), 0)  # the farthest go without if there are too many
    for thing, spot, end in placed:
        _draw(canvas, thing, spot, end, max(number, NOBODY))
        if thing.label:
            if number >= FIRST_THING_ID and _perceptible(world.look, thing, spot):
                labelled.append((number, thing))
            number += 1
    effects.glow(canvas)
    image, owner = effects.develop(canvas, world.lens, stream)
    boxes, found_signs, instance = labels.boxes_and_signs(canvas, labelled, owner)
    lanes = labels.lanes(canvas, drawn, owner)
    vehicles_seen = sum(box.class_name in ("car", "truck", "bus", "two_wheeler") for box in boxes)
    pictures: dict[str, npt.NDArray[np.generic]] = {}
    if masks:
        pictures = {
            "semantic": _semantic(canvas, owner, labelled),
            "instance": instance[owner],
        }
    return Sample(
        image, lanes, labels.drivable(owner), tuple(boxes), tuple(found_signs),
        scene={"surface_condition": world.look.surface, "traffic_density": labels.density(vehicles_seen)}, masks=pictures,
        meta=_meta(world, view, dyaw_rad),
    )  # fmt: skip


def _meta(world: World, view: View, dyaw_rad: float) -> dict[str, object]:
    camera, (x, y, z, theta, slope) = view.camera, view.pose
    yaw = theta + dyaw_rad
    pitch = -np.arctan(slope)
    c, s, rise, dive = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([(c * rise, -s, c * dive), (s * rise, c, s * dive), (-dive, 0.0, rise)])
    pose = np.zeros((4, 4))
    pose[:3, :3], pose[:3, 3], pose[3, 3] = turn, (x, y, z) - turn[:, 0] * CAMERA_FORWARD_M, 1.0
    kind = "world-crowd" if world.crowded else "world"
    return {
        "source": f"{kind}:{world.seed}", "seed": world.seed, "stamp_ns": 0, "K": camera.k, "D": camera.d,
        "ego_SE3_cam": camera.ego_SE3_cam, "world_SE3_ego": pose, "road": world.road.kind, "time": world.look.time,
        "weather": world.look.weather, "terms": "Apache-2.0",
    }  # fmt: skip


def _perceptible(mood: look.Look, thing: Thing, spot: Spot) -> bool:
    """Whether fog or darkness leaves enough of a thing to be labelled."""
    if math.exp(-max(spot.x, 0.0) / mood.visibility_m) < 0.08:
        return False
    shines = (thing.art == "vehicle" and thing.speed != 0) or thing.label == "traffic_light"
    return mood.time != "night" or shines or sum(mood.ambient) / 3 + mood.beam_at(spot.x, spot.y) > 0.06


def _draw(canvas: Canvas, thing: Thing, spot: Spot, end: Spot | None, number: int) -> None:
    """Draw one thing; labelled things own their pixels under ``number``."""
    art = thing.art
    if art == "vehicle":
        lit = canvas.look.time != "day" or canvas.look.weather in ("rain", "fog")
        vehicles.draw(canvas, thing, spot, number, lit and thing.speed != 0)
    elif art == "building":
        buildings.draw(canvas, thing, spot)
    elif end is not None:
        scenery.wall(canvas, thing, spot, end)
    elif spot.x < 1.5:
        return
    elif art in ("lamp", "mast"):
        arm = thing.size_m[1] if art == "lamp" else 0.0
        scenery.pole(canvas, spot, spot.y, thing.size_m[2], 0.16 if art == "lamp" else 0.28, thing.color, arm)
    elif art == "bridge":
        scenery.bridge(canvas, thing, spot)
    elif art == "gantry":
        scenery.gantry(canvas, thing, spot)
    else:
        _sprite(canvas, thing, spot, number)


_STEEL, _DARK_STEEL = (125.0, 128.0, 130.0), (80.0, 82.0, 82.0)


def _sprite(canvas: Canvas, thing: Thing, spot: Spot, number: int) -> None:
    view = canvas.view
    scale = view.f / spot.x
    width, height = thing.size_m[1] * scale, thing.size_m[2] * scale
    if height > 6 * canvas.image.shape[0]:
        return
    u, v = view.uv(spot.x, spot.y, spot.z + thing.base_m)
    lamp, owner = 1.0, number
    if thing.art == "sign":
        mips = signs.face(thing.label, thing.color_name, thing.index)
        lamp = 3.0
        width *= abs(math.cos(thing.heading))
        if thing.base_m < 4:
            scenery.pole(canvas, spot, spot.y, thing.base_m + 0.9 * thing.size_m[2], 0.08 if thing.size_m[1] < 2 else 0.2, _STEEL)
        elif thing.label == "traffic_light":
            post = spot.y - thing.d + view.road.outer_right_d - 1.0
            scenery.pole(canvas, spot, post, 6.0, 0.22, _DARK_STEEL)
            shade = canvas.lit(_DARK_STEEL, spot.x, spot.y)
            canvas.line(view.uv(spot.x, post, spot.z + 5.7), view.uv(spot.x, spot.y, spot.z + 5.7), 0.14 * scale, shade, POLE)
    elif thing.art == "person":
        mips = sprites.person(thing.index)
    elif thing.art == "rider":
        mips = sprites.rider(thing.index)
    elif thing.art == "obstacle":
        mips, lamp = obstacles.obstacle(thing.model, thing.index), 1.6
    else:
        mips, owner = (sprites.tree if thing.art == "tree" else sprites.bush)(thing.index), VEGETATION
    gain, offset = canvas.look.shade(spot.x, spot.y, lamp)
    if thing.label == "traffic_light" and canvas.look.time != "day":
        gain = (max(gain[0], 0.75), max(gain[1], 0.75), max(gain[2], 0.75))
        lit_v = v - height * {"red": 0.82, "yellow": 0.5, "green": 0.18}[thing.color_name]
        canvas.glow.append((u, lit_v, max(0.13 * scale, 0.8), signs.LAMPS[thing.color_name]))
    canvas.sprite(mips, u, v, width, height, spot.clip, lighting(gain, offset), owner, thing.flip, owner == VEGETATION)


def _semantic(canvas: Canvas, owner: U8, labelled: list[tuple[int, Thing]]) -> U8:
    """Class of every pixel, an index into `SEMANTIC`."""
    table = np.zeros(256, np.uint8)
    groups = {"car": 4, "truck": 4, "bus": 4, "two_wheeler": 4, "pedestrian": 5}
    for number, thing in labelled:
        table[number] = 7 if thing.art == "sign" else groups.get(thing.label, 6)
    for scenery_id, code in ((ROAD, 1), (POLE, 8), (BUILDING, 9), (VEGETATION, 10), (WALL, 11), (BRIDGE, 9), (HOOD, 12)):
        table[scenery_id] = code
    below = np.zeros(canvas.owner.shape, np.uint8)
    below[canvas.view.horizon :] = 1
    maps = canvas.view.camera.maps()
    floor, paint_mask = owners_seen(below, maps), owners_seen(canvas.paint, maps)
    picture = table[owner]
    picture[(owner == NOBODY) & (floor > 0)] = 3
    picture[(owner <= ROAD) & (paint_mask > 0)] = 2
    return np.asarray(picture)
