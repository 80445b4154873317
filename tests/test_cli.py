"""The command line, with a real (tiny, untrained) model: files on disk in, files on disk out."""

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from getok_drive import cli
from getok_drive.bundle import Bundle
from getok_drive.errors import BackendError, GetokError
from getok_drive.pipeline import Perceiver

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder as people have them: two good pictures, odd ones, and four that cannot be used."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    files = {
        "good.jpg": color,
        "more/grey.png": color[:, :, 0],
        "more/alpha.png": np.dstack([color, color[:, :, 0]]),
        "more/deep.png": color.astype(np.uint16) * 257,
    }
    for name, image in files.items():
        assert cv2.imwrite(str(folder / name), image)
    (folder / "bad_empty.jpg").write_bytes(b"")
    (folder / "bad_truncated.jpg").write_bytes((folder / "good.jpg").read_bytes()[:-200])
    (folder / "more/bad_text.png").write_text("no picture")
    (folder / "bad_locked.jpg").symlink_to(folder / "nowhere.jpg")
    return folder


@pytest.fixture
def run(tiny_bundle, tmp_path, capsys):
    """Call ``getok-drive``; gives exit status, stdout, stderr and the output folder."""

    def call(*arguments: object, bundle: Path = tiny_bundle):
        out = tmp_path / "out"
        status = cli.main(["run", *map(str, arguments), "--out", str(out), "--bundle", str(bundle)])
        text = capsys.readouterr()
        return status, text.out, text.err, out

    return call


def scenes(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]


def test_a_folder_with_bad_files(run, photos, tiny_bundle):
    status, stdout, stderr, out = run(photos)
    assert status == 1
    assert stdout == ""
    found = {Path(scene["source"]).name: scene for scene in scenes(out)}
    assert set(found) == {"good.jpg", "grey.png", "alpha.png", "deep.png"}
    assert "4 frames, 4 failed" in stderr
    for name in ("bad_empty.jpg", "bad_truncated.jpg", "bad_text.png", "bad_locked.jpg"):
        assert name in stderr
    assert {str(p.relative_to(out / "overlays")) for p in (out / "overlays").rglob("*.*")} == {
        "good.png", "more/grey.png", "more/alpha.png", "more/deep.png",
    }  # fmt: skip
    scene = found["good.jpg"]
    assert scene["image_size_wh"] == [90, 60]
    assert scene["frame"] == 0
    assert scene["bundle"] == {"name": "tiny", "sha256": Bundle.load(tiny_bundle).sha256}
    assert set(scene) == {
        "frame", "stamp_ns", "source", "image_size_wh", "lanes", "drivable", "boxes", "signs", "truncated", "decode_report",
        "timings_ms", "bundle",
    }  # fmt: skip
    # The same picture in grey-from-colour, with alpha and with 16 bits: the last two are the same picture again.
    keep = ("lanes", "drivable", "boxes", "signs")
    assert [found["alpha.png"][k] for k in keep] == [found["deep.png"][k] for k in keep]


def test_one_good_picture_is_a_success(run, photos):
    status, stdout, stderr, out = run(photos / "good.jpg", "--json", "--mcap")
    assert status == 0
    assert [json.loads(line) for line in stdout.splitlines()] == scenes(out)
    assert "1 frames, " in stderr and "failed" not in stderr
    assert (out / "run.mcap").stat().st_size > 1000


def test_results_of_an_earlier_run_are_no_input(run, photos, tiny_bundle, capsys):
    inside = photos / "results"
    for _ in range(2):
        cli.main(["run", str(photos), "--out", str(inside), "--bundle", str(tiny_bundle)])
    assert len(scenes(inside)) == 4
    capsys.readouterr()


def test_globs_limits_and_no_overlay(run, photos):
    status, _, _, out = run(f"{photos}/**/*.png", "--max-frames", 2, "--no-overlay")
    assert status == 0 or status == 1
    assert len(scenes(out)) == 2
    assert not list(out.rglob("*.png"))


def test_a_video_becomes_a_video(run, tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (96, 64))
    for i in range(4):
        writer.write(np.full((64, 96, 3), 50 * i, np.uint8))
    writer.release()
    status, _, _, out = run(path)
    assert status == 0
    assert [scene["frame"] for scene in scenes(out)] == [0, 1, 2, 3]
    assert [scene["stamp_ns"] for scene in scenes(out)] == [0, 200_000_000, 400_000_000, 600_000_000]
    capture = cv2.VideoCapture(str(out / "overlays/clip.mp4"))
    assert sum(1 for _ in iter(lambda: capture.read()[0], False)) == 4


def test_the_world(run):
    status, _, _, out = run("world:5", "--max-frames", 2)
    assert status == 0
    assert [scene["source"] for scene in scenes(out)] == ["world:5", "world:5"]
    assert (out / "overlays/world_5.mp4").stat().st_size > 1000


def test_budgets(run, photos):
    status, _, stderr, out = run(photos / "good.jpg", "--token-budget", 2)
    assert status == 0
    (scene,) = scenes(out)
    assert scene["decode_report"]["tokens"] <= 3
    if scene["truncated"]:
        assert "1 truncated by the budget" in stderr


def test_a_frame_that_fails_does_not_end_the_run(run, photos, monkeypatch):
    real = Perceiver.run

    def sometimes(self, frame, **options):
        if "grey" in frame.source:
            raise BackendError("out of luck")
        return real(self, frame, **options)

    monkeypatch.setattr(Perceiver, "run", sometimes)
    status, _, stderr, out = run(f"{photos}/more/[ag]*.png")
    assert status == 1
    assert "out of luck" in stderr and "grey.png" in stderr
    assert len(scenes(out)) == 1


def test_a_reader_that_leaves_is_no_error(photos, tiny_bundle, tmp_path):
    """``getok-drive run ... --json | head -1``"""
    command = [sys.executable, "-m", "getok_drive", "run", str(photos / "more"), "--json", "--no-overlay"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--bundle", str(tiny_bundle)],
        stdout=writer, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("moment", ["first", "later"])
def test_interrupting_keeps_what_is_done(run, photos, monkeypatch, moment):
    real, calls = Perceiver.run, []

    def interrupted(self, frame, **options):
        if frame.source != "warm-up":
            calls.append(1)
        if len(calls) == (1 if moment == "first" else 2) and frame.source != "warm-up":
            raise KeyboardInterrupt
        return real(self, frame, **options)

    monkeypatch.setattr(Perceiver, "run", interrupted)
    status, _, stderr, out = run(f"{photos}/more/*.png", "--mcap")
    assert status == 130
    assert len(scenes(out)) == len(calls) - 1
    assert "written to" in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg"], "no such file"),
        (["*.nothing"], "no file matches"),
        (["world:x"], "world:SEED"),
    ],
)
def test_a_source_that_is_not_there(run, arguments, message):
    status, _, stderr, out = run(*arguments)
    assert status == 2
    assert stderr.startswith("error: ") and message in stderr
    assert not out.exists()


def test_other_refusals(run, photos, tmp_path, capsys):
    status, _, stderr, _ = run(photos / "good.jpg", bundle=tmp_path / "none")
    assert status == 2 and "no bundle" in stderr
    status, _, stderr, _ = run(photos / "good.jpg", "--backend", "magic")
    assert status == 2 and "onnx, torch" in stderr
    (tmp_path / "out").write_text("a file")
    status, _, stderr, _ = run(photos / "good.jpg")
    assert status == 2 and "is a file" in stderr
    for arguments in (
        ["run"],
        ["run", "x"],
        ["fly"],
        [],
        ["run", "x", "--out", "y", "--max-frames", "0"],
        ["bench", "--time-budget-ms", "-1"],
        ["bench", "--threads=-1"],
        ["bench", "--rounds=-1"],
        ["bench", "--min-confidence=1.5"],
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
    capsys.readouterr()


def test_bench(photos, tiny_bundle, capsys):
    arguments = ["bench", str(photos), "--max-frames", "5", "--bundle", str(tiny_bundle)]
    assert cli.main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    stages = report["stages_ms"]
    for name in ("decode image", "preprocess", "vision", "prefill", "per token", "per pass", "parse", "total"):
        assert 0 < stages[name]["p50"] <= stages[name]["p95"]
    assert stages["total"]["p50"] > stages["vision"]["p50"]
    assert report["frames_per_s"] > 0 and 10 < report["peak_memory_mb"] < 8000
    assert report["per_frame"]["tokens"]["mean"] >= report["per_frame"]["decoder_passes"]["mean"] - 1
    assert report["frames"] == 5 and report["invalid"] == 0
    assert cli.main(arguments) == 0
    assert "p95" in capsys.readouterr().out


def test_bundle_show_and_verify(tiny_bundle, tmp_path, capsys):
    assert cli.main(["bundle", "show", str(tiny_bundle)]) == 0
    assert "trained on base model" in capsys.readouterr().out  # weights drawn at random, of no training run
    assert cli.main(["bundle", "show", "nano"]) == 0
    assert "procedural driving world" in capsys.readouterr().out
    assert cli.main(["bundle", "verify", str(tiny_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"
    assert cli.main(["bundle", "verify", str(tmp_path)]) == 1
    assert "not valid" in capsys.readouterr().err
    assert cli.main(["bundle", "show", str(tmp_path)]) == 2


def test_doctor(tiny_bundle, tmp_path, capsys):
    assert cli.main(["doctor", "--bundle", str(tiny_bundle), "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["run on onnx"]["state"] == checks["read video"]["state"] == "ok"
    assert cli.main(["doctor", "--bundle", str(tmp_path)]) == 1
    assert "fail  bundle" in capsys.readouterr().out


def test_the_doctor_does_not_call_a_ros_without_our_messages_well(monkeypatch):
    from getok_drive import doctor

    monkeypatch.setitem(sys.modules, "rclpy", types.ModuleType("rclpy"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "getok_drive_msgs" else object())
    with pytest.raises(GetokError, match="getok_drive_msgs is not"):
        doctor._ros()


def test_replay_hands_over_or_says_what_is_missing(capsys):
    try:
        status = cli.main(["replay", "--help"])
    except SystemExit as finished:
        status = finished.code
    text = capsys.readouterr()
    assert (status == 0 and "bag" in text.out) or (status == 2 and "getok-drive[ros]" in text.err)


def fresh_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)


def test_importing_and_help_touch_nothing_heavy():
    code = "import sys; from getok_drive import cli; cli._parser().format_help(); print(*sys.modules)"
    loaded = set(fresh_python(code).stdout.split())
    assert not loaded & {"numpy", "cv2", "onnxruntime", "torch", "shapely", "tqdm"}


def test_running_needs_neither_torch_nor_training():
    modules = "pipeline, getok_drive.sources, getok_drive.runtime.onnx, getok_drive.views.overlay"
    code = f"import getok_drive.{modules}, sys; print(*sys.modules)"
    loaded = set(fresh_python(code).stdout.split())
    assert not {name for name in loaded if name.split(".")[0] in ("torch", "transformers", "training", "rclpy")}


def test_importing_is_fast():
    code = "import time; t = time.process_time(); import getok_drive; print(time.process_time() - t)"
    assert min(float(fresh_python(code).stdout) for _ in range(2)) < 0.5
