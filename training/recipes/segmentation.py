"""Domain ``segmentation``: every object of one class, a mask each; from instance or semantic label pictures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from getok_drive.tokens import prompts
from training.object_masks import ObjectMask, class_name, object_masks
from training.recipes.conversation import Conversation
from training.recipes.grounding import Grounder, Instance
from training.recipes.masks import MaskCells
from training.samples import Sample

MOST_OBJECTS = 8  # of one answer; classes with more in the picture are not asked for


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationRecipe:
    """All objects of a class that is drawn from those in the picture.

    Attributes:
        grounder: writes the answer.
        masks: their grid tokens.
    """

    grounder: Grounder
    masks: MaskCells

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Conversation | None:
        """The conversation; None where the picture has no masks of a named class."""
        classes: dict[str, list[ObjectMask]] = defaultdict(list)
        for item in object_masks(sample):
            if name := class_name(item, sample):
                classes[name].append(item)
        names = sorted(name for name, items in classes.items() if len(items) <= MOST_OBJECTS)
        if not names:
            return None
        name = names[int(rng.integers(len(names)))]
        key, image = str(sample.meta.get("source", "")), sample.image_bgr
        instances = [Instance(mask=item.mask, cells=self.masks.of(item.mask, image, key, item.name)) for item in classes[name]]
        variant = int(rng.integers(len(prompts.TASK_PROMPTS["segmentation"])))
        return self.grounder.write(sample, prompts.task_segments("segmentation", name, variant=variant), instances, rng)
