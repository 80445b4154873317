"""The `Perceiver` as the node uses it: loaded with progress, exchanged while running, limited per frame."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from getok_drive.errors import BackendError, ConfigError
from getok_drive.pipeline import Perceiver
from getok_drive.ros.params import KINDS, NodeParams
from getok_drive.runtime.decoding import Budget
from getok_drive.tokens.vocab import BOX_CLASSES, SIGN_CLASSES
from getok_drive.types import Frame, Scene

_NOTHING = "no bundle loaded"
# The node names kinds as the fields of a scene are named, the decoder as the elements' tokens are.
_TOKEN_KIND = {"lanes": "lane", "drivable": "drivable", "boxes": "box", "signs": "sign"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of one frame: kinds and classes of elements, and the budget for it.

    ``box_classes`` and ``sign_classes``: empty means all. ``min_confidence``: below 0 it is the bundle's. ``token_budget``,
    ``deadline_ms``, ``max_rate_hz``: 0 means no limit.
    """

    kinds: tuple[str, ...] = KINDS
    box_classes: tuple[str, ...] = ()
    sign_classes: tuple[str, ...] = ()
    min_confidence: float = -1.0
    token_budget: int = 0
    deadline_ms: float = 0.0
    max_rate_hz: float = 0.0

    @property
    def budget(self) -> Budget:
        """For the decoder."""
        unlimited = Budget()
        return Budget(max(self.token_budget, 2) if self.token_budget else unlimited.tokens,
                      self.deadline_ms / 1e3 if self.deadline_ms else unlimited.time_s)  # fmt: skip

    @classmethod
    def of(cls, params: NodeParams, degraded: bool) -> Wanted:
        """What the parameters ask for, in normal or in degraded mode."""
        normal = cls(
            params.kinds, params.box_classes, params.sign_classes, params.min_confidence, params.token_budget, params.deadline_ms,
            params.max_rate_hz,
        )  # fmt: skip
        if not degraded:
            return normal
        return replace(
            normal,
            kinds=tuple(kind for kind in normal.kinds if kind in params.degraded_kinds),
            token_budget=int(_least(normal.token_budget, params.degraded_token_budget)),
            max_rate_hz=_least(normal.max_rate_hz, params.degraded_max_rate_hz),
        )


def _least(a: float, b: float) -> float:
    """The smaller of two limits of which 0 means none."""
    return min(a, b) if a and b else a or b


def select(scene: Scene, wanted: Wanted) -> Scene:
    """The scene with only the wanted kinds and classes (the decoder was asked for the kinds only)."""

    def keep(kind: str, elements: tuple, classes: tuple[str, ...] = ()) -> tuple:  # type: ignore[type-arg]
        if kind not in wanted.kinds:
            return ()
        return tuple(e for e in elements if not classes or e.class_name in classes)

    return replace(
        scene,
        lanes=keep("lanes", scene.lanes),
        drivable=keep("drivable", scene.drivable),
        boxes=keep("boxes", scene.boxes, wanted.box_classes),
        signs=keep("signs", scene.signs, wanted.sign_classes),
    )


class Engine:
    """Holds the perceiver in use. `load` may run in any thread while `run` runs in the worker's."""

    def __init__(self) -> None:
        self._perceiver: Perceiver | None = None
        self._lock = threading.Lock()  # held while a frame runs and while perceivers are exchanged
        self._unloads = 0  # so far; a load that one of them overtook has nobody to load for
        self.progress = _NOTHING
        self.bundle_name = self.bundle_sha256 = self.backend = ""

    def load(self, bundle: str, backend: str, threads: int = 0, stop: Callable[[], bool] = lambda: False) -> None:
        """Loads, verifies and warms up a bundle, then exchanges it for the one in use; on failure that one stays.

        Raises:
            GetokError: As `Perceiver` raises it; also when ``stop`` turned true meanwhile.
        """
        before, unloads = self.progress, self._unloads
        try:
            self.progress = f"loading bundle {bundle!r}: reading and verifying"
            fresh = Perceiver(bundle, backend=backend, threads=threads)
            self.progress = f"loading bundle {bundle!r}: warming up {backend}"
            fresh.warm_up()
            if stop():
                raise BackendError("loading was given up: the node shuts down")
        except BaseException:
            self.progress = before if self._unloads == unloads else _NOTHING
            raise
        with self._lock:
            if self._unloads != unloads:
                self.progress = _NOTHING
                raise BackendError("loading was given up: the node was cleaned up meanwhile")
            self._perceiver = fresh
            self.backend = backend
            self.bundle_name, self.bundle_sha256 = fresh.bundle.name, fresh.bundle.sha256
            self.progress = f"bundle {self.bundle_name} ({self.bundle_sha256[:12]}) on {backend}"

    def run(self, frame: Frame, wanted: Wanted) -> Scene:
        """One frame to one scene as it is ``wanted``."""
        with self._lock:
            if self._perceiver is None:
                raise BackendError("no bundle is loaded; configure the node first")
            kinds = [_TOKEN_KIND[kind] for kind in wanted.kinds]
            least = wanted.min_confidence if wanted.min_confidence >= 0 else None
            scene = self._perceiver.run(frame, budget=wanted.budget, kinds=kinds, min_confidence=least)
        return select(scene, wanted)

    def check_classes(self, box_classes: tuple[str, ...], sign_classes: tuple[str, ...]) -> None:
        """Raises `ConfigError` for a class that the token table does not have."""
        for kind, wanted, known in (("box", box_classes, BOX_CLASSES), ("sign", sign_classes, SIGN_CLASSES)):
            for name in wanted:
                if name not in known:
                    raise ConfigError(f"{kind} class {name!r} is unknown; use {', '.join(known)}")

    def unload(self) -> None:
        """Frees the perceiver."""
        with self._lock:
            self._perceiver = None
            self._unloads += 1
            self.progress = _NOTHING
            self.bundle_name = self.bundle_sha256 = self.backend = ""
