"""What survives: kill -9 at any step, a full disk, a checkpoint of another vocabulary or model, NaN."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from getok_drive.errors import ConfigError, GetokError  # noqa: E402
from training import grpo, sft  # noqa: E402
from training.checkpoints import RunLog  # noqa: E402
from training.presets import PRESETS, override  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SFT = ["--preset", "tiny", "stages=((3, (112, 56), True), (9, (112, 56)))", "save_every=2"]
GRPO = [
    "--preset", "tiny", "image_size_wh=(112, 56)", "steps=8", "save_every=2", "pictures_every=0", "sampling.limits.lanes=2",
    "sampling.limits.lane_points=4", "sampling.limits.polygons=1", "sampling.limits.polygon_vertices=5",
    "sampling.limits.boxes=2", "sampling.limits.signs=1",
]  # fmt: skip


def records(folder: Path) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_s")} for line in lines]


def killed_and_restarted(module: str, arguments: Sequence[str], out: Path, at_step: int) -> list[dict[str, float]]:
    """Starts a run in a process of its own, kills it after ``at_step``, starts it again; the log of what was killed."""
    command = [sys.executable, "-m", module, *arguments, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        log = out / "log.jsonl"
        deadline = time.monotonic() + 900
        while not (log.is_file() and len(log.read_text().splitlines()) >= at_step):
            assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "final").exists()
    before = records(out)
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=900)
    return before


def same_weights(one: Path, two: Path) -> bool:
    from safetensors.torch import load_file

    first, second = (load_file(folder / "final" / "model.safetensors") for folder in (one, two))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_sft_killed_at_a_random_step_continues_bit_for_bit(tmp_path):
    at_step = random.SystemRandom().randint(3, 9)
    before = killed_and_restarted("training.sft", SFT, tmp_path / "killed", at_step)
    assert sft.main([*SFT, "--out", str(tmp_path / "whole")]) == 0
    whole = records(tmp_path / "whole")
    assert records(tmp_path / "killed") == whole, f"killed after step {at_step}"
    assert before == whole[: len(before)]
    assert same_weights(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("stage", ["placement", "movement"])
def test_grpo_killed_at_a_random_step_continues_bit_for_bit(tiny_checkpoint, tmp_path, stage):
    at_step = random.SystemRandom().randint(1, 6)
    arguments = [*GRPO, "--stage", stage, "--start-from", str(tiny_checkpoint)]
    before = killed_and_restarted("training.grpo", arguments, tmp_path / "killed", at_step)
    assert grpo.main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    whole = records(tmp_path / "whole")
    assert records(tmp_path / "killed") == whole, f"killed after step {at_step}"
    assert before == whole[: len(before)]
    assert same_weights(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_saves_and_ends_in_order(tmp_path, number):
    """As a terminal's Ctrl-C and torchrun's SIGTERM do: the process that draws the pictures gets the signal as well."""
    command = [sys.executable, "-m", "training.sft", "--preset", "tiny", "stages=((100000, (112, 56), True),)", "workers=1",
               "save_every=100000", "--out", str(tmp_path)]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, start_new_session=True) as process:
        log = tmp_path / "log.jsonl"
        deadline = time.monotonic() + 240
        while not (log.is_file() and len(log.read_text().splitlines()) >= 3):
            assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be stopped"
            time.sleep(0.01)
        os.killpg(process.pid, number)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages.decode()
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert int(checkpoint.name.split("-")[1]) == len(records(tmp_path))


def trainer(out: Path, *settings: str) -> sft.Trainer:
    out.mkdir(exist_ok=True)
    config = override(PRESETS["tiny"], ["stages=((4, (112, 56), True),)", "save_every=2", *settings])
    made = sft.Trainer(config, out, None)
    made.resume()
    return made


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, capsys):
    """Files may not grow beyond 50 kB from step 4 on: the writers' own errors, as on a disk without room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = trainer(tmp_path)
    save = full.save

    def save_on_a_full_disk() -> bool:
        if full.step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        return save()

    full.save = save_on_a_full_disk  # type: ignore[method-assign]
    try:
        with pytest.raises(GetokError, match="could not be saved"):
            full.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = capsys.readouterr().err
    assert "checkpoint-0000004 failed" in told and "disk full" in told
    assert "last good checkpoint is" in told and "checkpoint-0000002" in told
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-0000002"]
    again = trainer(tmp_path)
    assert again.step == 2
    again.run()
    assert (tmp_path / "final" / "model.safetensors").is_file()


def test_a_checkpoint_of_another_vocabulary_is_refused_by_name(tmp_path):
    trainer(tmp_path, "stages=((2, (112, 56), True),)").run()
    path = tmp_path / "checkpoint-0000002" / "extra.pt"
    extra = torch.load(path, weights_only=True)
    extra["vocabulary"][7] = "<grid_of_another_size>"
    torch.save(extra, path)
    with pytest.raises(ConfigError, match=r"checkpoint-0000002: has another vocabulary.*<grid_of_another_size> at place 7"):
        trainer(tmp_path)


def test_a_starting_point_of_another_vocabulary_is_refused_by_name(tiny_checkpoint, tmp_path, capsys):
    folder = tmp_path / "foreign"
    folder.mkdir()
    for file in tiny_checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<grid_3_5>", "<cell_3_5>"))
    assert sft.main(["--preset", "tiny", "--start-from", str(folder), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert "<grid_3_5>" in told and "foreign" in told


def test_a_run_folder_of_another_model_or_number_of_processes_is_refused(tmp_path):
    trainer(tmp_path, "stages=((2, (112, 56), True),)").run()
    with pytest.raises(ConfigError, match=r"checkpoint-0000002: is of another model"):
        trainer(tmp_path, "size=nano")
    path = tmp_path / "checkpoint-0000002" / "extra.pt"
    torch.save({**torch.load(path, weights_only=True), "processes": 8}, path)
    with pytest.raises(ConfigError, match="written by 8 processes, this run has 1"):
        trainer(tmp_path)
    sft.Trainer(override(PRESETS["tiny"], []), tmp_path, None).resume(to_train=False)  # to look at it, any number will do


def test_the_log_holds_each_step_once_after_a_kill(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "loss": 1.0}\n{"ste')
    log = RunLog(tmp_path, True, step=2)
    log.write(3, {"loss": 0.5, "nothing": float("nan")})
    log.close()
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 0.5, "nothing": None},
    ]  # fmt: skip
