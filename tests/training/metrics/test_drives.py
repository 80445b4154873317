"""Consistency over a drive: by hand, and on the world's own drives."""

import numpy as np
import pytest

from getok_drive.types import Box, Lane, Scene, Sign
from training.metrics.drives import DriveScorer, drive_numbers
from training.metrics.summary import RowSet
from training.samples import Sample
from training.sources import open_source

WIDTH, HEIGHT = 640, 480
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
LANE = np.array([[100.0, 400.0], [200.0, 100.0]])
STEP_NS = 66_666_667


def lane(shift=0.0):
    return Lane(np.add(LANE, (shift, 0)))


def box(x, track=None, size=40.0):
    return Box([x, 100, x + size, 100 + size], "car", attributes={} if track is None else {"track_id": track})


def drive(frames, tasks=("lanes", "boxes", "signs"), stamps=None, sequence="a"):
    """The numbers of frames ``(labels, predictions)``, each a dict of elements."""
    scorer = DriveScorer(tasks)
    for index, (truth, said) in enumerate(frames):
        stamp = stamps[index] if stamps else index * STEP_NS
        sample = Sample(IMAGE, **truth, meta={"sequence": sequence, "stamp_ns": stamp})
        scorer.add(f"{sequence}:{index}", sample, Scene((WIDTH, HEIGHT), **said))
    numbers = drive_numbers(RowSet(scorer.scores()))
    return {kind: {name: e.value for name, e in each.items()} for kind, each in numbers.items()}


def test_steady_motion_is_no_jitter_and_a_twitch_is():
    labels = [{"lanes": (lane(3.0 * t),)} for t in range(5)]
    steady = drive([(each, each) for each in labels])["drive_lanes"]
    assert steady["jitter_px"] == pytest.approx(0.0, abs=1e-4)
    twitch = drive([(labels[t], {"lanes": (lane(3.0 * t + 4.0 * (t == 2)),)}) for t in range(5)])["drive_lanes"]
    assert twitch["jitter_px"] == pytest.approx((4 + 8 + 4) / 3, abs=1e-4)
    assert twitch["label_jitter_px"] == pytest.approx(0.0, abs=1e-4)
    assert (twitch["flicker"], twitch["switches_per_100"]) == (0.0, 0.0)
    assert np.isnan(drive([({}, {})] * 3)["drive_lanes"]["jitter_px"])


def test_jitter_of_boxes_and_signs_is_that_of_their_places():
    signs = [{"signs": (Sign([300 + 5 * (t == 1), 50], "stop"),), "boxes": (box(100 + 2 * t),)} for t in range(3)]
    numbers = drive([(signs[0], each) for each in signs])
    assert numbers["drive_signs"]["jitter_px"] == pytest.approx((10 + 0) / 2)  # x moves there and back, y not at all
    assert numbers["drive_boxes"]["jitter_px"] == pytest.approx(0.0, abs=1e-4)
    assert numbers["drive_boxes"]["label_jitter_px"] == 0.0


def test_what_is_seen_in_one_frame_only_flickers():
    alone, both = {"lanes": (lane(),)}, {"lanes": (lane(), lane(300.0))}
    assert drive([({}, alone), ({}, both), ({}, alone)])["drive_lanes"]["flicker"] == 0.5
    assert drive([({}, alone)] * 4)["drive_lanes"]["flicker"] == 0.0
    assert drive([({}, alone), ({}, both), ({}, both), ({}, alone)])["drive_lanes"]["flicker"] == 0.0


def test_identity_switches():
    labels = [{"boxes": (box(100, "a"), box(300, "b"))}] * 5
    seen = {"boxes": (box(102), box(303))}
    assert drive([(each, seen) for each in labels])["drive_boxes"]["switches_per_100"] == 0.0
    # a is missed once: found again it is another track to a follower without memory
    gap = [seen, {"boxes": (box(303),)}, seen, seen, seen]
    assert drive(list(zip(labels, gap, strict=True)))["drive_boxes"]["switches_per_100"] == pytest.approx(100 / 9)
    # predictions that say themselves which track they are of are believed
    tracked = [{"boxes": tuple(box(b.xyxy_px[0], f"t{b.xyxy_px[0]:.0f}") for b in each["boxes"])} for each in gap]
    assert drive(list(zip(labels, tracked, strict=True)))["drive_boxes"]["switches_per_100"] == 0.0
    swapped = {"boxes": (box(102, "t303"), box(303, "t102"))}
    frames = list(zip(labels, [tracked[0], swapped, swapped, swapped, swapped], strict=True))
    assert drive(frames)["drive_boxes"]["switches_per_100"] == pytest.approx(100 * 2 / 10)


def test_a_gap_in_time_ends_a_drive_and_single_pictures_are_none():
    frames = [({"lanes": (lane(40.0 * t),)},) * 2 for t in (0, 1, 3)]
    whole = drive(frames)["drive_lanes"]["jitter_px"]
    assert whole == 0.0 or np.isnan(whole)  # 80 px are too far to follow
    near = [({"lanes": (lane(4.0 * t),)},) * 2 for t in (0, 1, 3)]
    assert drive(near)["drive_lanes"]["jitter_px"] == pytest.approx(4.0, abs=1e-4)
    assert np.isnan(drive(near, stamps=[0, STEP_NS, 10 * STEP_NS])["drive_lanes"]["jitter_px"])
    assert drive(near, stamps=[0, 10 * STEP_NS, 20 * STEP_NS]) == {}
    assert drive(near, stamps=[STEP_NS, STEP_NS, STEP_NS]) == {}
    assert drive(near, tasks=("drivable",)) == {}
    scorer = DriveScorer(("lanes",))
    scorer.add("x", Sample(IMAGE, meta={"sequence": "a"}), Scene((WIDTH, HEIGHT)))
    assert scorer.scores() == []


def test_cameras_may_come_interleaved():
    scorer = DriveScorer(("lanes",))
    for index in range(3):
        for camera in ("left", "right"):
            elements = (lane(0.0 if camera == "left" else 6.0 * (index == 1)),)
            sample = Sample(IMAGE, meta={"sequence": camera, "stamp_ns": index * STEP_NS}, lanes=elements)
            scorer.add(f"{camera}:{index}", sample, Scene((WIDTH, HEIGHT), elements))
    estimate = drive_numbers(RowSet(scorer.scores()))["drive_lanes"]["jitter_px"]
    assert estimate.value == pytest.approx((0 + 12) / 2, abs=1e-4)
    assert estimate.count == 2  # drives are drawn, not frames
    assert (estimate.low, estimate.high) == (0.0, pytest.approx(12.0, abs=1e-4))


def test_cameras_of_one_sequence_are_no_frames_of_each_other():
    """nuScenes: six cameras of a scene expose one after the other, each twice a second."""
    scorer = DriveScorer(("lanes",))
    for index in range(2):
        for number, camera in enumerate(("left", "front", "right")):
            meta = {"sequence": "scene", "camera": camera, "stamp_ns": int((0.5 * index + 0.02 * number) * 1e9)}
            elements = (lane(2.0 * number**2),)
            scorer.add(f"{camera}:{index}", Sample(IMAGE, meta=meta, lanes=elements), Scene((WIDTH, HEIGHT), elements))
    assert scorer.scores() == []


def test_the_worlds_drives_are_a_data_set_with_tracks():
    source = open_source("world-drive:3-4:4", size="320x180")
    assert len(source) == 8
    assert source.key(5) == "world-drive:4:1"
    samples = [source.load(index) for index in range(len(source))]
    assert [sample.meta["index"] for sample in samples] == [0, 1, 2, 3] * 2
    scorer = DriveScorer(("lanes", "boxes", "signs"))
    for index, sample in enumerate(samples):
        scorer.add(source.key(index), sample, Scene(sample.size_wh, sample.lanes, (), sample.boxes, sample.signs))
    numbers = drive_numbers(RowSet(scorer.scores()))
    for kind in ("lanes", "boxes"):
        each = numbers[f"drive_{kind}"]
        assert each["jitter_px"].value == each["label_jitter_px"].value < 5.0
        assert each["switches_per_100"].value == 0.0
        assert each["jitter_px"].count == 2
