"""Boxes that the model wrote twice: a text has no memory of what it wrote but the text, and small models forget."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from getok_drive.types import Box

REPEAT_IOU = 0.6  # of two boxes of one class, above which they are one thing


def without_repeats(boxes: Sequence[Box]) -> tuple[Box, ...]:
    """The boxes without those that repeat a surer one of their class (non-maximum suppression, Neubeck and Van Gool 2006).

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
