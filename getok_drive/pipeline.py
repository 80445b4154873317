"""The whole flow on one screen: camera image -> patches -> visual tokens -> tokens -> scene."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from getok_drive.bundle import Bundle
from getok_drive.errors import ConfigError
from getok_drive.runtime.backend import Backend
from getok_drive.runtime.decoding import Budget, decode
from getok_drive.selecting import select
from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.parsing import parse
from getok_drive.tokens.refining import unmoved
from getok_drive.types import Frame, Scene, Timings


class Perceiver:
    """One model, ready to run. Not thread-safe: one frame at a time.

    Args:
        bundle: a loaded bundle, a folder, or the name of a built-in bundle.
        backend: ``onnx``, ``torch``, or a `Backend` of the caller's own.
        limits: greatest numbers of elements and points of a scene.
        budget: tokens and time that one frame may cost.
        refine: whether to ask for the refinement; without it points are cells' centres.
        rounds: offset rounds that the model is asked for, at most its own; each point costs a decoder pass a round. With 0
            points are deleted but not moved. None: as many as the bundle says for each kind of element.
        min_confidence: elements below it are left out; None: as the bundle says for each kind.
        threads: CPU threads; 0 lets the backend choose.

    Raises:
        BundleError: the bundle is incomplete, altered or does not match this runtime.
        BackendError: the backend cannot be loaded.
        ConfigError: more rounds than the model has, or ``min_confidence`` is outside 0..1.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path = "nano",
        backend: str | Backend = "onnx",
        *,
        limits: Limits | None = None,
        budget: Budget | None = None,
        refine: bool = True,
        rounds: int | None = None,
        min_confidence: float | None = None,
        threads: int = 0,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self.limits = limits or Limits()
        self.budget = budget or Budget()
        self.refine = refine
        self.backend = self.bundle.open_backend(backend, self.limits, threads) if isinstance(backend, str) else backend
        self._preprocess = self.bundle.preprocessor()
        self._prompt = self.bundle.prompt
        self._rounds = self.bundle.contract.tokens.offset_rounds
        if rounds is not None and not 0 <= rounds <= self._rounds:
            name, most = self.bundle.name, self._rounds
            raise ConfigError(f"rounds: the bundle {name} has {most} offset rounds, so 0..{most}, not {rounds}")
        self._moves = rounds != 0
        self._decided = self.bundle.contract.tokens.decided_rounds if rounds is None else dict.fromkeys(KINDS, max(1, rounds))
        self._calibration = self.bundle.calibration
        self._least = self._least_confidence(min_confidence, self.bundle.contract.least_confidence)

    def warm_up(self) -> None:
        """Run once on a grey picture, so that the first real frame takes as long as the next."""
        width, height = self._preprocess.image_size_wh
        self.run(Frame(np.full((height, width, 3), 114, np.uint8), source="warm-up"))

    def run(
        self,
        frame: Frame,
        *,
        budget: Budget | None = None,
        kinds: Collection[str] = KINDS,
        min_confidence: float | None = None,
    ) -> Scene:
        """Everything seen in one frame.

        Args:
            frame: the image and where it comes from.
            budget: for this frame, instead of the perceiver's own.
            kinds: element kinds to look for: some of ``lane``, ``drivable``, ``box``, ``sign``.
            min_confidence: for this frame, instead of the perceiver's own.

        Raises:
            BackendError: inference failed; the perceiver stays usable.
            ConfigError: ``min_confidence`` is outside 0..1.
        """
        least = self._least_confidence(min_confidence, self._least)
        t0 = time.perf_counter()
        pixel_values, transform = self._preprocess(frame.image_bgr)
        t1 = time.perf_counter()
        visual = self.backend.encode(pixel_values)
        t2 = time.perf_counter()
        logits = self.backend.prefill(self._prompt.before, visual, self._prompt.after)
        t3 = time.perf_counter()
        decoded = decode(
            self.backend,
            logits,
            self._prompt,
            limits=self.limits,
            budget=budget or self.budget,
            rounds=self._rounds,
            decided_rounds=self._decided,
            refine=self.refine,
            kinds=kinds,
        )
        t4 = time.perf_counter()
        written = parse(
            decoded.propose_ids,
            decoded.refine_ids if self._moves or not decoded.refine_ids else unmoved(decoded.refine_ids),
            size_wh=transform.source_size_wh,
            token_probs=decoded.token_probs,
            rounds=self._rounds,
            limits=self.limits,
            calibration=self._calibration,
        )
        lanes, drivable, boxes, signs, report = select(written, least)
        t5 = time.perf_counter()
        return Scene(
            image_size_wh=frame.size_wh,
            lanes=lanes,
            drivable=drivable,
            boxes=boxes,
            signs=signs,
            stamp_ns=frame.stamp_ns,
            source=frame.source,
            index=frame.index,
            truncated=decoded.truncated,
            report=replace(report, passes=decoded.passes),
            timings=Timings(*(1e3 * (b - a) for a, b in ((t0, t1), (t1, t2), (t2, t3), (t3, t4), (t4, t5), (t0, t5)))),
            bundle_name=self.bundle.name,
            bundle_sha256=self.bundle.sha256,
        )

    @staticmethod
    def _least_confidence(asked: float | None, otherwise: Mapping[str, float]) -> Mapping[str, float]:
        if asked is None:
            return otherwise
        if not 0.0 <= asked <= 1.0:
            raise ConfigError(f"min_confidence: expected a number in 0..1, or None for the bundle's own, not {asked!r}")
        return dict.fromkeys(KINDS, asked)
