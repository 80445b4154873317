"""A scene's points on the ground, computed once for all outputs that want them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from getok_drive.geometry.ground import GroundProjector
from getok_drive.types import Scene

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class GroundScene:
    """Everything of a scene that is on the ground, metres in the ground frame, in the scene's order.

    Attributes:
        lanes_m: ``(N, 3)`` points of each lane; NaN rows where the ground is not met within range.
        areas_m: ``(M, 3)`` outline of each drivable area, cut off at horizon and range; ``(0, 3)`` when nothing is left.
        feet_m: ``(2, 3)`` points of each box's lower corners, left then right; ``(0, 3)`` when one does not meet the ground.
        sign_directions: ``(S, 3)`` unit vectors of the optical frame; NaN where the lens distortion has no inverse.
    """

    lanes_m: tuple[Float64Array, ...]
    areas_m: tuple[Float64Array, ...]
    feet_m: tuple[Float64Array, ...]
    sign_directions: Float64Array

    @classmethod
    def of(cls, scene: Scene, projector: GroundProjector) -> GroundScene:
        """Projects a scene; all lanes and boxes at once, because one call for a thousand points costs as much as for two."""
        feet_px = [box.xyxy_px[[[0, 3], [2, 3]]] for box in scene.boxes]
        parts_px = [*(lane.points_px for lane in scene.lanes), *feet_px]
        points_m = projector.points(np.concatenate([np.zeros((0, 2), np.float32), *parts_px]))
        parts_m = np.split(points_m, np.cumsum([len(part) for part in parts_px]))[:-1]
        signs_px = np.array([sign.point_px for sign in scene.signs], dtype=np.float64).reshape(-1, 2)
        return cls(
            lanes_m=tuple(parts_m[: len(scene.lanes)]),
            areas_m=tuple(projector.polygon(area.polygon_px) for area in scene.drivable),
            feet_m=tuple(feet if np.isfinite(feet).all() else feet[:0] for feet in parts_m[len(scene.lanes) :]),
            sign_directions=projector.directions(signs_px),
        )
