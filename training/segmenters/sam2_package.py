"""SAM 2 through Meta's own ``sam2`` package: for those who have it installed, with its configurations and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError
from getok_drive.types import ImageBgr
from training.segmenters import Masks, Scores, checked_prompts, fingerprint


class PackageSam2:
    """``SAM2ImagePredictor`` of the sam2 package, see `training.segmenters.Segmenter`. The package is optional."""

    def __init__(self, config: str, checkpoint: Path, device: str | None = None, batch: int = 64) -> None:
        """Load the model.

        Args:
            config: the package's name of it, e.g. ``configs/sam2.1/sam2.1_hiera_t.yaml``.
            checkpoint: the ``.pt`` file.
            device: ``cuda`` if there is one unless given.
            batch: prompts decoded together.

        Raises:
            ConfigError: the package or the file is missing.
        """
        if not checkpoint.is_file():
            raise ConfigError(f"--segmenter sam2:{config}:{checkpoint}: the checkpoint file does not exist")
        try:
            import torch
            from sam2.build_sam import build_sam2  # type: ignore[import-not-found]
            from sam2.sam2_image_predictor import SAM2ImagePredictor  # type: ignore[import-not-found]
        except ImportError as error:
            raise ConfigError(
                f"--segmenter sam2: the sam2 package cannot be imported ({error}); pip install sam2, or use transformers:FOLDER"
            ) from error
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._torch = torch
        self._predictor = SAM2ImagePredictor(build_sam2(config, str(checkpoint), device=where))
        self._batch = batch
        self._name = f"sam2-package/{config}/{fingerprint([checkpoint])}"

    @property
    def name(self) -> str:
        """Configuration and SHA-256 of the checkpoint."""
        return self._name

    def propose(
        self, image_bgr: ImageBgr, points_px: npt.ArrayLike, box_xyxy_px: npt.ArrayLike | None = None
    ) -> Iterator[tuple[Masks, Scores]]:
        """See `training.segmenters.Segmenter.propose`: ``set_image`` once, then ``predict`` in batches of points."""
        points, box = checked_prompts(image_bgr, points_px, box_xyxy_px)
        with self._torch.inference_mode():
            self._predictor.set_image(np.ascontiguousarray(image_bgr[:, :, ::-1]))
            for start in range(0, max(len(points), 1), self._batch):
                part = points[start : start + self._batch]
                count = max(len(part), 1)
                given, quality, _ = self._predictor.predict(
                    point_coords=part[:, None] if len(part) else None,
                    point_labels=np.ones((len(part), 1), np.int32) if len(part) else None,
                    box=None if box is None else np.repeat(box[None], count, axis=0),
                    multimask_output=True,
                )
                given, quality = given.reshape(count, -1, *image_bgr.shape[:2]), quality.reshape(count, -1)
                best = quality.argmax(axis=1)
                yield given[np.arange(count), best] > 0, quality.max(axis=1).clip(0, 1).astype(np.float32)
