r"""Rewards of a refined driving scene: did the offsets mend the proposal? The scene's own worth comes from `driving`.

| reward | measures |
|---|---|
| point_refinement | eq. 13 over lane, outline and sign points, see below |
| point_closeness | how near lane points are to their label: dense where eq. 13 sees no difference (not in the paper) |
| lane_gain, polygon_gain | the paper's mask IoU gain: `movement.relative_gain` of the lanes' stroke IoU, of the area's IoU |
| box_refinement | `movement.box_refinement` |

Equation 13 needs a mask that a point is in or not. A lane's is its stroke (half of CULane's 30 px on either side), a sign's the
disc of its metric, an area's vertices belong on its outline, drawn as wide as a lane. Distances to curves replace drawn masks:
I = distance <= radius. What no offset could have reached (N_3x3 in the paper) is further than radius + reach, where the reach is
the offsets' greatest total along the diagonal. An element is held against the label that is nearest to its *proposal* (one to
one, within `lane_limit`); without one, its points should be deleted. Of boxes and signs without a label this is only known where
their class is labelled; else whatever is done with them earns 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from getok_drive.tokens.codec import cell_centers, decode_points, norm_to_px
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.reading import Answer, Proposed, read_proposal, read_refinement
from getok_drive.tokens.vocab import GRID_SIZE, TOKENS
from getok_drive.types import Scene
from training.metrics import culane
from training.metrics.assignment import assign_within
from training.metrics.detection import box_ious
from training.metrics.points import SIGN_RADIUS
from training.metrics.polylines import distances_to_line, lane_distances
from training.rewards.driving import NAN, PAPER_SIZE_WH, Completion, completed_scenes, polygon_iou, scene_rewards
from training.rewards.matching import BoolArray, FloatArray, match
from training.rewards.movement import box_refinement, point_scores, relative_gain
from training.rewards.placement import format_reward
from training.rewards.settings import RewardSettings, weighted
from training.samples import Sample


@dataclass(frozen=True, slots=True)
class Moved:
    """One proposed element before and after its answers, in pixels of the labels' picture.

    Attributes:
        kind: ``lane``, ``drivable``, ``box`` or ``sign``.
        word: its class or type.
        before_px: ``(N, 2)`` cells' centres.
        after_px: ``(N, 2)``; a deleted point's place is its cell's centre and has no meaning.
        deleted: ``(N,)``.
    """

    kind: str
    word: str
    before_px: FloatArray
    after_px: FloatArray
    deleted: BoolArray

    @property
    def kept_px(self) -> FloatArray:
        """The points that are left."""
        return self.after_px[~self.deleted]


def moved_elements(item: Completion) -> list[Moved]:
    """The elements of a proposal with what the refinement answered, point for point."""
    proposed, _ = read_proposal(item.propose_ids, item.limits or Limits(), Counter())
    anchors = [cell for element in proposed for cell in element.cells]
    answers = read_refinement(item.refine_ids or (), anchors, item.rounds, Counter())
    size_wh, result, at = item.labels.size_wh, [], 0
    for element in proposed:
        own = answers[at : at + len(element.cells)]
        at += len(element.cells)
        result.append(_moved(element, own, item.rounds, size_wh))
    return result


def _moved(element: Proposed, answers: Sequence[Answer], rounds: int, size_wh: tuple[int, int]) -> Moved:
    before, after = cell_centers(element.cells), cell_centers(element.cells)
    for k, answer in enumerate(answers):
        if answer.offsets:
            after[k] = decode_points([element.cells[k]], [answer.offsets])[0]
    word = TOKENS[element.head[1]][1:-1] if len(element.head) > 1 else ""
    deleted = np.array([answer.deleted for answer in answers], dtype=bool)
    return Moved(element.kind, word, norm_to_px(before, size_wh), norm_to_px(after, size_wh), deleted)


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """A refinement, judged point by point and element by element.

    Attributes:
        item: the completion.
        scene: what its ids mean.
        lane_ious: as of `driving.lane_ious`.
        elements: before and after.
        points: eq. 13 of each point of each element, see `point_refinements`.
        closeness: of each point of each lane, see `point_closeness`.
        strokes: of each lane, see `lane_strokes`.
        boxes: of each box, see `box_refinements`.
    """

    item: Completion
    scene: Scene
    lane_ious: FloatArray
    elements: list[Moved]
    points: list[FloatArray]
    closeness: list[FloatArray]
    strokes: dict[int, tuple[float, float] | None]
    boxes: FloatArray

    def polygon_gain(self, floor: float) -> float:
        """Relative gain of the united areas' IoU; NaN without an area."""
        labels, unmoved = self.item.labels, replace(self.item, refine_ids=None).scene()
        if "drivable" not in labels.known or not unmoved.drivable:
            return NAN
        return float(relative_gain(polygon_iou(labels, unmoved), polygon_iou(labels, self.scene), floor))


def refined(batch: Sequence[Completion], settings: RewardSettings) -> list[Refined]:
    """Every completion judged.

    Raises:
        ValueError: a completion without a refinement.
    """
    if any(item.refine_ids is None for item in batch):
        raise ValueError("driving_movement: a completion has no refine_ids; give [] for an empty refinement")
    result = []
    for item, scene, ious in zip(batch, *completed_scenes(batch), strict=True):
        labels, elements = item.labels, moved_elements(item)
        label_of = nearest_lanes(labels, elements, settings.lane_limit) if "lanes" in labels.known else {}
        result.append(
            Refined(
                item, scene, ious, elements, point_refinements(labels, elements, label_of, item.rounds, settings),
                point_closeness(labels, elements, label_of, settings), lane_strokes(labels, elements, label_of),
                box_refinements(labels, elements, settings),
            )
        )  # fmt: skip
    return result


def driving_movement(batch: Sequence[Completion], settings: RewardSettings | None = None) -> list[dict[str, float]]:
    """Rewards of refinements, with ``overall``; NaN for what the picture has nothing of.

    Raises:
        ValueError: a completion without a refinement.
    """
    settings = settings or RewardSettings()
    return [movement_reward(own, settings) for own in refined(batch, settings)]


def movement_reward(own: Refined, settings: RewardSettings) -> dict[str, float]:
    """Rewards of one refinement, with ``overall``."""
    floor = settings.gain_floor
    rewards = {
        "format": format_reward(not own.item.truncated and not own.scene.report.dropped),
        "point_refinement": _mean(np.concatenate([np.zeros(0), *own.points])),
        "point_closeness": _mean(np.concatenate([np.zeros(0), *own.closeness])),
        "lane_gain": _mean([stroke_gain(own.elements[k], ious, floor) for k, ious in own.strokes.items()]),
        "polygon_gain": own.polygon_gain(floor),
        "box_refinement": _mean(own.boxes),
        **scene_rewards(own.item.labels, own.scene, own.lane_ious, settings),
    }
    return weighted(rewards, settings.driving_movement)


def _mean(values: npt.ArrayLike) -> float:
    """NaN of nothing."""
    each = np.asarray(values, dtype=np.float64)
    return float(each.mean()) if each.size else NAN


def nearest_lanes(labels: Sample, elements: Sequence[Moved], limit: float) -> dict[int, int]:
    """The label of each element that is a lane and has one."""
    lanes = [k for k, element in enumerate(elements) if element.kind == "lane"]
    distances = lane_distances([lane.points_px for lane in labels.lanes], [elements[k].before_px for k in lanes])
    rows, columns = assign_within(distances, limit * labels.size_wh[0])
    return {lanes[column]: row for row, column in zip(rows.tolist(), columns.tolist(), strict=True)}


def point_refinements(
    labels: Sample, elements: Sequence[Moved], label_of: Mapping[int, int], rounds: int, settings: RewardSettings
) -> list[FloatArray]:
    """Eq. 13 of each point of each element; empty for boxes and for kinds that are not labelled."""
    width_px = labels.size_wh[0]
    reach_px = float(np.hypot(*labels.size_wh)) * (1.0 - 0.5**rounds) / GRID_SIZE
    scores = [np.zeros(0) for _ in elements]

    def score(k: int, curves: Sequence[npt.ArrayLike], radius_px: float) -> None:
        def distance(points_px: FloatArray) -> FloatArray:
            each = [distances_to_line(points_px, curve) for curve in curves]
            return np.min(each, axis=0) if each else np.full(len(points_px), np.inf)

        before = distance(elements[k].before_px)
        scores[k] = point_scores(
            before <= radius_px, distance(elements[k].after_px) <= radius_px, elements[k].deleted, before > radius_px + reach_px
        )

    if "lanes" in labels.known:
        for k, element in enumerate(elements):
            if element.kind == "lane":
                score(k, [labels.lanes[label_of[k]].points_px] if k in label_of else [], settings.lane_radius * width_px)
    if "drivable" in labels.known:
        outlines = [np.concatenate([a.polygon_px, a.polygon_px[:1]]).astype(np.float64) for a in labels.drivable]
        for k, element in enumerate(elements):
            if element.kind == "drivable":
                score(k, outlines, settings.lane_radius * width_px)
    if "signs" in labels.known:
        for k, element in enumerate(elements):
            if element.kind == "sign" and is_labelled(labels, "signs", element.word):
                points = [np.reshape(s.point_px, (1, 2)) for s in labels.signs if s.class_name == element.word]
                score(k, points, SIGN_RADIUS * width_px)
    return scores


def point_closeness(
    labels: Sample, elements: Sequence[Moved], label_of: Mapping[int, int], settings: RewardSettings
) -> list[FloatArray]:
    """Of each lane's points: clip(1 - distance / `RewardSettings.point_limit`, 0, 1) to its label, 0 where deleted.

    Dense where eq. 13 sees no difference between near and far. Lanes without a label, and other kinds, have none.
    """
    result = [np.zeros(0) for _ in elements]
    for k, row in label_of.items():
        distances = distances_to_line(elements[k].after_px, labels.lanes[row].points_px)
        near = np.clip(1.0 - distances / (settings.point_limit * labels.size_wh[0]), 0.0, 1.0)
        result[k] = np.where(elements[k].deleted, 0.0, near)
    return result


def lane_strokes(labels: Sample, elements: Sequence[Moved], label_of: Mapping[int, int]) -> dict[int, tuple[float, float] | None]:
    """Of each element that is a lane: its stroke's IoU with its label before and after; None for one without a label."""
    sizes = (labels.size_wh, culane.PICTURE_WH)
    result: dict[int, tuple[float, float] | None] = {}
    for k, lane in enumerate(elements):
        if lane.kind == "lane" and k in label_of:
            truth = [culane.scale_points(labels.lanes[label_of[k]].points_px, *sizes)]
            ious = culane.stroke_ious(truth, [culane.scale_points(p, *sizes) for p in (lane.before_px, lane.kept_px)])[0]
            result[k] = float(ious[0]), float(ious[1])
        elif lane.kind == "lane" and "lanes" in labels.known:
            result[k] = None
    return result


def stroke_gain(lane: Moved, ious: tuple[float, float] | None, floor: float) -> float:
    """Relative gain of a lane of `lane_strokes`; without a label: 1 if it was deleted, else 0."""
    return float(len(lane.kept_px) < 2) if ious is None else float(relative_gain(*ious, floor))


def box_refinements(labels: Sample, elements: Sequence[Moved], settings: RewardSettings) -> FloatArray:
    """`movement.box_refinement` of each box, in order; labels by eq. 9 (whatever their class) of the proposal."""
    boxes = [element for element in elements if element.kind == "box"]
    if not boxes or "boxes" not in labels.known:
        return np.zeros(0)
    half_cell = 0.5 / GRID_SIZE * np.array(labels.size_wh)
    before, after = (np.stack([_xyxy(points, half_cell) for points in side]) for side in zip(
        *[(b.before_px, b.after_px) for b in boxes], strict=True
    ))  # fmt: skip
    truth = np.array([b.xyxy_px for b in labels.boxes], dtype=np.float64).reshape(-1, 4)
    scale = np.tile(np.divide(PAPER_SIZE_WH, labels.size_wh), 2)
    corners = np.abs((before[:, None] - truth[None]) * scale).mean(axis=2)
    p, g = match(box_ious(before, truth) + np.clip(1.0 - corners / settings.l1_scale_px, 0.0, 1.0))
    label = np.full((len(boxes), 4), np.nan)
    label[p] = truth[g]
    gone = np.array([bool(b.deleted.any()) for b in boxes])
    unknown = np.isnan(label[:, 0]) & np.array([not is_labelled(labels, "boxes", b.word) for b in boxes])
    return np.where(unknown, 0.0, box_refinement(before, after, gone, label, settings.gain_floor))


def is_labelled(labels: Sample, kind: str, word: str) -> bool:
    """Whether the data set labels a class of boxes or signs, see ``labelled_classes`` in `training.recipes.partial`."""
    return word in labels.meta.get("labelled_classes", {}).get(kind, (word,))


def _xyxy(corners_px: FloatArray, half_cell_px: FloatArray) -> FloatArray:
    """Two corners as a box; where an axis has no extent it takes the cell's own, as the parser does for unrefined boxes."""
    same = corners_px[0] >= corners_px[1]
    return np.concatenate([corners_px[0] - half_cell_px * same, corners_px[1] + half_cell_px * same])
