"""GRPO with adapters: the start is the reference without a second copy, checkpoints hold what learns, the end is merged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytest.importorskip("peft", reason="needs the extra 'train'")

from safetensors.torch import load_file  # noqa: E402

from getok_drive.errors import ConfigError  # noqa: E402
from training import grpo, merge  # noqa: E402
from training.model import load_checkpoint  # noqa: E402
from training.policy import AdaptersOff, Answers, Policy  # noqa: E402
from training.presets import override  # noqa: E402

SETTINGS = [
    "image_size_wh=(112, 56)", "sampling.limits.lanes=1", "sampling.limits.lane_points=3", "sampling.limits.polygons=1",
    "sampling.limits.polygon_vertices=4", "sampling.limits.boxes=1", "sampling.limits.signs=1", "steps=4", "save_every=2",
    "pictures_every=0", "lora_rank=4", "learning_rate=1e-2",
]  # fmt: skip


def train(start: Path, out: Path) -> None:
    assert grpo.main(["--preset", "tiny", "--start-from", str(start), "--out", str(out), *SETTINGS]) == 0


def trainer(start: Path, out: Path, *more: str) -> grpo.Trainer:
    made = grpo.Trainer(override(replace(grpo.PRESETS["tiny"]), [*SETTINGS, *more]), out, start)
    made.resume()
    return made


def records(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_s")} for line in lines]


@pytest.fixture(scope="module")
def run(tiny_checkpoint, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("grpo_lora")
    train(tiny_checkpoint, out)
    return out


def test_adapters_and_rows_learn_and_the_end_is_merged(tiny_checkpoint, run, tmp_path):
    log = records(run)
    assert log[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert log[-1]["kl"] > 1e-5
    before, after = (load_checkpoint(folder)[0].state_dict() for folder in (tiny_checkpoint, run / "final"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("language_model.layers" in name for name in changed) and any("visual.blocks" in name for name in changed)
    assert not any("norm" in name or "bias" in name for name in changed)
    assert merge.main([str(run / "final" / "adapter"), "--out", str(tmp_path / "merged")]) == 0
    for name, value in load_checkpoint(tmp_path / "merged")[0].state_dict().items():
        torch.testing.assert_close(value, after[name], atol=1e-6, rtol=1e-5, msg=name)
    saved = load_file(run / "checkpoint-0000004" / "model.safetensors")
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in saved)


def test_the_reference_is_the_start_after_training_too(tiny_checkpoint, run, tmp_path):
    trained = trainer(tiny_checkpoint, shutil.copytree(run, tmp_path / "run"))
    assert trained.step == 4 and isinstance(trained.reference, AdaptersOff)
    items = trained.task.at(0)
    pixels = trained.pixels(items)
    rollouts = trained.rollouts(items, pixels, 2, trained.config.sampling, 0)
    merged_hw = tuple(side // trained.preprocess.merge_size for side in trained.preprocess.grid_hw)
    answers = Answers.of(rollouts, pixels, trained.layout, merged_hw, shared=False)
    start = Policy(load_checkpoint(tiny_checkpoint)[0]).eval()
    with torch.no_grad():
        reference, expected, now = (
            policy(answers, trained.preprocess.grid_hw, 1.0)[0] for policy in (trained.reference, start, trained.plain)
        )
    torch.testing.assert_close(reference, expected, atol=1e-6, rtol=1e-6)
    assert (now - reference).abs().max() > 1e-3
    learning = {name for name, p in trained.plain.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in learning)
    assert any("lora_" in name for name in learning) and any("delta" in name for name in learning)  # switched on again


def test_a_run_goes_on_bit_for_bit_from_the_same_start_only(tiny_checkpoint, run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("final", "checkpoint-0000004"))
    train(tiny_checkpoint, out)
    assert records(out) == records(run)
    ours, theirs = (load_file(folder / "final" / "model.safetensors") for folder in (out, run))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    with pytest.raises(ConfigError, match=r"final, that this run starts from, \d+ frozen weights are others"):
        trainer(run / "final", out)


def test_vllm_is_refused_by_name(tiny_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="lora_rank: adapters are not supported"):
        trainer(tiny_checkpoint, tmp_path, "engine=vllm")
