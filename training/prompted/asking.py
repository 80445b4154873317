"""Asks a bundle's model a query through its runtime backend, and reads the answer; greedy, constrained by the task's grammar.

The answers are those that `training.recipes.grounding` and `training.recipes.classification` teach:

    classification          one word token of the choices
    rec, res, gres, reason  [<think> text </think>] <answer> (<box> cell cell | <seg> cell ... </seg>)* </answer>
    pointing                <answer> cell ... </answer>
    caption                 text up to the end of the turn

After an answer with grid tokens the model is asked to refine: each grid token comes back and is answered with offsets or
``<DELETE>``. A mask is what the segmenter makes of its points.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from getok_drive.bundle import Bundle
from getok_drive.errors import BackendError, BundleError
from getok_drive.runtime.backend import Backend
from getok_drive.tokens.codec import decode_points, norm_to_px
from getok_drive.tokens.vocab import GRID_SIZE, TABLE, TOKEN_ID, TOKENS
from getok_drive.types import FloatArray, ImageBgr
from training.mask_decode import points_to_mask
from training.prompted.answers import Answer
from training.prompted.queries import Query
from training.segmenters import Segmenter, open_segmenter

MOST_CELLS = 64  # of one mask
MOST_INSTANCES = 40  # of one answer
MOST_TEXT = 96  # tokens of a caption or a thought
_GRID = range(GRID_SIZE**2)
_OFFSETS = [*range(TABLE.offset_base, TABLE.delete), TABLE.delete]


@dataclass
class _Part:
    """A box, a mask or a point of an answer: its cells, and the offsets of each (`TABLE.delete` alone: taken away)."""

    kind: str
    cells: list[int]
    offsets: list[list[int]] = field(default_factory=list)

    def points_norm(self) -> npt.NDArray[np.float64]:
        """``(N, 2)`` of the points that are left."""
        given = self.offsets or [[] for _ in self.cells]
        kept = [(cell, moves) for cell, moves in zip(self.cells, given, strict=True) if TABLE.delete not in moves]
        found = [decode_points([cell], [moves] if moves else None)[0] for cell, moves in kept]
        return np.array(found, dtype=np.float64).reshape(-1, 2)


class _Turn:
    """One conversation: tokens that the model has not seen wait until it is asked for the next choice."""

    def __init__(self, backend: Backend, logits: FloatArray, first_id: int) -> None:
        self._backend, self._logits, self.first = backend, logits, first_id
        self._waiting: list[int] = []

    @property
    def full(self) -> bool:
        """Whether what waits does not fit into the conversation any more."""
        return self._backend.length + len(self._waiting) > self._backend.capacity

    def logits(self) -> FloatArray:
        if self._waiting:
            self._logits = self._backend.step(self._waiting)
            self._waiting.clear()
        return self._logits

    def read(self, ids: Iterable[int]) -> None:
        self._waiting += ids

    def choose(self, allowed: Sequence[int]) -> int:
        """The likeliest of some tokens of the table, written down; a token without alternative costs nothing."""
        token = allowed[0]
        if len(allowed) > 1:
            token = allowed[int(np.argmax(self.logits()[np.asarray(allowed) + self.first]))]
        self.read([token + self.first])
        return token


class Asker:
    """A loaded model that answers queries. Not thread-safe.

    Args:
        bundle: with ``tokenizer.json``.
        backend: name of a backend, or one that is open.
        segmenter: makes masks of points, see `training.segmenters`.
        refine: whether to ask for the second turn.

    Raises:
        BundleError: the bundle has no tokenizer.
        BackendError: the backend cannot be loaded.
    """

    def __init__(self, bundle: Bundle, backend: str | Backend = "torch", segmenter: str = "opencv", refine: bool = True) -> None:
        path = bundle.folder / "tokenizer.json"
        if not path.is_file():
            raise BundleError(f"{path} is missing; prompted tasks need the tokenizer, export the bundle again")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._bundle, self._segmenter_name, self._refine = bundle, segmenter, refine
        self._backend = bundle.open_backend(backend) if isinstance(backend, str) else backend
        self._preprocess = bundle.preprocessor()
        self._rounds = bundle.contract.tokens.offset_rounds
        self._picture: tuple[ImageBgr | None, Any] = None, None  # kept, not its id: a freed array's id is soon another picture's

    @cached_property
    def _segmenter(self) -> Segmenter:
        return open_segmenter(self._segmenter_name)

    def ask(self, image_bgr: ImageBgr, query: Query) -> Answer:
        """The answer to one query.

        Args:
            image_bgr: ``(H, W, 3)`` uint8; it is encoded once for queries that follow one another.
            query: its ``segments`` are the user's turn.
        """
        start = time.perf_counter()
        if self._picture[0] is not image_bgr:
            self._picture = image_bgr, self._backend.encode(self._preprocess(image_bgr)[0])
        before, after = (self._tokenizer.encode(text, add_special_tokens=False).ids for text in query.segments)
        turn = _Turn(self._backend, self._backend.prefill(before, self._picture[1], after), self._bundle.prompt.first_token_id)
        answer = self._answer(turn, image_bgr, query)
        return Answer(**{**answer, "wall_ms": (time.perf_counter() - start) * 1e3})

    def _answer(self, turn: _Turn, image_bgr: ImageBgr, query: Query) -> dict[str, Any]:
        if query.task == "classification":
            ids = [TOKEN_ID[f"<{word}>"] for word in query.choices]
            scores = np.exp(turn.logits()[np.asarray(ids) + turn.first].astype(np.float64) - turn.logits().max())
            best = int(np.argmax(scores))
            return {"word": query.choices[best], "confidence": float(scores[best] / max(scores.sum(), 1e-300))}
        if query.task == "caption":
            return {"caption": self._text(turn, "<|im_end|>")}
        parts: list[_Part] = []
        truncated, issues = False, Counter[str]()
        try:
            self._instances(turn, query, parts)
            if self._refine and self._rounds and parts:
                self._refinement(turn, parts)
        except BackendError:
            if not turn.full:
                raise
            # what is complete counts
            truncated, parts = True, [p for p in parts if len(p.cells) == (2 if p.kind == "box" else max(len(p.cells), 1))]
            for part in parts:
                part.offsets = part.offsets if len(part.offsets) == len(part.cells) else []
            issues["conversation_full"] += 1
        size_wh = (image_bgr.shape[1], image_bgr.shape[0])
        found = {
            kind: [norm_to_px(p.points_norm(), size_wh) for p in parts if p.kind == kind] for kind in ("box", "seg", "point")
        }
        boxes = [points.ravel() for points in found["box"] if len(points) == 2]
        answer: dict[str, Any] = {"truncated": truncated, "issues": dict(issues)}
        answer["boxes_px"] = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        answer["points_px"] = np.concatenate([np.zeros((0, 2)), *found["point"]])
        if query.mask is not None:
            union = np.zeros(image_bgr.shape[:2], dtype=bool)
            for points in found["seg"]:
                union |= points_to_mask(self._segmenter, image_bgr, points)
            answer["mask"] = union
        return answer

    def _text(self, turn: _Turn, end: str) -> str:
        """Free text up to a token, which is read as well; no token of the table, no other special token."""
        stop = self._tokenizer.token_to_id(end)
        if stop is None:
            raise BundleError(f"{self._bundle.folder}: the tokenizer has no {end}; export the bundle again")
        first, last = turn.first, turn.first + len(TOKENS)
        special = [number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special]
        ids: list[int] = []
        while len(ids) < MOST_TEXT:
            logits = np.array(turn.logits(), dtype=np.float64)
            wanted = logits[stop]
            logits[first:last] = logits[special] = -np.inf
            logits[self._tokenizer.get_vocab_size() :] = -np.inf
            logits[stop] = wanted
            token = int(np.argmax(logits))
            if token == stop:
                break
            ids.append(token)
            turn.read([token])
        turn.read([stop])
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _instances(self, turn: _Turn, query: Query, parts: list[_Part]) -> None:
        """Write the answer; ``parts`` grows as it goes."""
        think, opening, closing, box, seg, seg_end = (
            TOKEN_ID[t] for t in ("<think>", "<answer>", "</answer>", "<box>", "<seg>", "</seg>")
        )
        if turn.choose([think, opening] if query.task == "reason" else [opening]) == think:
            self._text(turn, "</think>")
            turn.choose([opening])
        kinds = {"rec": [box, seg], "res": [box, seg], "reason": [seg], "gres": [box, seg], "pointing": list(_GRID)}[query.task]
        while True:
            may_end = bool(parts) or query.task in ("gres", "pointing")
            token = turn.choose([*kinds, *([closing] if may_end else [])])
            if token == closing or len(parts) == MOST_INSTANCES:
                return
            if query.task == "pointing":
                kinds.remove(token)  # a point stands once
                parts.append(_Part("point", [token]))
            elif token == box:
                parts.append(_Part("box", []))
                parts[-1].cells.append(first := turn.choose(_GRID))
                lower_right = [c for c in _GRID if c // GRID_SIZE >= first // GRID_SIZE and c % GRID_SIZE >= first % GRID_SIZE]
                parts[-1].cells.append(turn.choose(lower_right))
            else:
                parts.append(_Part("seg", []))
                while True:
                    cells = parts[-1].cells
                    later = range(cells[-1] + 1, len(_GRID)) if cells and len(cells) < MOST_CELLS else _GRID if not cells else ()
                    cell = turn.choose([*later, *([seg_end] if cells else [])])
                    if cell == seg_end:
                        break
                    cells.append(cell)

    def _refinement(self, turn: _Turn, parts: Sequence[_Part]) -> None:
        """The second turn: every cell in its order, each answered with offsets or taken away."""
        turn.read(self._bundle.prompt.refine)
        turn.choose([TOKEN_ID["<offset>"]])
        for part in parts:
            for cell in part.cells:
                turn.choose([cell])
                moves = [turn.choose(_OFFSETS)]
                while moves[-1] != TABLE.delete and len(moves) < self._rounds:
                    moves.append(turn.choose(_OFFSETS[:-1]))
                part.offsets.append(moves)
