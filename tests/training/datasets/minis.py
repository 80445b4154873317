"""Small pictures to make miniatures of data sets from."""

import json

import cv2
import numpy as np


def road_photo(width=320, height=180):
    """Grey road under a sky, with noise so that nothing is flat."""
    rng = np.random.default_rng(0)
    image = np.full((height, width, 3), 90, np.uint8)
    image[: height // 2] = (200, 170, 140)
    return np.clip(image.astype(int) + rng.integers(-4, 5, image.shape), 0, 255).astype(np.uint8)


def write(path, image):
    """Write a picture, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def write_json(path, value):
    """Write a JSON file, with its folder."""
    return write_text(path, json.dumps(value))


def write_text(path, text):
    """Write a text file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
