"""Which predictions were right, as pairs (confidence, hit): what a reliability curve and a calibration are made from.

The curve, ECE, Brier score and the fit themselves live in `getok_drive.tokens.confidence`, beside the confidence they describe. A
prediction is right if it is a true positive of its kind's headline metric: a lane by CULane's matching at IoU > 0.5; a box by IoU
>= 0.5 and its class; a sign within 2 % of the image width and its class; a drivable polygon if more than half of it is drivable.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from getok_drive.tokens.confidence import Calibration, Reliability, reliability

FloatArray = npt.NDArray[np.float64]


def reliability_of(pairs: FloatArray, bins: int = 10) -> Reliability | None:
    """Reliability curve of ``(N, 2)`` pairs (confidence, hit); None without any."""
    return reliability(pairs[:, 0], pairs[:, 1], bins) if len(pairs) else None


def compose(first: Calibration, second: Calibration) -> Calibration:
    """The one calibration that equals ``first`` followed by ``second``: both are affine in the logit."""
    return Calibration(first.temperature * second.temperature, first.bias / second.temperature + second.bias)
