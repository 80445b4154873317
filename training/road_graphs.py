"""Road graphs of OpenLane-V2: centrelines in metres, traffic elements and what belongs together; the task ``topology``.

The project's own model does not see them: it draws lane lines in the picture, which `training.evaluate` scores on OpenLane-V2 as
on any data set. The task is for other programs' results, one JSON line a picture, in the words of the benchmark's own format:

    {"task": "topology", "key": "openlane_v2:val/SEGMENT/image/CAMERA/STAMP.jpg",
     "lane_centerline": [{"points": [[x, y, z], ...], "confidence": 0.9}, ...],
     "traffic_element": [{"points": [[x0, y0], [x1, y1]], "attribute": 1, "confidence": 0.8}, ...],
     "topology_lclc": [[...], ...], "topology_lcte": [[...], ...]}

Labels are the same fields of ``annotation`` in ``SPLIT/SEGMENT/info/STAMP.json``; of their 201 points a line every twentieth is
taken, as the benchmark prepares its validation part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from training.datasets.reading import read_json
from training.metrics.openlane_topology import ATTRIBUTES, RoadGraph
from training.samples import Sample

TASK = "topology"
POINT_INTERVAL = 20


def graph_from_json(record: Mapping[str, Any], where: str, interval: int = 1) -> RoadGraph:
    """The graph of one line, or of one label.

    Args:
        record: see the module; ``confidence`` defaults to 1.
        where: file and line, for messages.
        interval: of its centrelines' points every so many are taken.

    Raises:
        InputError: a field that is missing or malformed.
    """
    at = where
    try:
        lanes, confidences, boxes, attributes, element_confidences = [], [], [], [], []
        for number, lane in enumerate(record["lane_centerline"]):
            at = f"{where}: lane_centerline[{number}]"
            points = np.asarray(lane["points"], dtype=np.float64)[::interval]
            if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
                raise ValueError(f"points must be (N, 3) finite numbers, got an array of shape {points.shape}")
            lanes.append(points)
            confidences.append(float(lane.get("confidence", 1.0)))
        for number, element in enumerate(record["traffic_element"]):
            at = f"{where}: traffic_element[{number}]"
            boxes.append(np.asarray(element["points"], dtype=np.float64).reshape(4))
            attributes.append(int(element["attribute"]))
            if not 0 <= attributes[-1] < ATTRIBUTES:
                raise ValueError(f"attribute must be 0..{ATTRIBUTES - 1}, got {attributes[-1]}")
            element_confidences.append(float(element.get("confidence", 1.0)))
        relations: list[npt.NDArray[np.float64]] = []
        for name, columns in (("topology_lclc", len(lanes)), ("topology_lcte", len(boxes))):
            at = f"{where}: {name}"
            matrix = np.asarray(record[name], dtype=np.float64)
            if matrix.size != len(lanes) * columns or (matrix.size and matrix.shape != (len(lanes), columns)):
                raise ValueError(f"expected a matrix of {len(lanes)}x{columns}, got an array of shape {matrix.shape}")
            relations.append(matrix.reshape(len(lanes), columns))
    except KeyError as error:
        raise InputError(f"{at}: {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{at}: {error}") from error
    elements = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return RoadGraph(lanes, elements, attributes, relations[0], relations[1], confidences, element_confidences)


def labelled_graph(sample: Sample) -> RoadGraph:
    """The labelled graph of a picture of OpenLane-V2.

    Raises:
        ConfigError: a picture of another data set, or the release that has no topology of centrelines.
        InputError: a broken label file.
    """
    if sample.meta.get("dataset") != "openlane_v2" or "image_path" not in sample.meta:
        raise ConfigError(f"--tasks {TASK}: needs --dataset openlane_v2:PATH; {sample.meta.get('source')} has no road graph")
    image = Path(sample.meta["image_path"])
    file = image.parents[2] / "info" / f"{image.stem}.json"
    if not file.exists():
        raise ConfigError(f"--tasks {TASK}: {file} is not there; it comes with the release OpenLane-V2, not Map Element Bucket")
    record = read_json(file)
    if not isinstance(record, dict) or not isinstance(record.get("annotation"), dict):
        raise InputError(f"{file}: no annotation; the test part is published without")
    return graph_from_json(record["annotation"], str(file), POINT_INTERVAL)


EMPTY = RoadGraph((), np.zeros((0, 4)), (), np.zeros((0, 0)), np.zeros((0, 0)))
