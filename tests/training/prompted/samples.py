"""A small picture with phrases of every task, and its right answers."""

import numpy as np

from getok_drive.types import Box, Sign
from training.datasets.phrases import region_of_mask
from training.datasets.shapes import encode_rle
from training.prompted.answers import Answer
from training.samples import Phrase, Region, Sample

SIZE_WH = (64, 48)


def block(x0, y0, x1, y1):
    mask = np.zeros((SIZE_WH[1], SIZE_WH[0]), bool)
    mask[y0:y1, x0:x1] = True
    return mask


LEFT, RIGHT = block(4, 10, 20, 30), block(40, 12, 60, 32)


def sample(seed=0):
    rng = np.random.default_rng(seed)
    left, right = region_of_mask(LEFT, "left"), region_of_mask(RIGHT, "right")
    phrases = (
        Phrase("refer", "the left block", regions=(left,)),
        Phrase("refer", "a block on the left side", regions=(left,)),
        Phrase("refer", "both blocks", regions=(left, right)),
        Phrase("refer", "a zebra"),
        Phrase(
            "question", "Which one could one sit on?", "the <region_0> one", (right,), ignore=encode_rle(block(40, 12, 60, 16))
        ),
        Phrase("point", "the blocks", regions=(left, right)),
        Phrase("point", "the corner", regions=(Region(point_px=[2, 2]),)),
        Phrase("caption", "a large block standing right", regions=(right,)),
        Phrase("classify", "sign_color", "blue", regions=(Region(point_px=[30, 5]),)),
    )
    boxes = (Box([4, 10, 20, 30], "car", attributes={"visible_state": "partly_occluded"}),)
    return Sample(
        rng.integers(0, 255, (SIZE_WH[1], SIZE_WH[0], 3), dtype=np.uint8), boxes=boxes, signs=(Sign([30, 5], "stop", "red"),),
        scene={"traffic_density": "no_traffic"}, known=("boxes", "signs"), meta={"source": f"made:{seed}"}, phrases=phrases,
    )  # fmt: skip


def right_answer(query):
    targets = [np.argwhere(t)[0][::-1] if t.ndim == 2 else t for t in query.targets]
    return Answer(
        query.word,
        query.boxes_px,
        query.mask,
        np.array(targets, float).reshape(-1, 2),
        next(iter(query.references), ""),
        wall_ms=3.0,
    )
