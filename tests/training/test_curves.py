"""Curves: what is read from a log, and what is drawn of it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from training import curves
from training.pages import COLORS


@pytest.fixture
def run(tmp_path):
    lines = [
        {"step": 1, "kl": 0.5},
        {"step": 2, "kl": None},
        {"step": 3, "kl": 9.0},
        {"step": 3, "kl": 1.5},
        {"step": 4, "val": 1.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_a_log_is_read_without_gaps_and_the_later_line_counts(run):
    np.testing.assert_array_equal(curves.read_log(run, "kl"), [[1, 0.5], [3, 1.5]])
    assert curves.read_log(run, "loss").shape == (0, 2)


def test_the_running_mean_looks_back():
    points = np.array([[1, 1.0], [2, 3.0], [5, 8.0]])
    np.testing.assert_allclose(curves.running_mean(points, 2), [[1, 1.0], [2, 2.0], [5, 5.5]])


def test_every_run_is_drawn_in_its_colour(run, tmp_path):
    out = tmp_path / "curves.png"
    assert curves.main([f"one={run}", f"two={run}", "--plot", "kl,loss,val", "--out", str(out)]) == 0
    picture = cv2.imread(str(out))
    assert picture.shape == (26 + 2 * 260, 2 * 460, 3)
    for color in COLORS[:2]:
        assert (picture == curves._bgr(color)).all(axis=2).any()


def test_a_missing_log_is_named(tmp_path, capsys):
    assert curves.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "x.png")]) == 2
    assert "nowhere" in capsys.readouterr().err
