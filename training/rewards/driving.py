r"""Rewards of a driving scene, from the token ids that the model wrote; what a refinement mended is in `driving_movement`.

Everything is measured with the project's own metrics (`training.metrics`), so that what is rewarded is what is reported:

| reward | measures |
|---|---|
| lane_f1 | F1 of CULane's metric, mean over `RewardSettings.lane_thresholds` |
| lane_closeness | matched lanes' mean of clip(1 - distance / lane_limit, 0, 1), over max(P, G): dense where F1 is still 0 |
| polygon_iou | IoU of the united drivable areas |
| detection_f1 | class-aware F1 of boxes at IoU `box_threshold` |
| box | IoU and corner L1 (eq. 6, 8) of matched boxes of one class, over max(P, G), in pixels of 840 x 840 |
| sign_hits | class-aware F1 of sign points within 2 % of the width |
| non_repetition | share of elements that do not repeat an earlier one of their kind, unless the labels do too |
| format | 1 if nothing that was written had to be dropped and no budget cut it short |

Which labels are right for the propose turn is the caller's choice: cells cannot express what lies between, so `training.grpo`
hands over labels at their cells' centres, where a perfect proposal earns 1.

Kinds that the data set does not label are NaN; boxes and signs of classes that it does not label, and boxes in regions that it
leaves out, are neither right nor wrong (`training.metrics.frame.judged_scene`). A picture without an element of a kind, rightly
left empty, earns 1; an empty answer where there is something to find earns 0 for it, and for not repeating itself. Writing
every cell loses F1, IoU and non-repetition; repeating one element loses F1 (one to one matching) and non-repetition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from getok_drive.tokens.limits import Limits
from getok_drive.tokens.parsing import parse, parse_each
from getok_drive.tokens.reading import Proposed
from getok_drive.tokens.vocab import BOX_CLASSES, OFFSET_ROUNDS, SIGN_CLASSES
from getok_drive.types import Scene
from training.metrics import culane
from training.metrics.assignment import assign_culane, assign_within
from training.metrics.detection import Boxes, box_ious, detection_counts_by_class
from training.metrics.drivable import region_row
from training.metrics.frame import judged_scene
from training.metrics.points import SIGN_RADIUS, point_counts_by_class
from training.metrics.polylines import lane_distances
from training.rewards.matching import FloatArray, l1_scores, match
from training.rewards.placement import box_reward, format_reward
from training.rewards.settings import RewardSettings, weighted
from training.samples import Sample

NAN = float("nan")
PAPER_SIZE_WH = (840, 840)  # where the paper's tau_l1 of 18 px holds


@dataclass(frozen=True, slots=True)
class Completion:
    """What was written for one picture, and its labels.

    Attributes:
        labels: picture and labels; only its ``known`` kinds are judged.
        propose_ids: local token ids of the proposal.
        refine_ids: local ids of the refinement; None for the propose turn alone.
        truncated: whether a budget cut the answer short.
        rounds: offset rounds of the model.
        limits: greatest numbers of elements and points.
    """

    labels: Sample
    propose_ids: Sequence[int]
    refine_ids: Sequence[int] | None = None
    truncated: bool = False
    rounds: int = OFFSET_ROUNDS
    limits: Limits | None = None

    def scene(self) -> Scene:
        """The scene that the ids mean, in pixels of the labels' picture."""
        size_wh = self.labels.size_wh
        lanes, areas, boxes, signs, report = parse(
            self.propose_ids, self.refine_ids, size_wh=size_wh, rounds=self.rounds, limits=self.limits
        )
        return Scene(size_wh, lanes, areas, boxes, signs, truncated=self.truncated, report=report)

    def written(self) -> list[tuple[Proposed, bool]]:
        """The proposed elements in the text's order, each with whether it is in the scene or was deleted or dropped."""
        each, *_ = parse_each(
            self.propose_ids, self.refine_ids, size_wh=self.labels.size_wh, rounds=self.rounds, limits=self.limits
        )
        return [(proposed, element is not None) for proposed, element in each]


def f1(counts: FloatArray) -> float:
    """F1 of (TP, FP, FN); 1 where there is nothing to find and nothing was found."""
    tp, fp, fn = (float(value) for value in counts)
    return 2.0 * tp / (2.0 * tp + fp + fn) if tp + fp + fn else 1.0


# --- one reward each -------------------------------------------------------------------------------------------------


def lane_ious(labels: Sample, scenes: Sequence[Scene]) -> list[FloatArray]:
    """Stroke IoUs ``(G, P)`` of CULane's metric for several answers to one picture; its labels are drawn once."""
    counts = [len(scene.lanes) for scene in scenes]
    if not labels.lanes or not sum(counts):
        return [np.zeros((len(labels.lanes), count)) for count in counts]
    truth, predicted = (
        [culane.scale_points(lane.points_px, labels.size_wh, culane.PICTURE_WH) for lane in lanes]
        for lanes in (labels.lanes, [lane for scene in scenes for lane in scene.lanes])
    )
    return np.split(culane.stroke_ious(truth, predicted), np.cumsum(counts)[:-1], axis=1)


def lane_f1(ious: FloatArray, thresholds: Sequence[float]) -> float:
    """Mean over the thresholds of the picture's CULane F1, from `lane_ious`; equals `culane.culane_counts` (tested)."""
    best = ious[assign_culane(ious)] if ious.size else np.zeros(0)
    hits = [int((best > threshold).sum()) for threshold in thresholds]
    return float(np.mean([f1(np.array([hit, ious.shape[1] - hit, ious.shape[0] - hit])) for hit in hits]))


def lane_closeness(labels: Sample, scene: Scene, limit: float) -> float:
    """Mean closeness of lanes matched within ``limit`` of the width; surplus and missed lanes count 0."""
    truth, predicted = [lane.points_px for lane in labels.lanes], [lane.points_px for lane in scene.lanes]
    if not truth and not predicted:
        return 1.0
    distances = lane_distances(truth, predicted)
    limit_px = limit * labels.size_wh[0]
    rows, columns = assign_within(distances, limit_px)
    return float((1.0 - distances[rows, columns] / limit_px).sum() / max(len(truth), len(predicted)))


def polygon_iou(labels: Sample, scene: Scene) -> float:
    """IoU of the united drivable areas."""
    areas = [[area.polygon_px for area in where.drivable] for where in (labels, scene)]
    return float(region_row(areas[0], areas[1], labels.size_wh)[4])


def detection_f1(labels: Sample, scene: Scene, threshold: float, min_height: float) -> float:
    """Class-aware F1 of the boxes."""
    truth, predicted = (
        Boxes.of([b.xyxy_px for b in boxes], [b.class_name for b in boxes], [b.confidence for b in boxes])
        for boxes in (labels.boxes, scene.boxes)
    )
    limit_px = min_height * labels.size_wh[1]
    return f1(detection_counts_by_class(truth, predicted, BOX_CLASSES, threshold, limit_px).sum(axis=0))


def box_closeness(labels: Sample, scene: Scene, l1_scale_px: float) -> float:
    """`placement.box_reward` of boxes matched one to one within their class, by IoU + corner L1 in the paper's picture."""
    if not labels.boxes and not scene.boxes:
        return 1.0
    scale = np.tile(np.divide(PAPER_SIZE_WH, labels.size_wh), 2)
    own, truth = (
        np.array([b.xyxy_px for b in boxes], dtype=np.float64).reshape(-1, 4) * scale for boxes in (scene.boxes, labels.boxes)
    )
    same = [[p.class_name == g.class_name for g in labels.boxes] for p in scene.boxes]
    corners = l1_scores(own, truth, l1_scale_px)
    p, g = match(np.where(np.array(same, dtype=bool).reshape(corners.shape), box_ious(own, truth) + corners, 0.0))
    return box_reward(own[p], truth[g], max(len(own), len(truth)), l1_scale_px)


def sign_hits(labels: Sample, scene: Scene) -> float:
    """Class-aware F1 of the sign points."""
    truth, predicted = ([s.point_px for s in where.signs] for where in (labels, scene))
    classes = [s.class_name for s in labels.signs], [s.class_name for s in scene.signs]
    radius_px = SIGN_RADIUS * labels.size_wh[0]
    return f1(point_counts_by_class(truth, classes[0], predicted, classes[1], SIGN_CLASSES, radius_px).sum(axis=0))


def non_repetition(labels: Sample, scene: Scene, settings: RewardSettings) -> float:
    """Share of the elements that do not repeat an earlier one of their kind, beyond what the labels of that kind themselves do.

    A box repeats another by IoU, lanes and signs by distance (signs of one class), an area by IoU of its bounding box. An empty
    scene: 1 if it should be empty, else 0.
    """
    truth = Scene(
        labels.size_wh,
        lanes=labels.lanes if "lanes" in labels.known else (),
        drivable=labels.drivable if "drivable" in labels.known else (),
        boxes=labels.boxes if "boxes" in labels.known else (),
        signs=labels.signs if "signs" in labels.known else (),
    )
    if not scene.elements:
        return float(not truth.elements)
    repeats = zip(_repeats(scene, settings), _repeats(truth, settings), strict=True)
    return 1.0 - sum(max(0, own - right) for own, right in repeats) / scene.elements


def _repeats(scene: Scene, settings: RewardSettings) -> list[int]:
    """Of each kind, how many elements repeat an earlier one."""
    near_px = settings.duplicate_distance * scene.image_size_wh[0]
    lanes = [lane.points_px for lane in scene.lanes]
    hulls = np.array([[*a.polygon_px.min(axis=0), *a.polygon_px.max(axis=0)] for a in scene.drivable]).reshape(-1, 4)
    boxes = np.array([box.xyxy_px for box in scene.boxes]).reshape(-1, 4)
    signs = np.array([sign.point_px for sign in scene.signs], dtype=np.float64).reshape(-1, 2)
    words = np.array([sign.class_name for sign in scene.signs], dtype=object)
    same_sign = (np.linalg.norm(signs[:, None] - signs[None], axis=2) <= near_px) & (words[:, None] == words[None])
    alike = (
        lane_distances(lanes, lanes) <= near_px,
        box_ious(hulls, hulls) >= settings.duplicate_iou,
        box_ious(boxes, boxes) >= settings.duplicate_iou,
        same_sign,
    )
    return [int(np.tril(pairs, -1).any(axis=1).sum()) if pairs.size else 0 for pairs in alike]


# --- placement -------------------------------------------------------------------------------------------------------


def driving_placement(batch: Sequence[Completion], settings: RewardSettings | None = None) -> list[dict[str, float]]:
    """Rewards of proposed scenes (or of refined ones, where `Completion.refine_ids` is given), with ``overall``."""
    settings = settings or RewardSettings()
    return [
        placement_reward(item, scene, ious, settings) for item, scene, ious in zip(batch, *completed_scenes(batch), strict=True)
    ]


def completed_scenes(batch: Sequence[Completion]) -> tuple[list[Scene], list[FloatArray]]:
    """Each completion's scene, and its lanes' IoUs with its labels (those that share a picture are drawn together)."""
    scenes = [item.scene() for item in batch]
    of_picture: dict[int, list[int]] = {}
    for index, item in enumerate(batch):
        of_picture.setdefault(id(item.labels), []).append(index)
    ious: dict[int, FloatArray] = {}
    for indices in of_picture.values():
        ious.update(zip(indices, lane_ious(batch[indices[0]].labels, [scenes[index] for index in indices]), strict=True))
    return scenes, [ious[index] for index in range(len(batch))]


def placement_reward(item: Completion, scene: Scene, ious: FloatArray, settings: RewardSettings) -> dict[str, float]:
    """Rewards of one scene, with ``overall``; ``scene`` and ``ious`` as of `completed_scenes`."""
    labels = item.labels
    rewards = {
        "format": format_reward(not item.truncated and not scene.report.dropped),
        "non_repetition": non_repetition(labels, scene, settings),
        **scene_rewards(labels, scene, ious, settings),
        "lane_closeness": lane_closeness(labels, scene, settings.lane_limit) if "lanes" in labels.known else NAN,
        "box": box_closeness(labels, judged_scene(labels, scene), settings.l1_scale_px) if "boxes" in labels.known else NAN,
    }
    return weighted(rewards, settings.driving_placement)


def scene_rewards(labels: Sample, scene: Scene, ious: FloatArray, settings: RewardSettings) -> dict[str, float]:
    """What a scene is worth by each metric; NaN for kinds that are not labelled. ``ious`` as of `lane_ious`."""
    known, scene = labels.known, judged_scene(labels, scene)
    return {
        "lane_f1": lane_f1(ious, settings.lane_thresholds) if "lanes" in known else NAN,
        "polygon_iou": polygon_iou(labels, scene) if "drivable" in known else NAN,
        "detection_f1": (
            detection_f1(labels, scene, settings.box_threshold, settings.box_min_height) if "boxes" in known else NAN
        ),
        "sign_hits": sign_hits(labels, scene) if "signs" in known else NAN,
    }
