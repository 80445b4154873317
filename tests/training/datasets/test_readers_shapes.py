"""Pascal VOC, COCO, CVAT and Datumaro: one scene in each format gives the same elements; broken files are named."""

import json
from collections import Counter

import numpy as np
import pytest

from getok_drive.errors import ConfigError, InputError
from training.datasets import coco, cvat, datumaro, voc
from training.datasets.classes import meaning_of
from training.datasets.shapes import decode_rle
from training.object_masks import object_masks

from .minis import road_photo, write, write_json, write_text

ROAD = [(0, 180), (0, 150), (140, 100), (180, 100), (320, 150), (320, 180)]  # counted from the picture's corner
LINE = [(110, 175), (150, 100)]


def check(sample, lanes=True):
    car, bicycle = sorted(sample.boxes, key=lambda box: float(box.xyxy_px[0]))
    assert car.class_name == "car" and np.allclose(car.xyxy_px, [39.5, 99.5, 79.5, 129.5], atol=0.51)
    assert bicycle.class_name == "two_wheeler"
    (stop,) = sample.signs
    assert (stop.class_name, stop.color) == ("stop", "red") and np.allclose(stop.point_px, [209.5, 39.5])
    (area,) = sample.drivable
    assert np.allclose(area.polygon_px.max(0), [319.5, 179.5], atol=1) and area.polygon_px[:, 1].min() < 102
    if lanes:
        (lane,) = sample.lanes
        assert (lane.type, lane.color) == ("dashed", "yellow")
        assert lane.points_px.tolist() == [[109.5, 174.5], [149.5, 99.5]]
        assert set(sample.known) == {"lanes", "drivable", "boxes", "signs"}
    else:
        assert set(sample.known) == {"drivable", "boxes", "signs"}
    assert sample.meta["left_out"] == {"tree": 1}


# --- Pascal VOC ------------------------------------------------------------------------------------------------------

VOC = """<annotation><folder>images</folder><filename>road52.png</filename>
<size><width>320</width><height>180</height><depth>3</depth></size>
{}</annotation>"""
OBJECT = """<object><name>{}</name><truncated>0</truncated>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


@pytest.fixture
def voc_root(tmp_path):
    for stem in ("road52", "road53", "road61"):
        write(tmp_path / f"images/{stem}.png", road_photo())
        objects = [
            OBJECT.format("speedlimit", 101, 51, 121, 71),
            OBJECT.format("trafficlight", 11, 11, 31, 71),
            OBJECT.format("ad", 1, 1, 5, 5),
        ]
        write_text(tmp_path / f"annotations/{stem}.xml", VOC.format("".join(objects)))
    return tmp_path


def test_voc(voc_root):
    samples = voc.open_samples(voc_root)
    assert samples.keys[0] == "voc:images/road52.png" and samples.sequences == ["road5x", "road5x", "road6x"]
    sample = samples[0]
    assert sample.known == ("signs",) and sample.meta["left_out"] == ["ad"]
    limit, light = sample.signs
    assert (limit.class_name, limit.color, limit.point_px.tolist()) == ("speed_limit", "white", [110, 60])
    assert (light.class_name, light.color) == ("traffic_light", "black")  # no lamp glows
    assert sample.meta["labelled_classes"] == {"signs": ("speed_limit", "traffic_light")}
    write_text(voc_root / "ImageSets/Main/val.txt", "road53\n")
    assert voc.open_samples(voc_root, "val").keys == ["voc:images/road53.png"]
    with pytest.raises(ConfigError, match=r"no split 'test'.*has val"):
        voc.open_samples(voc_root, "test")


def test_voc_broken(voc_root):
    path = voc_root / "annotations/road52.xml"
    good = path.read_text()
    path.write_text(good[:-20])
    with pytest.raises(InputError, match=r"road52\.xml: broken XML"):
        voc.open_samples(voc_root)[0]
    path.write_text(good.replace("<width>320", "<width>640"))
    with pytest.raises(InputError, match="made for 640x180 px, the picture has 320x180"):
        voc.open_samples(voc_root)[0]
    path.write_text(good.replace("<xmax>121", "<xmax>101"))
    with pytest.raises(InputError, match="speedlimit has an empty box"):
        voc.open_samples(voc_root)[0]
    path.write_text('<!DOCTYPE x [<!ENTITY a "b">]>' + good)
    with pytest.raises(InputError, match="declares entities"):
        voc.open_samples(voc_root)[0]
    with pytest.raises(ConfigError, match="needs annotations/"):
        voc.open_samples(voc_root / "images")


def test_voc_real(real):
    samples = voc.open_samples(real("road_signs"))
    assert len(samples) == 701
    signs = [sign for index in range(0, 701, 25) for sign in samples[index].signs]
    assert (
        set(Counter(sign.class_name for sign in signs)) <= {"speed_limit", "crosswalk", "stop", "traffic_light"}
        and len(signs) > 28
    )
    parts = [set(voc.open_samples(real("road_signs"), split).sequences) for split in ("train", "val", "test")]
    assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


# --- COCO ------------------------------------------------------------------------------------------------------------


def corners(points):
    return [float(value) for point in points for value in point]


def rle_of(mask):
    """Run lengths down the columns, first of zeros."""
    flat = mask.T.ravel().astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


@pytest.fixture
def coco_root(tmp_path):
    write(tmp_path / "val2017/000000000139.jpg", road_photo())
    square = np.zeros((180, 320), bool)
    square[60:100, 200:220] = True
    names = ["car", "bicycle", "stop sign", "road", "tree"]
    annotations = [
        {"category_id": 1, "bbox": [40, 100, 40, 30], "segmentation": [corners([(40, 100), (80, 100), (80, 130), (40, 130)])]},
        {"category_id": 2, "bbox": [200, 60, 20, 40], "segmentation": {"counts": rle_of(square), "size": [180, 320]}},
        {"category_id": 3, "bbox": [205, 35, 10, 10]},
        {"category_id": 4, "segmentation": [corners(ROAD)]},
        {"category_id": 5, "bbox": [0, 0, 10, 10]},
        {"category_id": 1, "bbox": [100, 90, 60, 10], "iscrowd": 1, "segmentation": {"counts": [57600], "size": [180, 320]}},
    ]
    record = {
        "images": [{"id": 139, "file_name": "000000000139.jpg", "width": 320, "height": 180, "license": 2}],
        "licenses": [{"id": 2, "name": "Attribution License"}],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
        "annotations": [{"id": k, "image_id": 139, "iscrowd": 0, **a} for k, a in enumerate(annotations)],
    }
    write_json(tmp_path / "annotations/instances_val2017.json", record)
    write_json(tmp_path / "annotations/captions_val2017.json", {"annotations": []})
    return tmp_path


def test_coco(coco_root):
    samples = coco.open_samples(coco_root, "val")
    assert samples.keys == ["coco:val2017/000000000139.jpg"]
    sample = samples[0]
    check(sample, lanes=False)
    assert np.allclose(sample.meta["ignore_xyxy_px"], [[99.5, 89.5, 159.5, 99.5]])
    instance = sample.masks["instance"]
    assert (instance[60:100, 200:220] == 2).all() and (instance == 2).sum() == 800 and (instance == 1).sum() > 1000
    assert sample.meta["license"] == "Attribution License"
    with pytest.raises(ConfigError, match="no annotation file for split 'train'"):
        coco.open_samples(coco_root, "train")


def test_coco_masks_keep_their_boxes_where_riders_stand_alone(coco_root):
    path = coco_root / "annotations/instances_val2017.json"
    record = json.loads(path.read_text())
    record["categories"].append({"id": 6, "name": "rider"})
    block = [corners([(300, 100), (310, 100), (310, 130), (300, 130)])]
    record["annotations"].insert(
        0, {"id": 99, "image_id": 139, "category_id": 6, "bbox": [300, 100, 10, 30], "segmentation": block}
    )
    write_json(path, record)
    sample = coco.open_samples(coco_root, "val")[0]
    assert [box.class_name for box in sample.boxes] == ["car", "two_wheeler", "two_wheeler"]  # riders come last
    found = {item.label: item.mask for item in object_masks(sample) if item.name == "instance:1"}
    assert found["car"][115, 60] and not found["car"][115, 305]
    assert sample.masks["instance"][115, 305] == 3


def test_coco_crowds_of_other_things_hide_no_boxes(coco_root):
    path = coco_root / "annotations/instances_val2017.json"
    record = json.loads(path.read_text())
    record["annotations"].append({"id": 98, "image_id": 139, "category_id": 5, "bbox": [0, 0, 320, 180], "iscrowd": 1})
    write_json(path, record)
    assert len(coco.open_samples(coco_root, "val")[0].meta["ignore_xyxy_px"]) == 1  # the cars', not the trees'


def test_coco_broken(coco_root):
    path = coco_root / "annotations/instances_val2017.json"
    record = json.loads(path.read_text())
    record["annotations"][1]["segmentation"]["counts"][0] += 5
    write_json(path, record)
    with pytest.raises(InputError, match=r"instances_val2017\.json: annotation 1: .*run lengths add up to 57605"):
        coco.open_samples(coco_root, "val")[0]
    record["images"][0]["width"] = 640
    write_json(path, record)
    with pytest.raises(InputError, match="640x180 px there, 320x180 px on disk"):
        coco.open_samples(coco_root, "val")[0]
    path.write_text(path.read_text()[:200])
    with pytest.raises(InputError, match="broken JSON at line 1"):
        coco.open_samples(coco_root, "val")


def test_coco_run_lengths():
    holed = np.zeros((9, 50), bool)
    holed[2:7, 5:30] = True
    holed[3, 12] = False
    tall = np.zeros((40, 60), bool)
    tall[5:33, 20:24] = True
    # texts as pycocotools 2.0 writes them
    for text, mask in (("_154000000000000LM23200000000000000000000000000000000b5", holed), (r"Ui0l0<00000k\1", tall)):
        assert (decode_rle(text, mask.shape) == mask).all() and (decode_rle(rle_of(mask), mask.shape) == mask).all()
    with pytest.raises(InputError, match="cut off"):
        decode_rle("Ui0l", (40, 60))
    with pytest.raises(InputError, match="the picture has 2401"):
        decode_rle(r"Ui0l0<00000k\1", (49, 49))


# --- CVAT ------------------------------------------------------------------------------------------------------------


def pairs(points):
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in points)


CVAT_LABELS = "".join(
    f"<label><name>{name}</name></label>" for name in ("Car", "bike", "stop sign", "road", "lane marking", "tree")
)
CVAT = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><size>1</size><mode>annotation</mode><labels>{CVAT_LABELS}</labels></task></meta>
<image id="0" name="drive1/000001.png" subset="Train" width="320" height="180">
  <box label="Car" occluded="1" source="manual" xtl="40.00" ytl="100.00" xbr="80.00" ybr="130.00" z_order="0"></box>
  <mask label="bike" occluded="0" rle="0, 800" left="200" top="60" width="20" height="40"></mask>
  <points label="stop sign" occluded="0" points="210.00,40.00"></points>
  <polygon label="road" occluded="0" points="{pairs(ROAD)}"></polygon>
  <polyline label="lane marking" occluded="0" points="{pairs(LINE)}">
    <attribute name="type">dashed</attribute><attribute name="color">yellow</attribute></polyline>
  <box label="tree" occluded="0" xtl="0" ytl="0" xbr="10" ybr="10"></box>
</image></annotations>"""


def test_cvat_images(tmp_path):
    write(tmp_path / "images/drive1/000001.png", road_photo())
    path = write_text(tmp_path / "annotations.xml", CVAT)
    samples = cvat.open_samples(tmp_path, "train")
    check(samples[0])
    assert samples.sequences == ["drive1"] and samples[0].meta["derived"] == ("drivable",)
    assert samples[0].boxes[0].attributes == {"visible_state": "partly_occluded"}
    assert len(cvat.open_samples(path, "val")) == 0
    path.write_text(CVAT.replace('subset="Train"', 'subset="Validation"'))
    assert [len(cvat.open_samples(path, split)) for split in ("train", "val")] == [0, 1]
    path.write_text(CVAT.replace('points="210.00,40.00"', 'points="210.00;40.00"'))
    with pytest.raises(InputError, match=r"annotations\.xml: points 'stop sign'"):
        cvat.open_samples(tmp_path)[0]
    path.write_text(CVAT.replace("<annotations>", "<dataset>").replace("</annotations>", "</dataset>"))
    with pytest.raises(InputError, match="outer element is <dataset>"):
        cvat.open_samples(tmp_path)


def test_cvat_video(tmp_path):
    for number in range(3):
        write(tmp_path / f"images/frame_{number:06d}.png", road_photo())
    points = pairs(LINE)
    tracks = "".join(
        f'<polyline frame="{k}" keyframe="1" outside="{int(k == 2)}" occluded="0" points="{points}"/>' for k in range(3)
    )
    text = (
        f'<annotations><meta><task><size>4</size></task></meta><track id="7" label="solid_white">{tracks}</track></annotations>'
    )
    write_text(tmp_path / "annotations.xml", text)
    samples = cvat.open_samples(tmp_path)
    assert [len(sample.lanes) for sample in samples] == [1, 1, 0] and len(set(samples.sequences)) == 1
    assert (samples[0].lanes[0].type, samples[0].lanes[0].color) == ("solid", "white") and samples[2].known == ("lanes",)
    assert samples.skipped == [("annotations/frame_000003", "no such picture in images/; export with 'save images'")]


# --- Datumaro --------------------------------------------------------------------------------------------------------


def test_datumaro(tmp_path):
    names = ["car", "cyclist", "stop", "drivable_area", "dashed_yellow", "tree"]
    annotations = [
        {"id": 0, "type": "bbox", "label_id": 0, "bbox": [40.0, 100.0, 40.0, 30.0], "attributes": {"occluded": False}},
        {
            "id": 0,
            "type": "polygon",
            "label_id": 1,
            "points": corners([(200, 60), (220, 60), (220, 100), (200, 100)]),
            "attributes": {},
        },
        {"id": 0, "type": "points", "label_id": 2, "points": [210.0, 40.0], "attributes": {}},
        {"id": 0, "type": "polygon", "label_id": 3, "points": corners(ROAD), "attributes": {}},
        {"id": 0, "type": "polyline", "label_id": 4, "points": corners(LINE), "attributes": {}},
        {"id": 0, "type": "bbox", "label_id": 5, "bbox": [0, 0, 10, 10], "attributes": {}},
        {"id": 0, "type": "label", "label_id": 0, "attributes": {"surface_condition": "wet"}},
    ]
    record = {
        "info": {},
        "categories": {"label": {"labels": [{"name": name, "parent": "", "attributes": []} for name in names]}},
        "items": [
            {"id": "d1/a", "annotations": annotations, "image": {"path": "d1/a.png", "size": [180, 320]}},
            {"id": "d1/b", "annotations": [], "image": {"path": "d1/b.png"}},
        ],
    }
    write(tmp_path / "images/train/d1/a.png", road_photo())
    path = write_json(tmp_path / "annotations/train.json", record)
    samples = datumaro.open_samples(tmp_path, "train")
    check(samples[0])
    assert samples[0].scene == {"surface_condition": "wet"} and samples.sequences == ["train/d1"]
    assert [name for name, _ in samples.skipped] == ["train/d1/b"]
    with pytest.raises(ConfigError, match="no subset 'val'; there is train"):
        datumaro.open_samples(tmp_path, "val")
    annotations[0]["label_id"] = 9
    write_json(path, record)
    with pytest.raises(InputError, match="label_id 9 of a bbox; there are 6 labels"):
        datumaro.open_samples(tmp_path)[0]


def test_names_of_things():
    assert meaning_of("Traffic-Light").word == "traffic_light" and meaning_of("person").word == "pedestrian"
    assert meaning_of("driveable area").kind == "drivable" and meaning_of("white/dashed") == meaning_of("dashed_white_line")
    assert meaning_of("cat") is None
