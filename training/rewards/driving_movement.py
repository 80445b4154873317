r"""Rewards of a refined driving scene: did the offsets mend the proposal? The scene's own worth comes from `driving`.

| reward | measures |
|---|---|
| point_refinement | eq. 13 over lane, outline and sign points, see below |
| lane_gain, polygon_gain | the paper's mask IoU gain: `movement.relative_gain` of the lanes' stroke IoU, of the area's IoU |
| box_refinement | `movement.box_refinement` |

Equation 13 needs a mask that a point is in or not. A lane's is its stroke (half of CULane's 30 px on either side), a sign's the
disc of its metric, an area's vertices belong on its outline, drawn as wide as a lane. Distances to curves replace drawn masks:
I = distance <= radius. What no offset could have reached (N_3x3 in the paper) is further than radius + reach, where the reach is
the offsets' greatest total along the diagonal. An element is held against the label that is nearest to its *proposal* (one to
one, within `lane_limit`); without one, its points should be deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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


def driving_movement(batch: Sequence[Completion], settings: RewardSettings | None = None) -> list[dict[str, float]]:
    """Rewards of refinements, with ``overall``; NaN for what the picture has nothing of.

    Raises:
        ValueError: a completion without a refinement.
    """
    settings = settings or RewardSettings()
    if any(item.refine_ids is None for item in batch):
        raise ValueError("driving_movement: a completion has no refine_ids; give [] for an empty refinement")
    return [
        weighted(_movement(item, scene, ious, settings), settings.driving_movement)
        for item, scene, ious in zip(batch, *completed_scenes(batch), strict=True)
    ]


def _movement(item: Completion, scene: Scene, ious: FloatArray, settings: RewardSettings) -> dict[str, float]:
    labels, elements = item.labels, moved_elements(item)
    unmoved = replace(item, refine_ids=None).scene()
    return {
        "format": format_reward(not item.truncated and not scene.report.dropped),
        "point_refinement": _point_refinement(labels, elements, item.rounds, settings),
        "lane_gain": _lane_gain(labels, elements, settings),
        "polygon_gain": _polygon_gain(labels, scene, unmoved, settings.gain_floor),
        "box_refinement": _box_refinement(labels, elements, settings),
        **scene_rewards(labels, scene, ious, settings),
    }


def _nearest_lanes(labels: Sample, lanes: Sequence[Moved], limit: float) -> dict[int, int]:
    """The label of each proposed lane that has one."""
    distances = lane_distances([lane.points_px for lane in labels.lanes], [lane.before_px for lane in lanes])
    rows, columns = assign_within(distances, limit * labels.size_wh[0])
    return dict(zip(columns.tolist(), rows.tolist(), strict=True))


def _point_refinement(labels: Sample, elements: Sequence[Moved], rounds: int, settings: RewardSettings) -> float:
    """Mean of eq. 13 over the points of lanes, outlines and signs of the labelled kinds."""
    width_px = labels.size_wh[0]
    reach_px = float(np.hypot(*labels.size_wh)) * (1.0 - 0.5**rounds) / GRID_SIZE
    scores: list[FloatArray] = []

    def score(element: Moved, curves: Sequence[npt.ArrayLike], radius_px: float) -> None:
        def distance(points_px: FloatArray) -> FloatArray:
            each = [distances_to_line(points_px, curve) for curve in curves]
            return np.min(each, axis=0) if each else np.full(len(points_px), np.inf)

        before = distance(element.before_px)
        scores.append(
            point_scores(
                before <= radius_px, distance(element.after_px) <= radius_px, element.deleted, before > radius_px + reach_px
            )
        )

    lanes = [element for element in elements if element.kind == "lane"]
    if "lanes" in labels.known:
        label_of = _nearest_lanes(labels, lanes, settings.lane_limit)
        for k, lane in enumerate(lanes):
            score(lane, [labels.lanes[label_of[k]].points_px] if k in label_of else [], settings.lane_radius * width_px)
    if "drivable" in labels.known:
        outlines = [np.concatenate([a.polygon_px, a.polygon_px[:1]]).astype(np.float64) for a in labels.drivable]
        for element in elements:
            if element.kind == "drivable":
                score(element, outlines, settings.lane_radius * width_px)
    if "signs" in labels.known:
        for element in elements:
            if element.kind == "sign":
                points = [np.reshape(s.point_px, (1, 2)) for s in labels.signs if s.class_name == element.word]
                score(element, points, SIGN_RADIUS * width_px)
    return float(np.concatenate(scores).mean()) if scores else NAN


def _lane_gain(labels: Sample, elements: Sequence[Moved], settings: RewardSettings) -> float:
    """Mean relative gain of stroke IoU over the lanes; one without a label: 1 if it was deleted, else 0."""
    lanes = [element for element in elements if element.kind == "lane"]
    if "lanes" not in labels.known or not lanes:
        return NAN
    label_of = _nearest_lanes(labels, lanes, settings.lane_limit)
    gains = []
    for k, lane in enumerate(lanes):
        if k not in label_of:
            gains.append(float(len(lane.kept_px) < 2))
            continue
        truth, sizes = [labels.lanes[label_of[k]].points_px], (labels.size_wh, culane.PICTURE_WH)
        before, after = culane.stroke_ious(
            [culane.scale_points(truth[0], *sizes)], [culane.scale_points(p, *sizes) for p in (lane.before_px, lane.kept_px)]
        )[0]
        gains.append(float(relative_gain(before, after, settings.gain_floor)))
    return float(np.mean(gains))


def _polygon_gain(labels: Sample, scene: Scene, unmoved: Scene, floor: float) -> float:
    if "drivable" not in labels.known or not unmoved.drivable:
        return NAN
    return float(relative_gain(polygon_iou(labels, unmoved), polygon_iou(labels, scene), floor))


def _box_refinement(labels: Sample, elements: Sequence[Moved], settings: RewardSettings) -> float:
    """Mean of `movement.box_refinement` over the boxes; labels by eq. 9 (whatever their class) of the proposal."""
    boxes = [element for element in elements if element.kind == "box"]
    if "boxes" not in labels.known or not boxes:
        return NAN
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
    return float(box_refinement(before, after, gone, label, settings.gain_floor).mean())


def _xyxy(corners_px: FloatArray, half_cell_px: FloatArray) -> FloatArray:
    """Two corners as a box; where an axis has no extent it takes the cell's own, as the parser does for unrefined boxes."""
    same = corners_px[0] >= corners_px[1]
    return np.concatenate([corners_px[0] - half_cell_px * same, corners_px[1] + half_cell_px * same])
