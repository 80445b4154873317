"""One function over many pictures: the same results in the same order from every engine; Ray with two workers if installed."""

import json
import os
import time
from pathlib import Path

import pytest

from getok_drive.errors import ConfigError
from training import data, mask_tokens
from training.parallel import ordered_map


class Slow:
    """The first of every four takes longest, so that results are ready out of order."""

    def __init__(self, base):
        self.base = base

    def __call__(self, index):
        time.sleep(0.02 * (index % 4 == 0))
        return self.base + index, os.getpid()


class Together:
    """Waits until a second process has come here too."""

    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / str(os.getpid())).touch()

    def __call__(self, index):
        end = time.monotonic() + 120
        while len(list(self.folder.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        return index, len(list(self.folder.iterdir()))


def test_here_and_in_processes():
    indices = [3, 0, 8, 4, 1, 2, 16, 5]
    here = list(ordered_map(Slow, (100,), indices))
    apart = list(ordered_map(Slow, (100,), indices, jobs=2))
    assert [value for value, _ in here] == [value for value, _ in apart] == [100 + index for index in indices]
    assert {pid for _, pid in here} == {os.getpid()} and os.getpid() not in {pid for _, pid in apart}
    assert list(ordered_map(Slow, (0,), [])) == []


def test_wrong_use():
    with pytest.raises(ConfigError, match="--jobs: expected 1 or more, got 0"):
        list(ordered_map(Slow, (0,), [1], jobs=0))
    with pytest.raises(ConfigError, match="--engine: expected one of local, ray, got 'dask'"):
        list(ordered_map(Slow, (0,), [1], engine="dask"))


def test_ray_that_is_not_installed(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    out = str(tmp_path / "out")
    assert data.main(["convert", "--dataset", "world:1-2", "--size", "224x126", "--engine", "ray", "--out", out]) == 2
    assert 'pip install "ray[data]"' in capsys.readouterr().err


@pytest.fixture(scope="module")
def two_workers():
    """A Ray of this machine with two workers, shared by the tests (its start takes from seconds to a minute)."""
    ray = pytest.importorskip("ray", reason="ray is not installed (pip install 'ray[data]')")
    pytest.importorskip("pyarrow")
    from training.parallel import _connect

    _connect(ray, 2)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_ray_keeps_the_order_and_uses_both_workers(two_workers, tmp_path):
    indices = [*range(60, 0, -1), 100]
    results = list(ordered_map(Slow, (1000,), indices, jobs=2, engine="ray"))
    assert [value for value, _ in results] == [1000 + index for index in indices]
    assert os.getpid() not in {pid for _, pid in results}
    assert list(ordered_map(Together, (str(tmp_path),), range(40), jobs=2, engine="ray")) == [(k, 2) for k in range(40)]


@pytest.mark.slow
def test_convert_on_ray_writes_the_same_bytes_and_goes_on(two_workers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative paths hold for the workers too
    convert = ["convert", "--dataset", "world:1-20", "--size", "224x126", "--masks", "--out"]
    assert data.main([*convert, "here"]) == 0
    assert data.main([*convert, "ray", "--limit", "6"]) == 0
    text = (tmp_path / "ray/samples.jsonl").read_text()
    (tmp_path / "ray/samples.jsonl").write_text(text[:-40])  # killed while it wrote a line
    assert data.main([*convert, "ray", "--engine", "ray", "--jobs", "2"]) == 0
    here, there = ({p.relative_to(f): p for p in f.rglob("*") if p.is_file()} for f in (tmp_path / "here", tmp_path / "ray"))
    assert here.keys() == there.keys() and len(here) == 20 * 3 + 4  # picture, two masks
    assert [name for name in here if here[name].read_bytes() != there[name].read_bytes()] == []


@pytest.mark.slow
def test_mask_to_token_search_on_ray(two_workers, tmp_path):
    search = ["--dataset", "world:3-8", "--size", "224x126", "--max-tokens", "6", "--min-area", "0.02", "--no-cache", "--out"]
    assert mask_tokens.main([*search, str(tmp_path / "here"), "--jobs", "1"]) == 0
    assert mask_tokens.main([*search, str(tmp_path / "ray"), "--jobs", "2", "--engine", "ray"]) == 0
    here, there = ((tmp_path / name / "tokens.jsonl").read_text() for name in ("here", "ray"))
    assert here == there and len(here.splitlines()) == 6
    assert any(json.loads(line)["masks"] for line in here.splitlines())


@pytest.mark.slow
def test_a_broken_picture_is_reported_from_ray(two_workers, tmp_path):
    from .datasets.minis import road_photo, write

    for number in range(3):
        write(tmp_path / f"leftImg8bit/train/0/frame{number}_image.png", road_photo())
        write(tmp_path / f"gtFine/train/0/frame{number}_label.png", road_photo()[..., 0] * 0)
    (tmp_path / "gtFine/train/0/frame1_label.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    arguments = ["--dataset", f"idd:{tmp_path}", "--split", "train", "--engine", "ray", "--jobs", "2", "--out", str(out)]
    assert data.main(["convert", *arguments]) == 0
    assert "frame1_label.png: not a picture" in (out / "skipped.jsonl").read_text()
    assert len((out / "samples.jsonl").read_text().splitlines()) == 2
