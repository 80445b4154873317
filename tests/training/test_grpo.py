"""GRPO as a whole on the tiny model: it raises what it is paid for, resumes exactly, stops on nonsense."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from getok_drive.errors import ConfigError, GetokError  # noqa: E402
from getok_drive.tokens.elements import propose_ids  # noqa: E402
from getok_drive.tokens.vocab import LANE_COLORS, TABLE, TOKEN_ID  # noqa: E402
from training import grpo  # noqa: E402
from training.datasets import world  # noqa: E402
from training.model import load_checkpoint  # noqa: E402
from training.pictures import Pictures, labels_at_cells  # noqa: E402
from training.policy import decision_advantages  # noqa: E402
from training.presets import override  # noqa: E402
from training.recipes.provenance import WORLD  # noqa: E402
from training.rewards import Completion, RewardSettings, driving_placement  # noqa: E402
from training.rewards.settings import in_every_stage  # noqa: E402
from training.targets import elements_of  # noqa: E402

SMALL = [
    "image_size_wh=(112, 56)", "sampling.limits.lanes=2", "sampling.limits.lane_points=4", "sampling.limits.polygons=1",
    "sampling.limits.polygon_vertices=5", "sampling.limits.boxes=3", "sampling.limits.signs=2",
]  # fmt: skip
AREAS_ONLY = [
    "image_size_wh=(112, 56)", "sampling.limits.lanes=0", "sampling.limits.polygon_vertices=6", "sampling.limits.boxes=0",
    "sampling.limits.signs=0", "sampling.limits.polygons=1",
    *(
        f"rewards.driving_placement.{name}=0"
        for name in ("format", "non_repetition", "lane_f1", "lane_closeness", "detection_f1", "box", "sign_hits")
    ),
]  # fmt: skip


def records(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def run(checkpoint, out, *settings, stage="placement"):
    return grpo.main(["--preset", "tiny", "--start-from", str(checkpoint), "--stage", stage, "--out", str(out), *settings])


def test_a_reward_rises(tiny_checkpoint, tmp_path):
    settings = ["steps=20", "prompts=4", "prompts_per_pass=4", "group=8", "learning_rate=3e-3", "save_every=100"]
    assert run(tiny_checkpoint, tmp_path, *AREAS_ONLY, *settings) == 0
    rewards = [record["reward/polygon_iou"] for record in records(tmp_path)]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.05
    first = records(tmp_path)[0]
    assert first["kl"] == pytest.approx(0.0, abs=1e-6) and first["clip_fraction"] == 0.0
    assert records(tmp_path)[-1]["kl"] > 0.001
    assert (tmp_path / "final" / "model.safetensors").is_file()
    about = json.loads((tmp_path / "final" / "training.json").read_text())
    assert about["image_size_wh"] == [112, 56]
    assert [one["name"] for one in about["training"]] == [f"base model {tiny_checkpoint.name}", WORLD["name"]]


@pytest.mark.parametrize("stage", ["placement", "movement"])
def test_a_resumed_run_continues_bit_for_bit(tiny_checkpoint, tmp_path, stage):
    assert run(tiny_checkpoint, tmp_path / "whole", *SMALL, stage=stage) == 0
    config = override(replace(grpo.PRESETS["tiny"], stage=stage), SMALL)
    (tmp_path / "cut").mkdir()
    trainer = grpo.Trainer(config, tmp_path / "cut", tiny_checkpoint)
    original = trainer.train_step

    def killed():
        if trainer.step == 3:
            raise KeyboardInterrupt
        return original()

    trainer.train_step = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert run(tiny_checkpoint, tmp_path / "cut", *SMALL, stage=stage) == 0
    timeless = [
        [{k: v for k, v in record.items() if not k.endswith("_s")} for record in records(tmp_path / name)]
        for name in ("whole", "cut")
    ]
    cut = {record["step"]: record for record in timeless[1]}
    assert list(cut.values()) == timeless[0]
    one, two = (load_checkpoint(tmp_path / name / "final")[0] for name in ("whole", "cut"))
    for (name, value), other in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(value, other), name


def test_the_rate_falls_at_the_end_and_not_before(tiny_checkpoint, tmp_path, capsys):
    settings = ["steps=4", "decay_steps=2", "learning_rate=1e-3"]
    assert run(tiny_checkpoint, tmp_path, *SMALL, *settings) == 0
    assert [record["lr"] for record in records(tmp_path)] == pytest.approx([1e-3, 1e-3, 5e-4, 0.0])  # each: of the next step
    assert run(tiny_checkpoint, tmp_path / "other", *SMALL, "steps=4", "decay_steps=5") == 2
    assert "decay_steps no more than steps" in capsys.readouterr().err


def test_proposals_are_judged_with_their_refinement(tiny_checkpoint, tmp_path, capsys):
    settings = ["steps=1", "eval_every=1", "eval_images=2", "credit=element", "sampling.refine_proposals=True"]
    assert run(tiny_checkpoint, tmp_path, *SMALL, *settings) == 0
    train, validation = records(tmp_path)
    assert np.isfinite(train["reward/lane_f1"]) and np.isfinite(validation["val_lane_f1"]) and train["grad_norm"] > 0
    assert run(tiny_checkpoint, tmp_path / "other", *SMALL, *settings, "engine=vllm") == 2
    assert "refine_proposals: vLLM draws whole proposals alone; set engine=own" in capsys.readouterr().err
    assert run(tiny_checkpoint, tmp_path / "other", "task=grounding", "sampling.refine_proposals=True") == 2
    assert "only the driving scene" in capsys.readouterr().err


def test_log_names_every_reward_and_the_health_of_the_run(tiny_checkpoint, tmp_path):
    settings = [
        "steps=1",
        "epochs=2",
        "minibatches=2",
        "sampling.proposal_temperature=1.0",
        "eval_every=1",
        "eval_images=2",
        "pictures_every=1",
    ]
    assert run(tiny_checkpoint, tmp_path, *SMALL, *settings, stage="movement") == 0
    train, validation = records(tmp_path)
    for name in ("overall", "format", "point_refinement", "lane_gain", "polygon_gain", "box_refinement", "lane_f1", "sign_hits"):
        assert f"reward/{name}" in train and f"reward/{name}_spread" in train and f"val_{name}" in validation
    for name in ("kl", "entropy", "length", "clip_fraction", "zero_variance_groups", "group_spread", "grad_norm", "truncated"):
        assert np.isfinite(train[name]), name
    assert {"rollouts_per_s", "step_s", "length", "decisions", "loss", "lr"} <= train.keys()
    import cv2

    sheet = cv2.imread(str(tmp_path / "samples" / "0000001.jpg"))  # labels, best, worst for each of two pictures
    assert sheet.shape[1] == 3 * 480 and not np.array_equal(sheet[:240, :480], sheet[:240, 480:960])
    assert any(tmp_path.glob("events.out.tfevents*"))


def test_one_reward_is_taken_away_in_every_stage():
    config = override(
        grpo.PRESETS["tiny"], in_every_stage(["rewards.box=0", "rewards.lane_f1=2", "rewards.l1_scale_px=9", "steps=3"])
    )
    weights = config.rewards
    assert weights.placement.box == weights.driving_placement.box == 0.0 and weights.driving_movement.box_refinement == 1.0
    assert weights.driving_placement.lane_f1 == weights.driving_movement.lane_f1 == 2.0
    assert weights.l1_scale_px == 9.0 and config.steps == 3
    sample = world.render(1, (224, 112))
    batch = [Completion(sample, propose_ids(elements_of(sample))[:9])]
    paid, unpaid = (driving_placement(batch, rewards)[0] for rewards in (RewardSettings(), weights))
    assert unpaid["box"] == paid["box"] and unpaid["overall"] != paid["overall"]
    for wrong in (["rewards.boxx=0"], ["rewards.box=-1.0"]):
        with pytest.raises(ConfigError, match="box"):
            override(grpo.PRESETS["tiny"], in_every_stage(wrong))


def test_a_curriculum_begins_with_emptier_pictures():
    def count(steps):
        pictures = Pictures(override(grpo.PRESETS["tiny"], ["prompts=12", f"curriculum_steps={steps}"]), (112, 56))
        return [sum(len(s.lanes) + len(s.boxes) + len(s.signs) + len(s.drivable) for s in pictures.at(step)) for step in (0, 1)]

    plain, eased = count(0), count(1)
    assert eased[0] < plain[0] and eased[1] == plain[1]


def test_accumulation_and_layout_change_nothing(tiny_checkpoint, tmp_path):
    results = []
    for settings in (["prompts_per_pass=4"], ["prompts_per_pass=1"], ["prompts_per_pass=2", "share_prefix=True"]):
        trainer = grpo.Trainer(override(grpo.PRESETS["tiny"], [*SMALL, "prompts=4", *settings]), tmp_path, tiny_checkpoint)
        results.append(trainer.train_step())
    for other in results[1:]:
        for name in ("loss", "grad_norm", "entropy"):
            assert other[name] == pytest.approx(results[0][name], rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("stage", ["placement", "movement"])
def test_each_decision_has_the_credit_of_its_element(tiny_checkpoint, tmp_path, stage):
    settings = [*SMALL, "credit=element", "sampling.proposal_temperature=1.0", "share_prefix=True"]
    trainer = grpo.Trainer(override(replace(grpo.PRESETS["tiny"], stage=stage), settings), tmp_path, tiny_checkpoint)
    items = trainer.task.at(0)
    rollouts = trainer.rollouts(items, trainer.pixels(items), 4, trainer.config.sampling, 0)
    rewards, credit = trainer.task.judge(items, rollouts)
    np.testing.assert_equal(rewards, trainer.task.rewards(items, rollouts))
    lane_words = {TOKEN_ID[f"<{word}>"] for word in LANE_COLORS}
    for rollout, own in zip(rollouts, credit, strict=True):
        tokens = np.array([rollout.ids[place] - trainer.layout.first_id for place in rollout.places])
        assert own.shape == tokens.shape
        if stage == "placement":
            assert not own[[token in lane_words for token in tokens.tolist()]].any()
        else:
            assert ((tokens >= TABLE.offset_base) & (tokens <= TABLE.delete)).all()
    assert np.concatenate(credit).any()
    if stage == "movement":  # what one answer to a point is above the mean, the others are below
        assert np.concatenate(credit).min() < 0 < np.concatenate(credit).max()
    record = trainer.train_step()
    assert np.isfinite(record["loss"]) and record["grad_norm"] > 0


def test_advantages_of_decisions_are_scaled_together():
    credit = [np.array([3.0, 0.0]), np.array([-4.0]), np.zeros(0)]
    scaled = np.concatenate(decision_advantages([], np.zeros((1, 3)), credit, True))
    assert np.mean(scaled**2) == pytest.approx(1.0) and scaled[0] / scaled[2] == pytest.approx(-0.75)
    assert decision_advantages([], np.zeros((1, 3)), credit, False)[1] == pytest.approx(-4.0)
    assert not np.concatenate(decision_advantages([], np.zeros((1, 2)), [np.zeros(2), np.zeros(1)], True)).any()
    with pytest.raises(ConfigError, match="credit"):
        override(grpo.PRESETS["tiny"], ["credit=word"])
    with pytest.raises(ConfigError, match="engine=own"):
        override(grpo.PRESETS["tiny"], ["engine=vllm", "sampling.last_kind=lane"])
    with pytest.raises(ConfigError, match="task=driving"):
        override(grpo.PRESETS["tiny"], ["credit=element", "task=grounding"])


def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(tiny_checkpoint, tmp_path):
    trainer = grpo.Trainer(override(grpo.PRESETS["tiny"], SMALL), tmp_path, tiny_checkpoint)
    assert trainer.reference is not None
    with torch.no_grad():
        trainer.reference.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(GetokError, match="bad_batch_0"):
        trainer.run()
    saved = torch.load(tmp_path / "bad_batch_0.pt", weights_only=False)
    assert len(saved["rollouts"]) == 4 and saved["pixel_values"].shape[0] == 1


def test_bad_input_is_refused_by_name(tiny_checkpoint, tmp_path, capsys):
    assert run(tiny_checkpoint, tmp_path / "a", "learning_rte=1") == 2
    assert "learning_rte" in capsys.readouterr().err
    assert run(tiny_checkpoint, tmp_path / "b") == 2  # the checkpoint does not say its image size
    assert "image_size_wh" in capsys.readouterr().err
    assert run(tmp_path / "nowhere", tmp_path / "c", *SMALL) == 2
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="group"):
        override(grpo.PRESETS["tiny"], ["group=1"])
    with pytest.raises(ConfigError, match="stage"):
        override(grpo.PRESETS["tiny"], ["stage=both"])
    for name in ("eval_images", "log_every", "save_every"):
        with pytest.raises(ConfigError, match="must be 1 or more; eval_every=0 switches"):
            override(grpo.PRESETS["tiny"], [f"{name}=0"])


def test_a_run_is_not_continued_from_another_checkpoint(tiny_checkpoint, tmp_path, capsys):
    assert run(tiny_checkpoint, tmp_path, *SMALL, "steps=2") == 0
    assert run(tmp_path / "final", tmp_path, *SMALL) == 2
    assert "another checkpoint" in capsys.readouterr().err


def test_a_perfect_proposal_earns_one_against_labels_at_cells():
    for seed in range(12):
        sample = world.render(seed, (224, 112))
        ids = propose_ids(elements_of(sample))
        at_cells, exact = (driving_placement([Completion(labels, ids)])[0] for labels in (labels_at_cells(sample), sample))
        assert at_cells == pytest.approx(dict.fromkeys(at_cells, 1.0))
        assert exact["overall"] < at_cells["overall"]


def test_pictures_are_a_function_of_the_step(tmp_path):
    config = override(grpo.PRESETS["tiny"], SMALL)
    first, again = Pictures(config, (112, 56)).at(3), Pictures(config, (112, 56)).at(3)
    assert all(np.array_equal(a.image_bgr, b.image_bgr) for a, b in zip(first, again, strict=True))
    ranks = [Pictures(config, (112, 56), rank, 2).at(0)[0].image_bgr for rank in (0, 1)]
    assert not np.array_equal(*ranks)


@pytest.mark.slow
def test_two_processes_equal_one(tiny_checkpoint, tmp_path):
    assert run(tiny_checkpoint, tmp_path / "one", *SMALL, "steps=2", "prompts=4") == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "training.grpo"]
    command = [
        "--preset",
        "tiny",
        "--start-from",
        str(tiny_checkpoint),
        "--out",
        str(tmp_path / "two"),
        *SMALL,
        "steps=2",
        "prompts=2",
    ]
    root = Path(__file__).resolve().parents[2]
    subprocess.run([*launch, *command], check=True, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=250)
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "kl", "entropy", "grad_norm", "reward/overall"):
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-6), name
