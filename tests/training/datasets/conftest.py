"""Where the real material lies."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("GETOK_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


@pytest.fixture
def real():
    """The folder of a real data set; skips when it is not on this machine."""

    def folder(name):
        path = DATA / name
        if not path.exists():
            pytest.skip(f"no real data at {path} (set GETOK_DATA)")
        return path

    return folder
