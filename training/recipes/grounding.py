"""Answers that name things in a picture: domains ``referring``, ``segmentation``, ``reasoning``, ``generalized``, ``pointing``.

An answer is ``<answer> ... </answer>`` around one instance after the other, from left to right: ``<box>`` with two corners,
``<seg> ... </seg>`` around a mask's cells row by row, or both; points are bare grid tokens. No instance at all is an answer, too.
In the second turn all grid tokens come back in the order in which they were written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from getok_drive.tokens.codec import Ids, cell_centers, encode_points, offsets_for
from getok_drive.tokens.vocab import OFFSET_ROUNDS, TOKEN_ID
from training.offset_answers import jitter_cells, mask_answers
from training.recipes.conversation import Conversation, LossWeights
from training.recipes.encoder import Encoder
from training.recipes.refining import Group, write_refinement
from training.recipes.settings import RecipeConfig
from training.samples import Sample

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One thing that an answer names: a box, a mask, both, or a point.

    Attributes:
        box_norm: ``(2, 2)`` top-left and bottom-right corner, image fractions.
        mask: ``(H, W)``, with ``cells``, its grid tokens.
        cells: ``(N,)`` local grid ids.
        point_norm: ``(2,)``, image fractions.
    """

    box_norm: Points | None = None
    mask: Mask | None = None
    cells: Ids = field(default_factory=lambda: np.zeros(0, np.int32))
    point_norm: Points | None = None

    def parts(self, jitter: float, rng: np.random.Generator) -> list[tuple[str, Ids, Ids, Ids]]:
        """``box``, ``seg`` and ``point`` parts: their true cells, those in the context, and the offsets that mend these."""
        found = []
        for kind, norm in (("box", self.box_norm), ("point", None if self.point_norm is None else self.point_norm[None])):
            if norm is not None:
                cells = encode_points(norm, 0)[0]
                read = _moved(cells, jitter, rng)
                found.append((kind, cells, read, offsets_for(read, norm)))
        if self.mask is not None:
            read = _moved(self.cells, jitter, rng)
            found.append(("seg", self.cells, read, mask_answers(self.mask, read, OFFSET_ROUNDS)))
        return found

    @property
    def key(self) -> tuple[int, ...]:
        """Its grid tokens: instances with the same ones are one answer."""
        norms = [norm.reshape(-1, 2) for norm in (self.box_norm, self.point_norm) if norm is not None]
        return tuple(token for norm in norms for token in encode_points(norm, 0)[0].tolist()) + tuple(self.cells.tolist())

    @property
    def order(self) -> tuple[float, float]:
        """Sort key: from left to right, then from top to bottom."""
        first = self.point_norm if self.point_norm is not None else self.box_norm[0] if self.box_norm is not None else None
        x, y = cell_centers(self.cells).min(axis=0) if first is None else first
        return float(x), float(y)


def _moved(cells: Ids, share: float, rng: np.random.Generator) -> Ids:
    chosen = rng.random(len(cells)) < share
    return np.where(chosen, jitter_cells(cells, 1, rng), cells).astype(np.int32) if chosen.any() else cells


_AROUND = {"box": ("<box>", None), "seg": ("<seg>", "</seg>"), "point": (None, None)}


@dataclass(frozen=True, slots=True, eq=False)
class Grounder:
    """Writes conversations that ask for instances.

    Attributes:
        encoder: of the model.
        weights: of the answer's tokens.
        refine: share of conversations with a second turn.
        jitter: share of grid tokens that are moved in the context of that turn.
        refine_points: at most so many points are taught in it.
    """

    encoder: Encoder
    weights: LossWeights
    refine: float
    jitter: float
    refine_points: int

    @classmethod
    def of(cls, encoder: Encoder, weights: LossWeights, refine_points: int, config: RecipeConfig) -> Grounder:
        """With the settings of a run."""
        return cls(encoder, weights, config.refine, config.jitter, refine_points)

    def write(
        self,
        sample: Sample,
        segments: tuple[str, str],
        instances: Sequence[Instance],
        rng: np.random.Generator,
        thought: str = "",
    ) -> Conversation:
        """The conversation.

        Args:
            sample: the picture.
            segments: the user's turn, from `getok_drive.tokens.prompts`.
            instances: the answer, in any order.
            rng: draws whether there is a second turn, and the noise in it.
            thought: said in ``<think> ... </think>`` before the answer; empty: nothing is.
        """
        encoder, first, weight = self.encoder, self.encoder.layout.first_id, self.weights.propose
        refined = bool(instances) and rng.random() < self.refine
        script = encoder.open(segments)
        if thought:
            think = encoder.table([TOKEN_ID["<think>"]]), encoder.outside(thought), encoder.table([TOKEN_ID["</think>"]])
            script.teach([token for part in think for token in part], weight=weight)
        script.teach(encoder.table([TOKEN_ID["<answer>"]]), weight=weight)
        groups: list[Group] = []
        for instance in sorted(instances, key=lambda item: item.order):
            for kind, truth, read, answers in instance.parts(self.jitter if refined else 0.0, rng):
                before, after = (encoder.table([TOKEN_ID[text]] if text else []) for text in _AROUND[kind])
                context, labels = ([*before, *(first + cell for cell in cells.tolist()), *after] for cells in (read, truth))
                script.teach(context, labels, weight)
                groups.append(Group(read, answers))
        script.teach(encoder.table([TOKEN_ID["</answer>"]]), weight=weight)
        if refined:
            encoder.refine_turn(script)
            write_refinement(script, groups, first, self.weights.offset, self.refine_points, rng)
        encoder.end(script)
        return script.conversation(sample)
