"""Bundles: what is altered, missing or foreign is refused, by name."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from getok_drive.bundle import CONTRACT, Bundle, Contract, built_in
from getok_drive.errors import BackendError, BundleError, ConfigError
from getok_drive.tokens.limits import Limits


@pytest.fixture
def folder(tiny_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def edit(folder: Path, path: str, value: object) -> None:
    """Change one value of the contract; the string "drop" removes it."""
    data = json.loads((folder / CONTRACT).read_text())
    node = data
    *parents, last = path.split(".")
    for name in parents:
        node = node[int(name)] if isinstance(node, list) else node[name]
    if value == "drop":
        del node[last]
    elif isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value
    (folder / CONTRACT).write_text(json.dumps(data))


def test_loads_and_knows_itself(folder):
    bundle = Bundle.load(folder)
    assert bundle.name == "tiny"
    assert len(bundle.sha256) == 64
    assert Contract(**{f: getattr(bundle.contract, f) for f in Contract.__dataclass_fields__}) == bundle.contract
    assert (folder / CONTRACT).read_text() == bundle.contract.to_json()
    preprocessor = bundle.preprocessor()
    assert preprocessor.image_size_wh == (224, 112)
    assert preprocessor.num_visual_tokens == bundle.contract.model.num_visual_tokens
    assert bundle.capacity(Limits(lanes=0, polygons=0, boxes=0, signs=1)) < bundle.capacity(Limits())
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25e6


def test_identity_changes_with_the_contract(folder):
    before = Bundle.load(folder).sha256
    edit(folder, "calibration", {"lane": {"temperature": 1.5, "bias": 0.1}})
    after = Bundle.load(folder)
    assert after.sha256 != before
    assert after.calibration["lane"].temperature == 1.5


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", 1, "format is 1, this runtime reads 2; export the bundle again"),
        ("name", "drop", "contract.name is missing"),
        ("surplus", 1, "contract.surplus is unknown"),
        ("tokens.grid_size", 64, "grid_size is 64, this runtime has 32"),
        ("tokens.grid_size", "32", "contract.tokens.grid_size: expected int"),
        ("tokens.offset_rounds", 0, "offset_rounds"),
        ("tokens.decided_rounds", {"lane": 3, "drivable": 3, "box": 4, "sign": 3}, r"decided_rounds.box is 4, expected 1..3"),
        ("tokens.decided_rounds", {"lane": 3}, "one number each for lane, drivable, box, sign"),
        ("tokens.first_token_id", 100000, "first_token_id"),
        ("tokens.first_token_id", -1, "first_token_id"),
        ("tokens.first_token_id", True, "expected int"),
        ("tokens.table.3", "<grid_9_9>", r"table\[3\] is <grid_9_9>, this runtime has <grid_3_0>"),
        ("prompt.sha256", "0" * 64, "trained on other prompts"),
        ("prompt.before", [], "prompt.before"),
        ("prompt.after", [1 << 40], "prompt.after"),
        ("prompt.refine", "text", "contract.prompt.refine: expected tuple"),
        ("image.size_wh", [225, 112], "224x112"),
        ("image.size_wh", [224], "a width and a height"),
        ("image.size_wh", [1 << 20, 28], "out of range"),
        ("image.mean_rgb", [0.5, None, 0.5], r"mean_rgb\[1\]: expected float, got null"),
        ("image.std_rgb", [0.0, 1, 1], "std"),
        ("model.grid_hw", [8, 8], "model.grid_hw"),
        ("model.layers", 0, "model.layers"),
        ("model.mrope_section", [1, 1, 1], "mrope_section"),
        ("calibration", {"tree": {"temperature": 1, "bias": 0}}, "unknown kinds"),
        ("calibration", {"lane": {"temperature": -1.0, "bias": 0.0}}, "temperature"),
        ("least_confidence", {"lane": 0.5}, "least_confidence: expected one number each for lane, drivable, box, sign"),
        ("least_confidence.box", 1.5, "expected numbers in 0..1"),
        ("least_confidence.box", "drop", "one number each"),
        ("training", [{"name": "x"}], r"training\[0\].terms is missing"),
        ("files", {"../outside": "0"}, "only plain file names"),
        ("files", {"contract.json": "0"}, "only plain file names"),
        ("files", {"gone.onnx": "0"}, "gone.onnx is missing"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused(folder, path, value, message):
    edit(folder, path, value)
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": NaN}', "[" * 100_000, "\xff\xfe"])
def test_what_is_no_contract_is_refused(folder, text):
    (folder / CONTRACT).write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match=CONTRACT):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["decoder.onnx", "vision.onnx", "model.safetensors", "config.json", "tokenizer.json"])
def test_one_flipped_bit_in_any_file_is_noticed(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=name):
        Bundle.load(folder)


def test_missing_things_are_named(folder, tmp_path):
    (folder / "decoder.onnx").unlink()
    with pytest.raises(BundleError, match=r"decoder\.onnx is missing"):
        Bundle.load(folder)
    with pytest.raises(BundleError, match="no bundle 'nope'"):
        Bundle.load("nope")
    with pytest.raises(BundleError, match=r"contract\.json: cannot be read"):
        Bundle.load(tmp_path)
    (folder / CONTRACT).write_bytes(b" " * (5 << 20))
    with pytest.raises(BundleError, match=r"^\S+contract\.json: larger than"):
        Bundle.load(folder)


def test_a_model_file_that_the_contract_does_not_name_is_refused(folder):
    (folder / "README.md").write_text("fine")
    Bundle.load(folder)
    contract = json.loads((folder / CONTRACT).read_text())
    edit(folder, "files", {name: sha for name, sha in contract["files"].items() if name != "decoder.onnx"})
    with pytest.raises(BundleError, match=r"decoder\.onnx is not named"):
        Bundle.load(folder)


def test_nothing_is_ever_unpickled(folder):
    """Weights that are a pickle must not run its code, even where the hashes are not compared."""

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (folder / "exploded",))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    bundle = Bundle.load(folder, verify_files=False)
    for backend in ("onnx", "torch"):
        with pytest.raises(BackendError, match=r"cannot be (read|loaded)"):
            bundle.open_backend(backend)
    assert not (folder / "exploded").exists()


def test_a_damaged_graph_is_a_backend_error(folder):
    (folder / "vision.onnx").write_bytes(b"not a graph")
    bundle = Bundle.load(folder, verify_files=False)
    with pytest.raises(BackendError, match=r"vision\.onnx"):
        bundle.open_backend("onnx")
    with pytest.raises(ConfigError, match="onnx, torch"):
        bundle.open_backend("tpu")


def test_built_in_bundles_are_valid():
    for name in built_in():
        bundle = Bundle.load(name)
        assert bundle.name == name
        assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < 25e6
