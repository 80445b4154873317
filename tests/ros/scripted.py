"""The real perception node and `Perceiver` over the scripted backend, with a bundle of its own: tests need no model.

Run as a program it is the executable ``perception_node`` with one more backend, ``fake``. Environment: ``SCRIPTED_LOAD_S`` and
``SCRIPTED_RUN_S`` make it as slow as a model, ``SCRIPTED_BUSY_S`` from the second image on (the first is the warm-up);
``SCRIPTED_FAIL`` makes every image fail; with ``SCRIPTED_GATE``, a folder, work on image n (the warm-up is 0) ends only once a
file ``n`` is there, so that a test decides what happens meanwhile; ``SCRIPTED_LOAD_GATE``, a file, does the same for loading.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from getok_drive import bundle as bundles
from getok_drive import runtime
from getok_drive.errors import BackendError
from getok_drive.preprocess import Preprocessor
from getok_drive.runtime.backend import Geometry
from getok_drive.runtime.fake import FakeBackend
from getok_drive.tokens import prompts
from getok_drive.tokens.elements import KINDS, canonical_elements, propose_ids, refine_ids
from getok_drive.tokens.positions import PositionSpec
from getok_drive.tokens.vocab import GRID_SIZE, OFFSET_ROUNDS, TOKENS
from getok_drive.types import Box, DrivableArea, FloatArray, Lane, Sign

SIZE_WH = (448, 252)
FIRST_ID = 16
REFINE_PROMPT_IDS = (4, 5)


def scene_elements(size_wh: tuple[int, int] = SIZE_WH) -> tuple[list[Lane], list[DrivableArea], list[Box], list[Sign]]:
    """What the scripted model sees in every image: two lanes, the road between them, a car and a stop sign."""
    size = np.array(size_wh, dtype=np.float32)
    left, right = np.array([[0.25, 0.95], [0.35, 0.75], [0.45, 0.6]]) * size, np.array([[0.75, 0.95], [0.55, 0.6]]) * size
    return (
        [Lane(left), Lane(right, "dashed", "yellow")],
        [DrivableArea(np.array([[0.25, 0.95], [0.45, 0.6], [0.55, 0.6], [0.75, 0.95]]) * size)],
        [Box(np.array([[0.47, 0.5], [0.53, 0.64]]) * size, "car")],
        [Sign(np.array([0.8, 0.4]) * size, "stop", "red")],
    )


def script() -> list[int]:
    """Model token ids after the prefill."""
    elements = canonical_elements(*scene_elements(), SIZE_WH)
    shift = [FIRST_ID + token for token in propose_ids(elements)]
    return [*shift, *REFINE_PROMPT_IDS, *(FIRST_ID + token for token in refine_ids(elements))]


class ScriptedBackend(FakeBackend):
    """`FakeBackend` with the script above, and as slow as the environment says."""

    def __init__(self, folder: Path, geometry: Geometry, spec: PositionSpec, capacity: int, threads: int = 0) -> None:
        time.sleep(float(os.environ.get("SCRIPTED_LOAD_S", "0")))
        while os.environ.get("SCRIPTED_LOAD_GATE") and not Path(os.environ["SCRIPTED_LOAD_GATE"]).exists():
            time.sleep(0.002)
        super().__init__(geometry, script(), capacity)
        self._images = itertools.count()

    def encode(self, pixel_values: FloatArray) -> FloatArray:
        """As slow as a model; the wait gives up the interpreter, as native code does."""
        time.sleep(float(os.environ.get("SCRIPTED_RUN_S", "0")))
        if self.passes > 0:
            time.sleep(float(os.environ.get("SCRIPTED_BUSY_S", "0")))
        image = next(self._images)
        if os.environ.get("SCRIPTED_GATE"):
            while not Path(os.environ["SCRIPTED_GATE"], str(image)).exists():
                time.sleep(0.002)
        if os.environ.get("SCRIPTED_FAIL"):
            raise BackendError("scripted failure")
        return super().encode(pixel_values)


def write_bundle(folder: Path, name: str = "scripted") -> Path:
    """A bundle folder that passes all checks of `Bundle.load`; it has no weights."""
    preprocessor = Preprocessor(SIZE_WH)
    geometry = Geometry(
        vocab_size=FIRST_ID + len(TOKENS), hidden_size=32, layers=1, heads=2, kv_heads=1, head_dim=16, rope_theta=1e4,
        mrope_section=(2, 3, 3), position_rule="text", grid_hw=preprocessor.grid_hw, merge_size=preprocessor.merge_size,
        patch_dim=preprocessor.patch_dim,
    )  # fmt: skip
    image = bundles.ImageSpec(
        SIZE_WH, preprocessor.patch_size, preprocessor.merge_size, preprocessor.temporal_patch_size, (0.5,) * 3, (0.25,) * 3
    )
    contract = bundles.Contract(
        format=bundles.FORMAT, name=name, git_commit="0" * 40, model=geometry, image=image, calibration={}, training=(), files={},
        least_confidence=dict.fromkeys(KINDS, 0.0),
        tokens=bundles.TokenSpec(GRID_SIZE, OFFSET_ROUNDS, dict.fromkeys(KINDS, OFFSET_ROUNDS), FIRST_ID, TOKENS),
        prompt=bundles.PromptSpec(prompts.prompt_hash(), (1, 2), (3,), REFINE_PROMPT_IDS),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / bundles.CONTRACT).write_text(contract.to_json())
    return folder


def register() -> None:
    """Makes ``backend="fake"`` known in this process."""
    runtime.BACKENDS["fake"] = (ScriptedBackend.__module__, ScriptedBackend.__qualname__)


def main(args: Sequence[str] | None = None) -> int:
    """The perception node with the fake backend."""
    from getok_drive.ros.process import perception_main

    register()
    return perception_main()


if __name__ == "__main__":
    sys.exit(main())
