"""The nano architecture is transformers' own: our batched vision forward and positions equal it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from getok_drive.errors import ConfigError  # noqa: E402
from getok_drive.tokens.vocab import TOKENS  # noqa: E402
from training.model import (  # noqa: E402
    SIZES,
    build_model,
    build_tokenizer,
    load_checkpoint,
    parameter_count,
    vision_tokens,
)  # fmt: skip
from training.vocabulary import first_token_id  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def tiny(tokenizer):
    return build_model(SIZES["tiny"], tokenizer).eval()


def test_vision_forward_equals_transformers(tiny):
    pixels = torch.randn(3, 4 * 8, 588)
    grid = torch.tensor([[1, 4, 8]] * 3)
    with torch.no_grad():
        ours, picture = vision_tokens(tiny, pixels, (4, 8))
        assert picture is None
        theirs = tiny.model.visual(pixels.reshape(-1, 588), grid).pooler_output.view(3, -1, ours.shape[-1])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_table_is_one_block_of_ordinary_tokens(tokenizer):
    first = first_token_id(tokenizer)
    text = "<lane><dashed><white><grid_0_31><grid_31_0></scene>"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == 6
    assert all(first <= i < first + len(TOKENS) for i in ids)
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text


def test_a_tokenizer_without_the_table_is_refused(tokenizer):
    other = build_tokenizer()
    other.convert_tokens_to_ids = lambda tokens: [0] * len(tokens)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="grid_1_0"):
        first_token_id(other)


def test_nano_has_the_promised_size(tokenizer):
    assert 3e6 < parameter_count(build_model(SIZES["nano"], tokenizer)) < 15e6


def test_checkpoint_round_trip(tiny, tokenizer, tmp_path):
    tiny.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, again = load_checkpoint(tmp_path)
    assert first_token_id(again) == first_token_id(tokenizer)
    for name, value in tiny.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_checkpoint(tmp_path / "nowhere")
