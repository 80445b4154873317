"""Boundary F, BDD100K's drivable classes and vehicles, and OpenLane-V2's scores against the numbers of the official code."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.metrics import bdd100k
from training.metrics.detection import Boxes
from training.metrics.masks import boundary_f
from training.metrics.openlane_topology import NAMES, GraphScores, RoadGraph

CASES = json.loads((Path(__file__).parent / "more_official.json").read_text())


def _mask(rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows], dtype=bool)


def test_boundary_f_equals_davis():
    assert len({case["f"] for case in CASES["boundary"]}) > 5
    for case in CASES["boundary"]:
        assert boundary_f(_mask(case["truth"]), _mask(case["predicted"]), case["tolerance"]) == pytest.approx(case["f"], abs=1e-9)


def test_drivable_classes_equal_the_bdd100k_toolkit():
    for case in CASES["drivable"]:
        row = bdd100k.drivable_row(np.array(case["truth"], np.uint8), np.array(case["predicted"], np.uint8))
        np.testing.assert_allclose(bdd100k.drivable_ious(row), case["iou"], atol=1e-12)
        if case["miou"] is not None:
            assert bdd100k.drivable_miou(row) == pytest.approx(case["miou"])


def test_drivable_classes_by_hand():
    truth, predicted = np.array([[0, 0, 1, 2, 255]], np.uint8), np.array([[0, 1, 1, 0, 0]], np.uint8)
    row = bdd100k.drivable_row(truth, predicted)
    assert row.tolist() == [1, 1, 0, 0, 1, 0]  # what lies on the background is not looked at
    assert bdd100k.drivable_ious(row).tolist() == [0.5, 0.5]
    only_direct = bdd100k.drivable_row(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert bdd100k.drivable_miou(only_direct) == 1.0
    assert np.isnan(bdd100k.drivable_miou(np.zeros(6)))


def _boxes(record):
    return Boxes.of(record["boxes"], record["classes"], record.get("confidences"))


@pytest.mark.parametrize("pairs_at_once", [1, 7, bdd100k.PAIRS_AT_ONCE])
def test_vehicle_ap_equals_yolop(monkeypatch, pairs_at_once):
    monkeypatch.setattr(bdd100k, "PAIRS_AT_ONCE", pairs_at_once)
    assert len({round(case["ap"], 6) for case in CASES["vehicle"]}) > 4
    for case in CASES["vehicle"]:
        scored = bdd100k.vehicle_hits([_boxes(r) for r in case["truth"]], [_boxes(r) for r in case["predicted"]])
        assert bdd100k.vehicle_ap50(scored) == pytest.approx(case["ap"], abs=1e-12)
        twice = bdd100k.vehicle_ap50(scored, np.full(len(case["truth"]), 2.0))
        assert twice == pytest.approx(case["ap"], abs=1e-12)  # a picture drawn twice counts twice


def test_vehicle_ap_of_nothing():
    car = Boxes.of([[0, 0, 9, 9]], ["car"])
    none = Boxes.of([], [])
    assert np.isnan(bdd100k.vehicle_ap50(bdd100k.vehicle_hits([none], [car])))
    assert bdd100k.vehicle_ap50(bdd100k.vehicle_hits([car], [none])) == 0.0
    walker = Boxes.of([[0, 0, 9, 9]], ["pedestrian"])
    assert bdd100k.vehicle_ap50(bdd100k.vehicle_hits([car], [walker])) == 0.0
    lorry = Boxes.of([[0, 0, 9, 9]], ["truck"], [0.4])
    assert bdd100k.vehicle_ap50(bdd100k.vehicle_hits([car], [lorry])) == pytest.approx(1.0)


@pytest.mark.parametrize("case", CASES["topology"], ids=lambda case: f"{len(case['truth'])} frames")
def test_openlane_scores_equal_the_toolkit(case):
    frames = [[RoadGraph(**frame) for frame in case[side]] for side in ("truth", "predicted")]
    scored = GraphScores(*frames)
    for name, value in zip(NAMES, scored.values(), strict=True):
        assert value == pytest.approx(case["official"][name], abs=1e-6), name  # the toolkit sums in 32 bits
    # a draw of the frames gives what those frames give
    chosen = [0, 0, len(frames[0]) - 1]
    weights = np.bincount(chosen, minlength=len(frames[0]))
    drawn = GraphScores(*([side[i] for i in chosen] for side in frames)).values()
    np.testing.assert_allclose(scored.values(weights)[2:], drawn[2:], atol=1e-9)


def test_openlane_scores_by_hand():
    lines = [[[0.0, y, 0.0], [5.0, y, 0.0]] for y in (0.0, 10.0)]
    graph = RoadGraph(lines, [[0, 0, 9, 9]], [1], [[0, 1], [0, 0]], [[1], [0]], [0.9, 0.8], [0.7])
    assert GraphScores([graph], [graph]).values()[0] == 1.0
    unmatched = RoadGraph([], [], [], [], [], [], [])
    scores = dict(zip(NAMES, GraphScores([graph], [unmatched]).values(), strict=True))
    assert scores["DET_l"] == 0.0
    assert scores["DET_t"] == pytest.approx(12 / 13)  # attributes that nobody has or claims count as right
    assert scores["TOP_ll"] == 0.0
    with pytest.raises(ValueError, match="topology ll"):
        GraphScores([graph], [RoadGraph(lines, [], [], [[1]], [], [0.9, 0.8], [])])
