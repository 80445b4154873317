"""Table 5's recipe: the lanes of a picture, their points in one of the forms; everything else as in the domain ``driving``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from getok_drive.tokens import prompts
from getok_drive.tokens.codec import offsets_for
from getok_drive.tokens.elements import ElementTokens, canonical_elements
from getok_drive.tokens.vocab import TOKEN_ID
from training.recipes.conversation import Conversation, LossWeights
from training.recipes.encoder import Encoder
from training.recipes.refining import Group, write_refinement
from training.representations.forms import Form
from training.samples import Sample
from training.targets import Noise, noisy_targets, thin_lane

LANE_PROMPT = "Find the lanes."
MOST_REFINED = 32  # points a picture that are taught in the refinement turn


def lane_elements(sample: Sample) -> list[ElementTokens]:
    """The lanes as every form writes them: thinned, in canonical order, on the finest lattice (1/256 of the image)."""
    lanes = [replace(lane, points_px=thin_lane(lane.points_px, sample.size_wh[1])) for lane in sample.lanes]
    return canonical_elements(lanes, (), (), (), sample.size_wh)


@dataclass(frozen=True, slots=True, eq=False)
class LaneRecipe:
    """Sample -> the conversation about its lanes.

    Attributes:
        encoder: of the model.
        form: of the points.
        noise: on the cells that a refinement begins with; only forms with offsets have any, because only they can mend it.
        weights: of the offsets.
    """

    encoder: Encoder
    form: Form
    noise: Noise = field(default_factory=lambda: Noise(jitter=0.1, shift=0.0, phantoms=0.0))
    weights: LossWeights = field(default_factory=lambda: LossWeights(offset=(1.0, 0.6, 0.3)))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Conversation:
        """The conversation; ``rng`` draws the noise."""
        return self.write(sample, lane_elements(sample), rng)

    def write(self, sample: Sample, elements: list[ElementTokens], rng: np.random.Generator) -> Conversation:
        """The same for elements that are known already."""
        encoder, form = self.encoder, self.form
        script = encoder.open(prompts.chat_segments(LANE_PROMPT))
        targets = noisy_targets(elements, self.noise if form.rounds else None, rng)
        for target in targets:
            element = target.element
            script.teach(encoder.table(element.head))
            truth = encoder.tokenizer.convert_tokens_to_ids(form.write(element.points_norm))
            script.teach(encoder.table(target.context_cells.tolist()) if form.rounds else truth, truth)
        script.teach(encoder.table([TOKEN_ID["</scene>"]]))
        if form.rounds and targets:
            encoder.refine_turn(script)
            groups = []
            for target in targets:
                answers = offsets_for(target.context_cells, target.element.points_norm, form.rounds)
                groups.append(Group(target.context_cells, answers))
            write_refinement(script, groups, encoder.layout.first_id, self.weights.offset, MOST_REFINED, rng)
        encoder.end(script)
        return script.conversation(sample)
