"""Table 4's questions: one attribute of a given region, the region drawn into the picture, as text, or as grid tokens.

The conversation is that of `training.recipes.classification`; here is only which questions are asked, and the picture with the
outline at the model's own size, so that a thin line survives. Surface and traffic are asked of the whole picture: no region is
given, so these two rows are the table's control.
"""

from __future__ import annotations

import numpy as np

from getok_drive.types import ImageBgr
from training.recipes.classification import Question, outlined, questions
from training.samples import Sample

ROWS = {
    "obstacle class": ("box_class", 2),
    "obstacle visible state": ("visible_state", 2),
    "road blockage": ("road_blockage", 2),
    "surface condition": ("surface_condition", 0),
    "traffic density": ("traffic_density", 0),
    "sign color": ("sign_color", 1),
    "sign visible state": ("visible_state", 1),
}
"""The table's rows: attribute, and how many points the region has (two corners, a centre, none)."""


def row_of(question: Question) -> str | None:
    """The table's row that a question belongs to."""
    key = (question.attribute, len(question.points_px))
    return next((row for row, asked in ROWS.items() if asked == key), None)


def drawn_questions(sample: Sample, rng: np.random.Generator) -> dict[str, Question]:
    """For each row that a picture has questions of, one drawn at random."""
    found: dict[str, list[Question]] = {}
    for question in questions(sample):
        if (row := row_of(question)) is not None:
            found.setdefault(row, []).append(question)
    return {row: asked[int(rng.integers(len(asked)))] for row, asked in found.items()}


def drawn_question(sample: Sample, rng: np.random.Generator) -> Question | None:
    """One question: first its row is drawn, so that the rows weigh alike; None where the picture answers none."""
    found = drawn_questions(sample, rng)
    names = list(found)
    return found[names[int(rng.integers(len(names)))]] if names else None


def outlined_picture(picture: ImageBgr, question: Question, size_wh: tuple[int, int]) -> ImageBgr:
    """The picture at the model's size with the question's region in red.

    Args:
        picture: ``(H, W, 3)``.
        question: its region in pixels of the labels.
        size_wh: size that the labels belong to, pixels.
    """
    scale = np.array([picture.shape[1], picture.shape[0]]) / np.asarray(size_wh)
    return outlined(picture, (question.points_px + 0.5) * scale - 0.5)
