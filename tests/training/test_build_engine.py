"""Engines: every graph of the standard forms parses and compiles with TensorRT; what cannot be is said plainly. Runs none."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from getok_drive.bundle import Bundle, built_in
from getok_drive.errors import ConfigError
from training import build_engine
from training.build_engine import RECORD, build, dimensions, read_record, stale
from training.tensorrt_builder import Compiler


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra 'tensorrt'")
    return Compiler.find("tensorrt_rtx")


@pytest.fixture(scope="module")
def export():
    pytest.importorskip("torch", reason="needs the extra 'train'")
    from training.export import export as write
    from training.onnx_builder import FORMS

    return lambda source, out, form, **settings: write(source, out, form=FORMS[form], **settings).folder


@pytest.fixture(scope="module")
def standard(tiny_checkpoint, export, tmp_path_factory) -> Path:
    return export(
        tiny_checkpoint, tmp_path_factory.mktemp("standard") / "tiny", "standard", name="tiny", image_size_wh=(224, 112)
    )


@pytest.fixture(scope="module")
def engines(standard, compiler, tmp_path_factory) -> Path:
    """Shared: copy before changing anything."""
    out = tmp_path_factory.mktemp("engines") / "new" / "tiny"
    build(standard, out, compiler)
    return out


@pytest.mark.parametrize("form", ["standard", "standard-half"])
@pytest.mark.skipif("nano" not in built_in(), reason="the bundle nano is not here; export one with python -m training.export")
def test_every_graph_of_the_shipped_bundle_compiles(compiler, export, form, tmp_path):
    bundle = Bundle.load(export(Bundle.load("nano").folder, tmp_path / "nano", form))
    record = build(bundle.folder, tmp_path / "engines", compiler)
    assert set(record["engines"]) == {path.stem for path in bundle.folder.glob("*.onnx")} == {"vision", "decoder"}
    for graph, about in record["engines"].items():
        engine = tmp_path / "engines" / about["file"]
        whole = pytest.importorskip("onnx").load(bundle.folder / f"{graph}.onnx")  # with what lies in model.safetensors
        weights = sum(len(tensor.raw_data) for tensor in whole.graph.initializer)
        assert engine.stat().st_size == about["bytes"] > (1.0 if form == "standard-half" else 1.5) * weights
        products = about["products"]
        if form == "standard":
            assert set(products) == {"FLOAT"}
        else:  # what logits are made of stays single: the rows, the cells that are asked (2), glances at them (4)
            assert products["HALF"] > 20 and products.get("FLOAT", 0) in ((1, 3, 7) if graph == "decoder" else (0,))
    vision, decoder = (record["engines"][graph]["profiles"] for graph in ("vision", "decoder"))
    assert vision == []
    assert decoder == [dict(profile) for profile in dimensions(bundle, record["capacity"])]
    assert decoder[1]["T"][1] == len(bundle.prompt.before) + bundle.contract.model.num_visual_tokens + len(bundle.prompt.after)


def test_the_record_says_what_a_runtime_must_check(engines, standard, compiler):
    record, bundle = read_record(engines), Bundle.load(standard)
    assert (record["compiler"], record["version"]) == (compiler.name, compiler.version)
    assert record["bundle"] == {"name": "tiny", "sha256": bundle.sha256}
    assert record["onnx_sha256"] == {graph: bundle.contract.files[f"{graph}.onnx"] for graph in ("vision", "decoder")}
    assert "8.6" in record["compute_capabilities"] and "7.5" not in record["compute_capabilities"]
    assert sorted(path.name for path in engines.iterdir()) == ["decoder.engine", RECORD, "vision.engine"]
    assert stale(engines, {"version": compiler.version, "onnx_sha256": record["onnx_sha256"]}) == ""
    assert stale(engines, {"version": "9.1"}) == f"version was {compiler.version} and is 9.1"


def test_current_engines_are_kept_and_stale_ones_are_not(engines, standard, compiler, tmp_path, capsys):
    out = Path(shutil.copytree(engines, tmp_path / "engines"))
    before = (out / "vision.engine").stat().st_mtime_ns
    build(standard, out, compiler)
    assert (out / "vision.engine").stat().st_mtime_ns == before and capsys.readouterr().out == ""
    record = build(standard, out, compiler, capabilities=["8.6"])
    assert "because compute_capabilities was" in capsys.readouterr().out
    assert read_record(out)["compute_capabilities"] == record["compute_capabilities"] == ["8.6"]
    with (out / "decoder.engine").open("ab") as file:
        file.write(b"x")
    assert stale(out, {}) == f"decoder.engine is not the file that {RECORD} tells of"
    (out / "decoder.engine").unlink()
    assert "cannot be read" in stale(out, {})
    (out / RECORD).write_text("[]")
    assert "not a record" in stale(out, {})


def test_fused_graphs_are_refused_with_node_and_advice(tiny_bundle, compiler, tmp_path, capsys):
    out = tmp_path / "engines"
    assert build_engine.main([str(tiny_bundle), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "decoder.onnx" in said and "GroupQueryAttention 'GroupQueryAttention_" in said
    assert "--graphs standard" in said
    assert not (out / RECORD).exists()  # a half-made folder is nobody's


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said_and_leaves_no_record(standard, compiler, tmp_path, capsys):
    out = tmp_path / "engines"
    out.mkdir()
    (out / "vision.engine.part").symlink_to("/dev/full")
    assert build_engine.main([str(standard), "--out", str(out)]) == 2
    assert "No space left on device; make room" in capsys.readouterr().err
    assert list(out.iterdir()) == []


def test_what_cannot_be_built_is_refused_before_compiling(standard, compiler, tmp_path):
    with pytest.raises(ConfigError, match="is the bundle itself"):
        build(standard, standard, compiler)
    with pytest.raises(ConfigError, match=r"--compute-capability 3\.0: tensorrt_rtx .* has 7\.5, 8\.0"):
        build(standard, tmp_path / "a", compiler, capabilities=["8.6", "3.0"])
    with pytest.raises(ConfigError, match=r"vision\.onnx: tensorrt_rtx .* cannot compile it:(?s:.*)SM75.*FP32 GEMM"):
        build(standard, tmp_path / "turing", compiler, capabilities=["7.5"])
    with pytest.raises(ConfigError, match="does not hold a prefill"):
        build(standard, tmp_path / "a", compiler, capacity=40)
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        build(standard, tmp_path / "file" / "engines", compiler)


def test_without_tensorrt_the_error_says_what_to_install(monkeypatch, tmp_path, capsys):
    for name in Compiler.NAMES:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    assert build_engine.main(["nano", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no TensorRT here" in said and "pip install 'getok-drive[tensorrt]'" in said


def test_a_record_of_another_format_is_refused(tmp_path):
    assert stale(tmp_path, {}) == "nothing is there yet"
    for content in ("", "{", "[]", json.dumps({"format": 99})):
        (tmp_path / RECORD).write_text(content)
        with pytest.raises(ConfigError, match=r"engines\.json"):
            read_record(tmp_path)
        assert "engines.json" in stale(tmp_path, {})
