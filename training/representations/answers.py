"""Greedy answers about lanes, many pictures at once: free, or under the runtime's own grammar.

**Free**: the likeliest token of the whole vocabulary, whatever it is, until ``</scene>``, the turn's end or a budget (as many
lanes as the grammar would let through, so that a few answers without end do not decide the precision); `forms.read_lanes` counts
what is malformed. In the refinement turn the anchors are given back as always and each answer is free.
**Ruled** (grid forms only): `ProposeGrammar` and `RefineGrammar` as in `getok_drive.runtime.decoding`, read by the
runtime's parser.

A conversation is a generator: it yields the model ids that it wants read next, and is sent the scores of what follows them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from getok_drive.tokens import prompts
from getok_drive.tokens.codec import decode_points
from getok_drive.tokens.grammar import Grammar, Limits, ProposeGrammar, RefineGrammar, choose, parse
from getok_drive.tokens.vocab import TABLE, TOKEN_ID, TOKENS
from training.conversations import Conversations
from training.recipes.encoder import Encoder
from training.representations.forms import Form, Points, read_lanes
from training.representations.lanes import LANE_PROMPT
from training.representations.reader import picture_cache
from training.representations.runs import FrameCollator

Scores = npt.NDArray[np.float32]
Talk = Generator[list[int], Scores, "LaneAnswer"]

MOST_LANES = Limits().lanes
MOST_TOKENS = 640  # of a proposal: more than 12 lanes of the usual length as text; longer answers are cut and counted


@dataclass(slots=True)
class LaneAnswer:
    """What was said about one picture.

    Attributes:
        lanes: ``(N, 2)`` image fractions each.
        malformed: lanes that were begun and cannot be used.
        complete: whether the proposal ended as it should.
        bad_offsets: answers of the refinement that are no offset.
        tokens: chosen by the model, without the end of the turn.
        ids: model ids of the proposal.
    """

    lanes: list[Points] = field(default_factory=list)
    malformed: int = 0
    complete: bool = True
    bad_offsets: int = 0
    tokens: int = 0
    ids: list[int] = field(default_factory=list)


class PictureConversations(Conversations):
    """`Conversations` over pictures that are encoded already, with scores for the whole vocabulary.

    Args:
        model: in evaluation mode.
        collate: how the picture stands before the text.
        visual: ``(B, K, D)``.
        reading: see `training.representations.reader.READINGS`.
    """

    def __init__(self, model: PreTrainedModel, collate: FrameCollator, visual: Tensor, reading: str) -> None:
        self._model, self._text, self._first, self._cells = model, model.model.language_model, 0, None
        self._head = model.lm_head.weight
        prefix, after, places = collate.prefix()
        count = len(visual)
        before = torch.tensor([collate.layout.before] * count)
        embedded = torch.cat((model.get_input_embeddings()(before), visual), dim=1)
        positions = torch.from_numpy(places)[:, None].expand(3, count, -1)
        self._cache = picture_cache(model, embedded, positions, reading)
        self._seen = torch.ones(count, len(prefix), dtype=torch.long)
        self._positions = [after.copy() for _ in range(count)]
        self.waiting = [[] for _ in range(count)]
        self._scores = visual.new_zeros(count, len(self._head))

    def _pass(self, inputs, positions: Tensor, mask: Tensor) -> None:
        self._seen = torch.cat((self._seen, mask), dim=1)
        hidden = self._text(
            **inputs, attention_mask=self._seen, position_ids=positions, past_key_values=self._cache, use_cache=True
        ).last_hidden_state[:, -1]
        self._scores = torch.where(mask.any(dim=1, keepdim=True), F.linear(hidden, self._head), self._scores)


@torch.no_grad()
def converse(rows: PictureConversations, talks: Sequence[Talk]) -> list[LaneAnswer]:
    """Leads one conversation in each row to its end; a row that has ended is dropped."""
    found: list[LaneAnswer | None] = [None] * len(talks)
    active = list(range(len(talks)))
    for row, talk in zip(active, talks, strict=True):
        rows.waiting[row] += next(talk)
    while active:
        scores = rows.scores()
        going = []
        for place, number in enumerate(active):
            try:
                rows.waiting[place] += talks[number].send(scores[place])
                going.append(place)
            except StopIteration as end:
                found[number] = end.value
        if len(going) < len(active):
            if going:
                rows.keep(going)
            active = [active[place] for place in going]
    return [answer for answer in found if answer is not None]


def likeliest(scores: Scores) -> int:
    """The token of the highest score."""
    return int(scores.argmax())


def free_lanes(encoder: Encoder, form: Form, pick: Callable[[Scores], int] = likeliest) -> Talk:
    """The free answer about one picture, whose tokens ``pick`` chooses; the refinement's are the likeliest."""
    feed = encoder.text(prompts.chat_segments(LANE_PROMPT)[1])
    first, end = encoder.layout.first_id, encoder.layout.end
    scene, lane = (first + TOKEN_ID[text] for text in ("</scene>", "<lane>"))
    ids: list[int] = []
    while len(ids) < MOST_TOKENS and (not ids or ids[-1] not in (scene, end)):
        scores = yield feed
        token = pick(scores)
        if token == lane and ids.count(lane) == MOST_LANES:
            break
        ids.append(token)
        feed = [token]
    read = read_lanes(form, encoder.tokenizer.convert_ids_to_tokens(ids))
    answer = LaneAnswer(read.lanes, read.malformed, read.complete, tokens=len(ids) - (ids[-1] in (scene, end)), ids=ids)
    if not (form.rounds and read.lanes):
        return answer
    feed = [*feed, *encoder.layout.refine_turn, first + TOKEN_ID["<offset>"]]
    for number, tokens in enumerate(read.tokens):
        points = []
        for cell in (TOKEN_ID[token] for token in tokens):
            feed = [*feed, first + cell]
            offsets: list[int] = []
            while len(offsets) < form.rounds:
                scores = yield feed
                chosen = int(scores.argmax()) - first
                answer.tokens += 1
                if not TABLE.offset_base <= chosen <= TABLE.delete:
                    answer.bad_offsets += 1
                    feed = []
                    break
                feed = [first + chosen]
                offsets.append(chosen)
                if chosen == TABLE.delete:
                    break
            if TABLE.delete not in offsets:
                points.append(decode_points([cell], [offsets] if offsets else None)[0])
        answer.lanes[number] = np.array(points).reshape(-1, 2)
    answer.lanes = [lane for lane in answer.lanes if len(lane) >= 2]
    return answer


def ruled_lanes(encoder: Encoder, form: Form, size_wh: tuple[int, int] = (1, 1)) -> Talk:
    """The answer about one picture under the grammar, as the runtime gives it."""
    first = encoder.layout.first_id
    propose = ProposeGrammar(kinds=("lane",))
    feed, chosen = yield from _obey(propose, encoder.text(prompts.chat_segments(LANE_PROMPT)[1]), first)
    refined: list[int] | None = None
    if form.rounds and len(propose.ids) > 1:
        refine = RefineGrammar(propose.ids, form.rounds)
        _, more = yield from _obey(refine, [*feed, *encoder.layout.refine_turn], first)
        refined, chosen = refine.ids, chosen + more
    lanes, *_, report = parse(propose.ids, refined, size_wh=size_wh, rounds=max(1, form.rounds))
    norm = [(lane.points_px.astype(np.float64) + 0.5) / np.asarray(size_wh) for lane in lanes]
    return LaneAnswer(norm, report.dropped, True, 0, chosen)


def _obey(grammar: Grammar, feed: list[int], first: int) -> Generator[list[int], Scores, tuple[list[int], int]]:
    """Writes a turn; returns what the model has not read yet, and how many tokens it chose."""
    chosen = 0
    while not grammar.done:
        token = grammar.forced()
        if token is None:
            scores = yield feed
            token, feed, chosen = choose(grammar, scores[first : first + len(TOKENS)]), [], chosen + 1
        grammar.advance(token)
        feed = [*feed, first + token]
    return feed, chosen
