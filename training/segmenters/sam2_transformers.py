"""SAM 2 through the transformers library: torch, no torchvision (its processor needs that, so the few lines of it are here)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError
from getok_drive.types import ImageBgr
from training.segmenters import Masks, Scores, checked_prompts, fingerprint

if TYPE_CHECKING:
    import torch

MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)


class TransformersSam2:
    """`Sam2Model` of a local checkpoint folder (``config.json`` and ``model.safetensors``). Nothing is downloaded.

    Of the decoder's three masks for a point the one with the best predicted IoU is the answer, at inference as while making
    tokens, so that tokens decode to exactly the masks they were chosen for.
    """

    def __init__(self, folder: Path, device: str | None = None, batch: int = 64) -> None:
        """Load the model.

        Args:
            folder: the checkpoint.
            device: ``cuda`` if there is one unless given.
            batch: prompts decoded together.

        Raises:
            ConfigError: transformers or torch is missing, or the folder holds no SAM 2 checkpoint.
        """
        if not (folder / "config.json").is_file():
            raise ConfigError(f"--segmenter transformers:{folder}: there is no config.json; download a SAM 2 checkpoint there")
        try:
            import torch
            from transformers.models.sam2 import Sam2Config, Sam2Model
        except ImportError as error:
            raise ConfigError(f"--segmenter transformers: install torch and transformers (extra 'train'): {error}") from error
        try:
            # Released checkpoints are of the video model ("sam2_video"); its image parts are Sam2Model's.
            config = Sam2Config.from_pretrained(folder)
            model = Sam2Model.from_pretrained(folder, config=config, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--segmenter transformers:{folder}: not a SAM 2 checkpoint: {error}") from error
        self._torch = torch
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model = model.eval().to(self._device)
        self._side_px = int(config.prompt_encoder_config.image_size)
        self._batch = batch
        self._name = f"transformers-sam2/{fingerprint([folder / 'config.json', *sorted(folder.glob('*.safetensors'))])}"

    @property
    def name(self) -> str:
        """The checkpoint's kind and the SHA-256 of its configuration and weights."""
        return self._name

    def propose(
        self, image_bgr: ImageBgr, points_px: npt.ArrayLike, box_xyxy_px: npt.ArrayLike | None = None
    ) -> Iterator[tuple[Masks, Scores]]:
        """See `training.segmenters.Segmenter.propose`: one encoder pass, then the decoder in batches of points."""
        points, box = checked_prompts(image_bgr, points_px, box_xyxy_px)
        torch = self._torch
        height, width = image_bgr.shape[:2]
        with torch.inference_mode():
            features = self._model.get_image_embeddings(self._pixels(image_bgr))
            count = max(len(points), 1)
            for start in range(0, count, self._batch):
                part = points[start : start + self._batch]
                prompts: dict[str, Any] = {}
                if len(part):
                    prompts["input_points"] = self._coordinates(part, (width, height))[None, :, None]
                    prompts["input_labels"] = torch.ones(1, len(part), 1, dtype=torch.int32, device=self._device)
                if box is not None:
                    corners = self._coordinates(box.reshape(2, 2), (width, height)).reshape(1, 1, 4)
                    prompts["input_boxes"] = corners.expand(1, max(len(part), 1), 4)
                found = self._model(image_embeddings=features, multimask_output=True, **prompts)
                quality, which = found.iou_scores[0].max(dim=1)
                low = found.pred_masks[0][torch.arange(len(which), device=self._device), which]
                full = torch.nn.functional.interpolate(
                    low[:, None].float(), (height, width), mode="bilinear", align_corners=False
                )
                yield (full[:, 0] > 0).cpu().numpy(), quality.float().clamp(0, 1).cpu().numpy()

    def _pixels(self, image_bgr: ImageBgr) -> torch.Tensor:
        """``(1, 3, side, side)``: resized without keeping the aspect, as SAM 2 was trained, and normalised."""
        resized = cv2.resize(image_bgr, (self._side_px, self._side_px), interpolation=cv2.INTER_LINEAR)
        rgb = (resized[:, :, ::-1].astype(np.float32) / 255 - MEAN_RGB) / STD_RGB
        return self._torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], dtype=np.float32)).to(self._device)

    def _coordinates(self, points_px: npt.NDArray[np.float64], size_wh: tuple[int, int]) -> torch.Tensor:
        """Pixels of the image as pixels of the model's square image; both have integers at pixel centres."""
        scaled = (points_px + 0.5) * self._side_px / np.array(size_wh) - 0.5
        return self._torch.tensor(scaled, dtype=self._torch.float32, device=self._device)
