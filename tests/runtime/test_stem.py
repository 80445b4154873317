"""Convolutions beside the patch embedding: nothing at first, the same in every forward, on the right patch, exported exactly."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")
pytest.importorskip("transformers", reason="needs the extra 'train'")

import onnxruntime as ort  # noqa: E402

from getok_drive.errors import ConfigError  # noqa: E402
from getok_drive.preprocess import Preprocessor  # noqa: E402
from getok_drive.runtime.qwen import DrivingQwen  # noqa: E402
from getok_drive.runtime.stem import ConvStem, Residual  # noqa: E402
from training.model import ModelSize, build_model, build_tokenizer, load_checkpoint, vision_tokens  # noqa: E402
from training.onnx_graphs import vision_graph  # noqa: E402

STAGES = ((8, 4, 1), (16, 2, 2))
GRID_HW = (4, 6)


@pytest.fixture(scope="module", params=[1, 2], ids=["merge 1", "merge 2"])
def stemmed(request):
    size = ModelSize(32, 2, 2, 48, 32, 2, 2, 1, 48, patch_size_px=24, merge_size=request.param, conv_stem=STAGES)
    model = build_model(size, build_tokenizer()).eval()
    return model.requires_grad_(False)


@pytest.fixture
def pixels():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, GRID_HW[0] * GRID_HW[1], 3 * 24 * 24)).astype(np.float32))


def learnt(model):
    """The same with convolutions that count, in half precision's numbers."""
    torch.manual_seed(1)
    torch.nn.init.normal_(model.model.visual.stem.proj.weight, std=0.02)
    for block in model.model.visual.stem.modules():
        if isinstance(block, Residual):
            torch.nn.init.normal_(block.second_norm.weight)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model


def test_it_adds_nothing_before_it_has_learnt(stemmed, pixels):
    tower = stemmed.model.visual
    assert not tower.stem(pixels, GRID_HW)[0].any()
    assert tower.embed(pixels, GRID_HW)[0].abs().sum() > 0


def test_every_forward_agrees(stemmed, pixels):
    model = learnt(stemmed)
    assert model.model.visual.stem(pixels, GRID_HW)[0].abs().max() > 0.1
    ours, picture = vision_tokens(model, pixels, GRID_HW)
    theirs = model.model.visual(pixels.flatten(0, 1), torch.tensor([[1, *GRID_HW]] * 2))
    torch.testing.assert_close(ours, theirs.pooler_output.view_as(ours), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(picture, torch.cat(theirs.conv_pictures), atol=1e-5, rtol=1e-4)
    session = ort.InferenceSession(vision_graph(model, GRID_HW).SerializeToString(), providers=["CPUExecutionProvider"])
    for picture, expected in zip(pixels, ours, strict=True):
        (exported,) = session.run(None, {"pixel_values": picture.numpy()})
        np.testing.assert_allclose(exported, expected.numpy(), atol=2e-4)


@pytest.mark.parametrize("merge", [1, 2])
def test_a_mark_reaches_its_own_patch(merge):
    """A white square in one patch changes that patch's vector more than any other, in whatever order patches come."""
    torch.manual_seed(0)
    convolutions = ConvStem([(8, 4, 0), (16, 2, 0)], 12, 24, merge).requires_grad_(False)

    def stem(values, grid_hw):
        return convolutions.by_patch(convolutions.picture(values, grid_hw), grid_hw)

    height, width = 24 * GRID_HW[0], 24 * GRID_HW[1]
    preprocess = Preprocessor((width, height), 24, merge)
    black = np.zeros((height, width, 3), np.uint8)
    without = stem(torch.from_numpy(preprocess(black)[0])[None], GRID_HW)
    for row, column in ((0, 0), (1, 4), (3, 5), (2, 1)):
        marked = black.copy()
        marked[24 * row + 6 : 24 * row + 18, 24 * column + 6 : 24 * column + 18] = 255
        values = preprocess(marked)[0]
        change = (stem(torch.from_numpy(values)[None], GRID_HW) - without).norm(dim=-1)[0]
        assert int(change.argmax()) == int(np.abs(values - preprocess(black)[0]).sum(1).argmax())


def test_a_checkpoint_comes_back_whole(stemmed, pixels, tmp_path):
    model = learnt(stemmed)
    model.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    again, _ = load_checkpoint(tmp_path)
    assert isinstance(again, DrivingQwen)
    assert torch.equal(vision_tokens(again, pixels, GRID_HW)[0], vision_tokens(model, pixels, GRID_HW)[0])


def test_strides_that_do_not_divide_a_patch_are_refused():
    with pytest.raises(ConfigError, match="must divide patch_size=28"):
        ConvStem([(8, 4, 0), (8, 3, 0)], 12, 28, 1)
