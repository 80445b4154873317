"""One scene from a seed, and its picture with labels from any pose along the road."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from getok_drive.tokens.vocab import BOX_CLASSES
from training.datasets.world import (
    effects,
    ground,
    labels,
    layout,
    look,
    obstacles,
    paint,
    populate,
    road,
    scenery,
    signs,
    sprites,
    vehicles,
)
from training.datasets.world.camera import CAMERA_FORWARD_M, Camera, Rig
from training.datasets.world.canvas import BRIDGE, BUILDING, HOOD, POLE, VEGETATION, WALL, Canvas
from training.datasets.world.things import Thing
from training.datasets.world.view import REACH_M, View
from training.samples import Sample

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
    ego_d: float
    ego_yaw: float


def create(seed: int, length_m: float = 260.0) -> World:
    """The world of ``seed`` with ``length_m`` of road ahead."""
    rng = np.random.Generator(np.random.PCG64([seed, int(length_m)]))
    rig = Rig.sample(rng)
    kind = str(rng.choice(["highway", "rural", "urban", "residential", "unpaved"], p=[0.42, 0.17, 0.28, 0.1, 0.03]))
    way = road.shape(rng, kind, length_m + REACH_M)
    layout.build(rng, way, length_m)
    if rng.random() < 0.22:
        road.mirror(way)
    mood = look.sample(rng, kind)
    lens = effects.sample(rng, mood)
    things = populate.populate(rng, way, mood, length_m)
    layers: list[tuple[str, float, float, int]] = []
    if rng.random() < 0.5:
        layers.append(("hill", float(rng.uniform(0.02, 0.12)), 1500.0, int(rng.integers(4096))))
    if kind == "urban" and rng.random() < 0.6:
        layers.append(("town", float(rng.uniform(0.03, 0.09)), 400.0, int(rng.integers(4096))))
    if rng.random() < 0.8:
        layers.append(("trees", float(rng.uniform(0.015, 0.07)), 320.0, int(rng.integers(4096))))
    if rng.random() < 0.06:
        ego_d, ego_yaw = float(rng.uniform(-2, 2)), float(rng.normal(0, 0.06))  # changing lanes
    else:
        ego_d, ego_yaw = float(np.clip(rng.normal(0, 0.3), -0.8, 0.8)), float(rng.normal(0, 0.01))
    things = [t for t in things if not (abs(t.d - ego_d) < 1.8 and -6 < t.s < 5.5 + t.size_m[0] / 2 and t.label in BOX_CLASSES)]
    return World(seed, rig, way, mood, lens, things, layers, ego_d, ego_yaw)


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
    rng = np.random.Generator(np.random.PCG64([world.seed, 77]))
    scenery.sky(canvas, rng)
    scenery.backdrop(canvas, world.layers)
    placed = _place(world, view, time_s)
    drawn: list[paint.DrawnLine] = []
    ground.draw(canvas, rng, _shadows(canvas, placed), drawn)
    if world.look.surface == "wet":
        effects.wet(canvas)
    labelled = []
    for number, (x, y, bearing, thing) in enumerate(placed, 1):
        _draw(canvas, thing, x, y, bearing, number)
        if thing.label:
            labelled.append((number, thing))
    effects.glow(canvas)
    image, owner, road_mask, paint_mask = effects.develop(canvas, world.lens, HOOD, stream)
    boxes, found_signs, instance = labels.boxes_and_signs(canvas, labelled, owner)
    lanes = labels.lanes(canvas, drawn, owner)
    vehicles_seen = sum(box.class_name in ("car", "truck", "bus", "two_wheeler") for box in boxes)
    pictures = {}
    if masks:
        pictures = {
            "semantic": _semantic(canvas, owner, road_mask, paint_mask, labelled),
            "instance": instance[np.minimum(owner, len(instance) - 1)],
        }
    return Sample(
        image, lanes, labels.drivable(road_mask, owner), tuple(boxes), tuple(found_signs),
        scene={"surface_condition": world.look.surface, "traffic_density": labels.density(vehicles_seen)}, masks=pictures,
        meta=_meta(world, camera, view, s_m, d_m, dyaw_rad),
    )  # fmt: skip


def _meta(world: World, camera: Camera, view: View, s_m: float, d_m: float, dyaw_rad: float) -> dict[str, object]:
    x, y, z, theta, slope = world.road.pose(s_m, d_m)
    yaw = theta + dyaw_rad
    pose = np.eye(4)
    pitch = -np.arctan(slope)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    tilt = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    pose[:3, :3] = turn @ tilt
    pose[:3, 3] = np.array([x, y, z]) - pose[:3, :3] @ (CAMERA_FORWARD_M, 0.0, 0.0)
    return {
        "source": f"world:{world.seed}", "seed": world.seed, "stamp_ns": 0, "K": camera.k, "D": camera.d,
        "ego_SE3_cam": camera.ego_SE3_cam, "world_SE3_ego": pose, "road": world.road.kind, "time": world.look.time,
        "weather": world.look.weather, "terms": "Apache-2.0",
    }  # fmt: skip


def _place(world: World, view: View, time_s: float) -> list[tuple[float, float, float, Thing]]:
    """Things in view as ``(x, y, heading in the level frame, thing)``, far to near."""
    if not world.things:
        return []
    sd = np.array([thing.at(time_s) for thing in world.things])
    low, high = view.s_range
    x, y, bearing = view.place(sd[:, 0], sd[:, 1])
    size = np.array([max(t.size_m[0], abs(t.size_m[1])) for t in world.things])
    half = view.camera.canvas_wh[0] / view.f
    shown = (sd[:, 0] > low) & (sd[:, 0] < high) & (x + size > 1.5) & (x < 250) & (np.abs(y) < half * np.maximum(x, 1) + size + 2)
    depth = x - np.array([t.size_m[0] / 2 if t.art in ("wall", "rail", "fence", "hedge") else 0.0 for t in world.things])
    index = np.flatnonzero(shown)
    index = index[np.argsort(-depth[index], kind="stable")]
    return [(float(x[i]), float(y[i]), float(bearing[i]), world.things[i]) for i in index.tolist()]


def _shadows(canvas: Canvas, placed: list[tuple[float, float, float, Thing]]) -> list[np.ndarray]:
    """Ground outlines of cast shadows; without sun, the dark patch under each vehicle."""
    view, look_ = canvas.view, canvas.look
    azimuth = look_.sun[0] - view.heading
    stretch = min(1 / np.tan(look_.sun[1]), 3.0) if look_.shadow else 0.0
    away = -np.array([np.cos(azimuth), np.sin(azimuth)]) * stretch
    outlines = []
    for x, y, bearing, thing in placed:
        if thing.art in ("vehicle", "rider", "person"):
            if x > 90:
                continue
            length, width, height = thing.size_m
            angle = bearing + thing.heading
            along, side = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
            base = np.array([(x, y) + a * along * length * 0.49 + b * side * width * 0.52 for a in (-1, 1) for b in (-1, 1)])
            points = np.concatenate([base, base * 1.0 + away * height * 0.8]) if stretch else base
        elif stretch and thing.art in ("tree", "lamp", "mast") and x < 110:
            if thing.art == "tree":
                t = np.linspace(0, 2 * np.pi, 14)[:-1]
                wobble = 1 + 0.25 * np.sin(5 * t + thing.index) + 0.15 * np.sin(9 * t)
                radius = thing.size_m[1] * 0.42
                crown = np.array((x, y)) + away * thing.size_m[2] * 0.62
                points = crown + np.column_stack([np.cos(t), np.sin(t)]) * (radius * wobble)[:, None] * (1 + 0.2 * stretch)
            else:
                tip = np.array((x, y)) + away * thing.size_m[2]
                across = np.array([-away[1], away[0]]) / max(np.hypot(*away), 1e-6) * 0.08
                points = np.array([np.array((x, y)) + across, tip + across, tip - across, np.array((x, y)) - across])
        elif stretch and thing.art == "building" and x < 120:
            length, depth, height = thing.size_m
            along, out = (
                np.array([np.cos(bearing), np.sin(bearing)]),
                np.array([-np.sin(bearing), np.cos(bearing)]) * np.sign(thing.d),
            )
            base = np.array([(x, y) + a * along * length / 2 + b * out * depth for a in (-1, 1) for b in (0, 1)])
            points = np.concatenate([base, base + away * height])
        elif thing.art == "bridge":
            depth = thing.size_m[0]
            points = np.array([(x, -60.0), (x + depth, -60.0), (x + depth, 60.0), (x, 60.0)]) + (away * 5.0 if stretch else 0.0)
        else:
            continue
        if points[:, 0].max() < 1.3:
            continue
        clamped = np.column_stack([np.maximum(points[:, 0], 1.3), points[:, 1]])
        uv = view.project(np.column_stack([clamped, view.ground_z(clamped[:, 0])]))
        uv[:, 1] = np.minimum(uv[:, 1], view.clip_row(clamped[:, 0]) + 0.5)
        uv[:, 1] = np.maximum(uv[:, 1], view.horizon)
        if thing.art not in ("tree",):
            uv = cv2.convexHull(uv.astype(np.float32)).reshape(-1, 2).astype(np.float64)
        outlines.append(uv)
    return outlines


def _draw(canvas: Canvas, thing: Thing, x: float, y: float, bearing: float, number: int) -> None:
    """Draw one thing; labelled things own their pixels under ``number``."""
    view = canvas.view
    art = thing.art
    if art == "vehicle":
        rng = np.random.Generator(np.random.PCG64(thing.seed))
        lit = canvas.look.time != "day" or canvas.look.weather in ("rain", "fog")
        colors = vehicles.paints(rng, thing.braking, lit or thing.seed % 3 == 0)
        vehicles.draw(
            canvas,
            vehicles.mesh(thing.model),
            (x, y),
            bearing + thing.heading,
            thing.scale,
            colors,
            number,
            lit and thing.speed != 0,
        )
        return
    if art == "building":
        scenery.building(canvas, thing, x, y, bearing)
        return
    if art in ("wall", "rail", "fence", "hedge"):
        scenery.wall(canvas, thing)
        return
    if x < 1.5:
        return
    if art in ("lamp", "mast"):
        scenery.pole(
            canvas, x, y, thing.size_m[2], 0.16 if art == "lamp" else 0.28, thing.color, thing.size_m[1] if art == "lamp" else 0.0
        )
        return
    if art == "bridge":
        scenery.bridge(canvas, thing, x)
        return
    if art == "gantry":
        _gantry(canvas, thing, x, y)
        return
    _sprite(canvas, thing, x, y, number)


def _gantry(canvas: Canvas, thing: Thing, x: float, y: float) -> None:
    view = canvas.view
    width, height = thing.size_m[1], thing.size_m[2]
    for sign in (-1, 1):
        scenery.pole(canvas, x, y + sign * width / 2, height + 0.8, 0.4, thing.color)
    z = float(view.ground_z(x)) + height
    for up in (0.0, 0.8):
        ends = view.project(np.array([(x, y - width / 2, z + up), (x, y + width / 2, z + up)]))
        canvas.line(ends[0], ends[1], 0.22 * view.f / x, scenery.lit(canvas, thing.color, x, y), POLE)


def _sprite(canvas: Canvas, thing: Thing, x: float, y: float, number: int) -> None:
    view = canvas.view
    scale = view.f / x
    width, height = thing.size_m[1] * scale, thing.size_m[2] * scale
    if height < 1.5 or height > 6 * canvas.image.shape[0]:
        return
    base = view.project(np.array([(x, y, float(view.ground_z(x)) + thing.base_m)]))[0]
    clip = float(view.clip_row(x))
    lamp, owner = 1.0, number
    if thing.art == "sign":
        mips = signs.face(thing.label, thing.color_name, thing.index)
        lamp = 3.0
        width *= abs(np.cos(thing.heading))
        back = 0.35 if thing.base_m < 4 else 0.0
        if back:
            scenery.pole(
                canvas, x + 0.05, y, thing.base_m + 0.9 * thing.size_m[2], 0.08 if thing.size_m[1] < 2 else 0.2, (125, 128, 130)
            )
        elif thing.label == "traffic_light":
            scenery.pole(canvas, x + 0.05, view.road.outer_right_d - 1.0, 6.0, 0.22, (80, 82, 82))
            z = float(view.ground_z(x)) + 5.7
            ends = view.project(np.array([(x + 0.05, view.road.outer_right_d - 1.0, z), (x + 0.05, y, z)]))
            canvas.line(ends[0], ends[1], 0.14 * scale, scenery.lit(canvas, (80, 82, 82), x, y), POLE)
    elif thing.art == "person":
        mips = sprites.person(thing.index)
    elif thing.art == "rider":
        mips = sprites.rider(thing.index)
    elif thing.art == "obstacle":
        mips, lamp = obstacles.obstacle(thing.model, thing.index), 1.6
    else:
        mips, owner = (sprites.tree if thing.art == "tree" else sprites.bush)(thing.index), VEGETATION
    gain, offset = canvas.look.shade(x, y, lamp)
    if thing.label == "traffic_light" and canvas.look.time != "day":
        gain = tuple(max(g, 0.75) for g in gain)  # type: ignore[assignment]
        canvas.glow.append((base[0], base[1] - height * {"red": 0.82, "yellow": 0.5, "green": 0.18}[thing.color_name], max(0.13 * scale, 0.8),
                            signs.LAMPS[thing.color_name]))  # fmt: skip
    canvas.sprite(mips, base[0], base[1], width, height, clip, gain, offset, owner, thing.flip, hard=owner == VEGETATION)


def _semantic(
    canvas: Canvas, owner: np.ndarray, road_mask: np.ndarray, paint_mask: np.ndarray, labelled: list[tuple[int, Thing]]
) -> np.ndarray:
    table = np.zeros(HOOD + 8, np.uint8)
    groups = {"car": 4, "truck": 4, "bus": 4, "two_wheeler": 4, "pedestrian": 5}
    for number, thing in labelled:
        table[number] = 7 if thing.art == "sign" else groups.get(thing.label, 6)
    for scenery_id, code in ((POLE, 8), (BUILDING, 9), (VEGETATION, 10), (WALL, 11), (BRIDGE, 9), (HOOD, 12)):
        table[scenery_id] = code
    picture = table[owner]
    below = np.zeros(canvas.image.shape[:2], np.uint8)
    below[canvas.view.horizon :] = 3
    fixed, weights = canvas.view.camera.maps()
    floor = cv2.remap(below, fixed, weights, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    floor[road_mask > 127] = 1
    floor[paint_mask > 127] = 2
    return np.where(owner == 0, floor, picture)
