"""The model's side: a scripted backend plays answers token by token, and the built-in bundle answers for real."""

from dataclasses import replace

import numpy as np
import pytest

from getok_drive.bundle import Bundle
from getok_drive.errors import BackendError, BundleError
from getok_drive.runtime.fake import FakeBackend
from getok_drive.tokens.codec import encode_points, px_to_norm
from getok_drive.tokens.vocab import OFFSET_ROUNDS, TABLE, TOKEN_ID
from tests.training.prompted.samples import sample
from training.prompted import asking
from training.prompted.asking import Asker
from training.prompted.queries import queries_of

STAY = TABLE.offset_base + 4


@pytest.fixture(scope="module")
def bundle():
    return Bundle.load("nano")


def _ask(bundle, query, script, refine=True, capacity=4096):
    """The answer of a model that wants to say these local ids, or texts of the table."""
    first = bundle.prompt.first_token_id
    ids = [first + (TOKEN_ID[token] if isinstance(token, str) else token) for token in script]
    backend = FakeBackend(bundle.contract.model, ids, capacity)
    return Asker(bundle, backend, refine=refine).ask(sample().image_bgr, query)


def _query(task, number=0):
    return queries_of(sample(), [task])[number]


def test_a_word_is_one_of_the_choices(bundle):
    assert _ask(bundle, _query("classification"), ["<bus>"]).word == "bus"
    assert _ask(bundle, _query("classification", 3), ["<blue>"]).word == "blue"
    forced = _ask(bundle, _query("classification"), ["<blue>"])  # no choice of a box's class: another word is taken
    assert forced.word in _query("classification").choices
    assert 0 < forced.confidence <= 1


def test_a_box_with_its_refinement(bundle):
    query = _query("rec")
    cells, offsets = encode_points(px_to_norm(query.boxes_px.reshape(2, 2), (64, 48)), OFFSET_ROUNDS)
    script = ["<answer>", "<box>", *cells.tolist(), "</answer>"]
    rough = _ask(bundle, query, script, refine=False)
    assert np.abs(rough.boxes_px - query.boxes_px).max() <= 1.0  # half a cell of 2 px
    fine = [token for cell, moves in zip(cells.tolist(), offsets.tolist(), strict=True) for token in (cell, *moves)]
    refined = [0] * len(bundle.prompt.refine)  # where the question stands nothing is chosen
    answer = _ask(bundle, query, [*script, *refined, "<offset>", *fine])
    np.testing.assert_allclose(answer.boxes_px, query.boxes_px, atol=0.2)
    assert not answer.truncated


def test_masks_points_and_deleted_ones(bundle):
    query = _query("pointing")
    script = ["<answer>", 100, 200, 300, "</answer>", *[0] * len(bundle.prompt.refine), "<offset>"]
    moves = [100, *[STAY] * OFFSET_ROUNDS, 200, TABLE.delete, 300, *[STAY] * OFFSET_ROUNDS]
    assert len(_ask(bundle, query, [*script, *moves]).points_px) == 2
    empty = _ask(bundle, _query("gres", 3), ["<answer>", "</answer>"])
    assert not empty.mask.any()
    mask = _ask(bundle, _query("res"), ["<answer>", "<seg>", 300, 400, "</seg>", "</answer>"], refine=False).mask
    assert mask.shape == (48, 64)
    assert mask.any()


def test_a_full_conversation_is_truncated_not_fatal(bundle):
    geometry, query = bundle.contract.model, _query("gres")
    before, after = query.segments
    room = geometry.num_visual_tokens + len(before) + len(after)  # characters: more than tokens
    answer = _ask(bundle, query, ["<answer>", *["<box>", 3, 40] * 200], capacity=min(room + 30, 4096))
    assert answer.truncated
    assert len(answer.boxes_px) > 0


def test_a_broken_backend_is_no_full_conversation(bundle, monkeypatch):
    def fails(self, ids):
        raise BackendError("out of memory")

    monkeypatch.setattr(FakeBackend, "step", fails)
    with pytest.raises(BackendError, match="out of memory"):
        _ask(bundle, _query("rec"), ["<answer>", "<box>", 3, 40])


def test_every_picture_is_encoded_even_where_its_array_lies_where_another_one_lay(bundle):
    query = _query("classification")
    first = bundle.prompt.first_token_id
    asker = Asker(bundle, FakeBackend(bundle.contract.model, [first + TOKEN_ID["<bus>"]] * 9, 4096))
    encode, means = asker._backend.encode, []
    asker._backend.encode = lambda patches: means.append(float(patches.mean())) or encode(patches)
    picture = np.zeros((48, 64, 3), np.uint8)
    asker.ask(picture, query)
    asker.ask(picture, query)
    del picture
    asker.ask(np.full((48, 64, 3), 255, np.uint8), query)  # takes the place, and the id, of one that nobody holds
    assert len(means) == 2
    assert means[0] != means[1]


def test_a_bundle_without_tokenizer_is_refused(bundle, tmp_path):
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing"):
        Asker(replace(bundle, folder=tmp_path), FakeBackend(bundle.contract.model, [0]))


def test_the_built_in_bundle_answers_every_task(bundle, monkeypatch):
    for name, most in (("MOST_TEXT", 3), ("MOST_CELLS", 3), ("MOST_INSTANCES", 2)):
        monkeypatch.setattr(asking, name, most)
    asker = Asker(bundle, "onnx")
    for task in ("classification", "rec", "gres", "pointing", "caption"):
        answer = asker.ask(sample().image_bgr, _query(task))
        assert answer.wall_ms > 0
        if task == "rec":
            assert len(answer.boxes_px) <= 1 or answer.boxes_px.shape[1] == 4
        if task == "classification":
            assert answer.word in _query(task).choices
