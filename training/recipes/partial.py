"""What a data set does not label is neither taught nor punished: the rule for scenes of which only some kinds are labelled.

The text of a scene lists lanes, areas, boxes, signs, in this order, and the prompt stays the runtime's. After an element of kind
p the model *decides* what comes next: a kind c >= p, or the end. Let q be the next labelled element (or the end).

- Kinds without labels between p and q may be in the picture all the same. The decision's label is then "q or any of these":
  the loss asks for their summed probability. What is known (no further p, no labelled kind before q) is still taught.
- Of an *open* kind only some classes are labelled (``meta["labelled_classes"]``; of COCO's signs stop signs and lights). Whether
  there is one more can never be known, so from the first open kind on, all decisions become one: any later kind, or the end. It
  must not depend on what is labelled: a decision taught only where it says "one more" would teach to babble.
- Words that a reader guessed (``meta["derived"]``: ``lane_type``, ``lane_color``, ``sign_color``) are read, not taught.
- Made-up elements (`training.targets.Noise`) are only of kinds that are labelled: an unlabelled car may be there by chance.

A token that is merely masked would not do: where one more lane follows, the decision is labelled, where none follows it is not;
with the second left out, the model would learn from TuSimple never to stop.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.vocab import BOX_CLASSES, SIGN_CLASSES, TOKEN_ID
from training.samples import KINDS as LABELLED_KINDS
from training.samples import Sample

_END = len(KINDS)
_DECISIONS = (*(TOKEN_ID[f"<{kind}>"] for kind in KINDS), TOKEN_ID["</scene>"])
_CLASSES = {"boxes": BOX_CLASSES, "signs": SIGN_CLASSES}
_DERIVED_WORDS = {"lane": ("lane_type", "lane_color"), "drivable": (), "box": (None,), "sign": (None, "sign_color")}


@dataclass(frozen=True, slots=True)
class Labelling:
    """Which kinds of a scene are labelled.

    Attributes:
        unlabelled: numbers (in the order of `KINDS`) of kinds without labels.
        open: numbers of kinds of which only some classes are labelled.
        derived: names of words that were guessed.
    """

    unlabelled: frozenset[int] = frozenset()
    open: frozenset[int] = frozenset()
    derived: frozenset[str] = frozenset()

    @classmethod
    def of(cls, sample: Sample) -> Labelling:
        """How a sample is labelled: its ``known``, and ``labelled_classes`` and ``derived`` of its ``meta`` where they apply."""
        classes = sample.meta.get("labelled_classes", {})
        unlabelled = frozenset(number for number, kind in enumerate(LABELLED_KINDS) if kind not in sample.known)
        partly = frozenset(
            number
            for number, kind in enumerate(LABELLED_KINDS)
            if not set(_CLASSES.get(kind, ())) <= set(classes.get(kind, _CLASSES.get(kind, ())))
        )
        return cls(unlabelled, partly - unlabelled, frozenset(sample.meta.get("derived", ())))

    def alternatives(self, previous: str | None, following: str | None) -> frozenset[int]:
        """Local ids that are as right as the labelled decision, without that itself; empty where the label is certain.

        Args:
            previous: kind of the labelled element before, None at the start.
            following: kind of the next labelled element, None at the end.
        """
        p = 0 if previous is None else KINDS.index(previous)
        q = _END if following is None else KINDS.index(following)
        opened = min((kind for kind in self.open if kind >= p), default=_END + 1)
        numbers = {kind for kind in self.unlabelled if p <= kind < min(q, opened)}
        if q >= opened:
            numbers |= set(range(opened, _END + 1))
        return frozenset(_DECISIONS[number] for number in numbers - {q})

    def teaches(self, kind: str) -> bool:
        """Whether the absence of an element of this kind is known, so that a made-up one can be called wrong."""
        number = KINDS.index(kind)
        return number not in self.unlabelled and number not in self.open

    def taught_words(self, kind: str) -> tuple[bool, ...]:
        """For each token of an element's head, whether it is taught: the kind itself always, guessed words never."""
        return True, *(name not in self.derived for name in _DERIVED_WORDS[kind])


def assume_complete(sample: Sample, kinds: Collection[str]) -> Sample:
    """The sample with the labelled classes of some kinds (``boxes``, ``signs``) taken for all that there are in the picture."""
    classes = sample.meta.get("labelled_classes", {})
    if not set(kinds) & set(classes):
        return sample
    kept = {kind: names for kind, names in classes.items() if kind not in kinds}
    return replace(sample, meta={**sample.meta, "labelled_classes": kept})
