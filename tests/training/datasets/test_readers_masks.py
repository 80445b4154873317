"""comma10k, CamVid, IDD and KITTI: miniatures in the official formats, the real material, and broken files."""

import cv2
import numpy as np
import pytest

from getok_drive.errors import ConfigError, InputError
from training.datasets import camvid, comma10k, idd, kitti
from training.metrics.raster import fill_polygons
from training.object_masks import class_name, object_masks

from .minis import road_photo, write, write_json, write_text


def fit(sample, mask):
    drawn = fill_polygons([area.polygon_px for area in sample.drivable], sample.size_wh)
    return (drawn & mask).sum() / max((drawn | mask).sum(), 1)


def labelled_road(height=180, width=320):
    """Road, a lane line on it, a car and a pedestrian, as masks."""
    road, paint, car, pedestrian = (np.zeros((height, width), np.uint8) for _ in range(4))
    cv2.fillPoly(road, [np.array([(20, 179), (140, 95), (180, 95), (300, 179)])], 1)
    cv2.line(paint, (110, 175), (150, 100), 1, 4)
    car[110:140, 190:230] = 1
    pedestrian[90:120, 30:40] = 1
    return road, paint, car, pedestrian


# --- comma10k --------------------------------------------------------------------------------------------------------


@pytest.fixture
def comma_root(tmp_path):
    road, paint, car, _ = labelled_road()
    mask = np.full((180, 320, 3), (0x60, 0x80, 0x80), np.uint8)
    mask[road > 0] = (0x20, 0x20, 0x40)
    mask[paint > 0] = (0, 0, 255)
    mask[car > 0] = (0x66, 0xFF, 0)
    mask[170:] = (0xFF, 0, 0xCC)
    for name in ("0000_0085e9e41513078a_2018-08-19--13-26-08_11_864", "0019_a23b0de0bc12dcba_2018-06-24--00-29-19_17_79"):
        write(tmp_path / f"masks/{name}.png", mask)
        write(tmp_path / f"imgs/{name}.png", road_photo())
    return tmp_path


def test_comma10k(comma_root):
    samples = comma10k.open_samples(comma_root)
    assert samples.sequences == ["0085e9e41513078a_2018-08-19--13-26-08", "a23b0de0bc12dcba_2018-06-24--00-29-19"]
    sample = samples[0]
    assert sample.known == ("lanes", "drivable") and not sample.boxes and sample.meta["derived"] == ("lanes", "drivable")
    assert len(sample.lanes) == 1 and abs(sample.lanes[0].points_px[-1, 1] - 100) < 4
    semantic = sample.masks["semantic"]
    assert set(np.unique(semantic)) == {0, 1, 2, 3, 4}
    assert fit(sample, semantic <= 1) > 0.96
    assert len(comma10k.open_samples(comma_root, "val")) == 1 and len(comma10k.open_samples(comma_root, "train")) == 1


def test_comma10k_broken(comma_root):
    with pytest.raises(ConfigError, match="no test part"):
        comma10k.open_samples(comma_root, "test")
    with pytest.raises(ConfigError, match="holds imgs and masks"):
        comma10k.open_samples(comma_root / "imgs")
    first, second = sorted((comma_root / "masks").iterdir())
    write(first, cv2.resize(cv2.imread(str(first)), (160, 90)))
    (comma_root / "imgs" / second.name).unlink()
    samples = comma10k.open_samples(comma_root)
    assert samples.skipped == [(second.name, "no picture of this name in imgs")]
    with pytest.raises(InputError, match="160x90 px for a photograph of 320x180"):
        samples[0]
    write(first, np.full((180, 320, 3), 7, np.uint8))
    with pytest.raises(InputError, match="none of comma10k's five colours"):
        samples[0]


def test_comma10k_real(real):
    samples = comma10k.open_samples(real("comma10k_mini"))
    assert len(samples) == 11
    shares = []
    for sample in samples:
        shares.append(fit(sample, sample.masks["semantic"] <= 1))
        for lane in sample.lanes:  # the paint is under the line
            at = np.rint(lane.points_px).astype(int).clip(0, [sample.size_wh[0] - 1, sample.size_wh[1] - 1])
            near = cv2.dilate((sample.masks["semantic"] == comma10k.PAINT).astype(np.uint8), np.ones((9, 25)))
            assert near[at[:, 1], at[:, 0]].mean() > (0.25 if lane.type == "dashed" else 0.6)
    assert np.mean(shares) > 0.97 and min(shares) > 0.96
    assert sum(len(sample.lanes) for sample in samples) >= 25


# --- CamVid ----------------------------------------------------------------------------------------------------------


def test_camvid_12(tmp_path):
    road, _, car, pedestrian = labelled_road()
    label = np.zeros((180, 320), np.uint8)
    label[road > 0], label[car > 0], label[pedestrian > 0] = 3, 8, 9
    for part, name in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "Seq05VD_f00000")):
        write(tmp_path / part / f"{name}.png", road_photo())
        write(tmp_path / f"{part}annot" / f"{name}.png", label)
    write(tmp_path / "train/0001TP_006720.png", road_photo())
    samples = camvid.open_samples(tmp_path, "train")
    assert samples.keys == ["camvid:train/0001TP_006690.png"] and samples.sequences == ["0001TP"]
    assert samples.skipped == [("train/0001TP_006720.png", "no label picture in trainannot")]
    assert len(camvid.open_samples(tmp_path)) == 3 and camvid.open_samples(tmp_path, "test").sequences == ["Seq05VD"]
    sample = samples[0]
    assert sample.known == ("drivable", "boxes")  # paint is inside road: lanes are not labelled
    assert [(b.class_name, b.xyxy_px.tolist()) for b in sample.boxes] == [
        ("car", [189.5, 109.5, 229.5, 139.5]), ("pedestrian", [29.5, 89.5, 39.5, 119.5])
    ]  # fmt: skip
    assert all(b.attributes["derived"] == "components" for b in sample.boxes)
    assert fit(sample, label == 3) > 0.96
    label[0, 0] = 12
    write(tmp_path / "trainannot/0001TP_006690.png", label)
    with pytest.raises(InputError, match=r"trainannot/0001TP_006690\.png: class 12"):
        samples[0]


@pytest.mark.parametrize("layout", ["original", "parts"])
def test_camvid_32(tmp_path, layout):
    road, paint, car, pedestrian = labelled_road()
    picture = np.full((180, 320, 3), 128, np.uint8)
    for name, mask in (("Road", road), ("LaneMkgsDriv", paint), ("SUVPickupTruck", car), ("Child", pedestrian)):
        color = int(camvid.COLORS_32[name], 16)
        picture[mask > 0] = (color & 255, color >> 8 & 255, color >> 16)
    images, labels = ("701_StillsRaw_full", "LabeledApproved_full") if layout == "original" else ("val", "val_labels")
    write(tmp_path / images / "0006R0_f00930.png", road_photo())
    write(tmp_path / labels / "0006R0_f00930_L.png", picture)
    sample = camvid.open_samples(tmp_path, "all")[0]
    assert sample.known == ("lanes", "drivable", "boxes")
    assert len(sample.lanes) == 1 and [b.class_name for b in sample.boxes] == ["car", "pedestrian"]
    assert fit(sample, (road > 0) & (car == 0)) > 0.96  # paint counts as road
    spoken = {class_name(item, sample) for item in object_masks(sample)}
    assert {"road", "pickup truck", "child"} <= spoken <= {"road", "pickup truck", "child", "lane marking", "sky"}
    write(tmp_path / labels / "0006R0_f00930_L.png", cv2.GaussianBlur(picture, (9, 9), 4))
    with pytest.raises(InputError, match="none of CamVid's 32 colours"):
        camvid.open_samples(tmp_path, "all")[0]


def test_camvid_missing(tmp_path):
    with pytest.raises(ConfigError, match="no split 'val' here"):
        camvid.open_samples(tmp_path, "val")


def test_camvid_real(real):
    samples = camvid.open_samples(real("camvid_segnet"))
    assert len(samples) == 526 and set(samples.sequences) == {"0001TP", "0006R0", "0016E5", "Seq05VD"}
    picked = [samples[index] for index in range(0, 526, 40)]
    shares = [fit(sample, sample.masks["semantic"] == 3) for sample in picked]
    assert np.mean(shares) > 0.97 and min(shares) > 0.94
    assert {b.class_name for sample in picked for b in sample.boxes} == {"car", "pedestrian", "two_wheeler"}


# --- IDD -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def idd_lite(tmp_path):
    road, _, car, pedestrian = labelled_road()
    label = np.full((180, 320), 1, np.uint8)
    label[:80] = 6
    label[road > 0], label[car > 0], label[pedestrian > 0], label[178:] = 0, 3, 2, 255
    write(tmp_path / "leftImg8bit/train/472/frame0992_image.jpg", road_photo())
    write(tmp_path / "gtFine/train/472/frame0992_label.png", label)
    write(tmp_path / "leftImg8bit/val/17/024703_image.jpg", road_photo())
    write(tmp_path / "gtFine/val/17/024703_label.png", label)
    return tmp_path


def test_idd_lite(idd_lite):
    samples = idd.open_samples(idd_lite, "train")
    assert samples.keys == ["idd:leftImg8bit/train/472/frame0992_image.jpg"] and samples.sequences == ["472"]
    assert samples[0].known == ("drivable",) and not samples[0].boxes  # vehicles of all kinds are one class
    assert fit(samples[0], samples[0].masks["semantic"] == 0) > 0.96
    guessed = idd.open_samples(idd_lite, "val", guess_boxes=True)[0]
    assert [(b.class_name, b.attributes["class_is"]) for b in guessed.boxes] == [("car", "guessed"), ("two_wheeler", "guessed")]
    with pytest.raises(ConfigError, match="no split 'test' here; there is train, val"):
        idd.open_samples(idd_lite, "test")
    write(idd_lite / "gtFine/train/472/frame0992_label.png", np.full((180, 320), 9, np.uint8))
    with pytest.raises(InputError, match=r"classes \[9\].*0\.\.6 and 255"):
        samples[0]


def test_idd_full(tmp_path):
    def square(label, x, y, w, h, **more):
        return {"label": label, "polygon": [[x, y], [x + w, y], [x + w, y + h], [x, y + h]], "draw": True, **more}

    objects = [
        square("sky", 0, 0, 319, 80),
        square("road", 0, 90, 319, 89),
        square("car", 150, 92, 3, 2),  # too small for a box
        square("car", 40, 100, 60, 40),
        square("truck", 70, 95, 80, 60),  # hides half of the car
        square("motorcycle", 200, 110, 20, 40),
        square("rider", 203, 90, 14, 40),
        square("person", 280, 100, 12, 40, deleted=1),
        square("traffic sign", 10, 10, 10, 10),
        square("autorickshaw", 300, 100, 19, 30),
    ]
    record = {"imgHeight": 180, "imgWidth": 320, "objects": objects}
    path = write_json(tmp_path / "gtFine/val/119/903127_gtFine_polygons.json", record)
    write(tmp_path / "leftImg8bit/val/119/903127_leftImg8bit.png", road_photo())
    sample = idd.open_samples(tmp_path, "val")[0]
    assert sample.known == ("drivable", "boxes")
    car, truck, motorcycle, rickshaw = sample.boxes
    assert (car.class_name, car.attributes["visible_state"]) == ("car", "partly_occluded")
    assert car.xyxy_px.tolist() == [39.5, 99.5, 69.5, 140.5]  # what is seen of it
    assert (truck.class_name, truck.attributes["visible_state"]) == ("truck", "fully_visible")
    assert motorcycle.class_name == "two_wheeler" and motorcycle.xyxy_px[1] == 89.5  # with its rider
    assert rickshaw.class_name == "car" and rickshaw.attributes["truncated"] == "yes"
    instance = sample.masks["instance"]  # 0 or the number of the box that the pixel belongs to, from 1
    numbers = [int(instance[y, x]) for x, y in ((50, 120), (100, 120), (210, 100), (210, 145), (310, 110), (151, 93))]
    assert numbers == [1, 2, 3, 3, 4, 0]  # the rider is part of the motorcycle
    assert {item.label for item in object_masks(sample)} == {"car", "truck", "two_wheeler"}
    write_json(path, {**record, "imgWidth": 1920})
    with pytest.raises(InputError, match="made for 1920x180 px"):
        idd.open_samples(tmp_path, "val")[0]
    write_json(path, {"imgHeight": 180, "imgWidth": 320})
    with pytest.raises(InputError, match=r"903127_gtFine_polygons\.json: not a idd label"):
        idd.open_samples(tmp_path, "val")[0]


def test_idd_real(real):
    samples = idd.open_samples(real("idd_lite"), "val")
    assert len(samples) == 204 and len(idd.open_samples(real("idd_lite"), "train")) == 1403
    shares = [fit(sample, sample.masks["semantic"] == 0) for sample in (samples[index] for index in range(0, 204, 17))]
    assert np.mean(shares) > 0.965  # ragged masks at 320 px


# --- KITTI -----------------------------------------------------------------------------------------------------------

KITTI = """\
Pedestrian 0.00 0 -0.20 71.40 83.00 81.73 137.92 1.89 0.48 1.20 1.84 1.47 8.41 0.01
Van 0.20 2 1.85 287.63 81.54 323.81 103.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57
Cyclist 0.00 3 -1.65 176.60 63.95 188.98 93.93 1.86 0.60 2.02 4.59 1.32 45.84 -1.55
DontCare -1 -1 -10 3.89 69.71 90.61 90.13 -1 -1 -1 -1000 -1000 -1000 -10
"""
CALIB = "P0: 1 0 0 0 0 1 0 0 0 0 1 0\nP2: 707 0 604 45.7 0 707 180.5 -0.3 0 0 1 0.005\n"


def test_kitti_object(tmp_path):
    for stem in ("000000", "000007"):
        write(tmp_path / f"training/image_2/{stem}.png", road_photo())
        write_text(tmp_path / f"training/calib/{stem}.txt", CALIB)
        label = write_text(tmp_path / f"training/label_2/{stem}.txt", KITTI)
    write_text(tmp_path / "training/label_2/000009.txt", KITTI)
    samples = kitti.open_samples(tmp_path)
    assert len(samples) == 2 and samples.skipped == [("label_2/000009.txt", "no picture of this number in image_2")]
    sample = samples[0]
    assert sample.known == ("boxes",)
    pedestrian, van, cyclist = sample.boxes
    assert np.allclose(pedestrian.xyxy_px, [71.4, 83, 81.73, 137.92])
    assert van.attributes == {"truncated": "yes", "visible_state": "mostly_occluded"} and van.xyxy_px[2] == 319
    assert cyclist.class_name == "two_wheeler" and "visible_state" not in cyclist.attributes
    assert len(sample.meta["ignore_xyxy_px"]) == 1 and sample.meta["K"] == [[707, 0, 604], [0, 707, 180.5], [0, 0, 1]]
    assert sample.meta["boxes_3d"][0]["size_hwl_m"] == [1.89, 0.48, 1.2]
    write_text(tmp_path / "mapping/train_rand.txt", "2,1,1,1,1,1,1,1\n")
    write_text(
        tmp_path / "mapping/train_mapping.txt", "2011_09_26 2011_09_26_drive_0005 12\n2011_09_26 2011_09_26_drive_0009 7\n"
    )
    assert kitti.open_samples(tmp_path).sequences == ["2011_09_26_drive_0009", "2011_09_26_drive_0005"]
    label.write_text("Car 0 0 1 2 3\n")
    with pytest.raises(InputError, match=r"000007\.txt: line 1 is not a KITTI object"):
        kitti.open_samples(tmp_path)[1]


def test_kitti_road(tmp_path):
    road = labelled_road()[0]
    label = np.zeros((180, 320, 3), np.uint8)
    label[60:, :, 2] = 255
    label[road > 0, 0] = 255
    write(tmp_path / "image_2/um_000000.png", road_photo())
    write(tmp_path / "gt_image_2/um_road_000000.png", label)
    write(tmp_path / "gt_image_2/um_lane_000000.png", label)
    samples = kitti.open_samples(tmp_path)
    assert samples.keys == ["kitti:image_2/um_000000.png"] and samples[0].known == ("drivable",)
    assert fit(samples[0], road > 0) > 0.96
    write(tmp_path / "gt_image_2/um_road_000000.png", np.zeros((180, 320, 3), np.uint8))
    with pytest.raises(InputError, match="no red at all"):
        samples[0]
    with pytest.raises(ConfigError, match="neither label_2"):
        kitti.open_samples(tmp_path / "image_2")


def test_kitti_real(real):
    samples = kitti.open_samples(real("kitti_mini"))
    assert [sorted(b.class_name for b in sample.boxes) for sample in samples] == [
        ["pedestrian"],
        ["car", "truck", "two_wheeler"],
        ["car"],
    ]
    assert samples[0].meta["K"][0][0] == pytest.approx(707.0493)
