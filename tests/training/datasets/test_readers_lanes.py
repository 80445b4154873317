"""TuSimple, CULane and BDD100K: miniatures in the official formats, the real material, and broken files."""

import json
from pathlib import Path

import numpy as np
import pytest

from getok_drive.errors import ConfigError, InputError
from training.datasets import bdd100k, culane, tusimple

from .minis import road_photo, write, write_json, write_text

# --- TuSimple --------------------------------------------------------------------------------------------------------


@pytest.fixture
def tusimple_root(tmp_path):
    rows = list(range(100, 180, 10))
    lines = []
    for number in range(0, 36000, 3000):
        name = f"clips/0313-1/{number}/20.jpg"
        write(tmp_path / name, road_photo())
        lanes = [[-2, -2, *(150 - 8 * k for k in range(6))], [-2, *(160 + 20 * k for k in range(7))], [-2] * 7 + [5]]
        lines.append(json.dumps({"lanes": lanes, "h_samples": rows, "raw_file": name}))
    write_text(tmp_path / "label_data_0313.json", "\n".join(lines) + "\n")
    return tmp_path


def test_tusimple(tusimple_root):
    samples = tusimple.open_samples(tusimple_root, "all")
    assert len(samples) == 12 and samples.keys[1] == "tusimple:clips/0313-1/3000/20.jpg"
    sample = samples[0]
    assert sample.known == ("lanes",) and sample.size_wh == (320, 180)
    first, second = sample.lanes  # a lane of one point is no line
    assert first.points_px[0].tolist() == [110, 170] and first.points_px[-1].tolist() == [150, 120]
    assert len(second.points_px) == 7
    assert sample.meta["sequence"] == "0313-1/0" and "lane_type" in sample.meta["derived"] and sample.meta["terms"]


def test_tusimple_one_file_is_divided_by_stretches(tusimple_root):
    parts = {split: tusimple.open_samples(tusimple_root, split) for split in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == 12
    sequences = [set(part.sequences) for part in parts.values()]
    assert not (sequences[0] & sequences[1] | sequences[0] & sequences[2] | sequences[1] & sequences[2])


def test_tusimple_official_files(tusimple_root):
    text = (tusimple_root / "label_data_0313.json").read_text()
    (tusimple_root / "label_data_0531.json").write_text(text.splitlines()[0])
    assert len(tusimple.open_samples(tusimple_root, "train")) == 12
    assert len(tusimple.open_samples(tusimple_root, "val")) == 1
    with pytest.raises(ConfigError, match=r"test_label\.json"):
        tusimple.open_samples(tusimple_root, "test")


def test_tusimple_broken(tusimple_root):
    file = tusimple_root / "label_data_0313.json"
    good = file.read_text()
    file.write_text(good[:-40])
    with pytest.raises(InputError, match=r"label_data_0313\.json: line 12 is not JSON"):
        tusimple.open_samples(tusimple_root)
    record = json.loads(good.splitlines()[0])
    record["lanes"][0].pop()
    file.write_text(json.dumps(record))
    with pytest.raises(InputError, match="line 1: a lane of 7 columns for 8 rows"):
        tusimple.open_samples(tusimple_root)[0]
    file.write_text('{"annotations": []}')
    with pytest.raises(InputError, match="lacks raw_file"):
        tusimple.open_samples(tusimple_root)
    with pytest.raises(ConfigError, match="unknown split 'dev'"):
        tusimple.open_samples(tusimple_root, "dev")


def test_pictures_are_read_late_and_broken_ones_named(tusimple_root):
    picture = tusimple_root / "clips/0313-1/0/20.jpg"
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])  # OpenCV would fill the rest with grey
    (tusimple_root / "clips/0313-1/3000/20.jpg").unlink()
    samples = tusimple.open_samples(tusimple_root)
    with pytest.raises(InputError, match=r"0313-1/0/20\.jpg: the file is truncated"):
        samples[0]
    with pytest.raises(InputError, match=r"0313-1/3000/20\.jpg: cannot be read"):
        samples[1]
    assert samples[2].lanes and samples[-1].lanes and len(samples[2:5]) == 3


def test_tusimple_real(real):
    samples = tusimple.open_samples(real("tusimple"))
    assert len(samples) == 110
    counts, looks = [], []
    for index in range(0, 110, 12):
        lanes = samples[index].lanes
        counts.append(len(lanes))
        looks += [(lane.type, lane.color) for lane in lanes]
        assert all((np.diff(lane.points_px[:, 1]) < 0).all() for lane in lanes)
    assert 3 <= np.mean(counts) <= 5
    assert 0.5 < np.mean([kind == "dashed" for kind, _ in looks]) < 0.97  # highway: mostly dashed, some solid edges
    assert np.mean([color == "white" for _, color in looks]) > 0.75


# --- CULane ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def culane_root(tmp_path):
    names = [f"/driver_23_30frame/05151640_0419.MP4/{number:05d}.jpg" for number in (0, 30)]
    for name in names:
        write(tmp_path / name[1:], road_photo())
    write_text(
        tmp_path / names[0][1:].replace(".jpg", ".lines.txt"), "-20.5 175 60.25 140 120 110 \n200 110 230 140 262.5 170 \n9 9\n"
    )
    write_text(
        tmp_path / "list/train_gt.txt", f"{names[0]} /laneseg_label_w16{names[0][:-3]}png 1 1 0 0\n{names[1]} x.png 0 0 0 0\n"
    )
    write_text(tmp_path / "list/test_split/test2_hlight.txt", f"{names[0][1:]}\n")
    return tmp_path


def test_culane(culane_root):
    samples = culane.open_samples(culane_root, "train")
    assert len(samples) == 1 and samples.skipped == [
        ("driver_23_30frame/05151640_0419.MP4/00030.jpg", "no .lines.txt beside the picture")
    ]
    sample = samples[0]
    first, second = sample.lanes
    assert first.points_px.tolist() == [[60.25, 140], [120, 110]]  # the point left of the picture is dropped
    assert second.points_px[0].tolist() == [262.5, 170]  # turned to bottom to top
    assert sample.meta["sequence"] == "driver_23_30frame/05151640_0419.MP4"
    assert len(culane.open_samples(culane_root, "test2_hlight")) == 1


def test_culane_broken(culane_root):
    with pytest.raises(ConfigError, match="no list for split 'val'"):
        culane.open_samples(culane_root, "val")
    label = next(culane_root.rglob("*.lines.txt"))
    label.write_text("1 2 3\n")
    with pytest.raises(InputError, match=r"lines\.txt: line 1 has 3 numbers"):
        culane.open_samples(culane_root, "train")[0]
    label.write_text("1 2 three 4\n")
    with pytest.raises(InputError, match=r"lines\.txt: not a culane label"):
        culane.open_samples(culane_root, "train")[0]


# --- BDD100K ---------------------------------------------------------------------------------------------------------

BOX = {"x1": 40.0, "y1": 100.0, "x2": 80.5, "y2": 130.0}
DET = [
    {"id": "0", "category": "car", "attributes": {"occluded": True, "truncated": False}, "box2d": BOX},
    {"id": "1", "category": "bicycle", "attributes": {}, "box2d": {"x1": 200, "y1": 100, "x2": 220, "y2": 130}},
    {"id": "2", "category": "rider", "attributes": {}, "box2d": {"x1": 203, "y1": 80, "x2": 217, "y2": 120}},
    {
        "id": "3",
        "category": "traffic light",
        "attributes": {"trafficLightColor": "G"},
        "box2d": {"x1": 10, "y1": 10, "x2": 14, "y2": 20},
    },
]
AREAS = [
    {
        "id": "4",
        "category": "direct",
        "poly2d": [{"vertices": [[60, 170], [140, 100], [200, 100], [280, 170]], "types": "LLLL", "closed": True}],
    },
    {
        "id": "5",
        "category": "alternative",
        "poly2d": [{"vertices": [[0, 170], [60, 170], [140, 100], [100, 100]], "types": "LLLL", "closed": True}],
    },
]


def lane(category, vertices, style="dashed", direction="parallel", types=None):
    return {
        "category": category,
        "attributes": {"laneDirection": direction, "laneStyle": style},
        "poly2d": [{"vertices": vertices, "types": types or "L" * len(vertices), "closed": False}],
    }


LINES = [
    lane("single white", [[100, 175], [150, 100]]),
    lane("single white", [[106, 175], [151, 100]]),  # the other edge of that stripe
    lane("single white", [[250, 175], [170, 100]]),  # an edge whose partner is missing
    lane("double yellow", [[10, 175], [60, 150], [90, 125], [130, 100]], "solid", types="LCCC"),
    lane("single white", [[40, 140], [280, 140]], "solid", "vertical"),
    lane("road curb", [[300, 175], [180, 100]], "solid"),
    lane("crosswalk", [[0, 150], [300, 150]], "solid"),
]


@pytest.fixture
def bdd_root(tmp_path):
    write(tmp_path / "images/100k/val/b1c66a42-6f7d68ca.jpg", road_photo())
    for pattern, labels in zip(bdd100k.PARTS, (DET, AREAS, LINES), strict=False):
        frames = [{"name": "b1c66a42-6f7d68ca.jpg", "attributes": {"weather": "clear"}, "labels": labels}]
        write_json(tmp_path / pattern.format("val"), frames)
    return tmp_path


def check_bdd(sample):
    assert sorted(sample.known) == ["boxes", "drivable", "lanes", "signs"]
    car, bicycle = sample.boxes
    assert car.class_name == "car" and car.xyxy_px.tolist() == [40, 100, 80.5, 130]
    assert car.attributes == {"visible_state": "partly_occluded", "truncated": "no"}
    assert bicycle.class_name == "two_wheeler" and bicycle.xyxy_px.tolist() == [200, 80, 220, 130]  # rider and bicycle
    (light,) = sample.signs
    assert (light.class_name, light.color, light.point_px.tolist()) == ("traffic_light", "green", [12, 15])
    (area,) = sample.drivable  # direct and alternative touch: one region
    assert area.polygon_px[:, 0].min() < 6 and area.polygon_px[:, 0].max() > 274
    yellow, dashed, single = sample.lanes
    assert (yellow.type, yellow.color, len(yellow.points_px)) == ("double", "yellow", 13)  # the Bezier, drawn out
    assert (dashed.type, dashed.color) == ("dashed", "white") and abs(dashed.points_px[0, 0] - 103) < 0.5
    assert single.points_px.tolist() == [[250, 175], [170, 100]]


def test_bdd_scalabel(bdd_root):
    samples = bdd100k.open_samples(bdd_root, "val")
    check_bdd(samples[0])
    assert samples.keys == ["bdd100k:images/100k/val/b1c66a42-6f7d68ca.jpg"]
    assert samples[0].meta["left_out"] == {"single white": 1, "road curb": 1, "crosswalk": 1}


def test_bdd_knows_only_what_is_there(bdd_root):
    (bdd_root / "labels/det_20/det_val.json").unlink()
    sample = bdd100k.open_samples(bdd_root, "val")[0]
    assert sample.known == ("lanes", "drivable") and not sample.boxes and not sample.signs


def test_bdd_boxes_are_unknown_where_detection_does_not_list_the_picture(bdd_root):
    write(bdd_root / "images/100k/val/other.jpg", road_photo())
    path = bdd_root / "labels/lane/polygons/lane_val.json"
    write_json(path, [*json.loads(path.read_text()), {"name": "other.jpg", "labels": []}])
    samples = {Path(sample.meta["source"]).name: sample for sample in bdd100k.open_samples(bdd_root, "val")}
    assert samples["other.jpg"].known == ("lanes",)
    check_bdd(samples["b1c66a42-6f7d68ca.jpg"])


def test_bdd_signs_are_unknown_beside_signs_without_a_class(bdd_root):
    sign = {"category": "traffic sign", "attributes": {}, "box2d": {"x1": 20, "y1": 10, "x2": 24, "y2": 20}}
    write_json(bdd_root / "labels/det_20/det_val.json", [{"name": "b1c66a42-6f7d68ca.jpg", "labels": [*DET, sign]}])
    sample = bdd100k.open_samples(bdd_root, "val")[0]
    assert "signs" not in sample.known and not sample.signs


def test_bdd_first_release(tmp_path):
    write(tmp_path / "bdd100k/images/100k/train/a.jpg", road_photo())
    old_lanes = [{**e, "category": "lane", "attributes": {**e["attributes"], "laneTypes": e["category"]}} for e in LINES]
    old_areas = [{**e, "category": "drivable area", "attributes": {"areaType": e["category"]}} for e in AREAS]
    frames = [{"name": "a.jpg", "labels": [*DET, *old_areas, *old_lanes]}]
    write_json(tmp_path / "bdd100k/labels/bdd100k_labels_images_train.json", frames)
    check_bdd(bdd100k.open_samples(tmp_path, "train")[0])


def test_bdd_one_file_per_picture(tmp_path):
    write(tmp_path / "images/100k/train/a.jpg", road_photo())

    def flat(entry, prefix):
        part = entry["poly2d"][0]
        points = [[*xy, kind] for xy, kind in zip(part["vertices"], part["types"], strict=True)]
        return {**entry, "category": prefix + entry["category"], "poly2d": points}

    areas = [{**flat(e, ""), "category": f"area/{'drivable' if e['category'] == 'direct' else 'alternative'}"} for e in AREAS]
    objects = [*DET, *areas, *(flat(e, "lane/") for e in LINES)]
    path = write_json(tmp_path / "labels/100k/train/a.json", {"name": "a", "frames": [{"timestamp": 10000, "objects": objects}]})
    check_bdd(bdd100k.open_samples(tmp_path, "train")[0])
    objects[-1]["poly2d"][0] = [1]
    write_json(path, {"name": "a", "frames": [{"objects": objects}]})
    with pytest.raises(InputError, match=r"a\.json.*not a BDD100K label"):
        bdd100k.open_samples(tmp_path, "train")[0]
    with pytest.raises(ConfigError, match="no split 'val' here; there is train"):
        bdd100k.open_samples(tmp_path, "val")
