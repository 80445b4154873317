"""3D boxes of nuScenes: other programs' submissions scored as its own evaluation does; the task ``detection3d``.

The project's own model writes boxes in the picture, which `training.evaluate` scores on nuScenes as on any data set. The task is
for submissions in nuScenes' own format, one JSON file:

    {"meta": {...}, "results": {SAMPLE_TOKEN: [{"sample_token": ..., "translation": [x, y, z], "size": [width, length, height],
     "rotation": [w, x, y, z], "velocity": [vx, vy], "detection_name": "car", "detection_score": 0.9,
     "attribute_name": "vehicle.moving"}, ...], ...}}

Labels and predictions are filtered as there: by the distance from the car that each class is judged in (`RANGE_M`), labels
without a lidar or radar return, bicycles and motorcycles that stand in a rack.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from getok_drive.errors import ConfigError, InputError
from training.datasets import nuscenes
from training.datasets.reading import read_json
from training.evaluation import Collector
from training.metrics.nuscenes import CLASSES, Boxes3d

FloatArray = npt.NDArray[np.float64]

TASK = "detection3d"
CLASS_OF = {
    "vehicle.car": "car", "vehicle.truck": "truck", "vehicle.bus.bendy": "bus", "vehicle.bus.rigid": "bus",
    "vehicle.trailer": "trailer", "vehicle.construction": "construction_vehicle", "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian", "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian", "vehicle.motorcycle": "motorcycle", "vehicle.bicycle": "bicycle",
    "movable_object.trafficcone": "traffic_cone", "movable_object.barrier": "barrier",
}  # fmt: skip
ATTRIBUTES = (
    "pedestrian.moving", "pedestrian.sitting_lying_down", "pedestrian.standing", "cycle.with_rider", "cycle.without_rider",
    "vehicle.moving", "vehicle.parked", "vehicle.stopped",
)  # fmt: skip
RANGE_M = {
    **dict.fromkeys(CLASSES, 50.0),
    "pedestrian": 40.0,
    "motorcycle": 40.0,
    "bicycle": 40.0,
    "traffic_cone": 30.0,
    "barrier": 30.0,
}
MOST_BOXES = 500  # of a sample
_RACK, _RACKED = "static_object.bicycle_rack", ("bicycle", "motorcycle")
_COLUMNS = 11  # of `_row`: centre 3, size 3, yaw, velocity 2, attribute, score


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """Key frames of nuScenes without their pictures.

    Attributes:
        name: the data set, as given on the command line.
        tables: the devkit's.
        frames: records of the table ``sample``, each with the name of its scene.
    """

    name: str
    tables: Any
    frames: Sequence[tuple[Mapping[str, Any], str]]

    def __len__(self) -> int:
        return len(self.frames)


def open_frames(dataset: str, split: str, limit: int | None) -> KeyFrames:
    """The labels of ``nuscenes:PATH``.

    Raises:
        ConfigError: another data set, or as `training.datasets.nuscenes.key_frames`.
        InputError: likewise.
    """
    kind, _, path = dataset.partition(":")
    if kind != "nuscenes" or not path:
        raise ConfigError(f"--tasks {TASK}: needs --dataset nuscenes:PATH, got {dataset}")
    tables, frames = nuscenes.key_frames(Path(path), split)
    return KeyFrames(dataset, tables, frames[:limit])


def score(path: Path, frames: KeyFrames, collector: Collector, allow_missing: bool) -> None:
    """Score a submission.

    Args:
        path: the submission.
        frames: the labels.
        collector: takes the scores.
        allow_missing: a frame that the submission lacks counts as empty.

    Raises:
        InputError: a malformed submission, a frame that it lacks, one that nuScenes has not.
    """
    content = read_json(path)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise InputError(f"{path}: expected a nuScenes submission with an object 'results', from sample tokens to lists of boxes")
    unknown = results.keys() - {record["token"] for record in frames.tables.sample}
    if unknown:
        raise InputError(f"{path}: {len(unknown)} sample tokens are none of {frames.name}, such as {min(unknown)}")
    missing = [record["token"] for record, _ in frames.frames if record["token"] not in results]
    if missing and not allow_missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(frames)} samples are not in the results, the first is {missing[0]}; --allow-missing "
            "scores them as empty"
        )
    collector.missing = len(missing)
    for record, scene in tqdm(frames.frames, desc="score", unit="frame"):
        token = record["token"]
        truth = _labelled(frames.tables, record)
        predicted = _predicted(results.get(token, []), f"{path}: results[{token}]")
        at = _ego(frames.tables, record)
        racks = _racks(frames.tables, record)
        digest = hashlib.sha256(repr((token, truth[0].tolist(), truth[1].tolist())).encode()).hexdigest()
        collector.add_boxes_3d(token, scene, _boxes(*truth, at, racks), _boxes(*predicted, at, racks), digest)


# --- from records to boxes ------------------------------------------------------------------------------------------------


def _yaw(rotation: Sequence[float]) -> float:
    """Heading of a quaternion w, x, y, z: where it turns the x axis, on the ground."""
    w, x, y, z = np.asarray(rotation, dtype=np.float64) / np.linalg.norm(rotation)
    return math.atan2(2.0 * (x * y + w * z), 1.0 - 2.0 * (y * y + z * z))


def _labelled(tables: Any, record: Mapping[str, Any]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Classes ``(N,)`` and rows ``(N, 11)`` of a sample's annotations that have a class and a return."""
    names = {each["token"]: each["name"] for each in tables.attribute}
    classes, rows = [], []
    for token in record["anns"]:
        label = tables.get("sample_annotation", token)
        name = CLASS_OF.get(label["category_name"])
        if name is None or label["num_lidar_pts"] + label["num_radar_pts"] == 0:
            continue
        attributes = [names[each] for each in label["attribute_tokens"]]
        attribute = ATTRIBUTES.index(attributes[0]) if attributes else -1
        velocity = tables.box_velocity(token)[:2]
        classes.append(CLASSES.index(name))
        rows.append([*label["translation"], *label["size"], _yaw(label["rotation"]), *velocity, attribute, 0.0])
    return np.array(classes, np.int64), np.array(rows, np.float64).reshape(-1, _COLUMNS)


def _predicted(entries: Any, where: str) -> tuple[npt.NDArray[np.int64], FloatArray]:
    if not isinstance(entries, list) or len(entries) > MOST_BOXES:
        what = f"{len(entries)} boxes" if isinstance(entries, list) else type(entries).__name__
        raise InputError(f"{where}: expected a list of at most {MOST_BOXES} boxes, got {what}")
    classes, rows = [], []
    for number, entry in enumerate(entries):
        try:
            classes.append(CLASSES.index(entry["detection_name"]))
            rows.append(_row(entry))
        except KeyError as error:
            raise InputError(f"{where}[{number}]: {error} is missing") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where}[{number}]: {error}") from error
    return np.array(classes, np.int64), np.array(rows, np.float64).reshape(-1, _COLUMNS)


def _row(entry: Mapping[str, Any]) -> list[float]:
    center, size, rotation, velocity = (
        _finite(entry, name, count) for name, count in (("translation", 3), ("size", 3), ("rotation", 4), ("velocity", 2))
    )
    if min(size) <= 0 or not any(rotation):
        raise ValueError(f"size must be above 0 and rotation a quaternion, got {size} and {rotation}")
    score = float(entry["detection_score"])
    if not math.isfinite(score):
        raise ValueError(f"detection_score must be a finite number, got {score}")
    name = entry["attribute_name"]
    return [*center, *size, _yaw(rotation), *velocity, ATTRIBUTES.index(name) if name else -1, score]


def _finite(entry: Mapping[str, Any], name: str, count: int) -> list[float]:
    values = np.asarray(entry[name], dtype=np.float64)
    if values.shape != (count,) or not (np.isfinite(values) | (name == "velocity")).all():  # an unknown velocity may be NaN
        raise ValueError(f"{name} must be {count} finite numbers, got {entry[name]}")
    return [float(value) for value in values]


# --- filters --------------------------------------------------------------------------------------------------------------


def _ego(tables: Any, record: Mapping[str, Any]) -> FloatArray:
    """``(2,)`` where the car is when the lidar turns, metres on the map."""
    shot = tables.get("sample_data", record["data"]["LIDAR_TOP"])
    return np.asarray(tables.get("ego_pose", shot["ego_pose_token"])["translation"][:2], dtype=np.float64)


def _racks(tables: Any, record: Mapping[str, Any]) -> list[Any]:
    """The devkit's boxes of the racks."""
    return [box for box in map(tables.get_box, record["anns"]) if box.name == _RACK]


def _boxes(classes: npt.NDArray[np.int64], rows: FloatArray, ego_m: FloatArray, racks: Sequence[Any]) -> Boxes3d:
    limits = np.array([RANGE_M[name] for name in CLASSES])[classes]
    kept = np.linalg.norm(rows[:, :2] - ego_m, axis=1) < limits
    racked = np.isin(classes, [CLASSES.index(name) for name in _RACKED])
    for rack in racks:
        inside = np.abs((rows[:, :3] - rack.center) @ rack.rotation_matrix) <= rack.wlh[[1, 0, 2]] / 2  # its length is its x axis
        kept &= ~(racked & inside.all(axis=1))
    rows = rows[kept]
    return Boxes3d(classes[kept], rows[:, :2], rows[:, 3:6], rows[:, 6], rows[:, 7:9], rows[:, 9].astype(np.int64), rows[:, 10])
