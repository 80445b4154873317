"""The RefCOCO family and ReasonSeg: miniatures in the official formats, and files that try to run code."""

import json
import pickle

import numpy as np
import pytest

from getok_drive.errors import ConfigError, InputError
from training.datasets import referring
from training.datasets.phrases import region_mask, union_mask
from training.datasets.shapes import decode_rle, encode_rle

from .minis import road_photo, write, write_json

NAME = "COCO_train2014_000000581857.jpg"
INSTANCES = {
    "images": [{"id": 581857, "file_name": NAME, "width": 320, "height": 180}],
    "categories": [{"id": 3, "name": "car"}],
    "annotations": [
        {"id": 11, "image_id": 581857, "bbox": [40, 100, 40, 30], "segmentation": [[40, 100, 80, 100, 80, 130, 40, 130]]},
        {"id": 12, "image_id": 581857, "bbox": [200, 100, 20, 20], "segmentation": [[200, 100, 220, 100, 220, 120, 200, 120]]},
    ],
}


def reference(number, annotation, texts, split="train"):
    sentences = [
        {"raw": text.upper(), "sent": text, "tokens": text.split(), "sent_id": number * 10 + k} for k, text in enumerate(texts)
    ]
    return {"ref_id": number, "ann_id": annotation, "image_id": 581857, "category_id": 3, "split": split, "sentences": sentences}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "refer_seg/refcoco"
    write(tmp_path / f"refer_seg/images/mscoco/images/train2014/{NAME}", road_photo())
    write_json(folder / "instances.json", INSTANCES)
    return folder


def test_refcoco(root):
    refs = [reference(1, 11, ["left car", "the big one"]), reference(2, 12, ["right car"], "testB")]
    (root / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    sample = referring.open_samples(root, "train")[0]
    assert sample.known == () and sample.meta["source"] == f"referring:{NAME}"
    assert [phrase.text for phrase in sample.phrases] == ["left car", "the big one"]
    assert all(phrase.task == "refer" and len(phrase.regions) == 1 for phrase in sample.phrases)
    region = sample.phrases[0].regions[0]
    assert region.xyxy_px.tolist() == [39.5, 99.5, 79.5, 129.5]
    mask = region_mask(region)
    assert mask[100:130, 40:80].all() and mask.sum() == 1200
    assert [len(referring.open_samples(root, split)) for split in ("test", "testB", "testA", "val")] == [1, 1, 0, 0]
    assert len(referring.open_samples(root)[0].phrases) == 3


def test_grefcoco(root):
    refs = [reference(1, [11, 12], ["both cars"]), {**reference(2, [-1], ["the elephant"]), "no_target": True}]
    write_json(root / "grefs(unc).json", refs)
    both, nothing = referring.open_samples(root, "train")[0].phrases
    assert len(both.regions) == 2 and union_mask(both, (320, 180)).sum() == 1600
    assert [int(region_mask(region).sum()) for region in both.regions] == [1200, 400]
    assert nothing.regions == () and not union_mask(nothing, (320, 180)).any()


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_pickles_that_are_not_plain_are_refused(root, capsys):
    (root / "refs(unc).p").write_bytes(pickle.dumps([Evil()], protocol=2))
    with pytest.raises(InputError, match=r"refs\(unc\)\.p: not a plain list .*builtin.*print"):
        referring.open_samples(root, "train")
    assert capsys.readouterr().out == ""
    (root / "refs(unc).p").write_bytes(b"garbage")
    with pytest.raises(InputError, match="not a plain list"):
        referring.open_samples(root, "train")


def test_broken_references(root):
    write_json(root / "grefs(unc).json", [reference(1, [99], ["x"])])
    with pytest.raises(InputError, match="names annotation 99"):
        referring.open_samples(root, "train")[0]
    with pytest.raises(ConfigError, match="unknown split 'minival'"):
        referring.open_samples(root, "minival")
    with pytest.raises(ConfigError, match="neither"):
        referring.open_samples(root.parent, "val")


def test_reasonseg(tmp_path):
    def square(label, x, y, size):
        points = [[x, y], [x + size, y], [x + size, y + size], [x, y + size]]
        return {"label": label, "labels": [label], "shape_type": "polygon", "image_name": "a.jpg", "points": points}

    write(tmp_path / "val/a.jpg", road_photo())
    shapes = [square("target", 50, 50, 39), square("ignore", 60, 60, 9), square("flag", 0, 0, 5)]
    record = {"text": ["what would you brake for – and why?", "the obstacle"], "is_sentence": True, "shapes": shapes}
    (tmp_path / "val/a.json").write_bytes(json.dumps(record, ensure_ascii=False).encode("cp1252"))
    write_json(tmp_path / "val/b.json", record)
    samples = referring.open_samples(tmp_path, "val")
    assert samples.skipped == [("val/b.json", "no .jpg beside it")]
    question, short = samples[0].phrases
    assert "–" in question.text and short.text == "the obstacle" and question.attributes == {"form": "question"}
    target = region_mask(question.regions[0])
    ignored = decode_rle(question.ignore["counts"], (180, 320))
    assert target[51, 51] and not target[65, 65] and ignored[65, 65] and not (target & ignored).any()
    x0, y0, x1, y1 = question.regions[0].xyxy_px
    assert abs(x0 - 50) <= 1 and abs(y1 - 89) <= 1 and x1 > x0 and y1 > y0


def test_run_lengths_round_trip():
    rng = np.random.default_rng(3)
    for _ in range(50):
        height, width = rng.integers(1, 30, 2)
        mask = rng.random((height, width)) < rng.random()
        rle = encode_rle(mask)
        assert sum(rle["counts"]) == mask.size and (decode_rle(rle["counts"], (height, width)) == mask).all()
