"""The engine: bundles exchanged while the node goes on, without a node."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from getok_drive.errors import BackendError
from getok_drive.ros.engine import Engine, Wanted
from getok_drive.types import Frame
from tests.ros import scripted


def test_a_load_that_a_cleanup_overtakes_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service loads beside the lifecycle: a node that is unconfigured again must not hold a model, nor say that it does."""
    scripted.register()
    engine, failures = Engine(), []
    gate = tmp_path / "gate"
    monkeypatch.setenv("SCRIPTED_LOAD_GATE", str(gate))

    def load() -> None:
        try:
            engine.load(str(scripted.write_bundle(tmp_path / "bundle")), "fake")
        except BackendError as error:
            failures.append(str(error))

    thread = threading.Thread(target=load)
    thread.start()
    while "loading" not in engine.progress:
        time.sleep(0.002)
    engine.unload()
    gate.touch()
    thread.join(60.0)
    assert failures == ["loading was given up: the node was cleaned up meanwhile"]
    assert engine.bundle_name == "" and engine.progress == "no bundle loaded"
    load()
    assert engine.bundle_name == "scripted" and len(failures) == 1


def test_min_confidence_below_zero_leaves_it_to_the_bundle(tmp_path: Path) -> None:
    scripted.register()
    engine = Engine()
    engine.load(str(scripted.write_bundle(tmp_path / "bundle")), "fake")
    frame = Frame(np.zeros((252, 448, 3), np.uint8))
    everything = engine.run(frame, Wanted())
    assert everything.elements and everything.report.unsure == 0  # the scripted bundle leaves nothing out
    assert engine.run(frame, Wanted(min_confidence=1.0)).report.unsure == everything.elements
    assert engine.run(frame, Wanted(min_confidence=0.0)).elements == everything.elements
