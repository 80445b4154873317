"""Domain ``driving``: the whole scene in two turns, propose and refine, as ARCHITECTURE.md lays it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.vocab import TOKEN_ID
from training.collate import Layout
from training.recipes.conversation import IGNORE, Conversation, LossWeights, Script
from training.recipes.partial import Labelling, assume_complete
from training.recipes.refining import Group, write_refinement
from training.samples import Sample
from training.targets import Noise, Target, elements_of, noisy_targets, slipped


@dataclass(frozen=True, slots=True)
class DrivingRecipe:
    """Sample -> the scene's two turns.

    Attributes:
        layout: fixed token ids.
        noise: on the context; ``None`` for evaluation.
        refine_points: at most so many points are taught in the refinement turn (see `write_refinement`).
        weights: of the answer's tokens.
        assume_complete: see `training.recipes.partial.assume_complete`.
        least_box_height: boxes lower than this share of the picture are left out of the text.
        refine_odds: of the elements of each kind to be among those refined.
    """

    layout: Layout
    noise: Noise | None = None
    refine_points: int = 24
    weights: LossWeights = field(default_factory=LossWeights)
    assume_complete: tuple[str, ...] = ()
    least_box_height: float = 0.0
    refine_odds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Conversation | None:
        """The conversation; ``rng`` draws the noise and the refinement's part. None where no kind is labelled."""
        if not sample.known:
            return None
        sample = assume_complete(sample, self.assume_complete)
        layout, labelling = self.layout, Labelling.of(sample)
        targets = noisy_targets(elements_of(self._seen(sample)), self.noise, rng)
        targets = [t for t in targets if not t.phantom or labelling.teaches(t.element.kind)]
        script = Script()
        script.read(layout.after)
        self._propose(script, targets, labelling)
        script.teach(layout.refine_turn[:1], [layout.end])  # the turn's end is the model's own to write
        script.read(layout.refine_turn[1:])
        slip = self.noise.slip if self.noise else 0.0
        weight_of, odds_of = (dict(zip(KINDS, factors, strict=True)) for factors in (self.weights.kinds, self.refine_odds))
        groups = [
            Group(target.context_cells, *slipped(target, slip, rng), weight_of[target.element.kind], odds_of[target.element.kind])
            for target in targets
        ]
        write_refinement(script, groups, layout.first_id, self.weights.offset, self.refine_points, rng)
        script.teach([layout.end])
        return script.conversation(sample)

    def _seen(self, sample: Sample) -> Sample:
        least_px = self.least_box_height * sample.size_wh[1]
        return replace(sample, boxes=tuple(box for box in sample.boxes if box.xyxy_px[3] - box.xyxy_px[1] >= least_px))

    def _propose(self, script: Script, targets: Sequence[Target], labelling: Labelling) -> None:
        first, weights = self.layout.first_id, self.weights
        weight_of = {kind: weights.propose * factor for kind, factor in zip(KINDS, weights.kinds, strict=True)}
        end = TOKEN_ID["</scene>"]
        previous: str | None = None
        for index, target in enumerate(targets):
            element = target.element
            following = next((t.element for t in targets[index:] if not t.phantom), None)
            script.allow(labelling.alternatives(previous, following.kind if following else None))
            context = [first + token for token in (*element.head, *target.context_cells.tolist())]
            if target.phantom:
                truth = [first + (following.head[0] if following else end), *[IGNORE] * (len(context) - 1)]
            else:
                truth = [first + token for token in (*element.head, *element.cells.tolist())]
                for place, taught in enumerate(labelling.taught_words(element.kind)):
                    truth[place] = truth[place] if taught else IGNORE
                previous = element.kind
            script.teach(context, truth, [weights.propose, *[weight_of[element.kind]] * (len(context) - 1)])
        script.allow(labelling.alternatives(previous, None))
        script.teach([first + end], weight=weights.propose)
