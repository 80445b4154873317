"""nuScenes, through the nuscenes-devkit: boxes, and lane lines, drivable areas and traffic lights from the map expansion.

    <root>/v1.0-mini | v1.0-trainval     the tables           <root>/samples/CAM_*        the pictures
    <root>/maps/expansion/<place>.json   the map expansion 1.3; without it only boxes are known

All six cameras' key frames are read. **Boxes** are the extents of what is seen of the 3D boxes: cut at the near plane, at the
picture's border, and where nearer boxes stand in front. Objects without a lidar or radar return are left out, as in the official
evaluation. ``visible_state`` is the worse of the official visibility (of all cameras together) and what nearer boxes hide.

**The map** is flat, and nuScenes locates its cars in two dimensions. `training.datasets.projection` says how it is projected, and
where not: the road's plane is fitted to the feet of vehicles and cones, and where they contradict it the map ends
(``meta["map_range_m"]``); below `LEAST_RANGE_M` the picture has no lanes, areas and lights. All that comes from it is derived:

- lanes: `lane_divider` with the type of each segment (NIL: no paint) and `road_divider`, which has no type; what is missing is
  read from the picture. Ends hidden by boxes are cut; what is mostly hidden is left out;
- drivable areas: `drivable_area` with its holes, without what boxes hide;
- signs: `traffic_light`, those that face the camera and are not behind a box; the lit colour is read from the picture;
- ``meta["stop_lines"]``: `stop_line` areas, which have no token of their own: ``[{"type", "polygon_px"}]``.

The devkit (1.2.0) asks for numpy < 2 and shapely 2.0: install ``getok-drive[nuscenes]`` into an environment of its own, or the
devkit with ``pip install --no-deps`` beside newer ones, with which what is used here was seen to work.
"""

from __future__ import annotations

from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import Box, ImageBgr
from training.datasets.boxes import clipped
from training.datasets.map_layers import MapLayers, map_labels
from training.datasets.projection import Camera, Ground, fit_ground, hull
from training.datasets.reading import Found, Labels, SampleList, check_split

TERMS = "nuScenes: CC BY-NC-SA 4.0 with Motional's terms of use, no commercial use"
VERSIONS = ("v1.0-trainval", "v1.0-mini")
CAMERAS = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
SPLITS = {"v1.0-trainval": {"train": "train", "val": "val"}, "v1.0-mini": {"train": "mini_train", "val": "mini_val"}}
CLASSES = {  # category, or what it begins with
    "vehicle.car": "car", "vehicle.emergency.police": "car", "vehicle.emergency.ambulance": "truck", "vehicle.truck": "truck",
    "vehicle.trailer": "truck", "vehicle.construction": "works", "vehicle.bus": "bus", "vehicle.bicycle": "two_wheeler",
    "vehicle.motorcycle": "two_wheeler", "human.pedestrian": "pedestrian", "movable_object.trafficcone": "cone",
    "movable_object.barrier": "barrier", "movable_object.debris": "debris",
}  # fmt: skip
STANDING = ("vehicle.", "movable_object.trafficcone", "movable_object.barrier")  # whose feet show the ground
STATES = ("fully_visible", "partly_occluded", "mostly_occluded")
VISIBILITY = {"1": 2, "2": 1, "3": 1, "4": 0}  # 0-40, 40-60, 60-80, 80-100 % -> index of STATES
LEAST_HEIGHT_SHARE = 0.01  # of the picture's height; lower boxes are left out
LEAST_SEEN = 0.1  # of a box's area in the picture; what is hidden more is left out
LEAST_RANGE_M = 12.0


def open_samples(path: Path, split: str = "all", cameras: tuple[str, ...] = CAMERAS) -> SampleList:
    """Key frames of nuScenes.

    Args:
        path: the root, or one of its folders ``v1.0-*``.
        split: ``train``, ``val`` (official; ``mini_train``, ``mini_val`` for the mini version) or ``all``. The test part has no
            annotations.
        cameras: channels.

    Raises:
        ConfigError: no tables, an unknown split, or no devkit.
        InputError: tables that the devkit cannot read.
    """
    tables, frames = key_frames(path, split)
    found, skipped = [], []
    for sample, scene in frames:
        for channel in cameras:
            if channel not in sample["data"]:
                continue
            image = Path(tables.get_sample_data_path(sample["data"][channel]))
            name = str(image.relative_to(tables.dataroot))
            if image.exists():
                found.append(Found(name, scene, image, sample["data"][channel]))
            else:
                skipped.append((name, "no such picture; is this part of the data set unpacked?"))
    return SampleList("nuscenes", TERMS, found, partial(_labels, tables=tables), skipped)


def key_frames(path: Path, split: str = "all") -> tuple[Any, list[tuple[dict[str, Any], str]]]:
    """The devkit's tables, and the records of the split's key frames, each with the name of its scene.

    Args:
        path: as for `open_samples`.
        split: likewise.

    Raises:
        ConfigError: as `open_samples`.
        InputError: likewise.
    """
    check_split(split, "nuscenes")
    version = path.name if path.name in VERSIONS else next((name for name in VERSIONS if (path / name).is_dir()), None)
    root = path.parent if path.name in VERSIONS else path
    if version is None:
        raise ConfigError(f"nuscenes: {path} has none of {', '.join(VERSIONS)}; v1.0-test is published without annotations")
    if split == "test":
        raise ConfigError("nuscenes: the test part is published without annotations; use train, val or all")
    tables = _tables(root, version)
    scenes = _scenes(tables, SPLITS[version].get(split))
    named = [(sample, tables.get("scene", sample["scene_token"])["name"]) for sample in tables.sample]
    return tables, [(sample, scene) for sample, scene in named if scene in scenes]


def _devkit() -> Any:
    try:
        import nuscenes.nuscenes
        import nuscenes.utils.splits
    except ImportError as error:
        raise ConfigError(
            f"nuscenes: needs the package nuscenes-devkit ({error}); install getok-drive[nuscenes] into an environment of its own"
        ) from error
    return nuscenes


@cache
def _tables(root: Path, version: str) -> Any:
    """The devkit's `NuScenes`, loaded once in each process (the whole set takes half a minute)."""
    devkit = _devkit()
    try:
        return devkit.nuscenes.NuScenes(version=version, dataroot=str(root), verbose=False)
    except (AssertionError, OSError, KeyError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{root / version}: the nuScenes devkit cannot read the tables ({what}); are they complete?") from error


def _scenes(tables: Any, split: str | None) -> set[str]:
    if split is None:
        return {scene["name"] for scene in tables.scene}
    return set(_devkit().utils.splits.create_splits_scenes()[split])


# --- one picture -----------------------------------------------------------------------------------------------------


def _labels(item: Found, image: ImageBgr, tables: Any) -> Labels:
    shot = tables.get("sample_data", item.label)
    size_wh = (image.shape[1], image.shape[0])
    if (shot["width"], shot["height"]) != size_wh:
        raise InputError(f"{item.image}: {size_wh[0]}x{size_wh[1]} px, the tables say {shot['width']}x{shot['height']} px")
    mounted = tables.get("calibrated_sensor", shot["calibrated_sensor_token"])
    ego_from_camera = _pose(mounted)
    camera = Camera(np.array(mounted["camera_intrinsic"], np.float64), ego_from_camera, size_wh)
    objects = _objects(item.label, camera, tables)
    boxes, ignored, left_out = _boxes(objects, camera)
    global_from_ego = _pose(tables.get("ego_pose", shot["ego_pose_token"]))
    labels: dict[str, Any] = {"known": ("boxes",), "boxes": boxes}
    meta: dict[str, Any] = {
        "left_out": left_out,
        "ignore_xyxy_px": ignored,
        "labelled_classes": {"boxes": tuple(dict.fromkeys(CLASSES.values())), "signs": ("traffic_light",)},
        "K": camera.K,
        "ego_SE3_cam": ego_from_camera,
        "stamp_ns": int(shot["timestamp"]) * 1000,
        "camera": shot["channel"],
        "derived": ("boxes",),
    }
    layers = _map(tables, shot)
    if layers is None:
        left_out["map expansion is not there"] = 1
    else:
        up = global_from_ego[:3, :3].T[:, 2]  # the map's normal in the ego frame
        prior = Ground(-up[0] / up[2], -up[1] / up[2])
        ground = fit_ground([o["foot_ego_m"] for o in objects if o["name"].startswith(STANDING)], prior)
        meta |= {"map_range_m": ground.range_m, "ground": [ground.slope_x, ground.slope_y, ground.offset_m]}
        if ground.range_m < LEAST_RANGE_M:
            left_out[f"map: the road is not flat beyond {ground.range_m:.0f} m"] = 1
        else:
            hulls = [(o["hull"], o["depth_m"]) for o in objects if o["hull"] is not None]
            from_map = map_labels(layers, global_from_ego, camera, ground, hulls, image)
            labels |= {**from_map, "known": ("lanes", "drivable", "boxes", "signs")}
            meta |= {"stop_lines": labels.pop("stop_lines"), "derived": ("boxes", "lanes", "drivable", "signs", "sign_color")}
    return Labels(**labels, meta=meta)


def _pose(record: Any) -> Any:
    """``(4, 4)`` from a record's quaternion ``rotation`` (w, x, y, z) and ``translation``."""
    from pyquaternion import Quaternion

    pose = np.eye(4)
    pose[:3, :3] = Quaternion(record["rotation"]).rotation_matrix
    pose[:3, 3] = record["translation"]
    return pose


def _map(tables: Any, shot: Any) -> MapLayers | None:
    scene = tables.get("scene", tables.get("sample", shot["sample_token"])["scene_token"])
    return _layers(Path(tables.dataroot), tables.get("log", scene["log_token"])["location"])


@cache
def _layers(root: Path, place: str) -> MapLayers | None:
    file = root / "maps" / "expansion" / f"{place}.json"
    if not file.exists():
        return None
    from nuscenes.map_expansion.map_api import NuScenesMap

    try:
        return MapLayers(NuScenesMap(dataroot=str(root), map_name=place))
    except Exception as error:  # the devkit raises plain Exception for old maps
        raise InputError(f"{file}: not a map expansion of version 1.3 ({type(error).__name__}: {error})") from error


# --- boxes -----------------------------------------------------------------------------------------------------------


def _objects(shot_token: str, camera: Camera, tables: Any) -> list[dict[str, Any]]:
    """Every annotated object: name, record, outline and depth in the picture, and the point where it stands."""
    from nuscenes.utils.geometry_utils import BoxVisibility

    objects = []
    _, boxes, _ = tables.get_sample_data(shot_token, box_vis_level=BoxVisibility.NONE)
    for box in boxes:
        record = tables.get("sample_annotation", box.token)
        if record["num_lidar_pts"] + record["num_radar_pts"] == 0:
            continue
        corners = box.corners().T  # (8, 3), the front face first
        outline = hull(corners, camera)
        foot = box.bottom_corners().mean(axis=1)
        objects.append(
            {
                "name": box.name,
                "record": record,
                "hull": None if outline is None else outline[0],
                "depth_m": float("inf") if outline is None else outline[1],
                "center_m": float(box.center[2]),
                "foot_ego_m": camera.ego_SE3_cam[:3, :3] @ foot + camera.ego_SE3_cam[:3, 3],
                "size_wlh_m": box.wlh.tolist(),
            }
        )
    return objects


def _boxes(objects: list[dict[str, Any]], camera: Camera) -> tuple[tuple[Box, ...], list[list[float]], dict[str, int]]:
    """Boxes of what is seen, nearest first; regions of objects that have no class here; and what was left out."""
    boxes, ignored = [], []
    left_out: Counter[str] = Counter()
    nearer: list[Any] = []
    for thing in sorted((o for o in objects if o["hull"] is not None), key=lambda o: o["center_m"]):
        outline = thing["hull"].intersection(camera.picture)
        before = shapely.union_all(nearer)
        nearer.append(thing["hull"])
        if outline.area < 1e-6:
            continue
        seen = outline.difference(before)
        share = seen.area / outline.area
        xyxy = clipped(seen.bounds, camera.size_wh) if share >= LEAST_SEEN else None
        word = next((word for name, word in CLASSES.items() if thing["name"].startswith(name)), None)
        if xyxy is None:
            left_out[f"{thing['name']} (hidden by nearer boxes)"] += 1
        elif xyxy[3] - xyxy[1] < LEAST_HEIGHT_SHARE * camera.size_wh[1]:
            left_out[f"{thing['name']} (too small)"] += 1
        elif word is None:
            ignored.append(xyxy.tolist())
            left_out[thing["name"]] += 1
        else:
            record = thing["record"]
            hidden = 0 if share > 0.8 else 1 if share > 0.4 else 2
            state = max(hidden, VISIBILITY.get(str(record["visibility_token"]), 0))
            truncated = thing["hull"].difference(camera.picture).area > 0.02 * thing["hull"].area
            attributes = {
                "visible_state": STATES[state],
                "truncated": "yes" if truncated else "no",
                "track_id": str(record["instance_token"]),
                "derived": "box_3d",
            }
            boxes.append(Box(xyxy, word, attributes=attributes))
    return tuple(boxes), ignored, dict(left_out)
