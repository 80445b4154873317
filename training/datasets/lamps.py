"""The colour of a traffic light's lit lamp, from its pixels: a derived label, for data sets that do not label it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.types import ImageBgr

# OpenCV's hue, 0..179; red goes round the end.
HUES = {"red": ((0, 10), (165, 179)), "yellow": ((11, 33),), "green": ((40, 100),)}
PLACES = {"red": 1 / 6, "yellow": 1 / 2, "green": 5 / 6}  # of the lamp, from the top of an upright light
LEAST_SHARE = 0.012  # of the light's area that must glow
UNLIT = "black"


def lamp_color(image_bgr: ImageBgr, xyxy_px: npt.ArrayLike) -> str:
    """``red``, ``yellow`` or ``green``, or ``black`` when no lamp clearly glows.

    A lamp is bright, saturated pixels of its hue; those at the place where the lamp sits in an upright light count double. Yellow
    elsewhere counts against yellow: many housings are painted so.

    Args:
        image_bgr: the photograph.
        xyxy_px: ``(4,)`` box of the whole light.
    """
    x0, y0, x1, y1 = np.rint(np.asarray(xyxy_px, np.float64)).astype(int)
    patch = image_bgr[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1]
    if patch.size == 0:
        return UNLIT
    hue, saturation, value = (channel.astype(int) for channel in cv2.split(cv2.cvtColor(patch, cv2.COLOR_BGR2HSV)))
    bright = max(float(np.percentile(value, 90)) * 0.75, 110.0)
    glowing = (value >= bright) & (saturation >= 90)
    down = (np.arange(patch.shape[0]) + 0.5)[:, None] / patch.shape[0]
    scores = {}
    for name, ranges in HUES.items():
        of_hue = glowing & np.any([(hue >= low) & (hue <= high) for low, high in ranges], axis=0)
        in_place = np.abs(down - PLACES[name]) < 1 / 6
        weight = np.where(in_place, 2.0, -1.0 if name == "yellow" else 1.0)
        scores[name] = float((of_hue * weight).sum()) / of_hue.size
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= LEAST_SHARE else UNLIT
