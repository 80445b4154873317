"""Overlay pictures: the right places get the right colours, and nothing that a scene may hold breaks them."""

import numpy as np
import pytest

from getok_drive.tokens.vocab import BOX_CLASSES, LANE_COLORS, LANE_TYPES, SIGN_CLASSES, SIGN_COLORS
from getok_drive.types import Box, DrivableArea, Lane, Scene, Sign
from getok_drive.views import overlay


def grey(width: int = 1280, height: int = 720) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def near(picture: np.ndarray, x: float, y: float, color: tuple[int, int, int], radius: int = 3) -> bool:
    """Whether the colour occurs around a place."""
    x, y = round(x), round(y)
    patch = picture[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1].reshape(-1, 3)
    return bool((np.abs(patch.astype(int) - color).max(axis=1) < 24).any())


def test_lanes_show_their_type_and_paint():
    lanes = tuple(
        Lane([[100 + 200 * i, 700], [100 + 200 * i, 100]], kind, color)
        for i, (kind, color) in enumerate((k, c) for k in LANE_TYPES for c in LANE_COLORS)
    )
    picture = overlay.draw(grey(), Scene((1280, 720), lanes=lanes))
    for lane in lanes:
        x = float(lane.points_px[0, 0])
        assert near(picture, x, 400, overlay.LANE_COLORS[lane.type])
        assert near(picture, x, 400, overlay.PAINT_COLORS[lane.color], radius=1)
        assert (picture[400, int(x) + 30] == 90).all()


def test_drivable_area_is_translucent():
    image = grey()
    image[:, ::2] = 60
    picture = overlay.draw(image, Scene((1280, 720), drivable=(DrivableArea([[200, 600], [600, 200], [1000, 600]]),)))
    inside, outside = picture[500, 600:620].astype(int), picture[100, 600:620]
    assert np.ptp(inside[:, 1]) > 10  # the picture still shows through
    assert inside[:, 1].mean() > 90
    np.testing.assert_array_equal(outside, image[100, 600:620])


def test_boxes_and_signs_stand_where_they_are():
    scene = Scene((1280, 720), boxes=(Box([300, 300, 500, 450], "car", 0.9),), signs=(Sign([800, 200], "stop", "red", 0.8),))
    picture = overlay.draw(grey(), scene, labels=False)
    for x, y in ((300, 375), (500, 375), (400, 300), (400, 450)):
        assert near(picture, x, y, overlay.BOX_COLORS["car"])
    assert near(picture, 800, 200, overlay.SIGN_COLORS["red"], radius=1)
    assert (picture[375, 400] == 90).all()
    labelled = overlay.draw(grey(), scene)
    assert (labelled != picture).any()
    assert near(labelled, 310, 290, overlay.BOX_COLORS["car"], radius=8)


def test_guesses_are_thin_and_have_no_label():
    def drawn(confidence: float) -> np.ndarray:
        box, sign = Box([300, 300, 500, 450], "car", confidence), Sign([800, 200], "stop", "red", confidence)
        return (overlay.draw(grey(), Scene((1280, 720), boxes=(box,), signs=(sign,)))[:600] != 90).any(axis=2)

    guessed, sure = drawn(overlay.FAINT - 0.01), drawn(overlay.FAINT)
    assert guessed[375, 296:305].any() and guessed[190:211, 790:811].any()  # there they are
    assert guessed.sum() < 0.4 * sure.sum()
    assert sure[285:298, 302:360].any() and not guessed[285:298, 302:360].any()  # the plate above the box


def test_labels_keep_clear_of_one_another():
    boxes = tuple(Box([400 + 8 * i, 300, 420 + 8 * i, 340], "pedestrian", 0.5) for i in range(5))
    pen = overlay._Pen(grey(), 1)
    for box in boxes:
        pen.box_label(box)
    plates = pen.plates
    assert len(plates) == 5
    overlaps = sum(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for i, a in enumerate(plates) for b in plates[i + 1 :]
    )
    assert overlaps == 0


def test_small_pictures_are_enlarged_and_the_input_is_left_alone():
    image = grey(448, 252)
    scene = Scene((448, 252), lanes=(Lane([[100, 240], [100, 40]]),))
    picture = overlay.draw(image, scene)
    assert picture.shape == (756, 1344, 3)
    assert near(picture, 301, 400, overlay.LANE_COLORS["solid"])
    assert (image == 90).all()


def test_huge_pictures_are_reduced():
    picture = overlay.draw(grey(8000, 4000), Scene((8000, 4000), lanes=(Lane([[2000, 3900], [2000, 100]]),)))
    assert picture.shape[0] * picture.shape[1] <= overlay.MOST_PIXELS * 1.01
    scale = picture.shape[1] / 8000
    assert near(picture, 2000 * scale, 1000, overlay.LANE_COLORS["solid"], radius=8)


@pytest.mark.parametrize("size_wh", [(1, 1), (7, 3), (2, 1000), (4000, 5)])
def test_any_size_and_everything_at_once(size_wh):
    w, h = size_wh
    rng = np.random.default_rng(0)
    far = 1e6
    boxes = tuple(Box([-far, -far, w + far * i, h + 1], name, 1.0) for i, name in enumerate((*BOX_CLASSES, "unheard_of")))
    signs = tuple(Sign(rng.normal(size=2) * far, name, color) for name in SIGN_CLASSES for color in SIGN_COLORS)
    scene = Scene(
        size_wh,
        lanes=(Lane(rng.normal(size=(9, 2)) * 100, "wavy", "pink"),),
        drivable=(DrivableArea(rng.normal(size=(9, 2)) * far),),
        boxes=boxes,
        signs=signs,
        truncated=True,
    )
    assert overlay.draw(grey(w, h), scene).dtype == np.uint8
