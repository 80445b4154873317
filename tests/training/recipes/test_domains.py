"""``python -m training.sft --domain ...`` on miniatures: every domain trains, and its loss falls on one batch."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from training import sft  # noqa: E402
from training.batches import with_data  # noqa: E402
from training.presets import PRESETS, override  # noqa: E402

STEPS = "stages=((3, (112, 56)),)"
PHRASED = ("referring", "reasoning", "generalized", "caption", "pointing")
SCENES = ("driving", "classification", "segmentation", "offset")


def arguments(tmp_path, *more):
    return ["--preset", "tiny", "--out", str(tmp_path / "run"), STEPS, "render_size_wh=(96, 54)", "eval_images=2", *more]


def logged(tmp_path):
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if "language" in line]


@pytest.mark.parametrize("domain", [*SCENES, *PHRASED])
def test_the_loss_of_one_batch_falls(tmp_path, mini_jsonl, proposals, domain):
    settings = [
        "stages=((12, (112, 56)),)",
        "learning_rate=0.02",
        "ema_decay=0.0",
        "warmup_steps=1",
        f"recipe.cache={proposals}",
        "noise.phantoms=0.0",
    ]
    config = with_data(override(PRESETS["tiny"], settings), domain, (f"jsonl:{mini_jsonl}",), tmp_path)
    trainer = sft.Trainer(config, tmp_path, None)
    _, stage, batch = next(sft.batches(config, trainer.encoder, 0, trainer.accelerator))
    losses = [trainer.train_step(batch, stage)["language"] for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_mixture_trains_and_says_what_it_is(tmp_path, mini_jsonl, proposals, capsys):
    data = [
        word
        for domain in ("referring", "caption", "generalized", "pointing")
        for word in ("--data", f"{domain}=jsonl:{mini_jsonl}")
    ]
    data += ["--data", "driving=2*world:train", "--domain", "mix"]
    assert sft.main(arguments(tmp_path, *data)) == 2
    assert "LLaVA-665K" in capsys.readouterr().err
    data += ["recipe.allow_absent=True", f"recipe.cache={proposals}", "save_every=2", "recipe.length_group=2"]
    assert sft.main(arguments(tmp_path, *data)) == 0
    said = capsys.readouterr().err
    assert "left out of the mixture: chat (LLaVA-665K)" in said and "driving from world:train" in said
    whole = logged(tmp_path)
    assert len(whole) == 3
    record = json.loads((tmp_path / "run/final/training.json").read_text())
    assert any(name.startswith("driving=") for name in record["data"])


def test_phrases_do_not_train_the_dense_head(tmp_path, mini_jsonl, proposals):
    stages = "stages=((5, (112, 56), True), (2, (112, 56)))"
    config = with_data(override(PRESETS["tiny"], [stages]), "caption", (f"jsonl:{mini_jsonl}",), tmp_path)
    assert config.total_steps == 2
    config = with_data(override(PRESETS["tiny"], [stages]), None, (), tmp_path)
    assert config.total_steps == 7 and config.recipe.domain == "driving"


def test_bad_data_stops_at_once(tmp_path, capsys):
    assert sft.main(arguments(tmp_path, "--domain", "referring")) == 2
    assert "needs --data" in capsys.readouterr().err
    assert sft.main(arguments(tmp_path, "--data", f"tusimple:{tmp_path}/none")) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_mixture_resumes_bit_for_bit_in_the_middle_of_a_group(tmp_path, mini_jsonl):
    data = ("2*world:train", f"pointing=jsonl:{mini_jsonl}", f"classification=jsonl:{mini_jsonl}")
    settings = [
        "stages=((5, (112, 56)),)",
        "render_size_wh=(96, 54)",
        "recipe.length_group=2",
        "save_every=3",
        "recipe.refine=1.0",
    ]
    config = with_data(override(PRESETS["tiny"], settings), None, data, tmp_path)
    for name, kill_at in (("whole", 99), ("cut", 4)):
        trainer = sft.Trainer(config, tmp_path / name, None)
        original, count = trainer.train_step, iter(range(100))

        def step(batch, stage, original=original, count=count, kill_at=kill_at):
            if next(count) == kill_at:
                raise KeyboardInterrupt
            return original(batch, stage)

        trainer.train_step = step
        (tmp_path / name).mkdir()
        if kill_at > 5:
            trainer.run()
            continue
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        trainer = sft.Trainer(config, tmp_path / name, None)
        trainer.resume()
        assert trainer.step == 3
        trainer.run()
    logs = [
        {
            r["step"]: r["language"]
            for r in map(json.loads, (tmp_path / n / "log.jsonl").read_text().splitlines())
            if "language" in r
        }
        for n in ("whole", "cut")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 5
