"""Domain ``classification``: a region is given, the model answers one word (table 4 of the paper).

The region of a box is its two corners, that of a sign its centre. It can be given as grid tokens, as text coordinates
(thousandths of the picture's width and height) or drawn into the picture; questions about the whole picture have none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError
from getok_drive.tokens import prompts
from getok_drive.tokens.codec import encode_points, px_to_norm
from getok_drive.tokens.vocab import TOKEN_ID
from getok_drive.types import ImageBgr
from training.recipes.conversation import Conversation
from training.recipes.encoder import Encoder
from training.recipes.settings import REGION_FORMS
from training.samples import Sample

Points = npt.NDArray[np.float64]
_RED_BGR = (0, 0, 255)


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One question about a picture.

    Attributes:
        attribute: a key of `prompts.CLASSIFY_PROMPTS`.
        answer: one of its choices.
        points_px: ``(N, 2)`` of the region: two corners, one centre, or none for the whole picture.
    """

    attribute: str
    answer: str
    points_px: Points


def questions(sample: Sample) -> list[Question]:
    """Everything that can be asked about a picture: labelled attributes whose value is in the token table."""
    found: list[tuple[str, str | None, npt.ArrayLike]] = []
    for box in sample.boxes:
        values = {"box_class": box.class_name, **{name: box.attributes.get(name) for name in ("visible_state", "road_blockage")}}
        found += [(name, value, box.xyxy_px.reshape(2, 2)) for name, value in values.items()]
    for sign in sample.signs:
        values = {"sign_class": sign.class_name, "sign_color": sign.color, "visible_state": sign.attributes.get("visible_state")}
        if "sign_color" in sample.meta.get("derived", ()):
            del values["sign_color"]
        found += [(name, value, sign.point_px.reshape(1, 2)) for name, value in values.items()]
    found += [(name, sample.scene.get(name), np.zeros((0, 2))) for name in ("surface_condition", "traffic_density")]
    return [Question(n, v, np.asarray(p, np.float64)) for n, v, p in found if v and v in prompts.CLASSIFY_CHOICES[n]]


def _phrased(sample: Sample) -> list[Question]:
    """The same questions where a data set asks them as phrases."""
    asked = [p for p in sample.phrases if p.task == "classify" and p.answer in prompts.CLASSIFY_CHOICES.get(p.text, ())]
    places = ((p, p.regions[0].xyxy_px if p.regions[0].xyxy_px is not None else p.regions[0].point_px) for p in asked)
    return [Question(p.text, p.answer, np.reshape(at, (-1, 2)).astype(np.float64)) for p, at in places if at is not None]


def segments_of(question: Question, form: str, size_wh: tuple[int, int]) -> tuple[str, str]:
    """The user's turn: the question with its region in one of `REGION_FORMS`."""
    points_norm = np.clip(px_to_norm(question.points_px, size_wh), 0.0, 1.0)
    if not len(points_norm):
        return prompts.classify_segments(question.attribute)
    if form == "grid":
        return prompts.classify_segments(question.attribute, encode_points(points_norm, 0)[0].tolist())
    if form == "text":
        region = ", ".join(f"({x}, {y})" for x, y in np.round(points_norm * 1000).astype(int).tolist())
        return prompts.classify_segments(question.attribute, hint=prompts.TEXT_REGION.format(region=region))
    return prompts.classify_segments(question.attribute, hint=prompts.DRAWN_REGION)


def outlined(image_bgr: ImageBgr, points_px: Points) -> ImageBgr:
    """A copy of the picture with the region's outline: a box, or a circle around a point."""
    picture = image_bgr.copy()
    width = max(1, round(picture.shape[1] / 150))
    points = [tuple(map(int, point)) for point in np.round(points_px).tolist()]
    if len(points) == 2:
        cv2.rectangle(picture, points[0], points[1], _RED_BGR, width)
    elif points:
        cv2.circle(picture, points[0], max(4, round(picture.shape[1] / 32)), _RED_BGR, width)
    return picture


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationRecipe:
    """A question about a picture: first its attribute is drawn, then one of the regions that have it.

    Attributes:
        encoder: of the model.
        form: of the region, one of `REGION_FORMS`.
        attributes: that are asked for; empty: all.
    """

    encoder: Encoder
    form: str = "grid"
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.form not in REGION_FORMS:
            raise ConfigError(f"classification: unknown form of region {self.form!r}; expected one of {', '.join(REGION_FORMS)}")
        if unknown := set(self.attributes) - set(prompts.CLASSIFY_PROMPTS):
            known = ", ".join(prompts.CLASSIFY_PROMPTS)
            raise ConfigError(f"recipe.attributes: unknown {', '.join(sorted(unknown))}; known: {known}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Conversation | None:
        """The conversation; None where the picture answers none of the questions."""
        asked = [q for q in (*questions(sample), *_phrased(sample)) if not self.attributes or q.attribute in self.attributes]
        if not asked:
            return None
        names = sorted({question.attribute for question in asked})
        name = names[int(rng.integers(len(names)))]
        choices = [question for question in asked if question.attribute == name]
        return self.write(sample, choices[int(rng.integers(len(choices)))])

    def write(self, sample: Sample, question: Question) -> Conversation:
        """The conversation about one question."""
        if self.form == "drawn":
            sample = replace(sample, image_bgr=outlined(sample.image_bgr, question.points_px))
        script = self.encoder.open(segments_of(question, self.form, sample.size_wh))
        script.teach(self.encoder.table([TOKEN_ID[f"<{question.answer}>"]]))
        self.encoder.end(script)
        return script.conversation(sample)
