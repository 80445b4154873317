"""Fixtures that more than one part needs."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # no test fails because its machine is busy
settings.load_profile("untimed")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models of the tests are too small to share; before torch is imported
os.environ.setdefault("ACCELERATE_MIXED_PRECISION", "no")  # tests compare numbers, on processors with bfloat16 and without


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A randomly initialised model of the real architecture, as a checkpoint folder; with M-RoPE, GQA, a tied head."""
    pytest.importorskip("transformers", reason="needs the extra 'train'")
    from training.model import SIZES, build_model, build_tokenizer

    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = build_tokenizer()
    model = build_model(SIZES["tiny"], tokenizer, seed=3)
    for name, parameter in model.named_parameters():  # larger than at the start of training, so that answers differ by picture
        if "visual" in name and parameter.ndim > 1:
            parameter.data *= 4.0
        if name.endswith("bias"):
            parameter.data.normal_(std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint, tmp_path_factory) -> Path:
    """The bundle exported from `tiny_checkpoint`. Shared: copy it before changing anything."""
    from training.export import export

    return export(tiny_checkpoint, tmp_path_factory.mktemp("bundles") / "tiny", "tiny", (224, 112)).folder
