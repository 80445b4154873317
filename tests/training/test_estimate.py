"""The estimates: parameters and operations equal what torch counts, memory is near what autograd keeps."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft", reason="needs the extra 'train'")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tests.training.base_models import IMAGE_SIZE_WH, KINDS, base_model, base_tokenizer  # noqa: E402
from training import estimate  # noqa: E402
from training.auxiliary import DENSE_CHANNELS  # noqa: E402
from training.collate import Batch  # noqa: E402
from training.costs import Costs, config_of, layer_bytes  # noqa: E402
from training.lora import Tuning, prepare  # noqa: E402
from training.losses import TrainedModel  # noqa: E402
from training.presets import PRESETS, SftConfig  # noqa: E402
from training.vocabulary import extend  # noqa: E402

TUNINGS = {
    "all": Tuning(),
    "all, checkpointed": Tuning(gradient_checkpointing=True),
    "lora": Tuning(lora_rank=8),
    "lora, frozen tower": Tuning(lora_rank=8, train_vision=False, train_merger=False, gradient_checkpointing=True),
}


def random_batch(model, kind: str, text: int, taught: int) -> tuple[Batch, tuple[int, int]]:
    """One conversation about noise."""
    vision = model.config.vision_config
    width, height = IMAGE_SIZE_WH[kind]
    grid_hw = (height // vision.patch_size, width // vision.patch_size)
    patches = grid_hw[0] * grid_hw[1]
    visual = patches // 4
    count = visual + text
    labels = torch.full((1, count), -100)
    labels[0, -taught:] = 5
    return Batch(
        torch.randn(1, patches, 3 * 2 * vision.patch_size**2), torch.full((1, count), 5),
        torch.arange(count).expand(3, 1, -1).float(),
        labels, torch.ones(1, count),
        torch.full((1, visual, (len(DENSE_CHANNELS) + 1) * 64), 255, dtype=torch.uint8), slice(4, 4 + visual),
    ), grid_hw  # fmt: skip


@pytest.mark.parametrize("name", TUNINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_operations_are_those_that_torch_counts(kind, name):
    tokenizer = base_tokenizer(kind)
    model = base_model(kind, tokenizer, tied=kind == "qwen3_vl")
    tokenizer = extend(model, tokenizer)
    settings = SftConfig(tuning=TUNINGS[name])
    costs = Costs(model.config, settings, text_tokens=60, taught_tokens=40)
    assert costs.parameters == sum(p.numel() for p in model.parameters())
    prepare(model, tokenizer, settings.tuning)
    assert costs.learning == pytest.approx(sum(p.numel() for p in model.parameters() if p.requires_grad), rel=0.02)
    trained = TrainedModel(model).train()
    batch, grid_hw = random_batch(model, kind, 60, 40)
    auxiliary = 2.0 * batch.dense.shape[1] * sum(head.weight.numel() for head in trained.heads.values())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the CPU's fused attention is not counted
        loss = trained(batch, grid_hw, False, 0.0, [1.0] * len(DENSE_CHANNELS)).total
    forward = counter.get_total_flops() - auxiliary
    with sdpa_kernel(SDPBackend.MATH), counter:
        loss.backward()
    total = forward + counter.get_total_flops() - 2 * auxiliary
    work = costs.work(IMAGE_SIZE_WH[kind])
    assert work.forward == pytest.approx(forward, rel=0.05)
    assert work.total == pytest.approx(total, rel=0.1)


def test_a_layer_keeps_about_as_much_as_is_said():
    model = base_model("qwen2_5_vl", base_tokenizer("qwen2_5_vl"), tied=True)
    layer = model.model.language_model.layers[0]
    rows = 256
    x = torch.randn(1, rows, 32, requires_grad=True)
    position = model.model.language_model.rotary_emb(x, torch.arange(rows).expand(3, 1, -1))
    weights = {p.data_ptr() for p in layer.parameters()}
    kept: dict[int, int] = {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = layer(x, position_embeddings=position)
    assert out is not None
    single = sum(kept.values()) / rows  # in float32: the norms' part counts once, the rest double
    config = model.config.text_config
    said = layer_bytes(32, 32, 16, config.intermediate_size)
    norms = 2 * 4 * 32
    assert 0.6 < (norms + 2 * (said - norms)) / single < 1.6


def test_released_models_have_the_size_that_they_are_named_for():
    for preset, billions in (("qwen2.5-vl-7b", 8.29), ("qwen3-vl-2b", 2.13)):
        config = config_of(PRESETS[preset])
        assert config.text_config.vocab_size % 128 == 0
        assert Costs(config, PRESETS[preset]).parameters / 1e9 == pytest.approx(billions, abs=0.02)


def test_the_report_scales(capsys):
    totals = {}
    for gpus, sharding in ((1, "ddp"), (8, "ddp"), (8, "fsdp2")):
        assert estimate.main(["--gpus", str(gpus), "--sharding", sharding, "tuning.lora_rank=0", "tuning.dtype=float32"]) == 0
        text = capsys.readouterr().out
        rate = float(text.split(" pictures/s")[0].split()[-1])
        last = text.splitlines()[-1].split()
        totals[gpus, sharding] = (rate, float(last[0]), "NOT" in text)
    assert totals[8, "ddp"][0] == pytest.approx(8 * totals[1, "ddp"][0], rel=0.02)
    assert totals[1, "ddp"][1] == totals[8, "ddp"][1]
    assert totals[8, "fsdp2"][1] < totals[8, "ddp"][1] / 3
    assert totals[1, "ddp"][2]  # 8 G parameters in float32 with AdamW do not fit into 80 GiB
    assert not totals[8, "fsdp2"][2]
    assert estimate.main(["--gpus", "0"]) == 2
