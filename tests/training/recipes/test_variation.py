"""Pictures seen otherwise: every label stays on what it labels."""

import cv2
import numpy as np
import pytest

from getok_drive.errors import InputError
from getok_drive.types import Box, DrivableArea, Lane, Sign
from training.datasets.world import render
from training.recipes.mixture import Mixture
from training.recipes.pools import Pool, parse_pool
from training.recipes.variation import varied
from training.samples import Sample

SIZE_WH = (200, 120)
CORNERS, DOT, LINE = np.float32([20, 30, 60, 90]), np.float32([130, 40]), np.float32([[100, 119], [110, 60], [150, 20]])
AREA = np.float32([[10, 119], [60, 60], [190, 119]])


@pytest.fixture(scope="module")
def sample():
    """Each label in a colour of its own."""
    image = np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8)
    cv2.fillPoly(image, [AREA.astype(np.int32)], (0, 200, 0))
    cv2.rectangle(image, (20, 30), (60, 90), (255, 0, 0), -1)
    cv2.polylines(image, [LINE.astype(np.int32)], False, (0, 0, 255), 3)
    cv2.circle(image, (130, 40), 4, (255, 255, 255), -1)
    return Sample(
        image, (Lane(LINE, "solid", "white"),), (DrivableArea(AREA),), (Box(CORNERS, "car"),), (Sign(DOT, "stop", "red"),),
        meta={"ignore_xyxy_px": [CORNERS.tolist()]},
    )  # fmt: skip


def test_labels_stay_on_what_they_label(sample):
    kept = {"box": 0, "sign": 0, "lane": 0, "area": 0}
    for seed in range(60):
        other = varied(sample, 1.0, np.random.default_rng(seed))
        blue, green, red = (other.image_bgr[..., channel].astype(int) for channel in range(3))
        for box in other.boxes:
            rows, columns = np.nonzero((blue > 60) & (red < 60) & (green < 60))
            found = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
            assert np.abs(box.xyxy_px - found).max() <= 3.5, seed
            kept["box"] += 1
        for sign in other.signs:
            x, y = np.round(sign.point_px).astype(int)
            assert min(blue[y, x], green[y, x], red[y, x]) > 60, seed
            kept["sign"] += 1
        for lane in other.lanes:
            assert lane.points_px[0, 1] >= lane.points_px[-1, 1]
            x, y = np.clip(
                np.round(lane.points_px.mean(axis=0) if len(lane.points_px) == 2 else lane.points_px[1]), 0, None
            ).astype(int)
            assert red[min(y, len(red) - 1), min(x, red.shape[1] - 1)] > 60, seed
            kept["lane"] += 1
        for area in other.drivable:
            inside = np.zeros(red.shape, np.uint8)
            cv2.fillPoly(inside, [np.round(area.polygon_px).astype(np.int32)], 1)
            assert green[cv2.erode(inside, np.ones((9, 9))) > 0].mean() > 40, seed
            kept["area"] += 1
        assert other.known == sample.known
        ignored = np.float32(other.meta["ignore_xyxy_px"])
        assert np.abs(np.sort((ignored[:, 2:] - ignored[:, :2])[0]) - [40, 60]).max() < 1e-3
    assert min(kept.values()) > 25, kept


def test_what_the_window_leaves_of_a_thing_is_labelled_as_cut(sample):
    cut = [box for seed in range(80) for box in varied(sample, 1.0, np.random.default_rng(seed)).boxes if box.attributes]
    assert cut and all(box.attributes == {"truncated": "yes"} for box in cut)
    sizes = [np.prod(box.xyxy_px[2:] - box.xyxy_px[:2]) for box in cut]
    assert 0.3 * 2400 <= min(sizes) < 2400


def test_without_strength_only_the_mirror_remains(sample):
    seen = {varied(sample, 0.0, np.random.default_rng(seed)).image_bgr.tobytes() for seed in range(20)}
    assert seen == {sample.image_bgr.tobytes(), sample.image_bgr[:, ::-1].tobytes()}


def test_drawn_scenes_survive_it_and_bad_strengths_do_not():
    for seed in range(12):
        other = varied(render(seed, (224, 126)), 1.0, np.random.default_rng(seed))
        assert all(len(area.polygon_px) >= 3 for area in other.drivable)
    with pytest.raises(InputError, match="strength"):
        varied(other, 1.5, np.random.default_rng(0))


def test_a_mixture_varies_photographs_and_leaves_the_world_alone(sample, monkeypatch):
    """Example by example a function of its number, as everything in a mixture."""

    class Shop:
        def recipe(self, domain):
            return lambda found, rng: found

    opened = Pool.open
    monkeypatch.setattr(Pool, "open", lambda pool, size: opened(pool, size) if pool.kind == "world" else [sample] * 4)
    pools = [parse_pool("0.5*world:3-9", "driving"), parse_pool("0.5*idd:somewhere", "driving")]
    mixture = Mixture(pools, Shop(), (64, 36), 0, vary=1.0)
    found = [[mixture.conversation(number, np.random.default_rng(number)) for number in range(30)] for _ in range(2)]
    for one, two in zip(*found, strict=True):
        assert one.image_bgr.tobytes() == two.image_bgr.tobytes()
    assert {one.size_wh for one in found[0] if "seed" in one.meta} == {(64, 36)}
    assert len({one.size_wh for one in found[0] if "seed" not in one.meta}) > 5
