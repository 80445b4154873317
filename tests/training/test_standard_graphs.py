"""Graphs of standard operations say what the fused ones say: the same logits to 1e-3, the same tokens."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

import onnx  # noqa: E402

from getok_drive.bundle import Bundle, built_in  # noqa: E402
from getok_drive.runtime.backend import Backend  # noqa: E402
from getok_drive.runtime.decoding import Decoded, decode  # noqa: E402
from getok_drive.runtime.onnx import OnnxBackend  # noqa: E402
from training.export import export  # noqa: E402
from training.model import load_checkpoint  # noqa: E402
from training.onnx_builder import FORMS  # noqa: E402
from training.onnx_graphs import decoder_graph, vision_graph  # noqa: E402

STANDARD = [name for name, form in FORMS.items() if form.standard]
TOLERANCE = {"standard": 1e-3, "standard-half": 0.1}  # of logits; half precision computes with 11 bits


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint, tmp_path_factory) -> dict[str, Bundle]:
    """The tiny model, whose query heads share key heads, in every form."""
    folder = tmp_path_factory.mktemp("forms")
    return {name: export(tiny_checkpoint, folder / name, "tiny", (224, 112), form=form) for name, form in FORMS.items()}


@pytest.fixture(scope="module")
def nano(tmp_path_factory) -> dict[str, Bundle]:
    """The shipped bundle, and written again in the other forms from its own weights."""
    if "nano" not in built_in():
        pytest.skip("the bundle nano is not here; export one with python -m training.export")
    shipped, folder = Bundle.load("nano"), tmp_path_factory.mktemp("nano")
    return {"fused": shipped} | {name: export(shipped.folder, folder / name, form=FORMS[name]) for name in STANDARD}


class Recorder:
    """A backend that keeps what every pass was given and the logits it gave."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.fed: list[list[int]] = [[]]  # the prefill's
        self.logits: list[np.ndarray] = []

    def step(self, ids):
        self.fed.append(list(ids))
        self.logits.append(self.backend.step(ids).copy())
        return self.logits[-1]


def decoded(bundle: Bundle, backend: Backend, pixels: np.ndarray) -> tuple[Decoded, list[tuple[list[int], np.ndarray]]]:
    prompt, tokens, recorder = bundle.prompt, bundle.contract.tokens, Recorder(backend)
    logits = backend.prefill(prompt.before, backend.encode(pixels), prompt.after).copy()
    answer = decode(recorder, logits, prompt, rounds=tokens.offset_rounds, decided_rounds=tokens.decided_rounds)
    return answer, list(zip(recorder.fed, [logits, *recorder.logits], strict=True))


def assert_same_on_world(bundles: dict[str, Bundle], form: str, count: int) -> None:
    from training.datasets import world

    pairs = [(bundles[name], bundles[name].open_backend("onnx")) for name in ("fused", form)]
    passes = 0
    for seed in list(world.TEST_SEEDS)[:count]:
        pixels, _ = bundles["fused"].preprocessor()(world.render(seed).image_bgr)
        (theirs, their_passes), (ours, our_passes) = (decoded(*pair, pixels) for pair in pairs)
        same = (ours.propose_ids, ours.refine_ids) == (theirs.propose_ids, theirs.refine_ids)
        assert same or form == "standard-half", f"world frame {seed}"  # half precision may tip a tie, and then goes another way
        for number, ((fed, a), (their_fed, b)) in enumerate(zip(our_passes, their_passes, strict=same)):
            if fed != their_fed:
                break
            np.testing.assert_allclose(a, b, atol=TOLERANCE[form], rtol=0, err_msg=f"world frame {seed}, pass {number}")
            passes += 1
    assert passes > 20 * count  # they said something


@pytest.mark.parametrize("form", STANDARD)
def test_the_shipped_bundle_says_the_same_on_world_frames(nano, form):
    assert_same_on_world(nano, form, 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_shipped_bundle_says_the_same_on_many_world_frames(nano):
    assert_same_on_world(nano, "standard", int(os.environ.get("GETOK_PARITY_FRAMES", "200")))


@pytest.mark.parametrize("form", STANDARD)
def test_passes_of_any_length_after_any_cache(tiny, form):
    """Shared key heads, several tokens at once, a second conversation over the cache of the first."""
    backends = [tiny[name].open_backend("onnx") for name in ("fused", form)]
    geometry, prompt, rng = tiny["fused"].contract.model, tiny["fused"].prompt, np.random.default_rng(0)
    assert geometry.heads > geometry.kv_heads
    for _ in range(2):
        pixels = rng.normal(size=(geometry.num_patches, geometry.patch_dim)).astype(np.float32)
        logits = [backend.prefill(prompt.before, backend.encode(pixels), prompt.after).copy() for backend in backends]
        np.testing.assert_allclose(*logits, atol=TOLERANCE[form], rtol=0)
        for count in (1, 2, 11, 1, 60, 1):
            ids = rng.integers(0, geometry.vocab_size, count).tolist()
            logits = [backend.step(ids).copy() for backend in backends]
            np.testing.assert_allclose(*logits, atol=TOLERANCE[form], rtol=0)
        assert np.ptp(logits[0]) > 1.5 * TOLERANCE[form]


def test_the_last_place_of_the_cache_is_used_and_none_beyond(tiny):
    bundle = tiny["standard"]
    prompt, model = bundle.prompt, bundle.contract.model
    room = len(prompt.before) + model.num_visual_tokens + len(prompt.after) + 5
    small, large = (OnnxBackend(bundle.folder, model, bundle.position_spec, capacity) for capacity in (room, 4 * room))
    pixels = np.random.default_rng(1).normal(size=(model.num_patches, model.patch_dim)).astype(np.float32)
    for backend in (small, large):
        backend.prefill(prompt.before, backend.encode(pixels), prompt.after)
    np.testing.assert_allclose(small.step([7, 8, 9, 10, 11]), large.step([7, 8, 9, 10, 11]), atol=1e-5)


@pytest.mark.parametrize("form", STANDARD)
def test_operations_and_precision_are_in_the_graph(tiny_checkpoint, form):
    model, _ = load_checkpoint(tiny_checkpoint)
    for graph in (vision_graph(model, (8, 16), FORMS[form]), decoder_graph(model, FORMS[form])):
        assert [opset.domain for opset in graph.opset_import] == [""]
        assert {node.domain for node in graph.graph.node} == {""}
        typed = onnx.shape_inference.infer_shapes(graph, strict_mode=True)
        types = {value.name: value.type.tensor_type.elem_type for value in typed.graph.value_info}
        products = [types.get(node.output[0]) for node in graph.graph.node if node.op_type in ("MatMul", "Conv")]
        halves = products.count(onnx.TensorProto.FLOAT16)
        single = 3 if graph.graph.name == "decoder" else 0  # logits (rows, query, cells) are compared with each other
        assert halves == (len(products) - single if FORMS[form].half else 0)


def test_a_bundle_written_in_another_form_keeps_what_it_says(nano):
    theirs, ours = nano["fused"].contract, nano["standard"].contract
    for field in ("name", "tokens", "image", "prompt", "model", "calibration", "training"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.files["model.safetensors"] == theirs.files["model.safetensors"]
    assert ours.files["decoder.onnx"] != theirs.files["decoder.onnx"]
