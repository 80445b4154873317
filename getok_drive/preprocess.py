"""THE resize-and-normalise: the only way from a camera image to a model's input, in training and at run time alike.

The image is stretched to the model's one size (no padding, no crop), so that normalised coordinates mean the same in both
and `ImageTransform` needs no offsets. Pixels come out in the patch order of Qwen2.5-VL (arXiv 2502.13923): patches of one
merge block (``merge_size x merge_size``) follow one another, blocks run row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import FloatArray, ImageBgr

# The statistics of CLIP's training images, which Qwen2.5-VL uses (RGB order, of values scaled to 0..1).
CLIP_MEAN_RGB = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD_RGB = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class ImageTransform:
    """Maps between normalised coordinates (0..1 across the image, equal in model and source) and pixels.

    Half-pixel rule: ``norm = (uv_px + 0.5) / size_wh``, as integer pixel coordinates are pixel centres.

    Attributes:
        source_size_wh: size of the camera image, pixels.
        model_size_wh: size of the model's input, pixels.
    """

    source_size_wh: tuple[int, int]
    model_size_wh: tuple[int, int]

    def norm_to_source(self, points_norm: npt.ArrayLike) -> FloatArray:
        """Normalised ``(..., 2)`` points as pixels of the source image."""
        return _norm_to_px(points_norm, self.source_size_wh)

    def source_to_norm(self, points_px: npt.ArrayLike) -> FloatArray:
        """Pixels ``(..., 2)`` of the source image as normalised points."""
        return _px_to_norm(points_px, self.source_size_wh)

    def norm_to_model(self, points_norm: npt.ArrayLike) -> FloatArray:
        """Normalised ``(..., 2)`` points as pixels of the model's input."""
        return _norm_to_px(points_norm, self.model_size_wh)

    def model_to_norm(self, points_px: npt.ArrayLike) -> FloatArray:
        """Pixels ``(..., 2)`` of the model's input as normalised points."""
        return _px_to_norm(points_px, self.model_size_wh)


def _norm_to_px(points_norm: npt.ArrayLike, size_wh: tuple[int, int]) -> FloatArray:
    px = np.asarray(points_norm, dtype=np.float64) * np.asarray(size_wh, dtype=np.float64) - 0.5
    return px.astype(np.float32)


def _px_to_norm(points_px: npt.ArrayLike, size_wh: tuple[int, int]) -> FloatArray:
    norm = (np.asarray(points_px, dtype=np.float64) + 0.5) / np.asarray(size_wh, dtype=np.float64)
    return norm.astype(np.float32)


def resize(image_bgr: ImageBgr, size_wh: tuple[int, int]) -> ImageBgr:
    """Stretch to ``size_wh``: area averaging along every axis that shrinks, linear interpolation along one that grows."""
    height, width = image_bgr.shape[:2]
    if (width, height) == size_wh:
        return image_bgr
    shrunk_wh = (min(width, size_wh[0]), min(height, size_wh[1]))
    if shrunk_wh != (width, height):
        image_bgr = cv2.resize(image_bgr, shrunk_wh, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if shrunk_wh != size_wh:
        image_bgr = cv2.resize(image_bgr, size_wh, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return image_bgr


class Preprocessor:
    """Turns a BGR camera image into the patch matrix that the vision tower takes.

    One instance serves one thread at a time: intermediate pictures live in buffers that every call reuses.

    Args:
        image_size_wh: the model's input size, pixels; both multiples of ``patch_size * merge_size``.
        patch_size: side of a patch, pixels.
        merge_size: patches along each side of a merge block, which becomes one visual token.
        temporal_patch_size: frames per patch; a still image is repeated this often.
        mean_rgb: subtracted from the values scaled to 0..1, per channel.
        std_rgb: divides the difference, per channel.

    Raises:
        ConfigError: when the size is no multiple of the merge block, or a value is out of range.
    """

    def __init__(
        self,
        image_size_wh: tuple[int, int],
        patch_size: int = 14,
        merge_size: int = 2,
        temporal_patch_size: int = 1,
        mean_rgb: Sequence[float] = CLIP_MEAN_RGB,
        std_rgb: Sequence[float] = CLIP_STD_RGB,
    ) -> None:
        if min(patch_size, merge_size, temporal_patch_size) < 1:
            raise ConfigError("preprocess: patch_size, merge_size and temporal_patch_size must be 1 or more")
        if len(mean_rgb) != 3 or len(std_rgb) != 3 or min(std_rgb) <= 0.0:
            raise ConfigError("preprocess: mean_rgb and std_rgb need three values, and every std must be above 0")
        block = patch_size * merge_size
        width, height = (int(side) for side in image_size_wh)
        if width < block or height < block or width % block or height % block:
            raise ConfigError(
                f"preprocess: image_size_wh {width}x{height} must be multiples of patch_size * merge_size = {block}; "
                f"the nearest is {max(1, round(width / block)) * block}x{max(1, round(height / block)) * block}"
            )
        self.image_size_wh = (width, height)
        self.patch_size = patch_size
        self.merge_size = merge_size
        self.temporal_patch_size = temporal_patch_size
        self.grid_hw = (height // patch_size, width // patch_size)
        self._mean_rgb, self._std_rgb = tuple(mean_rgb), tuple(std_rgb)

        # One table look-up per value does scaling and normalising at once, with the very roundings of transformers' processor:
        # scaled in double precision, rounded to float32, then normalised in float32.
        scaled: FloatArray = (np.arange(256, dtype=np.float64)[:, None] * (1 / 255)).astype(np.float32)
        mean, std = (np.asarray(values, np.float32) for values in (mean_rgb, std_rgb))
        table_rgb: FloatArray = np.divide(scaled - mean, std, dtype=np.float32)
        self._table_bgr: FloatArray = np.ascontiguousarray(table_rgb[:, ::-1]).reshape(1, 256, 3)
        self._normal_bgr = np.empty((height, width, 3), np.float32)
        rows, columns = self.grid_hw
        blocks = self._normal_bgr.reshape(
            rows // merge_size, merge_size, patch_size, columns // merge_size, merge_size, patch_size, 3
        )
        # A view only: (block row, block column, row in block, column in block, RGB channel, y, x).
        self._patches = blocks.transpose(0, 3, 1, 4, 6, 2, 5)[:, :, :, :, ::-1]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as its settings: a pickled view would no longer look into the pickled buffer."""
        sizes = (self.image_size_wh, self.patch_size, self.merge_size, self.temporal_patch_size)
        return Preprocessor, (*sizes, self._mean_rgb, self._std_rgb)

    @property
    def num_patches(self) -> int:
        """Rows of the patch matrix."""
        return self.grid_hw[0] * self.grid_hw[1]

    @property
    def num_visual_tokens(self) -> int:
        """Tokens that the decoder sees for one image."""
        return self.num_patches // self.merge_size**2

    @property
    def patch_dim(self) -> int:
        """Columns of the patch matrix: ``3 * temporal_patch_size * patch_size ** 2``."""
        return 3 * self.temporal_patch_size * self.patch_size**2

    def __call__(self, image_bgr: ImageBgr, out: FloatArray | None = None) -> tuple[FloatArray, ImageTransform]:
        """The patch matrix of one image and the way back to its pixels.

        Args:
            image_bgr: ``(H, W, 3)`` uint8 of any size.
            out: float32 ``(num_patches, patch_dim)``, C-contiguous, to write into; by default a new array.

        Returns:
            ``pixel_values (num_patches, patch_dim)`` float32 and the `ImageTransform`.

        Raises:
            InputError: when the image is not a BGR picture, or ``out`` does not fit.
        """
        if image_bgr.dtype != np.uint8 or image_bgr.ndim != 3 or image_bgr.shape[2] != 3 or 0 in image_bgr.shape:
            raise InputError(f"preprocess: expected an (H, W, 3) uint8 BGR image, got {image_bgr.dtype} {image_bgr.shape}")
        shape = (self.num_patches, self.patch_dim)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise InputError(f"preprocess: out must be contiguous float32 {shape}, got {out.dtype} {out.shape}")
        cv2.LUT(resize(image_bgr, self.image_size_wh), self._table_bgr, dst=self._normal_bgr)
        np.copyto(
            out.reshape(*self._patches.shape[:5], self.temporal_patch_size, self.patch_size, self.patch_size),
            self._patches[:, :, :, :, :, None],
        )
        height, width = image_bgr.shape[:2]
        return out, ImageTransform(source_size_wh=(width, height), model_size_wh=self.image_size_wh)
