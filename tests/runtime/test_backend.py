"""Places and angles of M-RoPE: the same as transformers infers from the token types."""

import numpy as np
import pytest

from getok_drive.errors import BackendError
from getok_drive.runtime.backend import Backend, Geometry, check_room, conversation_positions, rotary_table
from getok_drive.runtime.fake import FakeBackend

GEOMETRY = Geometry(
    vocab_size=1200, hidden_size=8, layers=1, heads=2, kv_heads=1, head_dim=16, rope_theta=10000.0, mrope_section=(2, 3, 3),
    grid_hw=(4, 6), merge_size=2, patch_dim=588,
)  # fmt: skip


def test_positions_by_hand():
    positions = conversation_positions(GEOMETRY, count_before=2, capacity=10)
    assert positions.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ]


def test_positions_and_angles_equal_transformers(tiny_checkpoint):
    import torch

    from getok_drive.preprocess import Preprocessor
    from training.export import geometry
    from training.model import load_checkpoint

    model, _ = load_checkpoint(tiny_checkpoint)
    shape = geometry(model, Preprocessor((224, 112)))
    pad = model.config.image_token_id
    ids = torch.tensor([[5] * 7 + [pad] * shape.num_visual_tokens + [6] * 20])
    grid = torch.tensor([[1, *shape.grid_hw]])
    theirs, _ = model.model.get_rope_index(ids, (ids == pad).int(), image_grid_thw=grid)
    ours = conversation_positions(shape, 7, ids.shape[1])
    np.testing.assert_array_equal(ours, theirs[:, 0].numpy())

    cos, sin = rotary_table(shape, ours)
    their_cos, their_sin = model.model.language_model.rotary_emb(torch.zeros(1), torch.from_numpy(ours)[:, None])
    np.testing.assert_allclose(np.tile(cos, 2), their_cos[0].numpy(), atol=2e-6)
    np.testing.assert_allclose(np.tile(sin, 2), their_sin[0].numpy(), atol=2e-6)
    assert cos.flags.c_contiguous and sin.flags.c_contiguous  # they are bound by address


def test_sections_must_cover_the_head():
    from dataclasses import replace

    with pytest.raises(BackendError, match="mrope_section"):
        rotary_table(replace(GEOMETRY, mrope_section=(2, 3)), np.zeros((3, 4), np.int64))


def test_fake_backend_is_a_backend_and_plays_its_script():
    backend = FakeBackend(GEOMETRY, [7, 8, 9], capacity=20)
    assert isinstance(backend, Backend)
    visual = backend.encode(np.zeros((24, 588), np.float32))
    assert backend.prefill([1, 2], visual, [3]).argmax() == 7
    assert backend.length == 9
    assert backend.step([7, 8]).argmax() == 9
    backend.rewind(10)
    assert backend.step([1]).argmax() == 9
    with pytest.raises(BackendError, match="capacity of 20"):
        backend.step([1] * 10)
    with pytest.raises(BackendError, match="do not fit"):
        check_room(backend, 0)
    with pytest.raises(BackendError, match="shape"):
        backend.encode(np.zeros((3, 3), np.float32))
    with pytest.raises(BackendError, match="script"):
        FakeBackend(GEOMETRY, [1200])
