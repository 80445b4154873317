"""Which of the elements that the model wrote are handed over: those it is sure enough of, and no box twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np

from getok_drive.tokens.parsing import Elements
from getok_drive.types import Box, DrivableArea, Lane, Sign

REPEAT_IOU = 0.6  # of two boxes of one class, above which they are one thing
_Element = TypeVar("_Element", Lane, DrivableArea, Box, Sign)


def select(elements: Elements, least_confidence: Mapping[str, float]) -> Elements:
    """The elements that are handed over; the report says how many are not.

    Args:
        elements: of `getok_drive.tokens.parsing.parse`.
        least_confidence: for each kind (``lane``, ``drivable``, ``box``, ``sign``): surer ones and those as sure stay.
    """
    *_, report = elements
    lanes = _sure(elements[0], least_confidence["lane"])
    drivable = _sure(elements[1], least_confidence["drivable"])
    sure = _sure(elements[2], least_confidence["box"])
    signs = _sure(elements[3], least_confidence["sign"])
    boxes = without_repeats(sure)
    kept = len(lanes) + len(drivable) + len(boxes) + len(signs)
    repeated = len(sure) - len(boxes)
    report = replace(report, elements=kept, repeated=repeated, unsure=report.elements - kept - repeated)
    return lanes, drivable, boxes, signs, report


def without_repeats(boxes: Sequence[Box]) -> tuple[Box, ...]:
    """The boxes without those that repeat a surer one of their class (non-maximum suppression, Neubeck and Van Gool 2006).

    A small model forgets what it wrote, though it stands in its text.

    Args:
        boxes: in the order of the text; of equally sure ones the first stays.

    Returns:
        Those that stay, in their order.
    """
    if len(boxes) < 2:
        return tuple(boxes)
    corners = np.array([box.xyxy_px for box in boxes], dtype=np.float64)
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    names = sorted({box.class_name for box in boxes})
    classes = [names.index(box.class_name) for box in boxes]
    confidences = [box.confidence for box in boxes]
    kept = cv2.dnn.NMSBoxesBatched(xywh.tolist(), confidences, classes, -1.0, REPEAT_IOU)
    return tuple(boxes[index] for index in sorted(np.ravel(kept).tolist()))


def _sure(elements: tuple[_Element, ...], least: float) -> tuple[_Element, ...]:
    return tuple(element for element in elements if element.confidence >= least)
