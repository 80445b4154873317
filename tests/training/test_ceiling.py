"""The labels written as tokens and read back: close to themselves with three rounds, in cells' centres with none."""

import re

import numpy as np
import pytest

from getok_drive.tokens.codec import cell_centers, norm_to_px
from getok_drive.tokens.lattice import cell_steps
from getok_drive.tokens.vocab import GRID_SIZE
from training.ceiling import main, written
from training.datasets import world
from training.samples import Sample
from training.targets import thin_lane


@pytest.fixture(scope="module")
def sample():
    return world.render(139_000_003, (448, 252))


def test_three_rounds_come_back_within_half_a_step_and_none_in_the_centres_of_cells(sample):
    exact, coarse = written(sample, 3), written(sample, 0)
    assert len(exact.lanes) == len(coarse.lanes) == len(sample.lanes) > 0
    step_px = np.array(sample.size_wh) / (GRID_SIZE * cell_steps())
    lanes = sorted((thin_lane(lane.points_px, sample.size_wh[1]) for lane in sample.lanes), key=lambda points: points[0, 0])
    for lane, label in zip(sorted(exact.lanes, key=lambda lane: lane.points_px[0, 0]), lanes, strict=True):
        ends = [0, -1]  # points between may fall together
        assert (np.abs(lane.points_px[ends] - label[ends]) <= 0.5 * step_px + 0.01).all()
    centres_px = norm_to_px(cell_centers(np.arange(GRID_SIZE**2)), sample.size_wh)
    for lane in coarse.lanes:
        distance = np.abs(lane.points_px[:, None] - centres_px[None]).max(-1).min(1)
        assert distance.max() < 0.01


def test_a_picture_without_labels_is_an_empty_scene(sample):
    nothing = Sample(sample.image_bgr)
    assert written(nothing).elements == 0 and written(nothing, 0).elements == 0


def test_the_command_prints_a_row_for_each_number_of_rounds_and_more_rounds_keep_more(capsys):
    assert main(["--dataset", "world:139000000-139000005"]) == 0
    head, names, *rows = capsys.readouterr().out.splitlines()
    assert head == "6 frames of world:139000000-139000005" and "lanes f1_75" in names
    table = np.array([[float(value) for value in re.split(r"\s+", row.strip())] for row in rows])
    assert table[:, 0].tolist() == [0, 1, 2, 3]
    assert table[3, 2] > table[0, 2] + 0.1 and table[3, 1:6].min() > 0.9  # F1@75; all kinds
    assert (np.diff(table[:, 6]) > 0).all()  # tokens


def test_a_wrong_data_set_is_named(capsys):
    assert main(["--dataset", "world:never"]) == 2
    assert "world:never" in capsys.readouterr().err
