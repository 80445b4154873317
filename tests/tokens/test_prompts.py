import pytest

from getok_drive.errors import InputError
from getok_drive.tokens import prompts
from getok_drive.tokens.vocab import TOKEN_ID, WORDS


def test_segments_make_qwens_conversation():
    before, after = prompts.propose_segments()
    text = before + "IMAGE" + after + "PROPOSAL" + prompts.refine_segment() + "REFINEMENT" + prompts.TURN_END
    assert text == (
        f"<|im_start|>user\n<|vision_start|>IMAGE<|vision_end|>{prompts.PROPOSE_PROMPT}<|im_end|>\n"
        "<|im_start|>assistant\nPROPOSAL<|im_end|>\n"
        f"<|im_start|>user\n{prompts.REFINE_PROMPT}<|im_end|>\n"
        "<|im_start|>assistant\nREFINEMENT<|im_end|>"
    )


def test_classification_gives_the_region_back():
    _, after = prompts.classify_segments("sign_color", [TOKEN_ID["<grid_3_4>"]])
    assert after.startswith("<|vision_end|>Which color has this traffic sign?<grid_3_4><|im_end|>")
    assert set(prompts.CLASSIFY_PROMPTS) == set(prompts.CLASSIFY_CHOICES)
    assert all(set(words) <= set(WORDS) for words in prompts.CLASSIFY_CHOICES.values())
    with pytest.raises(InputError, match="mood"):
        prompts.classify_segments("mood")
    with pytest.raises(InputError, match="grid"):
        prompts.classify_segments("sign_color", [5000])


def test_hash_follows_the_text(monkeypatch):
    before = prompts.prompt_hash()
    assert len(before) == 64 and before == prompts.prompt_hash()
    monkeypatch.setattr(prompts, "REFINE_PROMPT", "Refine.")
    assert prompts.prompt_hash() != before


def test_all_prompts_holds_every_piece():
    texts = prompts.all_prompts()
    assert {prompts.PROPOSE_PROMPT, prompts.REFINE_PROMPT, *prompts.CLASSIFY_PROMPTS.values()} <= set(texts)
