"""Every domain by name, and the paper's mixture (table 12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from getok_drive.errors import ConfigError
from training.recipes.chat import ChatRecipe
from training.recipes.classification import ClassificationRecipe
from training.recipes.conversation import Conversation, LossWeights
from training.recipes.driving import DrivingRecipe
from training.recipes.encoder import Encoder
from training.recipes.grounding import Grounder
from training.recipes.masks import MaskCells
from training.recipes.offset import OffsetRecipe
from training.recipes.phrases import CaptionRecipe, PhraseRecipe
from training.recipes.segmentation import SegmentationRecipe
from training.recipes.settings import RecipeConfig
from training.samples import Sample
from training.targets import Noise

Recipe = Callable[[Sample, np.random.Generator], Conversation | None]

DOMAINS = (
    "driving", "classification", "referring", "segmentation", "part", "reasoning", "generalized", "caption", "pointing", "offset",
    "chat",
)  # fmt: skip
WITH_MASKS = ("segmentation", "part", "offset")
"""Domains for which the driving world draws its label pictures, too."""

WITHOUT_DENSE = ("referring", "reasoning", "generalized", "caption", "pointing", "chat")
"""Domains whose data label no elements of a scene, so that the auxiliary head learns nothing from them."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of table 12: what the paper trains on.

    Attributes:
        domain: whose recipe it takes.
        weight: share of the mixture. The paper gives none; these are ours (see docs/recipes.md).
        sets: the paper's data sets.
    """

    domain: str
    weight: float
    sets: str


TABLE_12 = (
    Row("chat", 3.0, "LLaVA-665K"),
    Row("referring", 4.0, "RefCOCO, RefCOCO+, RefCOCOg"),
    Row("segmentation", 3.0, "COCO-Stuff, ADE20K"),
    Row("caption", 2.0, "Visual Genome"),
    Row("part", 1.0, "PACO-LVIS, PASCAL-Part"),
    Row("generalized", 2.0, "gRefCOCO"),
    Row("pointing", 2.0, "PixMo points"),
    Row("offset", 3.0, "offset data made of RefCOCO, RefCOCO+, RefCOCOg"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Workshop:
    """Makes recipes for one run; masks and their cache are shared between them.

    Attributes:
        encoder: of the model.
        config: the data's settings.
        weights: of the answers' tokens.
        noise: on the context of driving scenes; None for evaluation.
        refine_points: at most so many points are taught in a refinement turn.
        masks: their grid tokens.
    """

    encoder: Encoder
    config: RecipeConfig
    weights: LossWeights
    noise: Noise | None
    refine_points: int
    masks: MaskCells

    @classmethod
    def of(
        cls, encoder: Encoder, config: RecipeConfig, weights: LossWeights, noise: Noise | None, refine_points: int
    ) -> Workshop:
        """With masks opened as the settings say."""
        cache = Path(config.cache) if config.cache else None
        masks = MaskCells(config.mask_tokens, config.segmenter, config.tau, config.most_tokens, cache)
        return cls(encoder, config, weights, noise, refine_points, masks)

    def recipe(self, domain: str) -> Recipe:
        """The recipe of a domain.

        Raises:
            ConfigError: no such domain.
        """
        encoder, config, weights = self.encoder, self.config, self.weights
        grounder = Grounder(encoder, weights, config.refine, config.jitter, self.refine_points)
        if domain == "driving":
            return DrivingRecipe(
                encoder.layout, self.noise, self.refine_points, weights, config.assume_complete, config.least_box_height,
                config.refine_odds,
            )  # fmt: skip
        if domain == "classification":
            return ClassificationRecipe(encoder, config.region, config.attributes)
        if domain in ("segmentation", "part"):
            return SegmentationRecipe(grounder, self.masks)
        if domain in ("referring", "reasoning", "generalized", "pointing"):
            return PhraseRecipe(domain, grounder, self.masks)
        if domain == "caption":
            return CaptionRecipe(grounder, self.masks)
        if domain == "offset":
            return OffsetRecipe(encoder, weights, self.refine_points)
        if domain == "chat":
            return ChatRecipe(encoder, weights.propose)
        raise ConfigError(f"--domain {domain}: expected one of {', '.join(DOMAINS)} or mix")
