"""Table 5's runs go on by GRPO: rewards by hand, draws, steps that can be repeated, what is refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from getok_drive.tokens import prompts  # noqa: E402
from getok_drive.tokens.vocab import TOKEN_ID  # noqa: E402
from getok_drive.types import Lane  # noqa: E402
from training.representations.__main__ import main  # noqa: E402
from training.representations.answers import LaneAnswer  # noqa: E402
from training.representations.frames import Frames  # noqa: E402
from training.representations.grpo import REWARDS, GrpoSettings, LaneGrpo, _drawn, rewards_of  # noqa: E402
from training.representations.lanes import LANE_PROMPT  # noqa: E402
from training.representations.reader import taught_logits  # noqa: E402
from training.samples import Sample  # noqa: E402


@pytest.fixture(scope="module")
def folder(folder):
    """Finished runs of two forms and of one with offsets beside the tower and the frames."""
    for form, steps in (("text", 3), ("grid", 60), ("grid-offset", 3)):
        settings = ["--frames", str(folder / "frames"), "--tower", str(folder / "tower"), "--steps", str(steps)]
        assert main(["run", "lanes", form, "--out", str(folder / form), *settings, "--set", "batch_size=4"]) == 0
    return folder


def command(folder, form, out, *more):
    return main(["grpo", str(folder / form), "--frames", str(folder / "frames"), "--out", str(out), "--steps", "2", *more])


def test_rewards_by_hand():
    image = np.zeros((100, 200, 3), np.uint8)
    lanes = tuple(Lane(np.array([[x, 99.0], [x, 20.0]], np.float32), "solid", "white") for x in (50.0, 150.0))
    sample = Sample(image, lanes=lanes)
    right = [np.array([[(x + 0.5) / 200, 0.995], [(x + 0.5) / 200, 0.205]]) for x in (50.0, 150.0)]
    assert rewards_of(sample, LaneAnswer(right)) == pytest.approx({"lane_f1": 1.0, "polyline_f1": 1.0, "format": 1.0})
    half = rewards_of(sample, LaneAnswer(right[:1], malformed=1))
    assert half == pytest.approx({"lane_f1": 2 / 3, "polyline_f1": 2 / 3, "format": 0.5})
    near = [line + np.array([0.02, 0.0]) for line in right]  # 2 % of the width: beside it at 1.5 %, found at 3 and 6 %
    assert rewards_of(sample, LaneAnswer(near))["polyline_f1"] == pytest.approx(2 / 3)
    assert rewards_of(sample, LaneAnswer([], complete=False)) == {"lane_f1": 0.0, "polyline_f1": 0.0, "format": 0.0}
    assert rewards_of(Sample(image), LaneAnswer([])) == {"lane_f1": 1.0, "polyline_f1": 1.0, "format": 1.0}
    assert sum(REWARDS.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(("temperature", "shares"), [(1.0, [0.1, 0.6, 0.0, 0.3]), (0.5, [1 / 46, 36 / 46, 0.0, 9 / 46])])
def test_tokens_are_drawn_as_often_as_the_policy_says(temperature, shares):
    scores = np.log(np.array([0.1, 0.6, 0.0, 0.3]) + 1e-12).astype(np.float32)
    rng = np.random.default_rng(0)
    found = np.bincount([_drawn(scores, rng, temperature) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(found, shares, atol=0.03)


def test_the_rate_rises_stays_and_falls():
    settings = GrpoSettings(steps=30, learning_rate=1.0)
    rates = [settings.rate(step) for step in range(30)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0]) and rates[3:21] == pytest.approx([1.0] * 18)
    assert rates[20:] == sorted(rates[20:], reverse=True) and rates[25] == pytest.approx(0.5) and rates[29] < 0.05


@pytest.mark.parametrize("form", ["text", "grid"])
def test_a_run_is_a_function_of_its_settings(folder, form, tmp_path, capsys):
    for name in ("one", "two"):
        assert command(folder, form, tmp_path / name) == 0
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("one", "two")]
    assert logs[0] == logs[1]
    records = [json.loads(line) for line in logs[0].splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    assert set(records[0]) >= {f"reward/{name}" for name in (*REWARDS, "overall")} | {"kl", "entropy", "length"}
    assert abs(records[0]["kl"]) < 1e-9  # before the first update the policy is its reference
    said = capsys.readouterr().out
    assert f"{form}: F1 at 1.5%" in said and "difference" in said
    assert command(folder, form, tmp_path / "one") == 0  # done: it only says so again
    assert (tmp_path / "one" / "log.jsonl").read_text() == logs[0]


def test_what_earned_more_becomes_likelier_and_the_tower_stays(folder):
    trainer = LaneGrpo(folder / "grid", Frames(folder / "frames" / "train"), GrpoSettings(steps=1, learning_rate=1e-3))
    visual = torch.from_numpy(np.array(trainer._visual[[0, 0]], np.float32))
    first = trainer.encoder.layout.first_id
    good, bad = ([first + TOKEN_ID[text] for text in texts] for texts in (("<lane>", "<solid>"), ("</scene>",)))
    answers, before = [LaneAnswer([], ids=good), LaneAnswer([], ids=bad)], copy.deepcopy(trainer.policy.state_dict())

    def log_probs():
        conversations = []
        for answer in answers:
            script = trainer.encoder.open(prompts.chat_segments(LANE_PROMPT))
            script.teach(answer.ids)
            conversations.append(script.conversation(trainer.frames[0]))
        logits, chosen, _, row = taught_logits(trainer.policy, trainer.collate(conversations, visual), visual, "rewritten")
        each = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        return [float(each[row == number].sum()) for number in range(2)]

    old = log_probs()
    logged = trainer._update(0, answers, [0, 0], visual, torch.tensor([1.0, -1.0]))
    new = log_probs()
    assert new[0] > old[0] and new[1] < old[1] and logged["grad_norm"] > 0
    moved = {name for name, weight in trainer.policy.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and not any(".visual." in name for name in moved)


def test_a_reward_that_is_left_out_is_logged_and_not_paid(folder, tmp_path):
    assert command(folder, "grid", tmp_path / "without", "--without", "format", "--without", "lane_f1") == 0
    record = json.loads((tmp_path / "without" / "log.jsonl").read_text().splitlines()[0])
    assert {"reward/format", "reward/lane_f1"} <= set(record)
    assert json.loads((tmp_path / "without" / "result.json").read_text())["settings"]["without"] == ["format", "lane_f1"]


def test_what_cannot_go_on_is_named(folder, tmp_path, capsys):
    assert command(folder, "grid-offset", tmp_path / "x") == 2
    assert "in a form without offsets, found lanes, grid-offset" in capsys.readouterr().err
    assert command(folder, "nowhere", tmp_path / "x") == 2
    assert "no finished run of table 5" in capsys.readouterr().err
    assert command(folder, "grid", tmp_path / "x", "--temperature", "0") == 2
    assert "--temperature 0.0: expected a number above 0" in capsys.readouterr().err
    assert command(folder, "grid", tmp_path / "x", "--prompts", "0") == 2
    assert "--prompts 0: expected 1 or more" in capsys.readouterr().err
    assert command(folder, "grid", tmp_path / "x", "--without", "beauty") == 2
    assert "--without beauty: expected some of lane_f1, polyline_f1, format" in capsys.readouterr().err
