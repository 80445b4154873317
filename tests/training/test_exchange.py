"""What other engines are given: their formats, read back with their own means, and rewards under their signatures."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import types

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")
datasets = pytest.importorskip("datasets")

from getok_drive.errors import InputError  # noqa: E402
from getok_drive.tokens.codec import to_text  # noqa: E402
from getok_drive.tokens.elements import propose_ids  # noqa: E402
from training import exchange, exchange_rewards  # noqa: E402
from training.datasets import world  # noqa: E402
from training.exchange_rewards import compute_score, compute_scores, judge, scene_rewards  # noqa: E402
from training.pictures import labels_at_cells  # noqa: E402
from training.rewards import Completion, driving_placement  # noqa: E402
from training.targets import elements_of  # noqa: E402


def export(out, engine, *more):
    assert exchange.main(["--to", engine, "--dataset", "world:5-7", "--out", str(out), *more]) == 0
    name = "data.jsonl" if engine == "swift" else "data.parquet"
    kind = "json" if engine == "swift" else "parquet"
    return datasets.load_dataset(kind, data_files=str(out / name), split="train", cache_dir=str(out / "cache"))


def reward_module(path):
    spec = importlib.util.spec_from_file_location("plugged_in", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def right_answer(seed):
    return to_text(propose_ids(elements_of(world.render(seed, (448, 252)))))


def test_easyr1(tmp_path):
    data = export(tmp_path, "easyr1", "--size", "224x112")
    assert set(data.column_names) == {"problem", "answer", "images"} and len(data) == 3
    row = data[0]
    assert row["problem"].count("<image>") == 1
    from PIL import Image

    picture = row["images"][0]  # EasyR1 opens bytes itself, datasets may have decoded them already
    assert (Image.open(io.BytesIO(picture["bytes"])) if isinstance(picture, dict) else picture).size == (224, 112)
    answers = [right_answer(5), "", right_answer(7) + "<|im_end|>"]
    batch = [
        {"response": text, "response_length": 7, "ground_truth": truth}
        for text, truth in zip(answers, data["answer"], strict=False)
    ]
    scores = reward_module(tmp_path / "reward.py").compute_score(batch)
    assert scores[0]["overall"] == pytest.approx(1.0, abs=0.05) and scores[2]["overall"] == pytest.approx(1.0, abs=0.05)
    assert scores[1]["overall"] < 0.3
    assert all(np.isfinite(list(score.values())).all() for score in scores)
    with pytest.raises(InputError, match="batch"):
        compute_scores(batch[0])


def test_verl_in_both_stages(tmp_path):
    data = export(tmp_path, "verl")
    assert set(data.column_names) == {"data_source", "prompt", "images", "ability", "reward_model", "extra_info"}
    row = data[1]
    assert row["prompt"][0]["role"] == "user" and row["reward_model"]["style"] == "rule"
    score = reward_module(tmp_path / "reward.py").compute_score
    result = score(row["data_source"], right_answer(6), row["reward_model"]["ground_truth"], extra_info=row["extra_info"])
    assert result["score"] == pytest.approx(1.0, abs=0.05) and "overall" not in result
    moves = export(tmp_path / "moves", "verl", "--stage", "movement")
    assert [message["role"] for message in moves[0]["prompt"]] == ["user", "assistant", "user"]
    truth = moves[0]["reward_model"]["ground_truth"]
    sample = world.render(5, (448, 252))
    targets = exchange.noisy_targets(elements_of(sample), exchange.Noise(), np.random.default_rng((0, 0)))
    assert json.loads(truth)["proposal"] == to_text(exchange.proposal_of(targets)) == moves[0]["prompt"][1]["content"]
    right = compute_score("", to_text(exchange.refinement_of(targets)), truth)
    still = compute_score("", "<offset></offset>", truth)
    assert right["score"] > still["score"] + 0.2


def test_swift_for_grpo_and_sft(tmp_path, monkeypatch):
    data = export(tmp_path / "grpo", "swift")
    assert set(data.column_names) == {"messages", "images", "solution"}
    assert [message["role"] for message in data[0]["messages"]] == ["user"]
    assert (tmp_path / "grpo" / "images" / "0000000.jpg").is_file()
    taught = export(tmp_path / "sft", "swift", "--sft", "--stage", "movement")
    assert [message["role"] for message in taught[0]["messages"]] == ["user", "assistant", "user", "assistant"]
    assert taught[0]["messages"][3]["content"].startswith("<offset>")
    plugin = types.ModuleType("swift.plugin")
    plugin.ORM, plugin.orms = type("ORM", (), {}), {}  # the two names that ms-swift's documentation imports
    monkeypatch.setitem(sys.modules, "swift", types.ModuleType("swift"))
    monkeypatch.setitem(sys.modules, "swift.plugin", plugin)
    reward_module(tmp_path / "grpo" / "reward.py")
    reward = plugin.orms["getok_drive"]()
    rewards = reward([right_answer(5), ""], solution=data["solution"][:2], trainer_state=None)
    assert rewards[0] == pytest.approx(1.0, abs=0.05) and rewards[1] < 0.3
    assert scene_rewards([right_answer(5)], [data["solution"][0]]) == rewards[:1]


def test_the_reward_is_the_trainers_own():
    sample = world.render(9, (448, 252))
    ids = propose_ids(elements_of(sample))[7:]  # a piece is missing
    own = driving_placement([Completion(labels_at_cells(sample), ids)])[0]
    theirs = judge([to_text(ids)], [exchange.ground_truth(sample, "placement", None)])[0]
    for name, value in theirs.items():
        assert value == pytest.approx(own[name], abs=2e-3), name  # coordinates are written to 0.01 px


def test_answers_to_one_picture_read_its_labels_once(monkeypatch):
    truths = [exchange.ground_truth(world.render(seed, (448, 252)), "placement", None) for seed in (9, 10)]
    alone = [judge(["</scene>"], [truth])[0] for truth in truths]
    read, seen = exchange_rewards.labels_in, []
    monkeypatch.setattr(exchange_rewards, "labels_in", lambda truth: seen.append(truth) or read(truth))
    assert judge(["</scene>"] * 4, [truths[0], truths[1], truths[0], truths[1]]) == alone * 2
    assert sorted(seen) == sorted(truths)
    assert judge(["no scene at all", ""], [truths[0]] * 2)[0]["overall"] < 0.2


def test_other_environments_need_no_torch():
    code = "import sys, training.exchange_rewards; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bad_input_is_named(tmp_path, capsys):
    command = ["--to", "easyr1", "--dataset", "world:5-6", "--out", str(tmp_path)]
    assert exchange.main([*command, "--stage", "movement"]) == 2
    assert "one turn" in capsys.readouterr().err
    assert exchange.main([*command, "--sft"]) == 2
    with pytest.raises(InputError, match=r"training\.exchange"):
        judge(["<lane>"], ["42"])
    with pytest.raises(InputError, match="stage 'third'"):
        judge([""], [exchange.ground_truth(world.render(1, (224, 112)), "placement", None).replace("placement", "third")])
