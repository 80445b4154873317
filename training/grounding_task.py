"""GRPO on the paper's own tasks: boxes and masks of what a text names, judged by `placement_rewards` and `movement_rewards`.

A prompt is a phrase with masks (``jsonl:``, ``referring:`` and the other readers of phrases), or, where a picture has label
pictures but no phrases (the world, IDD), the name of a class in it. Points become masks through a segmenter
(`training.segmenters`), each point once a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from getok_drive.errors import InputError
from getok_drive.tokens.codec import norm_to_px
from getok_drive.tokens.grammar import Grammar
from getok_drive.tokens.prompts import IMAGE_END, task_segments
from getok_drive.tokens.vocab import BOX_CLASSES, GRID_SIZE, SIGN_CLASSES
from getok_drive.types import Box, Scene, Sign
from training.collate import Layout
from training.datasets import world
from training.datasets.phrases import region_mask
from training.grounding_grammar import GroundingGrammar, GroundingRefineGrammar, Thing, corners_px, read_grounding
from training.grpo_config import GrpoConfig
from training.object_masks import class_name, object_masks
from training.pictures import Pictures
from training.rewards import Grounding, Refinement, movement_rewards, placement_rewards
from training.rewards.matching import Label, Predicted
from training.rollout import Rollout
from training.samples import Sample
from training.sampling import Dialogue, Sampling
from training.segmenters import Segmenter, open_segmenter

PAPER_SIDE_PX = 840  # where the paper's tau_l1 of 18 px holds
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GroundingDialogue:
    """A question and the grammars of its answer; `Limits.boxes` instances, `Limits.polygon_vertices` cells a mask."""

    opening: tuple[int, ...]

    def propose(self, sampling: Sampling) -> Grammar:
        """See `training.grounding_grammar`."""
        return GroundingGrammar(sampling.limits.boxes, sampling.limits.polygon_vertices)

    def refine(self, propose_ids: Sequence[int], sampling: Sampling) -> Grammar:
        """Likewise."""
        return GroundingRefineGrammar(propose_ids, sampling.rounds)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A picture, the text that is asked, and the masks of what it names."""

    sample: Sample
    text: str
    labels: tuple[Label, ...]


def asked_of(sample: Sample, rng: np.random.Generator) -> Asked:
    """One of the questions that a picture's labels can answer.

    Raises:
        InputError: it has neither phrases with masks nor label pictures.
    """
    phrases = [p for p in sample.phrases if p.task == "refer" and all(region.rle is not None for region in p.regions)]
    if phrases:
        phrase = phrases[int(rng.integers(len(phrases)))]
        found = [mask for region in phrase.regions if (mask := region_mask(region)) is not None and mask.any()]
        return Asked(sample, phrase.text, tuple(Label(mask) for mask in found))
    objects = list(object_masks(sample))
    if not objects and "instance" not in sample.masks and "semantic" not in sample.masks:
        raise InputError(
            f"{sample.meta.get('source', 'a picture')}: has no phrases with masks and no label pictures to ask about"
        )
    named = [(name, item) for item in objects if (name := class_name(item, sample))]
    if not named:
        there = {box.class_name for box in sample.boxes}  # also what is too small to be asked for
        absent = [name for name in sample.meta.get("labelled_classes", {}).get("boxes", BOX_CLASSES) if name not in there]
        if "boxes" not in sample.known or not absent:
            raise InputError(f"{sample.meta.get('source', 'a picture')}: has no object of a named class to ask about")
        return Asked(sample, absent[0].replace("_", " "), ())
    names = sorted({name for name, _ in named})
    name = names[int(rng.integers(len(names)))]
    return Asked(sample, name, tuple(Label(item.mask) for own, item in named if own == name))


@dataclass(slots=True)
class GroundingTask:
    """See the module and `training.tasks.Task`.

    Attributes:
        config: settings.
        layout: with the common prompt cut after the picture; questions differ.
        size_wh: of the world's pictures.
        pictures: of each step, with masks.
        tokenizer: writes the questions.
        segmenter: makes masks of points.
    """

    config: GrpoConfig
    layout: Layout
    size_wh: tuple[int, int]
    pictures: Pictures
    tokenizer: PreTrainedTokenizerBase
    segmenter: Segmenter = field(default_factory=lambda: open_segmenter("opencv"))

    def __post_init__(self) -> None:
        self.layout = replace(self.layout, after=tuple(self.tokenizer.encode(IMAGE_END, add_special_tokens=False)))

    def first(self, step: int) -> int:
        """See `Task`."""
        return self.pictures.first(step)

    def at(self, step: int) -> list[Asked]:
        """See `Task`."""
        return self.pictures.at(
            step, lambda sample, number: asked_of(sample, np.random.default_rng((self.config.seed, 2, number)))
        )

    def validation(self, count: int) -> list[Asked]:
        """Questions about frames of the world's validation seeds."""
        seeds = list(world.VAL_SEEDS)[:count]
        return [asked_of(world.render(seed, self.size_wh, masks=True), np.random.default_rng(seed)) for seed in seeds]

    def sample(self, item: Asked) -> Sample:
        """The picture."""
        return item.sample

    def dialogue(self, item: Asked) -> Dialogue:
        """The question of the domain ``segmentation``."""
        after = task_segments("segmentation", item.text)[1]
        ids = self.tokenizer.encode(after, add_special_tokens=False)
        return GroundingDialogue(tuple(ids[len(self.layout.after) :]))

    def rewards(self, items: Sequence[Asked], rollouts: Sequence[Rollout]) -> list[dict[str, float]]:
        """`placement_rewards` or `movement_rewards`; tau_l1 is scaled to the picture's size."""
        placement, results = self.config.stage == "placement", []
        answers = [read_grounding(r.propose_ids, r.refine_ids) for r in rollouts]
        for picture, item in enumerate(items):
            own = [index for index, rollout in enumerate(rollouts) if rollout.picture == picture]
            maker = _Masks(self.segmenter, item.sample)
            side = float(np.sqrt(np.prod(item.sample.size_wh)))
            settings = replace(self.config.rewards, l1_scale_px=self.config.rewards.l1_scale_px * side / PAPER_SIDE_PX)
            for index in own:
                things, sound = answers[index]
                sound = sound and not rollouts[index].truncated
                if placement:
                    predicted = tuple(maker.predicted(thing, False) for thing in things)
                    results.append((index, placement_rewards([Grounding(predicted, item.labels, sound)], settings)[0]))
                else:
                    moved = self._refinement(things, item, maker, sound)
                    results.append((index, movement_rewards([moved], settings)[0]))
        return [reward for _, reward in sorted(results, key=lambda pair: pair[0])]

    def _refinement(self, things: Sequence[Thing], item: Asked, maker: _Masks, sound: bool) -> Refinement:
        width, height = item.sample.size_wh
        return Refinement(
            coarse=tuple(maker.predicted(thing, False) for thing in things),
            refined=tuple(maker.predicted(thing, True) for thing in things),
            deleted=tuple(thing.deleted[len(thing.box) :] for thing in things),
            labels=item.labels,
            step_px=(width / (2 * GRID_SIZE), height / (2 * GRID_SIZE)),
            rounds=self.config.sampling.rounds,
            box_deleted=tuple(bool(thing.deleted[: len(thing.box)].any()) for thing in things),
            well_formed=sound,
        )

    def scenes(self, item: Asked, rollout: Rollout | None) -> Scene:
        """Boxes, and the points as if they were signs."""
        size_wh = item.sample.size_wh
        if rollout is None:
            boxes = [label.box_xyxy_px for label in item.labels]
            return Scene(size_wh, boxes=tuple(Box(box.astype(np.float32), "car") for box in boxes))
        things, _ = read_grounding(rollout.propose_ids, rollout.refine_ids)
        refined = rollout.refine_ids is not None
        half = 0.5 / GRID_SIZE * np.array(size_wh)
        boxes, points = [], []
        for thing in things:
            places = norm_to_px(thing.points_norm(refined), size_wh)
            if thing.box and not thing.deleted[:2].any():
                boxes.append(corners_px(places[:2], half))
            points += [place for place, gone in zip(places, thing.deleted, strict=True) if not gone][len(thing.box) :]
        return Scene(
            size_wh,
            boxes=tuple(Box(box.astype(np.float32), "car") for box in boxes),
            signs=tuple(Sign(np.asarray(point, np.float32), SIGN_CLASSES[0], "red") for point in points),
        )


class _Masks:
    """Masks of one picture's points: each point is segmented once, however many answers name it."""

    def __init__(self, segmenter: Segmenter, sample: Sample) -> None:
        self._segmenter, self._sample = segmenter, sample
        self._of: dict[tuple[float, float], Mask] = {}

    def predicted(self, thing: Thing, refined: bool) -> Predicted:
        """One instance, in pixels of the picture, proposed or refined; deleted points make no mask."""
        size_wh, boxed = self._sample.size_wh, len(thing.box)
        places = np.asarray(norm_to_px(thing.points_norm(refined), size_wh), dtype=np.float64).reshape(-1, 2)
        points = places[boxed:]
        kept = points[~thing.deleted[boxed:]] if refined else points
        box = corners_px(places[:2], 0.5 / GRID_SIZE * np.array(size_wh)) if boxed else None
        return Predicted(points, box, self._union(kept) if len(kept) else None)

    def _union(self, points_px: npt.NDArray[np.float64]) -> Mask:
        keys = [(float(x), float(y)) for x, y in points_px]
        if missing := [key for key in dict.fromkeys(keys) if key not in self._of]:
            found = [mask for masks, _ in self._segmenter.propose(self._sample.image_bgr, np.array(missing)) for mask in masks]
            self._of.update(zip(missing, found, strict=True))
        return np.any([self._of[key] for key in keys], axis=0)
