"""Export: the graphs compute what transformers computes, and a checkpoint becomes a bundle as a whole or not at all."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402

from getok_drive.bundle import CONTRACT, Bundle, TrainingData  # noqa: E402
from getok_drive.errors import ConfigError  # noqa: E402
from training import export as exporting  # noqa: E402
from training.export_options import read_calibration  # noqa: E402
from training.model import load_checkpoint  # noqa: E402
from training.onnx_graphs import decoder_graph, vision_graph  # noqa: E402
from training.recipes.provenance import provenance  # noqa: E402


@pytest.fixture
def model(tiny_checkpoint):
    model, _ = load_checkpoint(tiny_checkpoint)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model.eval()


@pytest.mark.parametrize("full", ["all", "none", "last"])
@pytest.mark.parametrize("grid_hw", [(8, 16), (10, 14)])
def test_vision_equals_transformers_with_and_without_windows(model, grid_hw, full):
    tower = model.model.visual
    depth = len(tower.blocks)
    tower.fullatt_block_indexes = {"all": list(range(depth)), "none": [], "last": [depth - 1]}[full]
    tower.window_size = 4 * tower.patch_size  # several windows, uneven at the border
    pixels = np.random.default_rng(0).normal(size=(grid_hw[0] * grid_hw[1], 588)).astype(np.float32)
    session = ort.InferenceSession(vision_graph(model, grid_hw).SerializeToString(), providers=["CPUExecutionProvider"])
    (ours,) = session.run(["visual"], {"pixel_values": pixels})
    with torch.no_grad():
        theirs = tower(torch.from_numpy(pixels), torch.tensor([[1, *grid_hw]])).pooler_output.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_vision_uses_standard_operations_only(model):
    """So that other engines can read it too."""
    assert {node.domain for node in vision_graph(model, (8, 16)).graph.node} == {""}


def test_weights_are_stored_in_half_precision(model):
    for graph in (vision_graph(model, (8, 16)).graph, decoder_graph(model).graph):
        weights = [t for t in graph.initializer if t.name.endswith(("weight", "bias"))]
        assert len(weights) > 5
        assert {t.data_type for t in weights} == {onnx.TensorProto.FLOAT16}


def test_a_bundle_holds_its_weights_once(tiny_bundle):
    """Its graphs are far smaller than the weights that they refer to, and complete with them."""
    weights = tiny_bundle / "model.safetensors"
    for name in ("vision.onnx", "decoder.onnx"):
        bare = onnx.load(tiny_bundle / name, load_external_data=False)
        told = [{entry.key: entry.value for entry in t.external_data} for t in bare.graph.initializer if t.external_data]
        assert len(told) > 5 and {entry["location"] for entry in told} == {weights.name}
        whole = onnx.load(tiny_bundle / name)
        outside = sum(len(t.raw_data) for t in whole.graph.initializer) - sum(len(t.raw_data) for t in bare.graph.initializer)
        assert outside == sum(int(entry["length"]) for entry in told)
    referred = sum((tiny_bundle / name).stat().st_size for name in ("vision.onnx", "decoder.onnx"))
    assert referred < weights.stat().st_size


def test_a_diverged_model_is_not_exported(model):
    model.lm_head.weight.data[3, 3] = float("nan")
    with pytest.raises(ConfigError, match="diverged"):
        decoder_graph(model)


def test_the_checkpoint_stays_usable_for_further_training(tiny_bundle, tiny_checkpoint):
    """model.safetensors, config.json and tokenizer.json of a bundle are a checkpoint again."""
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

    again = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_bundle, dtype=torch.float32)
    model, tokenizer = load_checkpoint(tiny_checkpoint)
    trained = model.state_dict()
    assert not [name for name in trained if name not in again.state_dict() and not name.startswith("cells.")]
    for name, ours in again.state_dict().items():
        assert torch.equal(ours, trained[name].half().float()), name
    text = "<lane><dashed><white><grid_3_4>Refine each point."
    loaded = PreTrainedTokenizerFast(tokenizer_file=str(tiny_bundle / "tokenizer.json"))
    assert loaded.encode(text) == tokenizer.encode(text)


def test_prompt_ids_are_those_that_training_uses(tiny_bundle, tiny_checkpoint):
    from training.collate import Layout

    checkpoint, tokenizer = load_checkpoint(tiny_checkpoint)
    layout, prompt = Layout.of(tokenizer, checkpoint.config), Bundle.load(tiny_bundle).prompt
    assert (prompt.before, prompt.after, prompt.refine) == (layout.before, layout.after, layout.refine_turn)
    assert prompt.first_token_id == layout.first_id


def test_only_bundles_are_replaced(tiny_checkpoint, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="is no bundle"):
        exporting.export(tiny_checkpoint, tmp_path, image_size_wh=(112, 56))
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    out = tmp_path / "bundle"
    first = exporting.export(tiny_checkpoint, out, image_size_wh=(112, 56))
    (out / "stale.bin").write_text("old")
    second = exporting.export(tiny_checkpoint, out, image_size_wh=(112, 56))
    assert not (out / "stale.bin").exists()
    assert first.contract.files.keys() == second.contract.files.keys()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_exporting_twice_gives_the_same_bytes(tiny_checkpoint, tmp_path):
    bundles = [exporting.export(tiny_checkpoint, tmp_path / name, image_size_wh=(112, 56)) for name in "ab"]
    assert bundles[0].contract.files == bundles[1].contract.files


def test_calibration_reaches_the_contract(tiny_checkpoint, tiny_bundle, tmp_path):
    one, each = tmp_path / "one.json", tmp_path / "each.json"
    one.write_text(json.dumps({"temperature": 1.5, "bias": -0.25, "frames": 10}))
    each.write_text(json.dumps({"lane": {"temperature": 2.0, "bias": 0.5}}))
    assert read_calibration(one)["sign"].temperature == 1.5
    bundle = exporting.export(tiny_bundle, tmp_path / "bundle", calibration=read_calibration(each))
    assert bundle.calibration["lane"].bias == 0.5
    assert bundle.sha256 != Bundle.load(tiny_bundle).sha256
    assert read_calibration(tmp_path / "bundle" / CONTRACT) == bundle.contract.calibration
    for content in ("", "[]", "{", '{"temperature": "hot"}'):
        one.write_text(content)
        with pytest.raises(ConfigError, match=r"one\.json"):
            read_calibration(one)


def test_the_size_of_the_last_training_stage_is_the_default(tiny_checkpoint, tmp_path):
    import shutil

    with pytest.raises(ConfigError, match=r"training\.json.*--image-size"):
        exporting.export(tiny_checkpoint, tmp_path / "bundle")
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    (checkpoint / "training.json").write_text('{"image_size_wh": [168, 84]}')
    assert exporting.export(checkpoint, tmp_path / "bundle").contract.image.size_wh == (168, 84)


def test_a_bundle_says_its_size_terms_and_least_confidence_itself(tiny_checkpoint, tmp_path):
    terms = (TrainingData("mountain roads", "research only"),)
    least = {"lane": 0.0, "drivable": 0.0, "box": 0.2, "sign": 0.25}
    first = exporting.export(tiny_checkpoint, tmp_path / "first", None, (168, 84), training=terms, least_confidence=least)
    assert first.contract.least_confidence == least
    again = exporting.export(tmp_path / "first", tmp_path / "again").contract
    assert again.image.size_wh == (168, 84) and again.training == terms and again.least_confidence == least
    assert provenance([], str(tmp_path / "first")) == [{"name": "mountain roads", "terms": "research only"}]


def test_the_commit_is_unknown_where_there_is_no_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert exporting._git_commit() == "unknown"


def test_command_line(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "bundle"
    assert exporting.main([str(tiny_checkpoint), "--out", str(out), "--name", "mine", "--image-size", "112x56"]) == 0
    assert "bundle mine" in capsys.readouterr().out
    assert json.loads((out / CONTRACT).read_text())["image"]["size_wh"] == [112, 56]
    assert exporting.main([str(tmp_path / "nothing"), "--out", str(out)]) == 2
    assert "no config.json" in capsys.readouterr().err
    assert exporting.main([str(tiny_checkpoint), "--out", str(out), "--image-size", "100x56"]) == 2
    assert "multiples" in capsys.readouterr().err
    assert exporting.main([str(tiny_checkpoint), "--out", str(out), "--image-size", "wide"]) == 2
