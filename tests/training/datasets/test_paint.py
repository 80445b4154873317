"""Lane lines from painted pictures whose truth is known, and the look of labelled lines."""

import cv2
import numpy as np
import pytest

from training.datasets.lamps import lamp_color
from training.datasets.paint import lane_look, lanes_from_paint

WIDTH, HEIGHT = 640, 360
HORIZON = (320.0, 150.0)


def line_at(bottom_x, y, bend=0.0):
    """Column of a line that runs to the vanishing point, bent sideways towards the horizon."""
    t = (y - HORIZON[1]) / (HEIGHT - 1 - HORIZON[1])
    return HORIZON[0] + (bottom_x - HORIZON[0]) * t + bend * (1 - t) ** 2 * t * 4


def road(lines):
    """A photograph and its paint mask; a line is (bottom x, dashed, colour, bend)."""
    image = np.full((HEIGHT, WIDTH, 3), 80, np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for bottom_x, dashed, color, bend in lines:
        for y in range(165, HEIGHT):
            depth = 1 / (y - HORIZON[1])  # dashes are even in distance
            if dashed and (depth * 900) % 2 > 0.9:
                continue
            half = 0.5 + 4 * (y - HORIZON[1]) / (HEIGHT - HORIZON[1])
            x = line_at(bottom_x, y, bend)
            a, b = round(x - half), round(x + half)
            mask[y, max(a, 0) : max(b + 1, 0)] = 1
            image[y, max(a, 0) : max(b + 1, 0)] = (235, 235, 235) if color == "white" else (40, 180, 220)
    return image, mask


@pytest.mark.parametrize("bend", [0.0, 60.0])
def test_lines_dashes_and_colours(bend):
    truth = [(-200, False, "yellow", bend), (150, True, "white", bend), (480, True, "white", bend), (800, False, "white", bend)]
    image, mask = road(truth)
    lanes = lanes_from_paint(mask, image)
    assert [(lane.type, lane.color) for lane in lanes] == [
        ("solid", "yellow"), ("dashed", "white"), ("dashed", "white"), ("solid", "white")
    ]  # fmt: skip
    for lane, (bottom_x, *_) in zip(lanes, truth, strict=True):
        y = lane.points_px[:, 1]
        assert (np.diff(y) < 0).all()
        inside = (lane.points_px[:, 0] > 12) & (lane.points_px[:, 0] < WIDTH - 12)
        assert np.abs(lane.points_px[:, 0] - line_at(bottom_x, y, bend))[inside].max() < 4
        assert y.min() < 200


def test_two_close_lines_are_one_double_line():
    image, mask = road([(300, False, "yellow", 0.0), (322, False, "yellow", 0.0)])
    (lane,) = lanes_from_paint(mask, image)
    assert (lane.type, lane.color) == ("double", "yellow")
    assert abs(lane.points_px[0, 0] - 311) < 4


def test_stop_lines_and_specks_are_no_lanes():
    image, mask = road([])
    mask[300:308, 100:540] = 1
    mask[250:252, 300:303] = 1
    assert lanes_from_paint(mask, image) == ()
    assert lanes_from_paint(np.zeros_like(mask), image) == ()


@pytest.mark.parametrize("look", [("solid", "white"), ("dashed", "white"), ("solid", "yellow")])
def test_look_of_a_labelled_line(look):
    image, _ = road([(150, look[0] == "dashed", look[1], 0.0)])
    rng = np.random.default_rng(1)
    image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    y = np.arange(HEIGHT - 1, 170, -10.0)
    assert lane_look(image, np.column_stack([line_at(150, y), y])) == look


def test_lamps():
    for color, bgr, place in (("red", (30, 30, 250), 12), ("yellow", (40, 200, 250), 36), ("green", (120, 250, 60), 60)):
        image = np.full((72, 24, 3), 30, np.uint8)
        cv2.circle(image, (12, place), 7, bgr, -1)
        assert lamp_color(image, [0, 0, 23, 71]) == color
    assert lamp_color(np.full((72, 24, 3), 30, np.uint8), [0, 0, 23, 71]) == "black"
    assert lamp_color(np.full((72, 24, 3), (20, 180, 235), np.uint8), [0, 0, 23, 71]) == "black"  # a yellow housing
