"""nuScenes' detection scores against the numbers of the devkit's own code, and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.metrics.nuscenes import CLASSES, NAMES, Boxes3d, DetectionScores, detection_numbers

CASES = json.loads((Path(__file__).parent / "nuscenes_official.json").read_text())


def boxes(record):
    velocities = [[np.nan if value is None else value for value in row] for row in record["velocities_mps"]]
    return Boxes3d(**{**record, "velocities_mps": velocities})


def scores(case):
    return DetectionScores(*([boxes(record) for record in case[side]] for side in ("truth", "predicted")))


def test_scores_equal_the_devkit():
    assert len({round(case["official"][0], 6) for case in CASES}) > 20
    for case in CASES:
        np.testing.assert_allclose(scores(case).values(), case["official"], atol=1e-9)


def test_a_draw_of_the_frames_gives_what_those_frames_give():
    case = next(case for case in CASES if len(case["truth"]) > 2 and case["official"][1] > 0.05)
    chosen = [0, 2]
    weights = np.bincount(chosen, minlength=len(case["truth"]))
    part = {side: [case[side][index] for index in chosen] for side in ("truth", "predicted")}
    np.testing.assert_allclose(scores(case).values(weights), scores(part).values(), atol=1e-12)
    found = detection_numbers(scores(case), ["a", "b", "c", "d"][: len(case["truth"])])
    assert list(found) == list(NAMES) and found["NDS"].low <= found["NDS"].value <= found["NDS"].high


def of(number, centers, velocities=None, score=None, yaw=0.0, size=(2.0, 4.0, 1.5), attribute=0):
    count = len(centers)
    still = np.zeros((count, 2)) if velocities is None else velocities
    full = [np.full(count, value) for value in (number, yaw, attribute)]
    return Boxes3d(
        full[0], np.reshape(centers, (-1, 2)), np.tile(size, (count, 1)), full[1], still, full[2],
        np.linspace(0.9, 0.8, count) if score is None else score,
    )  # fmt: skip


def values(truth, predicted):
    return dict(zip(NAMES, DetectionScores([truth], [predicted]).values(), strict=True))


def test_by_hand():
    car = CLASSES.index("car")
    exact = of(car, [(0, 0), (10, 0)])
    right = values(exact, exact)
    assert right["AP/car"] == pytest.approx(1.0) and right["mAP"] == pytest.approx(0.1)
    assert right["mATE"] == pytest.approx(0.9)  # nine classes are not there: their errors are 1
    assert right["mAAE"] == pytest.approx(7 / 8) and right["mAOE"] == pytest.approx(8 / 9)  # cones, barriers: not defined
    near = values(exact, of(car, [(0, 1.5), (10, 1.5)], yaw=np.pi, size=(2.0, 2.0, 1.5), attribute=3))
    assert near["AP/car"] == pytest.approx(0.5)  # found at 2 and 4 m, not at 0.5 and 1
    assert near["mATE"] == pytest.approx((9 + 1.5) / 10) and near["mASE"] == pytest.approx((9 + 0.5) / 10)
    assert near["mAOE"] == pytest.approx((8 + np.pi) / 9) and near["mAAE"] == pytest.approx(1.0)
    assert near["NDS"] == pytest.approx((5 * near["mAP"] + 0.05 + (1 - near["mAVE"])) / 10)
    twice = values(of(car, [(0, 0)]), of(car, [(0, 0), (0, 0)], score=[0.5, 0.9]))
    assert twice["AP/car"] == pytest.approx((89 + 4 / 9) / 90)  # of predictions at the same recall the last one's precision
    nothing = values(exact, of(car, []))
    assert nothing["NDS"] == 0.0 and nothing["mAVE"] == 1.0


def test_a_barrier_may_be_turned_by_half_and_cones_have_no_heading():
    barrier, cone = CLASSES.index("barrier"), CLASSES.index("traffic_cone")
    for number, expected in ((barrier, 8 / 9), (cone, 1.0)):
        truth = of(number, [(0, 0)])
        assert values(truth, of(number, [(0, 0)], yaw=np.pi))["mAOE"] == pytest.approx(expected)
