"""The shared parts of the backends: rotary angles as transformers computes them, room in the cache, the fake backend."""

import numpy as np
import pytest

from getok_drive.errors import BackendError
from getok_drive.runtime.backend import Backend, Geometry, Rotary, check_room
from getok_drive.runtime.fake import FakeBackend

GEOMETRY = Geometry(
    vocab_size=1200, hidden_size=8, layers=1, heads=2, kv_heads=1, head_dim=16, rope_theta=10000.0, mrope_section=(2, 3, 3),
    position_rule="text", grid_hw=(4, 6), merge_size=2, patch_dim=588,
)  # fmt: skip


def test_angles_equal_transformers(tiny_checkpoint):
    import torch

    from getok_drive.preprocess import Preprocessor
    from training.export import geometry
    from training.model import load_checkpoint

    model, _ = load_checkpoint(tiny_checkpoint)
    shape = geometry(model, Preprocessor((224, 112)))
    positions = np.random.default_rng(0).uniform(0, 300, (3, 40)).astype(np.float32)
    cos, sin = Rotary(shape)(positions)
    their_cos, their_sin = model.model.language_model.rotary_emb(torch.zeros(1), torch.from_numpy(positions)[:, None])
    np.testing.assert_allclose(np.tile(cos, 2), their_cos[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(np.tile(sin, 2), their_sin[0].numpy(), atol=1e-4)


def test_sections_must_cover_the_head():
    from dataclasses import replace

    with pytest.raises(BackendError, match="mrope_section"):
        Rotary(replace(GEOMETRY, mrope_section=(2, 3)))


def test_fake_backend_is_a_backend_and_plays_its_script():
    backend = FakeBackend(GEOMETRY, [7, 8, 9], capacity=20)
    assert isinstance(backend, Backend)
    visual = backend.encode(np.zeros((24, 588), np.float32))
    assert backend.prefill([1, 2], visual, [3]).argmax() == 7
    assert backend.length == 9
    assert backend.step([7, 8]).argmax() == 9
    assert backend.step([1]).argmax() == 9
    with pytest.raises(BackendError, match="capacity of 20"):
        backend.step([1] * 10)
    with pytest.raises(BackendError, match="do not fit"):
        check_room(backend, 0)
    with pytest.raises(BackendError, match="shape"):
        backend.encode(np.zeros((3, 3), np.float32))
    with pytest.raises(BackendError, match="script"):
        FakeBackend(GEOMETRY, [1200])
