"""`Sample`: one image with labels in pixels of that image, and no tokens. Every data set reader produces it.

Two kinds of labels: the elements of a driving scene, and `Phrase`: texts about regions of the picture.

``known`` names the element kinds that the data set labels; a kind that is not known is *not labelled*, which is different
from labelled and empty: losses and metrics leave it out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.types import Box, DrivableArea, FloatArray, ImageBgr, Lane, Sign

KINDS = ("lanes", "drivable", "boxes", "signs")
TASKS = ("refer", "point", "caption", "classify", "question")
"""What a `Phrase` asks: text -> regions, text -> points, region -> text, region -> word, question -> answer."""

_REFERENCE = re.compile(r"<region_(\d+)>")


@dataclass(frozen=True, slots=True)
class Region:
    """A place in the picture: at least one of a box, a point and a mask of the same thing.

    Attributes:
        xyxy_px: ``(4,)`` as in `Box`.
        point_px: ``(2,)``.
        rle: COCO's run lengths of the mask, plain values: ``{"size": [h, w], "counts": [...]}``; see
            `training.datasets.shapes.decode_rle`.
        label: what it is, where the data set says so.
    """

    xyxy_px: FloatArray | None = None
    point_px: FloatArray | None = None
    rle: Mapping[str, Any] | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.xyxy_px is None and self.point_px is None and self.rle is None:
            raise InputError(f"region {self.label!r}: has neither a box nor a point nor a mask")
        for name, count in (("xyxy_px", 4), ("point_px", 2)):
            if getattr(self, name) is not None:
                values = np.array(getattr(self, name), np.float32)
                if values.shape != (count,) or not np.isfinite(values).all():
                    raise InputError(f"region: {name} must be {count} finite numbers, got {values.tolist()}")
                values.setflags(write=False)
                object.__setattr__(self, name, values)
        if self.xyxy_px is not None and not (self.xyxy_px[:2] < self.xyxy_px[2:]).all():
            raise InputError(f"region: expected x0 < x1 and y0 < y1, got {self.xyxy_px.tolist()}")
        if self.rle is not None and not {"size", "counts"} <= set(self.rle):
            raise InputError("region: a mask needs size and counts of COCO's run lengths")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text about regions of the picture.

    | task       | given                | wanted                       | regions                               |
    |------------|----------------------|------------------------------|---------------------------------------|
    | `refer`    | ``text``             | the regions                  | none: nothing in the picture is meant |
    | `point`    | ``text``             | a point in each region       | none: likewise                        |
    | `caption`  | the regions          | ``text``                     | none: the whole picture               |
    | `classify` | the regions, ``text``: which property | ``answer``, a word | one or more               |
    | `question` | ``text``             | ``answer`` and the regions that it names | any                       |

    Attributes:
        task: one of `TASKS`.
        text: expression, description or question. ``<region_K>`` in it or in the answer stands for ``regions[K]``.
        answer: of a question or classification, else empty.
        regions: one for each thing that is meant.
        ignore: run lengths of the part of the picture that is neither right nor wrong, or None.
        candidates: the things of its kind in the picture, those that are meant among them (HumanRef: all people); empty where
            the data set does not list them.
        attributes: anything else that the data set says about it, e.g. ``{"domain": "rejection"}``.
    """

    task: str
    text: str
    answer: str = ""
    regions: tuple[Region, ...] = ()
    ignore: Mapping[str, Any] | None = None
    candidates: tuple[Region, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"phrase: task {self.task!r} is unknown; use one of {', '.join(TASKS)}")
        if not self.text.strip():
            raise InputError(f"phrase: a {self.task} without text")
        if bool(self.answer.strip()) != (self.task in ("classify", "question")):
            raise InputError(f"phrase: questions and classifications have an answer and nothing else has, got {self.answer!r}")
        if self.task == "classify" and not self.regions:
            raise InputError("phrase: a classification without a region")
        for number in _REFERENCE.findall(self.text + self.answer):
            if int(number) >= len(self.regions):
                raise InputError(f"phrase: <region_{number}> in the text, but there are {len(self.regions)} regions")


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
        phrases: texts about regions of the picture.
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
    phrases: tuple[Phrase, ...] = ()

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the image, pixels."""
        return self.image_bgr.shape[1], self.image_bgr.shape[0]
