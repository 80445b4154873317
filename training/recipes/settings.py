"""Settings of the data recipes: a part of `training.presets.SftConfig`, set with ``recipe.NAME=value``."""

from __future__ import annotations

from dataclasses import dataclass

from getok_drive.errors import ConfigError
from getok_drive.tokens.elements import KINDS

REGION_FORMS = ("grid", "text", "drawn")


@dataclass(frozen=True, slots=True)
class RecipeConfig:
    """What is trained on, and how answers are written.

    Attributes:
        domain: one of `training.recipes.domains.DOMAINS`, or ``mix``.
        data: ``[DOMAIN=][WEIGHT*]KIND:PATH[#SPLIT]`` each, see `training.recipes.pools`; empty: the driving world.
        allow_absent: train a ``mix`` without the rows of table 12 that no data set was given for.
        length_group: so many consecutive batches share their rows out by length, which saves padding; 1: each batch as drawn.
        refine: share of grounding answers that are followed by the refinement turn.
        jitter: share of grid tokens that are moved in the context of that turn, so that there is something to mend.
        region: how a classification's region is given: ``grid`` tokens, ``text`` coordinates, ``drawn`` into the picture.
        attributes: of `getok_drive.tokens.prompts.CLASSIFY_PROMPTS` that are asked for; empty: all.
        mask_tokens: ``tokens.jsonl`` files of `training.mask_tokens` runs over the same data, for masks of whole data sets.
        segmenter: proposes masks that are in none of those, see `training.segmenters`.
        tau: IoU at which the greedy rule stops.
        most_tokens: of one mask.
        cache: folder for the segmenter's proposals; empty: none are kept (each picture then costs seconds each time).
        least_box_height: boxes lower than this share of the picture are not written in driving scenes: what a model cannot see at
            its input size only teaches it to guess. The dense loss still shows them to the tower.
        refine_odds: how likely lanes, areas, boxes and signs are among the driving elements that are refined where not all are.
        assume_complete: kinds (``boxes``, ``signs``) whose labelled classes are taken for all there are, see `partial`.
        vary: how much otherwise (0..1) data sets' pictures of driving scenes are seen each time, see `variation`; 0: as they are.
    """

    domain: str = "driving"
    data: tuple[str, ...] = ()
    allow_absent: bool = False
    length_group: int = 1
    refine: float = 0.5
    jitter: float = 0.3
    region: str = "grid"
    attributes: tuple[str, ...] = ()
    mask_tokens: tuple[str, ...] = ()
    segmenter: str = "opencv"
    tau: float = 0.8
    most_tokens: int = 32
    cache: str = ""
    least_box_height: float = 0.0
    refine_odds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    assume_complete: tuple[str, ...] = ()
    vary: float = 0.0

    def __post_init__(self) -> None:
        if self.length_group < 1:
            raise ConfigError(f"recipe.length_group={self.length_group}: expected 1 or more batches")
        if not (0 <= self.refine <= 1 and 0 <= self.jitter <= 1):
            raise ConfigError("recipe.refine and recipe.jitter: expected shares in 0..1")
        if not 0 <= self.vary <= 1:
            raise ConfigError(f"recipe.vary={self.vary}: expected a strength in 0..1")
        if not 0 <= self.least_box_height < 1:
            raise ConfigError(f"recipe.least_box_height={self.least_box_height}: expected a share of the picture's height, 0..1")
        if self.region not in REGION_FORMS:
            raise ConfigError(f"recipe.region={self.region!r}: expected one of {', '.join(REGION_FORMS)}")
        if len(self.refine_odds) != len(KINDS) or min(self.refine_odds) <= 0:
            raise ConfigError(f"recipe.refine_odds={self.refine_odds}: expected one above 0 for each of {', '.join(KINDS)}")
        if not 0 < self.tau <= 1 or self.most_tokens < 1:
            raise ConfigError("recipe: expected 0 < tau <= 1 and most_tokens of 1 or more")
        if unknown := set(self.assume_complete) - {"boxes", "signs"}:
            raise ConfigError(f"recipe.assume_complete: {', '.join(sorted(unknown))} is neither boxes nor signs")
