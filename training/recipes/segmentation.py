"""Domain ``segmentation``: every object of one class, a mask each; from instance or semantic label pictures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from getok_drive.tokens import prompts
from training.object_masks import ObjectMask, object_masks
from training.recipes.conversation import Conversation
from training.recipes.grounding import Grounder, Instance
from training.recipes.masks import MaskCells
from training.samples import Sample

MOST_OBJECTS = 8  # of one answer; classes with more in the picture are not asked for

# What the numbers of semantic pictures mean, by reader; a reader's own ``meta["semantic_classes"]`` comes first.
SEMANTIC_CLASSES = {
    "idd": ("drivable ground", "other ground", "person or rider", "vehicle", "roadside object", "building or tree", "sky"),
    "camvid": (
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
}  # fmt: skip


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


def class_name(item: ObjectMask, sample: Sample) -> str:
    """The class of a mask as a phrase; empty where only a number is known."""
    if not item.label.isdigit():
        return item.label.replace("_", " ")
    names = sample.meta.get("semantic_classes") or SEMANTIC_CLASSES.get(str(sample.meta.get("dataset")), ())
    return str(names[int(item.label)]) if int(item.label) < len(names) else ""
