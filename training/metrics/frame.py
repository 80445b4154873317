"""One picture's labels against one predicted scene: everything that the set's numbers, intervals and curves are summed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.types import Scene
from training.metrics import culane, detection, drivable, masks, points, polylines
from training.metrics.benchmarks import benchmark_rows
from training.metrics.detection import Boxes
from training.metrics.raster import fill_polygons
from training.samples import KINDS, Sample

FloatArray = npt.NDArray[np.float64]

LANE_HIT = 0.5  # stroke IoU that makes a lane a true positive
BOX_HIT = 0.5  # IoU that makes a box a true positive; share of an unmatched box in an ignored region that excuses it
MIN_HEIGHT = 0.05  # of the image height: shorter boxes are ignored in the headline
SIZES = {"small": (0.0, 0.05), "medium": (0.05, 0.15), "large": (0.15, np.inf)}  # heights of boxes, of the image height


@dataclass(frozen=True, slots=True)
class FrameScore:
    """Rows of sums of one picture, by the row's name; kinds that the data set does not label, or not asked for, are absent.

    Attributes:
        key: which picture.
        group: its sequence; pictures of one group are resampled together.
        rows: named sums, see `score_frame`.
        pairs: by kind, ``(N, 2)`` confidence and hit (0 or 1) of each prediction.
        truth_boxes: labelled boxes, for average precision.
        predicted_boxes: predicted boxes, likewise.
        box_limit_px: height below which labelled boxes are ignored.
        height_px: of the picture.
        quality: 0..1, mean over the kinds; orders the worst cases.
    """

    key: str
    group: object
    rows: dict[str, FloatArray]
    pairs: dict[str, FloatArray] = field(default_factory=dict)
    truth_boxes: Boxes | None = None
    predicted_boxes: Boxes | None = None
    box_limit_px: float = 0.0
    height_px: int = 0
    quality: float = 1.0


def _pairs(confidences: Sequence[float], hits: Sequence[bool] | npt.NDArray[np.bool_]) -> FloatArray:
    return np.stack([np.asarray(confidences, dtype=np.float64), np.asarray(hits, dtype=np.float64)], axis=1)


def _agreement(pairs: Sequence[tuple[object, object]]) -> FloatArray:
    """``(2,)``: how many pairs are equal, and how many there are."""
    return np.array([sum(a == b for a, b in pairs), len(pairs)], dtype=np.float64)


def _score_lanes(sample: Sample, scene: Scene, rows: dict[str, FloatArray], pairs: dict[str, FloatArray]) -> float:
    truth, predicted = [lane.points_px for lane in sample.lanes], [lane.points_px for lane in scene.lanes]
    at_truth, at_predicted, ious = culane.match_lanes(truth, predicted, sample.size_wh)
    hits = (ious[None] > np.asarray(culane.THRESHOLDS)[:, None]).sum(axis=1)
    counts = np.stack([hits, len(predicted) - hits, len(truth) - hits], axis=1).astype(np.float64)
    rows["lanes"] = counts.ravel()
    rows["lane_polylines"] = polylines.polyline_counts(truth, predicted, sample.size_wh[0])
    good = ious > LANE_HIT
    matched = [(sample.lanes[g], scene.lanes[p]) for g, p in zip(at_truth[good], at_predicted[good], strict=True)]
    rows["lane_type"] = _agreement([(a.type, b.type) for a, b in matched])
    rows["lane_color"] = _agreement([(a.color, b.color) for a, b in matched])
    right = np.zeros(len(predicted), dtype=bool)
    right[at_predicted[good]] = True
    pairs["lanes"] = _pairs([lane.confidence for lane in scene.lanes], right)
    return _quality(counts[0])


def _score_drivable(sample: Sample, scene: Scene, rows: dict[str, FloatArray], pairs: dict[str, FloatArray]) -> float:
    truth = fill_polygons([area.polygon_px for area in sample.drivable], sample.size_wh)
    each = [fill_polygons([area.polygon_px], sample.size_wh) for area in scene.drivable]
    union = np.any(each, axis=0) if each else np.zeros_like(truth)
    rows["drivable"] = drivable.mask_row(truth, union)
    rows["drivable_boundary"] = np.array([masks.boundary_f(truth, union), 1.0])
    pairs["drivable"] = _pairs(
        [area.confidence for area in scene.drivable], [bool((mask & truth).sum() * 2 > mask.sum() > 0) for mask in each]
    )
    return float(rows["drivable"][4])


def _score_boxes(
    sample: Sample, scene: Scene, classes: Sequence[str], rows: dict[str, FloatArray], pairs: dict[str, FloatArray]
) -> tuple[float, Boxes, Boxes, float]:
    limit_px = MIN_HEIGHT * sample.size_wh[1]
    truth, predicted = (
        Boxes.of([b.xyxy_px for b in boxes], [b.class_name for b in boxes], [b.confidence for b in boxes])
        for boxes in (sample.boxes, scene.boxes)
    )
    for name, least in (("boxes", limit_px), ("boxes_all_sizes", 0.0)):
        rows[name] = detection.detection_counts_by_class(truth, predicted, classes, BOX_HIT, least).ravel()
        rows[f"{name}_class_agnostic"] = detection.detection_counts(truth, predicted, BOX_HIT, least)
    for name, (least, most) in SIZES.items():
        heights_px = (least * sample.size_wh[1], most * sample.size_wh[1])
        counts = detection.detection_counts_by_class(truth, predicted, classes, BOX_HIT, *heights_px)
        rows[f"boxes_{name}"] = counts.sum(axis=0)
    match = detection.box_hits(truth, predicted, BOX_HIT)
    matched = [(sample.boxes[g].attributes, scene.boxes[p].attributes) for p, g in enumerate(match) if g >= 0]
    for attribute in ("visible_state", "road_blockage"):
        rows[f"box_{attribute}"] = _agreement(
            [(a[attribute], b[attribute]) for a, b in matched if attribute in a and attribute in b]
        )
    pairs["boxes"] = _pairs([box.confidence for box in scene.boxes], match >= 0)
    return _quality(rows["boxes"].reshape(-1, 3).sum(axis=0)), truth, predicted, limit_px


def _score_signs(
    sample: Sample, scene: Scene, classes: Sequence[str], rows: dict[str, FloatArray], pairs: dict[str, FloatArray]
) -> float:
    radius_px = points.SIGN_RADIUS * sample.size_wh[0]
    truth_px, predicted_px = [s.point_px for s in sample.signs], [s.point_px for s in scene.signs]
    truth_class, predicted_class = [s.class_name for s in sample.signs], [s.class_name for s in scene.signs]
    rows["signs"] = points.point_counts_by_class(truth_px, truth_class, predicted_px, predicted_class, classes, radius_px).ravel()
    rows["signs_class_agnostic"] = points.point_counts(truth_px, predicted_px, radius_px)
    match = points.point_hits(truth_px, truth_class, predicted_px, predicted_class, radius_px)
    rows["sign_color"] = _agreement([(sample.signs[g].color, scene.signs[p].color) for p, g in enumerate(match) if g >= 0])
    pairs["signs"] = _pairs([sign.confidence for sign in scene.signs], match >= 0)
    return _quality(rows["signs"].reshape(-1, 3).sum(axis=0))


def _quality(counts: FloatArray) -> float:
    """F1 of (TP, FP, FN); 1 where there is nothing to find and nothing was found."""
    total = 2.0 * counts[0] + counts[1] + counts[2]
    return float(2.0 * counts[0] / total) if total else 1.0


def _of_labelled_classes(scene: Scene, sample: Sample) -> Scene:
    """Without boxes and signs of classes that the data set does not label: nobody knows whether they are there."""
    classes = sample.meta.get("labelled_classes", {})
    boxes = tuple(box for box in scene.boxes if box.class_name in classes.get("boxes", (box.class_name,)))
    signs = tuple(sign for sign in scene.signs if sign.class_name in classes.get("signs", (sign.class_name,)))
    return replace(scene, boxes=boxes, signs=signs)


def _without_ignored(sample: Sample, scene: Scene) -> Scene:
    """Without boxes that match no label and lie by half or more in a region whose objects are not labelled one by one."""
    regions = np.asarray(sample.meta.get("ignore_xyxy_px", ()), dtype=np.float64).reshape(-1, 4)
    if not len(regions) or not scene.boxes:
        return scene
    own = np.array([box.xyxy_px for box in scene.boxes], dtype=np.float64)
    common = np.minimum(own[:, None, 2:], regions[None, :, 2:]) - np.maximum(own[:, None, :2], regions[None, :, :2])
    shares = np.prod(np.maximum(common, 0.0), axis=2).max(axis=1) / np.prod(own[:, 2:] - own[:, :2], axis=1)
    labels = [box.xyxy_px for box in sample.boxes]
    free = detection.box_ious(own, labels).max(axis=1, initial=0.0) < BOX_HIT
    kept = zip(scene.boxes, free & (shares >= BOX_HIT), strict=True)
    return replace(scene, boxes=tuple(box for box, ignored in kept if not ignored))


def judged_scene(sample: Sample, scene: Scene) -> Scene:
    """Without boxes and signs that nobody can judge: of classes that are not labelled, and boxes in ignored regions."""
    return _without_ignored(sample, _of_labelled_classes(scene, sample))


def score_frame(
    sample: Sample,
    scene: Scene,
    tasks: Sequence[str],
    box_classes: Sequence[str],
    sign_classes: Sequence[str],
    key: str = "",
    wall_ms: float | None = None,
) -> FrameScore:
    """Score one picture.

    Args:
        sample: the labels; only kinds in ``sample.known`` are scored, and predictions of classes that ``labelled_classes`` of
            its ``meta`` leaves out are neither right nor wrong. Nor are boxes that match no label and lie by half or more in one
            of ``ignore_xyxy_px`` of ``meta`` (COCO's crowds, KITTI's DontCare; their code does it so).
        scene: the prediction, in pixels of the same picture.
        tasks: kinds to score, of ``KINDS``.
        box_classes: classes that class-aware counts have a row for; classes of neither list are not counted there.
        sign_classes: likewise for signs.
        key: the picture's name.
        wall_ms: time that the prediction took, milliseconds; None if unknown.

    Returns:
        Rows ``lanes`` (10 thresholds x (TP, FP, FN)), ``lane_polylines`` (TP, FP, FN), ``drivable`` (see `drivable.mask_row`),
        ``drivable_boundary`` (F, 1), ``boxes``, ``boxes_all_sizes``, ``signs`` (classes x (TP, FP, FN)), their
        ``*_class_agnostic`` sums, ``boxes_`` and one of `SIZES` (TP, FP, FN), ``(equal, matched)`` of the attributes, and those
        of `benchmark_rows`.

    Raises:
        InputError: the scene is for a picture of another size.
    """
    if scene.image_size_wh != sample.size_wh:
        (width, height), (own_width, own_height) = scene.image_size_wh, sample.size_wh
        raise InputError(f"{key}: the scene is for a picture of {width}x{height} px, the labels for {own_width}x{own_height} px")
    scene = judged_scene(sample, scene)
    asked = [kind for kind in KINDS if kind in tasks and kind in sample.known]
    rows: dict[str, FloatArray] = {}
    pairs: dict[str, FloatArray] = {}
    truth = predicted = None
    limit_px = 0.0
    qualities = []
    if "lanes" in asked:
        qualities.append(_score_lanes(sample, scene, rows, pairs))
    if "drivable" in asked:
        qualities.append(_score_drivable(sample, scene, rows, pairs))
    if "boxes" in asked:
        quality, truth, predicted, limit_px = _score_boxes(sample, scene, box_classes, rows, pairs)
        qualities.append(quality)
    if "signs" in asked:
        qualities.append(_score_signs(sample, scene, sign_classes, rows, pairs))
    rows |= benchmark_rows(sample, scene, asked, wall_ms)
    group = sample.meta.get("sequence") or key
    quality = float(np.mean(qualities)) if qualities else 1.0
    return FrameScore(key, group, rows, pairs, truth, predicted, limit_px, sample.size_wh[1], quality)
