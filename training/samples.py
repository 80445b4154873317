"""`Sample`: one image with labels in pixels of that image, and no tokens. Every data set reader produces it.

``known`` names the element kinds that the data set labels; a kind that is not known is *not labelled*, which is different
from labelled and empty: losses and metrics leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.types import Box, DrivableArea, ImageBgr, Lane, Sign

KINDS = ("lanes", "drivable", "boxes", "signs")


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and what is in it.

    Attributes:
        image_bgr: ``(H, W, 3)`` uint8.
        lanes: dense polylines, bottom to top (sampled finely; training thins them).
        drivable: polygons of the visible drivable surface; regions are disjoint.
        boxes: of the visible part; ``attributes`` may hold ``visible_state``, ``truncated`` ("yes"/"no"), ``road_blockage``,
            ``track_id``.
        signs: centres; ``attributes`` may hold ``visible_state`` and ``track_id``.
        scene: attributes of the whole picture: ``surface_condition``, ``traffic_density``.
        known: the kinds that are labelled, a subset of ``KINDS``.
        masks: optional ``(H, W)`` label pictures, e.g. ``"semantic"`` (uint8), ``"instance"`` (uint16: index into ``boxes`` + 1).
        meta: where it came from: ``source``, ``seed``, ``sequence``, ``stamp_ns``, camera (``K``, ``D``, ``ego_SE3_cam``), terms.
    """

    image_bgr: ImageBgr
    lanes: tuple[Lane, ...] = ()
    drivable: tuple[DrivableArea, ...] = ()
    boxes: tuple[Box, ...] = ()
    signs: tuple[Sign, ...] = ()
    scene: Mapping[str, str] = field(default_factory=dict)
    known: tuple[str, ...] = KINDS
    masks: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the image, pixels."""
        return self.image_bgr.shape[1], self.image_bgr.shape[0]
