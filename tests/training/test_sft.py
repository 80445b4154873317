"""The training loop: it learns, resumes exactly, stops on nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from getok_drive.errors import ConfigError  # noqa: E402
from training import sft  # noqa: E402
from training.presets import PRESETS, Stage, override  # noqa: E402


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["dense"] + line["language"] for line in lines if "dense" in line}


def test_a_resumed_run_continues_bit_for_bit(tmp_path):
    steps = "stages=((3, (112, 56), True), (5, (112, 56)))"
    assert sft.main(["--preset", "tiny", "--out", str(tmp_path / "whole"), steps, "save_every=4"]) == 0
    trainer = sft.Trainer(override(PRESETS["tiny"], [steps, "save_every=4"]), tmp_path / "cut", None)
    (tmp_path / "cut").mkdir()
    original, count = trainer.train_step, iter(range(100))

    def killed(batch, stage):
        if next(count) == 6:
            raise KeyboardInterrupt
        return original(batch, stage)

    trainer.train_step = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert sft.main(["--preset", "tiny", "--out", str(tmp_path / "cut"), steps, "save_every=4"]) == 0
    whole, cut = losses(tmp_path / "whole"), losses(tmp_path / "cut")
    assert whole == cut
    one, two = (torch.load(tmp_path / name / "checkpoint-0000008" / "extra.pt", weights_only=True) for name in ("whole", "cut"))
    for name, value in one["average"][1].items():
        assert torch.equal(value, two["average"][1][name]), name
    assert (tmp_path / "whole" / "final" / "model.safetensors").is_file()
    goes_on = sft.Trainer(override(PRESETS["tiny"], [steps]), tmp_path / "next", tmp_path / "whole" / "final").plain
    for name, weight in goes_on.state_dict().items():
        assert name not in one["average"][1] or torch.equal(weight, one["average"][1][name]), name
    assert "dense_head.weight" in one["average"][1]


def test_it_learns(tmp_path):
    settings = ["stages=((25, (112, 56)),)", "learning_rate=0.01", "save_every=100", "log_every=5"]
    assert sft.main(["--preset", "tiny", "--out", str(tmp_path), *settings]) == 0
    values = list(losses(tmp_path).values())
    assert values[-1] < 0.8 * values[0]


def test_bad_settings_stop_at_once(tmp_path, capsys):
    assert sft.main(["--preset", "tiny", "--out", str(tmp_path), "learning_rte=1"]) == 2
    assert "learning_rte" in capsys.readouterr().err
    assert sft.main(["--preset", "tiny", "--out", str(tmp_path), "batch_size='many'"]) == 2
    with pytest.raises(ConfigError, match="accumulate"):
        override(PRESETS["tiny"], ["accumulate=3"])
    assert override(PRESETS["nano"], ["noise.jitter=0"]).noise.jitter == 0.0
    assert override(PRESETS["nano"], ["stages=((5, (56, 28)),)"]).stages == (Stage(5, (56, 28)),)


def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(tmp_path):
    config = override(PRESETS["tiny"], ["stages=((4, (112, 56)),)"])
    trainer = sft.Trainer(config, tmp_path, None)
    with torch.no_grad():
        trainer.plain.dense_head.bias.fill_(float("nan"))
    with pytest.raises(sft.GetokError, match="bad_batch_0"):
        trainer.run()
    assert (tmp_path / "bad_batch_0.pt").is_file()


def test_accumulation_changes_nothing_but_memory(tmp_path):
    results = []
    for accumulate in (1, 2):
        config = override(PRESETS["tiny"], ["stages=((1, (112, 56)),)", f"accumulate={accumulate}", "noise.phantoms=1"])
        trainer = sft.Trainer(config, tmp_path, None)
        _, stage, batch = next(sft.batches(config, trainer.encoder, 0, trainer.accelerator))
        results.append(trainer.train_step(batch, stage))
    for name in ("language", "dense", "grad_norm"):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-5), name
