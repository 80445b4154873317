"""Segmenters behind one protocol: a point (and a box, if given) in, a mask out.

opencv          no weights, no download: the default on small machines
transformers:FOLDER   SAM 2 or 2.1 of the transformers library from a local folder (torch, no torchvision)
sam2:CONFIG:CHECKPOINT    SAM 2 of Meta's own package
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import ImageBgr

Masks = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float32]


class Segmenter(Protocol):
    """Gives a mask for each of many points of one image; the image is analysed (encoded) once a call.

    Attributes:
        name: the segmenter with all settings and weights that change its masks: names the cached proposals.
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    def propose(
        self, image_bgr: ImageBgr, points_px: npt.ArrayLike, box_xyxy_px: npt.ArrayLike | None = None
    ) -> Iterator[tuple[Masks, Scores]]:
        """One mask for each point alone as a positive prompt, not for all of them together.

        Args:
            image_bgr: ``(H, W, 3)`` uint8.
            points_px: ``(N, 2)``; integers are pixel centres. With a box, N may be 0: the box alone is the prompt, one mask.
            box_xyxy_px: ``(4,)`` box that accompanies every point, or None.

        Yields:
            Batches in the points' order (a grid of masks at full size would fill the memory): ``(B, H, W)`` bool and the
            segmenter's own guess of their quality ``(B,)`` float32, 0..1; for a box alone one batch of one. The mask of a
            point depends on the image, the point and the box only, not on the other points.
        """
        ...


def checked_prompts(
    image_bgr: ImageBgr, points_px: npt.ArrayLike, box_xyxy_px: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Points ``(N, 2)`` and box ``(4,)`` as float64, moved into the image.

    Raises:
        InputError: another shape, NaN, a box without area, or neither a point nor a box.
    """
    if image_bgr.ndim != 3 or image_bgr.shape[2] != 3 or image_bgr.dtype != np.uint8 or 0 in image_bgr.shape:
        raise InputError(f"image: expected (H, W, 3) uint8 BGR, got {image_bgr.shape} {image_bgr.dtype}")
    height, width = image_bgr.shape[:2]
    points = np.asarray(points_px, dtype=np.float64).reshape(-1, 2)
    if np.isnan(points).any():
        raise InputError("points_px: a point is NaN")
    points = np.clip(points, 0, [width - 1, height - 1])
    if box_xyxy_px is None:
        if not len(points):
            raise InputError("prompt: give at least one point, or a box")
        return points, None
    box = np.asarray(box_xyxy_px, dtype=np.float64).reshape(-1)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise InputError(f"box_xyxy_px: expected four finite numbers, got {box.tolist()}")
    box = np.clip(box, -0.5, np.array([width, height, width, height]) - 0.5)
    if not (box[0] < box[2] and box[1] < box[3]):
        raise InputError(f"box_xyxy_px: no area inside the {width}x{height} image: {box.tolist()}")
    return points, box


def fingerprint(paths: Iterable[Path]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of some files' contents, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def open_segmenter(spec: str) -> Segmenter:
    """The segmenter of a command-line name, see the module.

    Raises:
        ConfigError: unknown name, missing file or missing package.
    """
    kind, _, rest = spec.partition(":")
    if kind == "opencv" and not rest:
        from training.segmenters.opencv import OpenCvSegmenter

        return OpenCvSegmenter()
    if kind == "transformers":
        from training.segmenters.sam2_transformers import TransformersSam2

        return TransformersSam2(Path(rest))
    if kind == "sam2":
        from training.segmenters.sam2_package import PackageSam2

        config, _, checkpoint = rest.partition(":")
        return PackageSam2(config, Path(checkpoint))
    raise ConfigError(f"--segmenter {spec}: expected opencv, transformers:FOLDER or sam2:CONFIG:CHECKPOINT")
