"""The SAM 2 of transformers through its real classes at tiny size, with random weights, from a folder; no torchvision."""

import shutil
import sys
import types

import numpy as np
import pytest

from getok_drive.errors import ConfigError
from getok_drive.tokens.codec import cells_to_points_px
from training.mask_decode import points_to_mask
from training.mask_greedy import greedy_cells, union_mask
from training.proposals import propose
from training.segmenters import open_segmenter

SIDE_PX = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.models.sam2 import Sam2Config, Sam2Model

    torch.manual_seed(0)
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "hidden_size": 8, "image_size": [SIDE_PX, SIDE_PX], "blocks_per_stage": [1, 2, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 4],
                "global_attention_blocks": [4],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 16,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": SIDE_PX, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("sam2")
    model = Sam2Model(config)
    for name, parameter in model.named_parameters():  # larger than at the start of training, so that prompts make a difference
        if "mask_decoder" in name and parameter.ndim > 1:
            parameter.data *= 8.0
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def segmenter(folder):
    return open_segmenter(f"transformers:{folder}")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (45, 80, 3), dtype=np.uint8)


def test_the_name_is_of_the_weights(segmenter, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert open_segmenter(f"transformers:{copy}").name == segmenter.name
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert open_segmenter(f"transformers:{copy}").name != segmenter.name


def test_one_encoder_pass_for_all_points(segmenter, image, monkeypatch):
    passes = []
    encode = segmenter._model.get_image_embeddings
    monkeypatch.setattr(segmenter._model, "get_image_embeddings", lambda pixels: passes.append(1) or encode(pixels))
    batches = list(segmenter.propose(image, cells_to_points_px(np.arange(150), (80, 45))))
    assert len(passes) == 1
    assert [len(masks) for masks, _ in batches] == [64, 64, 22]
    assert all(masks.shape[1:] == (45, 80) and masks.dtype == bool for masks, _ in batches)
    assert all(((scores >= 0) & (scores <= 1)).all() for _, scores in batches)


def test_points_matter_and_do_not_depend_on_each_other(segmenter, image):
    cells = [33, 500, 990]
    together = propose(segmenter, image, cells)
    for cell in cells:
        assert (together.mask(cell) != propose(segmenter, image, [cell]).mask(cell)).mean() < 0.002  # float noise at the rim
    assert len(together.words) > 1


def test_boxes_are_prompts_alone_and_with_points(segmenter, image):
    alone = next(segmenter.propose(image, [], [10, 10, 40, 30]))[0]
    other = next(segmenter.propose(image, [], [50, 5, 75, 40]))[0]
    both = next(segmenter.propose(image, [[20, 20], [60, 30]], [10, 10, 40, 30]))[0]
    assert alone.shape == (1, 45, 80)
    assert both.shape == (2, 45, 80)
    assert (alone != other).any()


def test_coordinates_reach_the_model_in_its_own_pixels(segmenter):
    # the middle of the picture is the middle of the square; the model adds half a pixel itself
    assert segmenter._coordinates(np.array([[39.5, 22.0]]), (80, 45)).numpy() == pytest.approx(np.array([[31.5, 31.5]]))


def test_the_greedy_rule_and_its_inverse_agree(segmenter, image):
    cells = np.arange(0, 1024, 37)
    proposals = propose(segmenter, image, cells)
    truth = union_mask(proposals, cells[[3, 20]])
    found = greedy_cells(truth, proposals, 0.95)
    assert found.reached
    decoded = points_to_mask(segmenter, image, cells_to_points_px(found.cells, (80, 45)))
    assert (decoded & truth).sum() / (decoded | truth).sum() == pytest.approx(found.iou, abs=0.01)


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="SAM 2"):
        open_segmenter(f"transformers:{tmp_path}")


def test_the_package_is_driven_through_its_own_interface(monkeypatch, tmp_path, image):
    """The sam2 package is not installed here: its documented interface, ``set_image`` and ``predict``, stands in for it."""
    if "sam2" in sys.modules:
        pytest.skip("the real package is there")
    pytest.importorskip("torch")
    calls = []

    class Predictor:
        def __init__(self, model):
            assert model == ("configs/tiny.yaml", str(checkpoint), "cpu")

        def set_image(self, rgb):
            calls.append("image")
            assert np.array_equal(rgb, image[:, :, ::-1])

        def predict(self, point_coords, point_labels, box, multimask_output):
            calls.append(len(point_coords))
            assert point_coords.shape[1:] == (1, 2)
            assert multimask_output
            assert box is None or box.shape == (len(point_coords), 4)
            masks = np.zeros((len(point_coords), 3, 45, 80), np.float32)
            for mask, (x, y) in zip(masks, point_coords[:, 0].astype(int), strict=True):
                mask[1, y, x] = 1
            scores = np.tile([0.2, 0.9, 0.3], (len(point_coords), 1))
            if len(point_coords) == 1:  # the package drops the axis of one prompt
                masks, scores = masks[0], scores[0]
            return masks, scores, None

    modules = {name: types.ModuleType(name) for name in ("sam2", "sam2.build_sam", "sam2.sam2_image_predictor")}
    modules["sam2.build_sam"].build_sam2 = lambda config, path, device: (config, path, device)
    modules["sam2.sam2_image_predictor"].SAM2ImagePredictor = Predictor
    checkpoint = tmp_path / "tiny.pt"
    checkpoint.write_bytes(b"weights")
    with pytest.raises(ConfigError, match="pip install sam2"):
        open_segmenter(f"sam2:configs/tiny.yaml:{checkpoint}")
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    segmenter = open_segmenter(f"sam2:configs/tiny.yaml:{checkpoint}")
    masks = np.concatenate([m for m, _ in segmenter.propose(image, [[x, 7] for x in range(65)], [0, 0, 60, 40])])
    assert calls == ["image", 64, 1]
    assert masks[:, 7].argmax(axis=1).tolist() == list(range(65))
