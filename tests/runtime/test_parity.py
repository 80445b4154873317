"""ONNX Runtime and torch: the same logits to 1e-3, the same tokens."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from getok_drive.bundle import Bundle, built_in
from getok_drive.errors import BackendError, ConfigError
from getok_drive.pipeline import Perceiver
from getok_drive.runtime.backend import Backend
from getok_drive.types import Frame

pytest.importorskip("torch", reason="needs the extra 'train'")


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="module")
def backends(bundle) -> tuple[Backend, Backend]:
    return bundle.open_backend("onnx"), bundle.open_backend("torch")


def pixels(bundle: Bundle, seed: int) -> np.ndarray:
    shape = bundle.contract.model.num_patches, bundle.contract.model.patch_dim
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def begin(backend: Backend, bundle: Bundle, seed: int) -> np.ndarray:
    prompt = bundle.prompt
    return backend.prefill(prompt.before, backend.encode(pixels(bundle, seed)), prompt.after).copy()


def test_logits_agree_through_a_whole_conversation(bundle, backends):
    for seed in (0, 1):
        logits = [begin(backend, bundle, seed) for backend in backends]
        np.testing.assert_allclose(*logits, atol=1e-3)
        rng = np.random.default_rng(seed)
        for count in (1, 1, 2, 11, 1, 30, 1):
            ids = rng.integers(0, bundle.contract.model.vocab_size, count).tolist()
            logits = [backend.step(ids).copy() for backend in backends]
            np.testing.assert_allclose(*logits, atol=1e-3)
        assert np.ptp(logits[0]) > 0.1  # they say something
        assert backends[0].length == backends[1].length


def test_visual_tokens_agree(bundle, backends):
    ours, theirs = (np.asarray(backend.encode(pixels(bundle, 5)).tokens) for backend in backends)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.ptp(ours) > 0.1


def test_with_the_text_rule_plain_transformers_says_the_same(tiny_checkpoint, tmp_path):
    """The whole conversation in one call of the stock forward, which infers M-RoPE from the token types."""
    import torch

    from training.export import export
    from training.model import load_checkpoint

    model, tokenizer = load_checkpoint(tiny_checkpoint)
    model.config.position_rule, model.config.cell_reader, model.cells = "text", None, None  # what stock transformers knows
    model.save_pretrained(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    bundle = export(tmp_path / "checkpoint", tmp_path / "bundle", "text", (224, 112))
    backends = bundle.open_backend("onnx"), bundle.open_backend("torch")
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()  # as exported
    geometry, prompt, pad = bundle.contract.model, bundle.prompt, model.config.image_token_id
    answer = [prompt.first_token_id + 1040, prompt.first_token_id + 3, prompt.first_token_id + 77]
    ids = torch.tensor([[*prompt.before, *[pad] * geometry.num_visual_tokens, *prompt.after, *answer]])
    with torch.no_grad():
        stock = model(
            input_ids=ids,
            pixel_values=torch.from_numpy(pixels(bundle, 2)),
            image_grid_thw=torch.tensor([[1, *geometry.grid_hw]]),
            mm_token_type_ids=(ids == pad).int(),
        ).logits[0, -1]
    for backend in backends:
        begin(backend, bundle, 2)
        backend.step(answer[:1])
        np.testing.assert_allclose(backend.step(answer[1:]), stock.numpy(), atol=1e-3)


def test_one_token_or_many_at_once(bundle, backends):
    for backend in backends:
        begin(backend, bundle, 4)
        together = backend.step([9, 8, 7, 6]).copy()
        begin(backend, bundle, 4)
        for token in (9, 8, 7):
            backend.step([token])
        np.testing.assert_allclose(backend.step([6]), together, atol=1e-4)


def test_what_cannot_be_is_refused(bundle, backends):
    for backend in backends:
        begin(backend, bundle, 0)
        for ids in ([-1], [bundle.contract.model.vocab_size], [3, 1 << 40]):
            with pytest.raises(BackendError, match="vocabulary"):
                backend.step(ids)
        with pytest.raises(BackendError, match="capacity"):
            backend.step([1] * (backend.capacity + 1))
        with pytest.raises(BackendError, match="before"):
            backend.prefill([1], backend.encode(pixels(bundle, 0)), [2])
    with pytest.raises(BackendError, match="pixel_values"):
        backends[0].encode(np.zeros((1, 2), np.float32))
    with pytest.raises(ConfigError, match="unknown backend 'magic'"):
        bundle.open_backend("magic")
    with pytest.raises(
        ConfigError, match=r"no TensorRT backend yet.*build_engine.*nothing here runs them; expected one of .*onnx, torch"
    ):
        bundle.open_backend("tensorrt")


def test_a_graph_that_contradicts_the_contract_is_refused(bundle):
    from getok_drive.runtime.onnx import OnnxBackend
    from getok_drive.runtime.torch import TorchBackend

    for name, value in (("kv_heads", 2), ("vocab_size", 77), ("merge_size", 1), ("layers", 3)):
        geometry = replace(bundle.contract.model, **{name: value})
        with pytest.raises(BackendError, match=r"in the contract|expected"):
            OnnxBackend(bundle.folder, geometry, 5, 100)
    with pytest.raises(BackendError, match="vocab_size"):
        TorchBackend(bundle.folder, replace(bundle.contract.model, vocab_size=77), 5, 100)
    with pytest.raises(BackendError, match="missing"):
        OnnxBackend(Path("nowhere"), bundle.contract.model, 5, 100)


@pytest.mark.parametrize(("name", "message"), [("onnx", "expected pixel_values"), ("torch", "inference failed")])
def test_patches_of_another_model_are_refused(bundle, name, message):
    with pytest.raises(BackendError, match=f"{name} backend: {message}"):
        bundle.open_backend(name).encode(np.zeros((3, 3), np.float32))


def frames(count: int) -> list[Frame]:
    """World frames and, between them, noise."""
    from training.datasets import world

    noise = np.random.default_rng(0)
    return [
        Frame(noise.integers(0, 256, (120, 200, 3), dtype=np.uint8), index=i)
        if i % 3 == 2
        else Frame(world.render(world.TEST_SEEDS[i], (224, 126)).image_bgr, index=i)
        for i in range(count)
    ]


def assert_same_scenes(bundle: Bundle, images: list[Frame]) -> int:
    onnx, torch = Perceiver(bundle, "onnx"), Perceiver(bundle, "torch")
    elements = 0
    for frame in images:
        ours, theirs = onnx.run(frame).to_json(), torch.run(frame).to_json()
        for kind in ("lanes", "drivable", "boxes", "signs"):
            assert len(ours[kind]) == len(theirs[kind]), f"frame {frame.index}: {kind}"
            for a, b in zip(ours[kind], theirs[kind], strict=True):
                confidences = a.pop("confidence"), b.pop("confidence")
                assert confidences[0] == pytest.approx(confidences[1], abs=1e-3)
                assert a == b, f"frame {frame.index}"
        assert ours["decode_report"] == theirs["decode_report"]
        elements += ours["decode_report"]["elements"]
    return elements


def test_the_same_scenes(bundle):
    assert assert_same_scenes(bundle, frames(6)) > 0


@pytest.mark.slow
@pytest.mark.skipif("nano" not in built_in(), reason="the bundle nano is not here; export one with python -m training.export")
@pytest.mark.timeout(3600)  # 200 frames on the torch backend take a while
def test_the_same_scenes_of_the_shipped_bundle():
    from training.datasets import world

    count = int(os.environ.get("GETOK_PARITY_FRAMES", "200"))
    images = [Frame(world.render(seed).image_bgr, index=seed) for seed in list(world.TEST_SEEDS)[:count]]
    assert assert_same_scenes(Bundle.load("nano"), images) > 0
