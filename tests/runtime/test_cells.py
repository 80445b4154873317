"""Grid tokens that see: nothing before they have learnt, their own cell's place, the same in training and every backend."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")
pytest.importorskip("transformers", reason="needs the extra 'train'")

from getok_drive.errors import BackendError  # noqa: E402
from getok_drive.runtime.cells import CellReader, cell_weights  # noqa: E402
from getok_drive.runtime.onnx import OnnxBackend  # noqa: E402
from getok_drive.runtime.qwen import cell_reader, embed_tokens, grid_logits  # noqa: E402
from getok_drive.tokens.masks import GRID_COUNT  # noqa: E402
from getok_drive.tokens.positions import Positions  # noqa: E402
from getok_drive.tokens.vocab import GRID_SIZE, TOKENS  # noqa: E402
from training.collate import Layout  # noqa: E402
from training.conversations import Conversations  # noqa: E402
from training.export import export  # noqa: E402
from training.model import ModelSize, build_model, build_tokenizer, load_checkpoint  # noqa: E402
from training.onnx_builder import FORMS  # noqa: E402
from training.visual import encode_pictures, picture_inputs  # noqa: E402

SIZE_WH, GRID_HW, MERGED_HW = (168, 112), (8, 12), (4, 6)  # neither 6 nor 4 times 4 subcells divides 32 cells without rest


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def seeing(tokenizer):
    """A model whose grid tokens use what they see, in half precision's numbers."""
    model = build_model(ModelSize(32, 2, 2, 48, 32, 2, 2, 1, 48, cell_channels=8), tokenizer).eval().requires_grad_(False)
    torch.manual_seed(1)
    for part in (model.cells.embed, model.cells.query):
        torch.nn.init.normal_(part.weight, std=0.5)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model


@pytest.fixture(scope="module")
def checkpoint(seeing, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeing")
    seeing.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(GRID_HW[0] * GRID_HW[1], 588)).astype(np.float32)


def test_a_cell_takes_the_subcells_that_it_covers():
    for subcells in (16, 24, 32, 64, 1):
        weights = cell_weights(subcells)
        np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)
        np.testing.assert_allclose(weights.sum(0), GRID_SIZE / subcells, atol=1e-5)  # no subcell counts more than another
        centres = (np.arange(subcells) + 0.5) / subcells
        if subcells > 1:  # a ramp stays a ramp, but for the steps of its own resolution
            ramp = (np.arange(GRID_SIZE) + 0.5) / GRID_SIZE
            np.testing.assert_allclose(weights @ centres, ramp, atol=0.5 / subcells)


def test_a_visual_token_reaches_its_own_cells():
    torch.manual_seed(0)
    reader = CellReader(12, 5, 100).requires_grad_(False)
    nothing = reader(torch.zeros(1, 8 * 16, 12), (8, 16))
    for row, column in ((0, 0), (5, 3), (7, 15)):
        marked = torch.zeros(1, 8, 16, 12)
        marked[0, row, column] = 1.0
        changed = (reader(marked.flatten(1, 2), (8, 16)) - nothing).abs().sum(-1).view(GRID_SIZE, GRID_SIZE)
        expected = torch.zeros(GRID_SIZE, GRID_SIZE, dtype=torch.bool)
        expected[4 * row : 4 * row + 4, 2 * column : 2 * column + 2] = True
        assert torch.equal(changed > 1e-6, expected)


def test_nothing_changes_before_it_has_learnt(tokenizer):
    blind = build_model(ModelSize(32, 2, 2, 48, 32, 2, 2, 1, 48), tokenizer).requires_grad_(False)
    fresh = build_model(ModelSize(32, 2, 2, 48, 32, 2, 2, 1, 48, cell_channels=8), tokenizer).requires_grad_(False)
    assert cell_reader(blind) is None
    visual = encode_pictures(fresh, torch.from_numpy(picture(0))[None], GRID_HW)
    first = cell_reader(fresh).first_id
    ids = torch.tensor([[first + 7, 3, first + GRID_COUNT - 1]])
    assert torch.equal(embed_tokens(fresh, ids, visual.cells), fresh.get_input_embeddings()(ids))
    assert not grid_logits(fresh, torch.ones(1, 3, 32), visual.cells).any()


def test_only_grid_tokens_see(seeing):
    cells = encode_pictures(seeing, torch.from_numpy(picture(0))[None], GRID_HW).cells
    first = cell_reader(seeing).first_id
    ids = torch.tensor([[first - 1, first, first + GRID_COUNT - 1, first + GRID_COUNT, 0]])
    added = embed_tokens(seeing, ids, cells) - seeing.get_input_embeddings()(ids)
    assert added.abs().sum(-1)[0].bool().tolist() == [False, True, True, False, False]


@pytest.fixture(params=["torch", *FORMS])
def backend(request, checkpoint, tmp_path):
    form = FORMS.get(request.param, FORMS["fused"])
    bundle = export(checkpoint, tmp_path / "bundle", "seeing", SIZE_WH, form=form)
    return bundle.open_backend("torch" if request.param == "torch" else "onnx")


def test_every_way_gives_the_same_logits(backend, seeing, tokenizer):
    """Training's one pass, the rollouts' cache and the backends, through grid tokens of two pictures after one another."""
    layout = Layout.of(tokenizer, seeing.config)
    spec, rng = layout.position_spec(MERGED_HW), np.random.default_rng(3)
    tolerance = 0.1 if _is_half(backend) else 2e-3
    for seed in (0, 1):
        pixels = picture(seed)
        answer = [layout.first_id + int(cell) for cell in rng.integers(0, GRID_COUNT, 5)]
        logits = [backend.prefill(layout.before, backend.encode(pixels), layout.after).copy()]
        logits += [backend.step([token]).copy() for token in answer[:3]] + [backend.step(answer[3:]).copy()]
        table = slice(layout.first_id, layout.first_id + len(TOKENS))
        theirs = np.stack(logits)[:, table]

        rows = Conversations(seeing, layout, torch.from_numpy(pixels)[None].repeat(2, 1, 1), GRID_HW)
        rolled = [rows.scores()[1].copy()]
        for tokens in ([answer[0]], [answer[1]], [answer[2]], answer[3:]):
            rows.waiting[1].extend(tokens)
            rolled.append(rows.scores()[1].copy())

        visual = encode_pictures(seeing, torch.from_numpy(pixels)[None], GRID_HW)
        count = spec.merged_hw[0] * spec.merged_hw[1]
        ids = torch.tensor([[*layout.before, *[layout.image_pad] * count, *layout.after, *answer]])
        places = np.concatenate([spec.prefix(), Positions(spec).append([*layout.after, *answer])], axis=1)
        inputs = picture_inputs(seeing, ids, visual, slice(len(layout.before), len(layout.before) + count))
        hidden = seeing.model.language_model(
            **inputs, position_ids=torch.from_numpy(places)[:, None], use_cache=False
        ).last_hidden_state
        ours = seeing.lm_head(hidden)
        reader = cell_reader(seeing)
        ours[..., reader.ids] += reader.logits(hidden, visual.cells)
        at = [-6, -5, -4, -3, -1]
        ours = ours[0, at, table].numpy()
        np.testing.assert_allclose(np.stack(rolled), ours, atol=1e-4)
        np.testing.assert_allclose(theirs, ours, atol=tolerance)
        blind = seeing.lm_head(hidden)[0, at, table].numpy()
        assert np.abs(ours - blind).max() > 5 * tolerance  # they do see something


def test_a_conversation_goes_on_with_its_own_picture(backend, tokenizer, seeing):
    """Another picture may be encoded meanwhile."""
    layout = Layout.of(tokenizer, seeing.config)
    answers = []
    for meanwhile in (False, True):
        backend.prefill(layout.before, backend.encode(picture(0)), layout.after)
        if meanwhile:
            backend.encode(picture(1))
        answers.append(backend.step([layout.first_id + 77]).copy())
    np.testing.assert_array_equal(*answers)


def _is_half(backend) -> bool:
    cache = getattr(backend, "_cache", None)
    return isinstance(cache, dict) and cache["key_0"].dtype == np.float16


def test_a_checkpoint_comes_back_whole(checkpoint, seeing):
    again, _ = load_checkpoint(checkpoint)
    for name, weight in cell_reader(seeing).state_dict().items():
        assert torch.equal(weight, cell_reader(again).state_dict()[name]), name


def test_graphs_that_do_not_belong_together_are_refused(checkpoint, tokenizer, tmp_path):
    seeing_bundle = export(checkpoint, tmp_path / "a", "a", SIZE_WH)
    blind = tmp_path / "blind"
    build_model(ModelSize(32, 2, 2, 48, 32, 2, 2, 1, 48), tokenizer).save_pretrained(blind)
    tokenizer.save_pretrained(blind)
    other = export(blind, tmp_path / "b", "b", SIZE_WH)
    (other.folder / "vision.onnx").write_bytes((seeing_bundle.folder / "vision.onnx").read_bytes())
    with pytest.raises(BackendError, match="cells"):
        OnnxBackend(other.folder, other.contract.model, other.position_spec, other.capacity)
