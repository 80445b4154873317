"""The world's compiled loops against what they stand for: labels hang on their last bits."""

from __future__ import annotations

import cv2
import numpy as np
from shapely.geometry import LinearRing

from training.datasets.world.camera import Camera, Rig
from training.datasets.world.dice import Dice
from training.datasets.world.kernels.curves import interp
from training.datasets.world.kernels.lens import owners_seen
from training.datasets.world.kernels.polygons import simple
from training.datasets.world.sprites import mips


def test_curves_are_read_as_numpy_reads_them() -> None:
    rng = np.random.default_rng(1)
    for count in (1, 2, 3, 50):
        xs, ys = np.sort(rng.integers(0, 40, count).astype(float)), rng.normal(0, 5, count)  # some places twice
        at = np.concatenate([rng.uniform(-5, 45, 300), xs, [-1e9, 1e9]])
        assert np.array_equal(interp(at, xs, ys), np.interp(at, xs, ys))
        assert np.array_equal(interp(np.sort(at), xs, ys), np.interp(np.sort(at), xs, ys))


def test_simple_polygons_are_told_from_those_that_touch_themselves() -> None:
    rng = np.random.default_rng(2)
    seen = {True: 0, False: 0}
    for _ in range(600):
        points = rng.integers(0, 14, (int(rng.integers(3, 8)), 2)).astype(np.int32)
        if len(np.unique(points, axis=0)) < len(points):
            continue
        edge = np.roll(points, -1, axis=0) - points
        if (edge[:, 0] * np.roll(edge[:, 1], -1) == edge[:, 1] * np.roll(edge[:, 0], -1)).any():
            continue  # neighbours in one line: not asked for
        wanted = bool(LinearRing(points).is_simple)
        assert bool(simple(points)) == wanted, points.tolist()
        seen[wanted] += 1
    assert min(seen.values()) > 50


def test_owners_are_warped_as_opencv_reads_maps_without_weights() -> None:
    rng = np.random.default_rng(3)
    for seed in range(5):
        camera = Camera(Rig.sample(Dice(seed)), (320, 180))
        width, height = camera.canvas_wh
        owner = rng.integers(0, 256, (height, width), dtype=np.uint8)
        fixed, _ = cv2.convertMaps(camera.maps(), None, cv2.CV_16SC2)  # type: ignore[call-overload]
        wanted = cv2.remap(owner, fixed, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        assert np.array_equal(owners_seen(owner, camera.maps()), wanted)


def test_levels_of_a_picture_keep_its_cover_and_the_colour_of_what_is_covered() -> None:
    rng = np.random.default_rng(4)
    picture = rng.integers(0, 256, (32, 48, 4), dtype=np.uint8)
    picture[:, :20, 3], picture[:, 20:, 3] = 0, 255
    picture[:, 20:, :3] = (200, 100, 50)
    levels = [level.view(np.uint8).reshape(*level.shape, 4) for level in mips(picture)]
    assert [level.shape[:2] for level in levels] == [(32, 48), (16, 24), (8, 12)]
    assert np.array_equal(levels[0][..., 3], picture[..., 3])
    for level in levels:
        assert abs(float(level[..., 3].mean()) - 255 * 28 / 48) < 1
        assert np.abs(level[..., :3].astype(int) - (200, 100, 50)).max() <= 1  # under what is transparent too
