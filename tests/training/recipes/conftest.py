"""A miniature data set with every kind of label, in our own JSONL, and what recipes need of a model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import pytest

pytest.importorskip("transformers", reason="needs the extra 'train'")

from training.collate import Layout
from training.datasets import world
from training.datasets.jsonl import record_of
from training.datasets.phrases import region_of_mask
from training.model import SIZES, build_model, build_tokenizer
from training.recipes.conversation import IGNORE, LossWeights
from training.recipes.domains import Workshop
from training.recipes.encoder import Encoder
from training.recipes.settings import RecipeConfig
from training.samples import Phrase, Region, Sample

SIZE_WH = (96, 54)
BUSY_SEEDS = (0, 2)  # frames with several boxes, a sign and a lane


def labelled(seed: int) -> Sample:
    """A frame of the world with phrases of every task about its boxes."""
    sample = world.render(seed, SIZE_WH, masks=True)
    phrases: list[Phrase] = []
    regions = []
    for number, box in enumerate(sample.boxes, start=1):
        region = region_of_mask(sample.masks["instance"] == number, box.class_name, box.xyxy_px)
        if region is not None:
            regions.append(region)
            phrases += [Phrase("refer", f"the {box.class_name} number {number}", regions=(region,))]
            phrases += [Phrase("caption", f"a {box.class_name}", regions=(Region(box.xyxy_px),))]
    phrases += [Phrase("refer", "the elephant"), Phrase("refer", "all of them", regions=tuple(regions[:3]))]
    phrases += [Phrase("question", "What must the driver heed?", "<region_0>, as it is near.", regions[:1])] if regions else []
    phrases += [Phrase("point", "things on the road", regions=tuple(regions))]
    return Sample(
        sample.image_bgr, sample.lanes, sample.drivable, sample.boxes, sample.signs, sample.scene, sample.known,
        sample.masks, {"source": f"mini:{seed}"}, tuple(phrases),
    )  # fmt: skip


@pytest.fixture(scope="session")
def minis() -> list[Sample]:
    """The samples of the data set."""
    return [labelled(seed) for seed in BUSY_SEEDS]


@pytest.fixture(scope="session")
def mini_jsonl(minis, tmp_path_factory) -> Path:
    """The miniature as ``jsonl:PATH``: a folder for training and validation alike."""
    folder = tmp_path_factory.mktemp("mini")
    lines = []
    for number, sample in enumerate(minis):
        cv2.imwrite(str(folder / f"{number}.png"), sample.image_bgr)
        for name, picture in sample.masks.items():
            cv2.imwrite(str(folder / f"{number}_{name}.png"), picture)
        record = record_of(sample, f"{number}.png", {name: f"{number}_{name}.png" for name in sample.masks})
        lines.append(json.dumps({**record, "split": "train"}))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "samples.jsonl"


@pytest.fixture(scope="session")
def proposals(tmp_path_factory) -> str:
    """A cache that all tests share: proposals of a picture cost more than anything else here."""
    return str(tmp_path_factory.mktemp("proposals"))


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    tokenizer = build_tokenizer()
    return Encoder(tokenizer, Layout.of(tokenizer, build_model(SIZES["tiny"], tokenizer).config))


@pytest.fixture
def workshop(encoder, proposals):
    """Makes a workshop with settings of `RecipeConfig`."""

    def make(**settings) -> Workshop:
        return Workshop.of(encoder, RecipeConfig(cache=proposals, **settings), LossWeights(), None, 24)

    return make


@pytest.fixture
def read(encoder):
    """What a conversation says and what it teaches, as text."""

    def texts(conversation) -> tuple[str, str]:
        taught = [label for label in conversation.labels if label != IGNORE]
        return encoder.tokenizer.decode(list(conversation.ids)), encoder.tokenizer.decode(taught)

    return texts


@pytest.fixture
def real_tusimple() -> Path:
    """The small part of TuSimple beside the repository."""
    root = Path(os.environ.get("GETOK_DATA", Path(__file__).parents[4] / "shared/data"))
    if not (root / "tusimple").is_dir():
        pytest.skip(f"no {root / 'tusimple'}; set GETOK_DATA to the folder of the small real data sets")
    return root / "tusimple"
