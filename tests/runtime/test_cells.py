"""Grid tokens that see: nothing before they have learnt, their own cell's place, the same in training and every backend."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")
pytest.importorskip("transformers", reason="needs the extra 'train'")
onnx = pytest.importorskip("onnx", reason="needs the extra 'train'")

from getok_drive.errors import BackendError, ConfigError  # noqa: E402
from getok_drive.runtime.cells import CellReader, CellSettings, cell_weights  # noqa: E402
from getok_drive.runtime.onnx import OnnxBackend  # noqa: E402
from getok_drive.runtime.qwen import cell_reader, embed_tokens, seeing  # noqa: E402
from getok_drive.tokens.masks import GRID_COUNT  # noqa: E402
from getok_drive.tokens.positions import Positions  # noqa: E402
from getok_drive.tokens.vocab import GRID_SIZE, TOKENS  # noqa: E402
from training.collate import Layout  # noqa: E402
from training.conversations import Conversations  # noqa: E402
from training.export import export  # noqa: E402
from training.model import ModelSize, build_model, build_tokenizer, load_checkpoint  # noqa: E402
from training.onnx_builder import FORMS  # noqa: E402
from training.onnx_graphs import vision_graph  # noqa: E402
from training.visual import encode_pictures, picture_inputs  # noqa: E402

BLIND = ModelSize(32, 2, 2, 48, 32, 2, 2, 1, 48)


class Case:
    """A model's shape, with the picture that it takes."""

    def __init__(self, size_wh, patch, merge, **more):
        self.size = replace(BLIND, patch_size_px=patch, merge_size=merge, cell_channels=8, **more)
        self.size_wh, self.grid_hw = size_wh, (size_wh[1] // patch, size_wh[0] // patch)
        self.merged_hw = (self.grid_hw[0] // merge, self.grid_hw[1] // merge)
        self.patch_dim = 3 * patch**2

    def picture(self, seed):
        return np.random.default_rng(seed).normal(size=(self.grid_hw[0] * self.grid_hw[1], self.patch_dim)).astype(np.float32)

    def build(self, tokenizer):
        return build_model(self.size, tokenizer).eval().requires_grad_(False)


CASES = {
    "plain": Case((168, 112), 14, 2),  # neither 6 nor 4 times 4 subcells divides 32 cells without rest
    "whole": Case((128, 64), 16, 1, conv_stem=((8, 2, 1),), cell_detail=(8, 1, 2), cell_blocks=2, cell_glances=2),
}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def learnt(case, tokenizer):
    """A model that uses what it sees, in half precision's numbers."""
    model = case.build(tokenizer)
    torch.manual_seed(1)
    for name, weight in model.cells.named_parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1 if "blocks" in name else 0.5)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model


@pytest.fixture(scope="module")
def checkpoint(learnt, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("learnt")
    learnt.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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
    reader = CellReader(12, CellSettings(5, 100)).requires_grad_(False)
    nothing = reader(torch.zeros(1, 8 * 16, 12), (8, 16))
    for row, column in ((0, 0), (5, 3), (7, 15)):
        marked = torch.zeros(1, 8, 16, 12)
        marked[0, row, column] = 1.0
        changed = (reader(marked.flatten(1, 2), (8, 16)) - nothing).abs().sum(-1).view(GRID_SIZE, GRID_SIZE)
        expected = torch.zeros(GRID_SIZE, GRID_SIZE, dtype=torch.bool)
        expected[4 * row : 4 * row + 4, 2 * column : 2 * column + 2] = True
        assert torch.equal(changed > 1e-6, expected)


def test_a_place_in_the_convolutions_picture_reaches_its_own_cell():
    torch.manual_seed(0)
    reader = CellReader(12, CellSettings(5, 100, detail=(3, 2, 1))).requires_grad_(False)
    visual, dark = torch.zeros(1, 8 * 16, 12), torch.zeros(1, 3, 64, 32)
    nothing = reader(visual, (8, 16), dark)
    for row, column in ((0, 0), (41, 3), (63, 31)):
        lit = dark.clone()
        lit[0, 1, row, column] = 1.0
        changed = (reader(visual, (8, 16), lit) - nothing).abs().sum(-1).view(GRID_SIZE, GRID_SIZE)
        assert changed.nonzero().tolist() == [[row // 2, column]]


@pytest.mark.parametrize("picture", [None, torch.zeros(1, 3, 32, 32)], ids=["none", "of another size"])
def test_detail_that_does_not_fit_is_refused(picture):
    reader = CellReader(12, CellSettings(5, 100, detail=(3, 2, 1)))
    with pytest.raises(ConfigError, match=r"detail \(3, 2, 1\) asks the tower for .*\(3, 64, 32\)"):
        reader(torch.zeros(1, 8 * 16, 12), (8, 16), picture)


def test_blocks_know_the_neighbours():
    torch.manual_seed(0)
    reader = CellReader(12, CellSettings(5, 100, blocks=1)).requires_grad_(False)
    torch.nn.init.normal_(reader.blocks[0].second.weight)
    visual = torch.zeros(1, 32, 32, 12)
    nothing = reader(visual.flatten(1, 2), (32, 32))
    visual[0, 10, 20] = 1.0
    changed = (reader(visual.flatten(1, 2), (32, 32)) - nothing).abs().sum(-1).view(GRID_SIZE, GRID_SIZE) > 1e-6
    rows, columns = changed.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 12, 18, 22)  # two convolutions of 3 x 3


def test_a_glance_reads_where_it_looks():
    """One head whose query is a cell's own features, many times over, tells what that cell holds."""
    reader = CellReader(4, CellSettings(4, 100, glances=1)).requires_grad_(False)
    reader.look.weight.copy_(100 * torch.eye(4))
    reader.tell.weight.copy_(torch.eye(4))
    cells = torch.zeros(1, GRID_COUNT, 4)
    cells[0, 500], cells[0, 900] = torch.tensor([1.0, 0, 0, 0]), torch.tensor([0, 1.0, 0, 0])
    hidden = torch.tensor([[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]])
    torch.testing.assert_close(reader.glanced(hidden, cells), 2 * hidden, atol=1e-4, rtol=0)


def test_nothing_changes_before_it_has_learnt(case, tokenizer):
    blind, fresh = build_model(BLIND, tokenizer).requires_grad_(False), case.build(tokenizer)
    assert cell_reader(blind) is None
    visual = encode_pictures(fresh, torch.from_numpy(case.picture(0))[None], case.grid_hw)
    first = cell_reader(fresh).first_id
    ids = torch.tensor([[first + 7, 3, first + GRID_COUNT - 1]])
    assert torch.equal(embed_tokens(fresh, ids, visual.cells), fresh.get_input_embeddings()(ids))
    hidden, added = seeing(fresh, torch.ones(1, 3, 32), visual.cells)
    assert torch.equal(hidden, torch.ones(1, 3, 32))
    assert not added.any()


def test_only_grid_tokens_see(case, learnt):
    cells = encode_pictures(learnt, torch.from_numpy(case.picture(0))[None], case.grid_hw).cells
    first = cell_reader(learnt).first_id
    ids = torch.tensor([[first - 1, first, first + GRID_COUNT - 1, first + GRID_COUNT, 0]])
    added = embed_tokens(learnt, ids, cells) - learnt.get_input_embeddings()(ids)
    assert added.abs().sum(-1)[0].bool().tolist() == [False, True, True, False, False]


@pytest.fixture(params=["torch", *FORMS])
def backend(request, case, checkpoint, tmp_path):
    form = FORMS.get(request.param, FORMS["fused"])
    bundle = export(checkpoint, tmp_path / "bundle", "seeing", case.size_wh, form=form)
    return bundle.open_backend("torch" if request.param == "torch" else "onnx")


def test_every_way_gives_the_same_logits(backend, case, learnt, tokenizer):
    """Training's one pass, the rollouts' cache and the backends, through grid tokens of two pictures after one another."""
    layout = Layout.of(tokenizer, learnt.config)
    spec, rng = layout.position_spec(case.merged_hw), np.random.default_rng(3)
    tolerance = 0.1 if _is_half(backend) else 2e-3
    for seed in (0, 1):
        pixels = case.picture(seed)
        answer = [layout.first_id + int(cell) for cell in rng.integers(0, GRID_COUNT, 5)]
        logits = [backend.prefill(layout.before, backend.encode(pixels), layout.after).copy()]
        logits += [backend.step([token]).copy() for token in answer[:3]] + [backend.step(answer[3:]).copy()]
        table = slice(layout.first_id, layout.first_id + len(TOKENS))
        theirs = np.stack(logits)[:, table]

        rows = Conversations(learnt, layout, torch.from_numpy(pixels)[None].repeat(2, 1, 1), case.grid_hw)
        rolled = [rows.scores()[1].copy()]
        for tokens in ([answer[0]], [answer[1]], [answer[2]], answer[3:]):
            rows.waiting[1].extend(tokens)
            rolled.append(rows.scores()[1].copy())

        visual = encode_pictures(learnt, torch.from_numpy(pixels)[None], case.grid_hw)
        count = spec.merged_hw[0] * spec.merged_hw[1]
        ids = torch.tensor([[*layout.before, *[layout.image_pad] * count, *layout.after, *answer]])
        places = np.concatenate([spec.prefix(), Positions(spec).append([*layout.after, *answer])], axis=1)
        inputs = picture_inputs(learnt, ids, visual, slice(len(layout.before), len(layout.before) + count))
        hidden = learnt.model.language_model(
            **inputs, position_ids=torch.from_numpy(places)[:, None], use_cache=False
        ).last_hidden_state
        asked, seen = seeing(learnt, hidden, visual.cells)
        ours = learnt.lm_head(asked)
        ours[..., cell_reader(learnt).ids] += seen
        at = [-6, -5, -4, -3, -1]
        ours = ours[0, at, table].numpy()
        np.testing.assert_allclose(np.stack(rolled), ours, atol=1e-4)
        np.testing.assert_allclose(theirs, ours, atol=tolerance)
        blind = learnt.lm_head(hidden)[0, at, table].numpy()
        assert np.abs(ours - blind).max() > 5 * tolerance  # they do see something


def test_a_conversation_goes_on_with_its_own_picture(backend, case, learnt, tokenizer):
    """Another picture may be encoded meanwhile."""
    layout = Layout.of(tokenizer, learnt.config)
    answers = []
    for meanwhile in (False, True):
        backend.prefill(layout.before, backend.encode(case.picture(0)), layout.after)
        if meanwhile:
            backend.encode(case.picture(1))
        answers.append(backend.step([layout.first_id + 77]).copy())
    np.testing.assert_array_equal(*answers)


def _is_half(backend) -> bool:
    cache = getattr(backend, "_cache", None)
    return isinstance(cache, dict) and cache["key_0"].dtype == np.float16


def test_a_checkpoint_comes_back_whole(checkpoint, learnt):
    again, _ = load_checkpoint(checkpoint)
    for name, weight in cell_reader(learnt).state_dict().items():
        assert torch.equal(weight, cell_reader(again).state_dict()[name]), name


def test_graphs_that_do_not_belong_together_are_refused(case, learnt, tokenizer, tmp_path):
    blind = tmp_path / "blind"
    build_model(replace(case.size, cell_channels=0), tokenizer).save_pretrained(blind)
    tokenizer.save_pretrained(blind)
    other = export(blind, tmp_path / "b", "b", case.size_wh)
    onnx.save(vision_graph(learnt, case.grid_hw), str(other.folder / "vision.onnx"))
    with pytest.raises(BackendError, match="cells"):
        OnnxBackend(other.folder, other.contract.model, other.position_spec, other.capacity)
