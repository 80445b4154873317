"""What the tables' tests share."""

from __future__ import annotations

import pytest

SIZE = (112, 56)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny tower and a few frames."""
    pytest.importorskip("torch")
    from training.model import SIZES, build_model, build_tokenizer
    from training.representations.frames import write_frames

    root = tmp_path_factory.mktemp("tables")
    tokenizer = build_tokenizer()
    build_model(SIZES["tiny"], tokenizer).save_pretrained(root / "tower")
    tokenizer.save_pretrained(root / "tower")
    write_frames(root / "frames" / "train", range(2000, 2012), SIZE, (224, 126))
    write_frames(root / "frames" / "test", range(4), SIZE, (224, 126))
    return root
