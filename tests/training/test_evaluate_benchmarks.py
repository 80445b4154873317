"""What a benchmark counts in its own way is counted so by the one command: BDD100K, CULane, drives, road graphs."""

import json
import re

import cv2
import numpy as np
import pytest

from getok_drive.errors import GetokError
from getok_drive.types import Scene
from training import evaluate
from training.metrics import bdd100k, culane
from training.sources import open_source

SIZE = (320, 180)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((SIZE[1], SIZE[0], 3), 90, np.uint8))
    return path


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def scored(tmp_path, dataset, split, predictions, *options):
    """The report of the command, and its page."""
    argv = ["--dataset", dataset, "--split", split, "--predictions", str(predictions), "--out", str(tmp_path / "out"), *options]
    report = evaluate.run(argv)
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    for kind, numbers in report.numbers.items():
        assert written["metrics"][kind].keys() == numbers.keys()
    return report, (tmp_path / "out" / "report.html").read_text()


def values(report, kind):
    return {name: estimate.value for name, estimate in report.numbers[kind].items()}


# --- BDD100K -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bdd(tmp_path):
    """One picture: a dashed white and a double yellow line, an area, and the benchmark's own masks of them."""
    root = tmp_path / "bdd"
    picture(root / "images/100k/val/a.jpg")
    lines = [("single white", "dashed", [[100, 175], [150, 100]]), ("double yellow", "solid", [[250, 175], [170, 100]])]
    labels = [
        {
            "category": category,
            "attributes": {"laneDirection": "parallel", "laneStyle": style},
            "poly2d": [{"vertices": points, "types": "LL", "closed": False}],
        }
        for category, style, points in lines
    ]
    write_json(root / "labels/lane/polygons/lane_val.json", [{"name": "a.jpg", "labels": labels}])
    area = {"category": "direct", "poly2d": [{"vertices": [[40, 175], [280, 175], [180, 100]], "types": "LLL", "closed": True}]}
    write_json(root / "labels/drivable/polygons/drivable_val.json", [{"name": "a.jpg", "labels": [area]}])
    lane = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
    cv2.line(lane, *lines[0][2], 6 + 16, 1)
    cv2.line(lane, *lines[1][2], 3, 1)
    cv2.line(lane, (10, 60), (300, 60), 0 + 32, 1)  # a crossing: of a class that we never write
    drivable = np.full((SIZE[1], SIZE[0]), 2, np.uint8)
    cv2.fillPoly(drivable, [np.array([[40, 175], [280, 175], [180, 100]])], 0)
    drivable[:, 200:][drivable[:, 200:] == 0] = 1
    for kind, mask in (("lane", lane), ("drivable", drivable)):
        file = root / f"labels/{kind}/masks/val/a.png"
        file.parent.mkdir(parents=True)
        assert cv2.imwrite(str(file), mask)
    return root


def test_bdd100k_in_both_conventions(bdd, tmp_path):
    source = open_source(f"bdd100k:{bdd}", "val")
    sample = source.load(0)
    assert set(sample.masks) == {"bdd100k_lane", "bdd100k_drivable"}
    scene = Scene(sample.size_wh, sample.lanes, sample.drivable, source=source.key(0))
    file = write_lines(tmp_path / "scenes.jsonl", [scene.to_json()])
    report, page = scored(tmp_path, f"bdd100k:{bdd}", "val", file, "--tasks", "lanes,drivable")
    lanes = values(report, "bdd100k_lanes")
    assert lanes["pixel_iou_8px"] == lanes["pixel_iou_2px"] == lanes["pixel_recall_2px"] == 1.0
    # the classes that are right or absent score 1; the crossing is missed: 1 of 2 directions, 1 of 8 categories, half of no style
    assert lanes["official_f_5px/direction"] == pytest.approx(0.5)
    assert lanes["official_f_5px/category"] == pytest.approx(7 / 8)
    said = bdd100k.lane_mask([(lane.points_px, lane.type, lane.color) for lane in scene.lanes], SIZE)
    by_hand = bdd100k.lane_f1(bdd100k.lane_row(sample.masks["bdd100k_lane"], said))
    for index, radius in enumerate(bdd100k.RADII_PX):
        assert lanes[f"official_f_{radius}px"] == pytest.approx(by_hand["average"][index])
    area = values(report, "bdd100k_drivable")
    assert area["iou_alternative"] == 0.0  # all areas are written as direct
    truth = sample.masks["bdd100k_drivable"]
    assert area["iou_direct"] == pytest.approx((truth == 0).sum() / (truth < 2).sum(), abs=0.02)
    assert area["miou"] == pytest.approx(area["iou_direct"] / 2)
    assert "BDD100K lane IoU of papers" in report.table() and "official_f_5px" in page
    assert 0 < values(report, "drivable")["boundary_f"] <= 1 and values(report, "lanes")["polyline_f1"] == 1.0


def test_bdd100k_without_its_masks_has_the_papers_numbers_only(bdd, tmp_path):
    for file in bdd.glob("labels/*/masks/val/a.png"):
        file.unlink()
    source = open_source(f"bdd100k:{bdd}", "val")
    sample = source.load(0)
    moved = [type(lane)(np.add(lane.points_px, (4, 0)), lane.type, lane.color) for lane in sample.lanes]
    file = write_lines(tmp_path / "scenes.jsonl", [Scene(sample.size_wh, tuple(moved), source=source.key(0)).to_json()])
    report, _ = scored(tmp_path, f"bdd100k:{bdd}", "val", file, "--tasks", "lanes,drivable")
    lanes = values(report, "bdd100k_lanes")
    assert 0.0 < lanes["pixel_iou_2px"] < lanes["pixel_iou_8px"] < 0.8
    assert not any(name.startswith("official") for name in lanes) and "bdd100k_drivable" not in report.numbers


def test_a_colormap_is_no_mask(bdd):
    file = bdd / "labels/lane/masks/val/a.png"
    cv2.imwrite(str(file), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    with pytest.raises(GetokError, match="colormap"):
        open_source(f"bdd100k:{bdd}", "val").load(0)


# --- CULane and drives -------------------------------------------------------------------------------------------------


def test_culane_has_the_python_ports_numbers_too(tmp_path):
    root = tmp_path / "culane"
    picture(root / "driver_1/a.MP4/0.jpg").with_suffix(".lines.txt").write_text(
        "10 175 90 120 150 100\n300 175 200 110 180 100\n"
    )
    (root / "list").mkdir()
    (root / "list/test.txt").write_text("/driver_1/a.MP4/0.jpg\n")
    source = open_source(f"culane:{root}", "test")
    sample = source.load(0)
    said = [type(lane)(np.add(lane.points_px, (2, 0))) for lane in sample.lanes]
    file = write_lines(tmp_path / "scenes.jsonl", [Scene(sample.size_wh, tuple(said), source=source.key(0)).to_json()])
    report, _ = scored(tmp_path, f"culane:{root}", "test", file, "--tasks", "lanes")
    points = [[lane.points_px for lane in lanes] for lanes in (sample.lanes, said)]
    for kind, convention in (("lanes", "culane"), ("culane", "clrnet")):
        counts = culane.culane_counts(points[0], points[1], SIZE, convention=convention).astype(float)
        assert values(report, kind)["mf1"] == pytest.approx(culane.mean_f1(counts))
    assert 0 < values(report, "culane")["mf1"] < 1


def test_drives_are_scored_for_steadiness(tmp_path):
    source = open_source("world-drive:3-4:4", size="320x180")
    rng = np.random.default_rng(0)
    records = []
    for index in range(len(source)):
        sample = source.load(index)
        lanes = tuple(type(lane)(np.add(lane.points_px, (rng.choice([-2, 2]), 0))) for lane in sample.lanes)
        boxes = sample.boxes if index % 4 != 1 else ()  # nothing is seen in the second frame of each drive
        records.append({**Scene(sample.size_wh, lanes, (), boxes).to_json(), "key": source.key(index)})
        for box in records[-1]["boxes"]:
            del box["track_id"]
    file = write_lines(tmp_path / "scenes.jsonl", records)
    report, page = scored(tmp_path, "world-drive:3-4:4", "test", file, "--size", "320x180", "--tasks", "lanes,boxes,drivable")
    lanes, boxes = values(report, "drive_lanes"), values(report, "drive_boxes")
    assert lanes["jitter_px"] > lanes["label_jitter_px"] + 0.5
    assert boxes["switches_per_100"] > 10
    assert report.numbers["drive_lanes"]["jitter_px"].count == 2
    assert "drive_signs" not in report.numbers
    assert "lanes over a drive, jitter in pixels" in report.table()
    row = re.search(r"<tr class=head><td>jitter_px</td>.*?</tr>", page)
    assert row and "class=bar" not in row[0]  # pixels are not drawn on a scale of shares
    drawn = {json.loads(line)["key"]: json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()}
    assert drawn["world-drive:3:1"]["group"] == "world-drive:3" and "drive_lanes" in drawn["world-drive:3:1"]["rows"]


# --- OpenLane-V2's road graphs -----------------------------------------------------------------------------------------


def line(y_m, points):
    x = np.linspace(2, 40, points)
    return np.column_stack([x, np.full(points, y_m), np.zeros(points)]).tolist()


@pytest.fixture
def openlane(tmp_path):
    """Three frames of two segments: two centrelines, the first leading into the second, and a red light for it."""
    root = tmp_path / "openlane"
    camera = {"extrinsic": {"rotation": [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], "translation": [0, 0, 1.5]},
              "intrinsic": {"K": [[200, 0, 160], [0, 200, 80], [0, 0, 1]]}}  # fmt: skip
    for segment, stamp in (("0001", "100"), ("0001", "200"), ("0002", "100")):
        picture(root / f"val/{segment}/image/ring_front_center/{stamp}.jpg")
        info = root / f"val/{segment}/info"
        sensor = {"ring_front_center": camera}
        bucket = {"lane_segment": [], "traffic_element": []}
        write_json(info / f"{stamp}-ls.json", {"sensor": sensor, "timestamp": int(stamp), "annotation": bucket})
        graph = {
            "lane_centerline": [{"id": 0, "points": line(0.0, 201)}, {"id": 1, "points": line(8.0, 201)}],
            "traffic_element": [{"id": 2, "category": 1, "attribute": 1, "points": [[100, 20], [120, 60]]}],
            "topology_lclc": [[0, 1], [0, 0]],
            "topology_lcte": [[1], [0]],
        }
        write_json(info / f"{stamp}.json", {"annotation": graph})
    return root


def test_road_graphs_of_other_programs(openlane, tmp_path):
    source = open_source(f"openlane_v2:{openlane}", "val")
    right = {
        "task": "topology",
        "lane_centerline": [{"points": line(y, 11), "confidence": c} for y, c in ((0.2, 0.9), (8.0, 0.8))],
        "traffic_element": [{"points": [[100, 20], [120, 58]], "attribute": 1, "confidence": 0.7}],
        "topology_lclc": [[0, 0.9], [0.1, 0]],
        "topology_lcte": [[0.8], [0]],
    }
    graphs = [{**right, "key": source.key(index)} for index in range(3)]
    run = lambda file, *options: scored(tmp_path, f"openlane_v2:{openlane}", "val", file, "--tasks", "topology", *options)  # noqa: E731
    report, page = run(write_lines(tmp_path / "graphs.jsonl", graphs))
    assert set(values(report, "openlane_v2").values()) == {1.0}
    assert report.numbers["openlane_v2"]["OLS"].count == 2  # segments are drawn, not frames
    assert "OpenLane-V2 score (OLS)" in report.table() and "TOP_lt" in page
    graphs[2] = {**graphs[2], "topology_lclc": [[0, 0.2], [0.9, 0]]}
    report, _ = run(write_lines(tmp_path / "graphs.jsonl", graphs))
    numbers = values(report, "openlane_v2")
    # of the third frame all four vertices are wrong: in two the right neighbour is missing, in two there should be none
    assert numbers["TOP_ll"] == pytest.approx(2 / 3)
    assert numbers["OLS"] == pytest.approx((3 + np.sqrt(2 / 3)) / 4)
    assert report.numbers["openlane_v2"]["TOP_ll"].low == pytest.approx(0.0)
    with pytest.raises(GetokError, match="1 of 3 pictures have no line"):
        run(write_lines(tmp_path / "graphs.jsonl", graphs[:2]))
    report, _ = run(tmp_path / "graphs.jsonl", "--allow-missing")
    assert values(report, "openlane_v2")["DET_l"] < 1.0 and report.outputs["missing"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lane_centerline": [{"points": [[0, 0]]}]}, r"graphs.jsonl:1: lane_centerline\[0\].*\(N, 3\)"),
        ({"lane_centerline": []}, r"topology_lclc: expected a matrix of 0x0"),
        ({"traffic_element": [{"points": [0, 0, 1, 1], "attribute": 13}]}, r"traffic_element\[0\].*0\.\.12"),
        ({"topology_lcte": None}, "topology_lcte"),
    ],
)
def test_malformed_road_graphs_are_refused_with_their_place(openlane, tmp_path, change, message):
    source = open_source(f"openlane_v2:{openlane}", "val", limit=1)
    graph = json.loads((openlane / "val/0001/info/100.json").read_text())["annotation"]
    file = write_lines(tmp_path / "graphs.jsonl", [{**graph, "task": "topology", "key": source.key(0), **change}])
    options = ["--dataset", f"openlane_v2:{openlane}", "--split", "val", "--limit", "1", "--tasks", "topology"]
    with pytest.raises(GetokError, match=message):
        evaluate.run([*options, "--predictions", str(file), "--out", str(tmp_path / "out")])


def test_road_graphs_need_their_labels_and_a_program_that_sees_them(openlane, tmp_path):
    options = ["--dataset", f"openlane_v2:{openlane}", "--split", "val", "--tasks", "topology", "--out", str(tmp_path / "out")]
    with pytest.raises(GetokError, match="sees no road graphs"):
        evaluate.run([*options, "--bundle", "nano"])
    (openlane / "val/0001/info/100.json").unlink()
    with pytest.raises(GetokError, match="Map Element Bucket"):
        evaluate.run([*options, "--allow-missing", "--predictions", str(write_lines(tmp_path / "none.jsonl", []))])
    with pytest.raises(GetokError, match="needs --dataset openlane_v2"):
        argv = ["--dataset", "world:0-0", "--tasks", "topology", "--allow-missing", "--predictions", str(tmp_path / "none.jsonl")]
        evaluate.run([*argv, "--out", str(tmp_path / "out")])
