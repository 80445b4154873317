"""HumanRef, LISA++, PixMo-Points and region captions: miniatures in the official formats, and broken ones."""

import hashlib
import json
import pickle

import numpy as np
import pytest

from getok_drive.errors import ConfigError, InputError
from training.datasets import captions, humanref, lisa_plus, pixmo_points
from training.datasets.checks import check_sample
from training.datasets.phrases import region_mask
from training.datasets.shapes import encode_rle

from .minis import road_photo, write, write_json, write_text
from .test_referring import INSTANCES, NAME, reference


def lines(path, records):
    return write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def square(x, y, side):
    """Pairs of a square's corners, from the picture's corner."""
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def flat(points):
    return [value for point in points for value in point]


def no_errors(sample):
    assert [text for level, text in check_sample(sample) if level == "error"] == []


# --- HumanRef --------------------------------------------------------------------------------------------------------


def person(x, width=20):
    mask = np.zeros((180, 320), bool)
    mask[60:120, x : x + width] = True
    return [x, 60, x + width, 120], encode_rle(mask)


def human(number, referring, answers, domain="attribute", image="a.jpg"):
    people = [person(x) for x in (20, 100, 200)]
    return {
        "id": number, "image_name": image, "referring": referring, "domain": domain, "sub_domain": f"1000_{domain}_with_mask",
        "candidate_boxes": [box for box, _ in people], "answer_boxes": [people[k][0] for k in answers],
        "answer_segmentations": [people[k][1] for k in answers],
    }  # fmt: skip


def test_humanref(tmp_path):
    write(tmp_path / "images/a.jpg", road_photo())
    entries = [human(0, "the two on the left", [0, 1]), human(1, "a man on a horse", [], "rejection")]
    lines(tmp_path / "annotations.jsonl", [*entries, human(2, "someone", [0], image="gone.jpg")])
    samples = humanref.open_samples(tmp_path)
    assert samples.keys == ["humanref:a.jpg"] and samples.skipped == [("gone.jpg", "no such picture in images/")]
    sample = samples[0]
    two, nobody = sample.phrases
    assert (two.task, two.text, len(two.regions), len(two.candidates)) == ("refer", "the two on the left", 2, 3)
    assert two.regions[1].xyxy_px.tolist() == [99.5, 59.5, 119.5, 119.5] and two.regions[1].label == "person"
    assert region_mask(two.regions[1])[60:120, 100:120].all() and region_mask(two.regions[1]).sum() == 1200
    assert nobody.regions == () and nobody.attributes["domain"] == "rejection" and len(nobody.candidates) == 3
    assert sample.known == ()
    no_errors(sample)


def test_humanref_broken(tmp_path):
    write(tmp_path / "images/a.jpg", road_photo())
    broken = human(0, "x", [0, 1])
    broken["answer_segmentations"].pop()
    lines(tmp_path / "annotations.jsonl", [broken])
    with pytest.raises(InputError, match=r"annotations\.jsonl: line 1: InputError: 2 answer_boxes with 1 answer_segmentations"):
        humanref.open_samples(tmp_path)[0]
    wrong = human(0, "x", [0])
    wrong["answer_segmentations"][0]["size"] = [320, 180]
    lines(tmp_path / "annotations.jsonl", [wrong])
    with pytest.raises(InputError, match="a mask of 180x320 px in a picture of 320x180 px"):
        humanref.open_samples(tmp_path)[0]
    lines(tmp_path / "annotations.jsonl", [{"image_name": "a.jpg"}])
    with pytest.raises(InputError, match="line 1 lacks answer_boxes, referring"):
        humanref.open_samples(tmp_path)
    with pytest.raises(ConfigError, match=r"no annotations\.jsonl"):
        humanref.open_samples(tmp_path / "images")


# --- LISA++ ----------------------------------------------------------------------------------------------------------

LISA_IMAGE = "000000000009.jpg"
INFO = {
    "380": {"points": square(20, 20, 10), "label name": "remote"},  # pairs
    "348": {"polygon": [flat(square(60, 20, 10)), flat(square(80, 20, 10))], "label name": "remote"},  # COCO's flat lists
    "7": [square(100, 20, 20), square(130, 20, 20)],  # nested pairs, without a label
    "9": {"points": [], "label name": "cat"},  # no mask
}


@pytest.fixture
def lisa(tmp_path):
    """Write one file of LISA++; returns the only sample."""
    write(tmp_path / "coco/train2017" / LISA_IMAGE, road_photo())

    def make(name, record):
        write_json(tmp_path / "lisa" / name, [record])
        samples = lisa_plus.open_samples(tmp_path / "lisa")
        assert samples.keys == [f"lisa_plus:{LISA_IMAGE}"]
        no_errors(samples[0])
        return samples[0]

    return make


def test_lisa_plus_instances(lisa):
    record = {"img_path": LISA_IMAGE, "English Question": "What changes the channel? ", "ID": ["380", "348", "9"], "points": INFO}
    sample = lisa("LISA_Plus_Instance_Seg/data.json", record)
    (phrase,) = sample.phrases
    assert (phrase.task, phrase.text, phrase.answer) == ("refer", "What changes the channel?", "")
    assert [int(region_mask(region).sum()) for region in phrase.regions] == [100, 200]
    assert [region.label for region in phrase.regions] == ["remote", "remote"]
    assert phrase.regions[0].xyxy_px.tolist() == [19.5, 19.5, 29.5, 29.5]
    assert sample.meta["left_out"] == {"instance without a mask": 1}


@pytest.mark.parametrize(
    ("answer", "expected", "areas"),
    [
        ("Use [<380| remote>, <348| remote>].", "Use <region_0> and <region_1>.", [100, 200]),
        ("Use [remote <348>, remote <7>, remote <380>] now", "Use <region_0>, <region_1> and <region_2> now", [200, 800, 100]),
        ("The 《7|two》 and again <7|two>", "The <region_0> and again <region_0>", [800]),
        ("No <9|cat> on <12345|sofa>", "No cat on sofa", []),
        ("It is [sic] here: <380|remote>", "It is [sic] here: <region_0>", [100]),
    ],
)
def test_lisa_plus_answers(lisa, answer, expected, areas):
    record = {"image_path": LISA_IMAGE, "English Question": "And how?", "English Answer": answer, "info": INFO}
    (phrase,) = lisa("LISA_Plus_COT.json", record).phrases
    assert (phrase.task, phrase.text, phrase.answer) == ("question", "And how?", expected)
    assert [int(region_mask(region).sum()) for region in phrase.regions] == areas


def test_lisa_plus_conversations(lisa):
    output = "<person>: Where is <380|the remote>? <robot>: There: <380|remote>. <person>: And the rest?<robot>: At [two <7>]."
    first, second = lisa("LISA_Plus_Conversations.json", {"img_pth": LISA_IMAGE, "output": output, "info": INFO}).phrases
    assert (first.text, first.answer) == ("Where is <region_0>?", "There: <region_0>.") and len(first.regions) == 1
    assert (second.text, second.answer) == ("And the rest?", "At <region_0>.") and second.attributes["turn"] == "1"
    assert int(region_mask(second.regions[0]).sum()) == 800


def test_lisa_plus_broken(tmp_path):
    write(tmp_path / "train2017" / LISA_IMAGE, road_photo())
    write_json(tmp_path / "data.json", [{"img_path": LISA_IMAGE, "ID": ["1"], "points": {}}, {"img_path": "no.jpg"}])
    samples = lisa_plus.open_samples(tmp_path)
    assert samples.skipped[0][0] == "no.jpg" and samples[0].phrases == ()  # the only instance has no mask
    write_json(tmp_path / "data.json", [{"img_path": LISA_IMAGE, "info": {}}])
    with pytest.raises(InputError, match=r"data\.json: record 0: KeyError: 'English Question'"):
        lisa_plus.open_samples(tmp_path)[0]
    write_json(tmp_path / "data.json", [{"image": LISA_IMAGE}])
    with pytest.raises(InputError, match="record 0 has none of img_path, image_path, img_pth"):
        lisa_plus.open_samples(tmp_path)
    with pytest.raises(ConfigError, match="no LISA_Plus"):
        lisa_plus.open_samples(tmp_path / "train2017")


# --- PixMo-Points ----------------------------------------------------------------------------------------------------

ADDRESS = "https://example.org/a.jpg"


def pixmo_rows(image, points, label="the wheels", **changes):
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    row = {"image_url": ADDRESS, "image_sha256": digest, "points": [{"x": x, "y": y} for x, y in points], "count": len(points)}
    return {**row, "label": label, "collection_method": "pointing", **changes}


@pytest.mark.parametrize("suffix", ["", ".jpg"])
@pytest.mark.parametrize("parquet", [False, True])
def test_pixmo_points(tmp_path, parquet, suffix):
    image = write(tmp_path / "a.png", road_photo())
    rows = [pixmo_rows(image, [(0.0, 0.0), (50.0, 25.0), (100.0, 100.0)]), pixmo_rows(image, [], "elephants")]
    rows.append({**rows[0], "image_url": "https://example.org/b.jpg"})
    if parquet:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        (tmp_path / "data").mkdir()
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data/train-00000-of-00001.parquet")
    else:
        lines(tmp_path / "rows.jsonl", rows)
    (tmp_path / "images").mkdir()
    image.rename(tmp_path / "images" / (hashlib.sha256(ADDRESS.encode()).hexdigest() + suffix))
    samples = pixmo_points.open_samples(tmp_path)
    assert len(samples) == 1 and samples.skipped[0][0] == "https://example.org/b.jpg" and "not fetched" in samples.skipped[0][1]
    wheels, elephants = samples[0].phrases
    assert (wheels.task, wheels.text, wheels.attributes) == ("point", "the wheels", {"collection_method": "pointing"})
    assert [region.point_px.tolist() for region in wheels.regions] == [[0, 0], [159.5, 44.5], [319, 179]]
    assert elephants.regions == ()
    no_errors(samples[0])


def test_pixmo_points_broken(tmp_path):
    image = write(tmp_path / "images/a.png", road_photo())
    name = pixmo_rows(image, [])["image_sha256"]
    image = image.rename(tmp_path / "images" / name)  # named by its content
    lines(tmp_path / "rows.jsonl", [pixmo_rows(image, [(200.0, 30.0)])])
    with pytest.raises(InputError, match=r"rows\.jsonl: row 1: InputError: a point at \[200\.0, 30\.0\] of 100 %"):
        pixmo_points.open_samples(tmp_path)[0]
    lines(tmp_path / "rows.jsonl", [{**pixmo_rows(image, []), "points": {"x": [5.0], "y": [5.0]}}])
    with pytest.raises(InputError, match="rows of PixMo-Count"):
        pixmo_points.open_samples(tmp_path)[0]
    lines(tmp_path / "rows.jsonl", [pixmo_rows(image, [])])
    samples = pixmo_points.open_samples(tmp_path)
    write(tmp_path / "b.png", road_photo(160, 90)).rename(image)
    with pytest.raises(InputError, match="not the picture that was labelled"):
        samples[0]
    lines(tmp_path / "rows.jsonl", [{"image_url": ADDRESS}])
    with pytest.raises(InputError, match="row 1 lacks points, label; is it PixMo-Points"):
        pixmo_points.open_samples(tmp_path)


# --- region captions -------------------------------------------------------------------------------------------------


def vg_region(number, x, y, width, height, phrase):
    return {"region_id": number, "image_id": 1, "phrase": phrase, "x": x, "y": y, "width": width, "height": height}


def test_visual_genome(tmp_path):
    write(tmp_path / "VG_100K/1.jpg", road_photo())
    write(tmp_path / "VG_100K_2/2.jpg", road_photo())
    regions = [
        vg_region(10, 20, 30, 40, 50, "a parked car "),
        vg_region(11, 300, 100, 40, 20, "pole at the edge"),  # runs out of the picture
        vg_region(12, 400, 100, 40, 20, "outside"),
        vg_region(13, 0, 0, 9, 9, " "),
    ]
    entries = [{"id": 1, "regions": regions}, {"id": 2, "regions": regions[:1]}, {"id": 3, "regions": []}]
    write_json(tmp_path / "region_descriptions.json", entries)
    data = [{"image_id": 1, "width": 320, "height": 180, "coco_id": 77, "flickr_id": None, "url": "https://example.org/1.jpg"}]
    write_json(tmp_path / "image_data.json", data)
    samples = captions.open_samples(tmp_path)
    assert samples.keys == ["captions:VG_100K/1.jpg", "captions:VG_100K_2/2.jpg"] and samples.skipped[0][0] == "3.jpg"
    car, pole = samples[0].phrases
    assert (car.task, car.text, car.regions[0].xyxy_px.tolist()) == ("caption", "a parked car", [19.5, 29.5, 59.5, 79.5])
    assert pole.regions[0].xyxy_px.tolist() == [299.5, 99.5, 319, 119.5]
    assert samples[0].meta["coco_id"] == 77 and samples[0].meta["left_out"] == {"region without text or outside the picture": 2}
    no_errors(samples[0])
    data[0]["width"] = 640
    write_json(tmp_path / "image_data.json", data)
    with pytest.raises(InputError, match=r"1\.jpg: 320x180 px, image_data\.json says 640x180 px; it was resized"):
        captions.open_samples(tmp_path)[0]
    write_json(tmp_path / "region_descriptions.json", [{"id": 2, "regions": [{"region_id": 10, "phrase": "x"}]}])
    with pytest.raises(InputError, match=r"region_descriptions\.json: region 10: KeyError: 'x'"):
        captions.open_samples(tmp_path)[0]


def test_refcocog_captions(tmp_path):
    write(tmp_path / f"train2014/{NAME}", road_photo())
    write_json(tmp_path / "instances.json", INSTANCES)
    refs = [reference(1, 11, ["a car on the left", "car near the kerb"]), reference(2, 12, ["the far car"], "val")]
    (tmp_path / "refs(umd).p").write_bytes(pickle.dumps(refs, protocol=2))
    (tmp_path / "refs(google).p").write_bytes(pickle.dumps([], protocol=2))  # umd is preferred
    first, second = captions.open_samples(tmp_path, "train")[0].phrases
    assert (first.task, first.text, second.text) == ("caption", "a car on the left", "car near the kerb")
    assert first.regions[0].xyxy_px.tolist() == [39.5, 99.5, 79.5, 129.5] and region_mask(first.regions[0]).sum() == 1200
    assert [p.text for p in captions.open_samples(tmp_path, "val")[0].phrases] == ["the far car"]
    with pytest.raises(ConfigError, match="neither"):
        captions.open_samples(tmp_path / "train2014")
