"""Domains that live on `training.samples.Phrase`: ``referring``, ``reasoning``, ``generalized``, ``pointing`` and ``caption``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from getok_drive.errors import InputError
from getok_drive.tokens import prompts
from getok_drive.tokens.codec import encode_points, px_to_norm
from training.datasets.phrases import region_mask
from training.recipes.conversation import Conversation
from training.recipes.grounding import Grounder, Instance
from training.recipes.masks import MaskCells
from training.samples import Phrase, Region, Sample

MOST_INSTANCES = 40  # of one answer; PixMo counts crowds, which no answer of useful length can hold
_TASKS = {"referring": ("refer",), "reasoning": ("refer", "question"), "generalized": ("refer",), "pointing": ("point",)}


@dataclass(frozen=True, slots=True, eq=False)
class PhraseRecipe:
    """A phrase of the picture and what it means.

    Attributes:
        domain: ``referring`` (box and mask of one target), ``reasoning`` (its mask; the text of an answer is thought before it),
            ``generalized`` (box and mask of each target, or of none) or ``pointing`` (points).
        grounder: writes the answer.
        masks: their grid tokens.
    """

    domain: str
    grounder: Grounder
    masks: MaskCells

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Conversation | None:
        """The conversation about one phrase; None where the picture has none for this domain."""
        phrase = _drawn([phrase for phrase in sample.phrases if self._serves(phrase)], rng)
        if phrase is None:
            return None
        segments = prompts.task_segments(self.domain, spoken(phrase.text, phrase.regions), variant=_variant(self.domain, rng))
        instances = [instance for region in phrase.regions if (instance := self._instance(region, sample)) is not None]
        return self.grounder.write(sample, segments, _distinct(instances), rng, spoken(phrase.answer, phrase.regions))

    def _serves(self, phrase: Phrase) -> bool:
        if phrase.task not in _TASKS[self.domain] or len(phrase.regions) > MOST_INSTANCES:
            return False
        if self.domain == "reasoning":
            return bool(phrase.regions) and all(region.rle is not None for region in phrase.regions)
        return self.domain != "referring" or len(phrase.regions) == 1

    def _instance(self, region: Region, sample: Sample) -> Instance | None:
        if self.domain == "pointing":
            point = _point_px(region)
            return None if point is None else Instance(point_norm=_norm(point, sample)[0])
        mask = _mask(region, sample)
        if mask is None or not mask.any():
            return None if region.xyxy_px is None or self.domain == "reasoning" else Instance(_norm(region.xyxy_px, sample))
        box = None if region.xyxy_px is None or self.domain == "reasoning" else _norm(region.xyxy_px, sample)
        return Instance(box, mask, self.masks.of(mask, sample.image_bgr))


@dataclass(frozen=True, slots=True, eq=False)
class CaptionRecipe:
    """A region, given by the two corners of its box or by the tokens of its mask, and the phrase that describes it.

    Attributes:
        grounder: for its encoder and weights.
        masks: their grid tokens.
        mask_share: share of regions that are given as masks, where there is one.
    """

    grounder: Grounder
    masks: MaskCells
    mask_share: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Conversation | None:
        """The conversation about one phrase; None where no phrase of the picture is about one region."""
        phrase = _drawn([p for p in sample.phrases if p.task in ("caption", "refer") and len(p.regions) == 1], rng)
        if phrase is None:
            return None
        region = self._region(phrase.regions[0], sample, rng)
        encoder = self.grounder.encoder
        script = encoder.open(prompts.task_segments("caption", region=region, variant=_variant("caption", rng)))
        script.teach(encoder.outside(spoken(phrase.text, phrase.regions)), weight=self.grounder.weights.propose)
        encoder.end(script)
        return script.conversation(sample)

    def _region(self, region: Region, sample: Sample, rng: np.random.Generator) -> list[int]:
        mask = _mask(region, sample) if region.xyxy_px is None or rng.random() < self.mask_share else None
        if mask is not None and mask.any():
            return self.masks.of(mask, sample.image_bgr).tolist()
        place = region.xyxy_px if region.xyxy_px is not None else _point_px(region)
        if place is None:
            raise InputError("caption: the region's mask is empty, and it has neither a box nor a point")
        return encode_points(_norm(place, sample), 0)[0].tolist()


def spoken(text: str, regions: Sequence[Region]) -> str:
    """A phrase as words: ``<region_K>`` becomes the label of that region, or "this"."""
    return re.sub(r"<region_(\d+)>", lambda match: regions[int(match[1])].label or "this", text)


def _point_px(region: Region) -> npt.NDArray[np.float32] | None:
    if region.point_px is not None:
        return region.point_px
    return None if region.xyxy_px is None else region.xyxy_px.reshape(2, 2).mean(axis=0)


def _norm(values_px: npt.NDArray[np.float32], sample: Sample) -> npt.NDArray[np.float64]:
    """``(N, 2)`` points of a box or point, image fractions, moved into the picture."""
    return np.clip(px_to_norm(values_px.reshape(-1, 2), sample.size_wh), 0.0, 1.0)


def _mask(region: Region, sample: Sample) -> npt.NDArray[np.bool_] | None:
    mask = region_mask(region)
    if mask is not None and mask.shape != sample.image_bgr.shape[:2]:
        raise InputError(f"phrase: a mask of {mask.shape} (H, W) in a picture of {sample.image_bgr.shape[:2]}")
    return mask


def _distinct(instances: list[Instance]) -> list[Instance]:
    """Two points of one cell are one answer: a grid token stands once."""
    return list({instance.key: instance for instance in instances}.values())


def _drawn(phrases: list[Phrase], rng: np.random.Generator) -> Phrase | None:
    return phrases[int(rng.integers(len(phrases)))] if phrases else None


def _variant(task: str, rng: np.random.Generator) -> int:
    return int(rng.integers(len(prompts.TASK_PROMPTS[task])))
