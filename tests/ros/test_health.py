"""Slots, verdicts, degraded mode and calibration files: the node's judgement without a node."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from getok_drive.errors import CalibrationError
from getok_drive.geometry.camera import SE3
from getok_drive.ros.calibration import camera_from_info, load_calibration
from getok_drive.ros.health import ERROR, OK, WARN, CameraHealth, DegradeControl, Verdict, hottest_c
from getok_drive.ros.params import NodeParams
from getok_drive.ros.slot import LatestSlots, Taken


def test_an_image_that_is_due_is_worth_waiting_for_and_a_late_one_is_not():
    now = [0.0]
    slots: LatestSlots[int] = LatestSlots(1, lambda: now[0])
    for beat in range(6):
        now[0] = beat * 0.1
        slots.put(0, beat)
        if beat < 2:
            assert slots.worth_waiting_s(0, 0.0) == 0.0  # no rhythm yet
    now[0] = 0.515
    assert slots.worth_waiting_s(0, 0.02) == 0.0  # young enough
    now[0] = 0.56
    assert slots.worth_waiting_s(0, 0.02) == pytest.approx(0.06)  # due at 0.6, late from 0.62 on
    assert slots.worth_waiting_s(0, 0.07) == 0.0
    now[0] = 0.63
    assert slots.worth_waiting_s(0, 0.02) == 0.0  # late
    slots.put(0, 7)
    assert slots.worth_waiting_s(0, 0.02) == 0.0


def test_a_pause_does_not_pass_for_a_rhythm() -> None:
    now = [0.0]
    slots: LatestSlots[int] = LatestSlots(1, lambda: now[0])
    for _ in range(10):
        slots.put(0, 0)
        now[0] += 0.1
    now[0] += 60.0  # the camera stops, comes back for one image, and stops again
    slots.put(0, 1)
    now[0] += 0.05
    assert 0.0 < slots.worth_waiting_s(0, 0.02) < 0.1
    now[0] += 0.1
    assert slots.worth_waiting_s(0, 0.02) == 0.0  # late: nothing is waited for any longer


def test_a_slower_rhythm_is_learnt() -> None:
    now = [0.0]
    slots: LatestSlots[int] = LatestSlots(1, lambda: now[0])
    for period_s in [0.05] * 10 + [0.5] * 40:
        slots.put(0, 0)
        now[0] += period_s
    slots.put(0, 1)
    now[0] += 0.4
    assert slots.worth_waiting_s(0, 0.02) == pytest.approx(0.2, rel=0.1)  # due at 0.5, late from 0.6 on


def test_nobody_waits_while_another_camera_has_an_image() -> None:
    now = [0.0]
    slots: LatestSlots[int] = LatestSlots(2, lambda: now[0])
    for _ in range(5):
        slots.put(0, 0)
        now[0] += 0.1
    now[0] -= 0.04
    assert slots.worth_waiting_s(0, 0.02) > 0.0
    slots.put(1, 0)
    assert slots.worth_waiting_s(0, 0.02) == 0.0


def test_slot_hands_out_the_newest_and_takes_turns() -> None:
    slots: LatestSlots[int] = LatestSlots(2)
    assert slots.put(0, 1) is False
    assert slots.put(0, 2) is True  # 1 was superseded
    slots.put(1, 10)
    assert slots.take(0.0) == Taken(0, 2, sequence=2, newer=0)
    slots.put(0, 3)
    assert slots.take(0.0) == Taken(1, 10, sequence=1, newer=0)  # camera 1's turn, although camera 0 has news
    assert slots.take(0.0) == Taken(0, 3, sequence=3, newer=0)
    assert slots.take(0.01) is None


def test_slot_would_tell_an_item_that_is_not_the_newest() -> None:
    """What the node reports as "taken with a newer one there", on a slot that was made to keep the first item."""
    slots: LatestSlots[int] = LatestSlots(1)
    slots.put(0, 1)
    first = slots._items[0]
    slots.put(0, 2)
    slots.put(0, 3)
    slots._items[0] = first
    assert slots.take(0.0) == Taken(0, 1, sequence=1, newer=2)


def test_slot_gives_the_newest_whatever_its_producers_do() -> None:
    """Two producers as fast as they can: every item taken is the last one put, by the slot's own count and by theirs."""
    slots: LatestSlots[int] = LatestSlots(2)
    replaced = [0, 0]

    def produce(index: int) -> None:
        for number in range(1, 3001):
            replaced[index] += slots.put(index, number)

    threads = [threading.Thread(target=produce, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    found = []
    while any(thread.is_alive() for thread in threads):
        found.append(slots.take(0.001))
    found += [slots.take(0.0), slots.take(0.0)]
    taken = [one for one in found if one is not None]
    assert all(one.newer == 0 and one.item == one.sequence for one in taken)
    for index in (0, 1):
        mine = [one.item for one in taken if one.index == index]
        assert mine == sorted(set(mine)) and mine[-1] == 3000
        assert len(mine) + replaced[index] == 3000


def test_slot_wakes_its_consumer_and_closes() -> None:
    slots: LatestSlots[int] = LatestSlots(1)
    threading.Timer(0.05, slots.put, (0, 7)).start()
    started = time.monotonic()
    assert slots.take(5.0) == Taken(0, 7, sequence=1, newer=0)
    assert time.monotonic() - started < 2.0
    threading.Timer(0.05, slots.close).start()
    assert slots.take(5.0) is None
    slots.put(0, 8)
    assert slots.take(0.0) is None


def test_slot_under_a_rate_limit_still_gives_the_newest() -> None:
    slots: LatestSlots[int] = LatestSlots(1)
    free_at_s = time.monotonic() + 0.15
    slots.put(0, 1)
    threading.Timer(0.05, slots.put, (0, 2)).start()
    assert slots.take(1.0, lambda index: free_at_s - time.monotonic()) == Taken(0, 2, sequence=2, newer=0)
    assert time.monotonic() >= free_at_s


def verdict(health: CameraHealth, now_s: float, params: NodeParams | None = None, publishers: int = 1) -> Verdict:
    return health.verdict(params or NodeParams(), now_s, "/camera/image_raw", publishers)


def test_watchdog_and_slowness() -> None:
    health = CameraHealth(100.0)
    assert verdict(health, 101.0).level == OK
    silent = verdict(health, 103.0, publishers=0)
    assert silent.level == ERROR and "nobody publishes" in silent.message
    health.received(103.0, superseded=False)
    health.processed(103.1, 100.0, 120.0, {}, truncated=False)
    assert verdict(health, 103.5).level == OK
    assert "silent" in verdict(health, 106.0).message
    for step in range(20):
        health.received(106.0 + step, superseded=False)
        health.processed(106.0 + step, 500.0, 510.0, {"lane_too_short": 2}, truncated=True)
    slow = verdict(health, 125.5)
    assert slow.level == WARN and "slow_warn_ms" in slow.message
    assert slow.values["decode issue: lane_too_short"] == "40" and slow.values["scenes truncated"] == "20"
    assert slow.values["rate [Hz]"] == "1.00"
    assert verdict(health, 125.5, NodeParams(slow_error_ms=450.0)).level == ERROR


def test_a_frame_that_does_not_end_is_slow_long_before_it_ends() -> None:
    health, params = CameraHealth(0.0), NodeParams(slow_warn_ms=400.0, slow_error_ms=1000.0)
    health.received(0.9, superseded=False)
    health.taken(1.0, newer=0)
    assert verdict(health, 1.3, params).level == OK and health.processing_ms(1.3) == pytest.approx(300.0)
    assert verdict(health, 1.5, params).level == WARN
    stuck = verdict(health, 2.5, params)
    assert stuck.level == ERROR and "1500 ms" in stuck.message and stuck.values["image in work for [s]"] == "1.50"
    health.processed(2.6, 1600.0, 1700.0, {}, truncated=False)
    health.finished()
    ended = verdict(health, 2.7, params)
    assert "1600 ms" in ended.message and "image in work for [s]" not in ended.values
    health.restart(2.8)
    assert health.processing_ms(2.9) is None


def test_what_is_over_does_not_look_like_now() -> None:
    """20 slow images, then a silent camera: the rate sinks, and the node is not overloaded any more."""
    health, params = CameraHealth(0.0), NodeParams(watchdog_s=3600.0)
    for step in range(20):
        health.processed(10.0 + step, 900.0, 950.0, {}, truncated=False)
    assert verdict(health, 29.5, params).values["rate [Hz]"] == "1.00" and health.processing_ms(29.5) == 900.0
    later = verdict(health, 106.0, params)
    assert later.values["rate [Hz]"] == "0.20" and later.level == OK
    assert health.processing_ms(106.0) is None


def test_a_rejection_is_reported_once_and_counted_for_good() -> None:
    health = CameraHealth(0.0)
    health.received(0.1, superseded=False)
    health.rejected("wrong_step", "step is 1")
    first = verdict(health, 0.2)
    assert first.level == WARN and "step is 1" in first.message
    second = verdict(health, 0.3)
    assert second.level == OK and second.values["rejected: wrong_step"] == "1"
    assert health.take_dropped() == 1 and health.take_dropped() == 0


def test_degraded_mode_comes_at_once_and_goes_late() -> None:
    control, params = DegradeControl(), NodeParams(slow_warn_ms=100.0, degraded_hold_s=5.0, hot_c=90.0)
    assert not control.update(params, 0.0, 50.0, 60.0)
    assert control.update(params, 1.0, 150.0, 60.0) and "overload" in control.reason
    assert control.update(params, 5.0, 50.0, 60.0)
    assert not control.update(params, 6.1, 50.0, None)
    assert control.update(params, 7.0, None, 91.0) and "heat" in control.reason
    assert not control.update(NodeParams(degrade="never"), 8.0, 1e6, 200.0)
    assert control.update(NodeParams(degrade="always"), 9.0, None, None)


def test_a_steady_overload_tries_normal_mode_ever_more_rarely() -> None:
    control, params = DegradeControl(), NodeParams(slow_warn_ms=100.0, degraded_hold_s=5.0)
    cost_ms, left_s = 150.0, []
    for now_s in range(2000):  # a frame costs 150 ms in normal mode, 50 ms in degraded mode
        degraded = control.update(params, float(now_s), cost_ms, None)
        if cost_ms == 50.0 and not degraded:
            left_s.append(now_s)
        cost_ms = 50.0 if degraded else 150.0
    stays = np.diff(left_s)
    assert stays[:4].tolist() == [11, 21, 41, 81] and set(stays[4:]) == {81}
    assert not control.update(params, 3000.0, 50.0, None) and control.update(params, 3100.0, 150.0, None)
    assert not control.update(params, 3105.0, 50.0, None), "long after the last stay it is short again"


def test_thermal_zones(tmp_path: Path) -> None:
    assert hottest_c(tmp_path) is None
    for name, text in (("thermal_zone0", "45000"), ("thermal_zone1", "71500"), ("thermal_zone2", "broken")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "temp").write_text(text)
    assert hottest_c(tmp_path) == 71.5


def roi(x_offset: int = 0, y_offset: int = 0, width: int = 0, height: int = 0) -> SimpleNamespace:
    return SimpleNamespace(x_offset=x_offset, y_offset=y_offset, width=width, height=height, do_rectify=False)


def info(**changes: object) -> SimpleNamespace:
    fields = {
        "width": 1280, "height": 720, "distortion_model": "plumb_bob", "k": [1000.0, 0, 640, 0, 1000, 360, 0, 0, 1],
        "d": [0.0] * 5, "binning_x": 0, "binning_y": 0, "roi": roi(),
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


def test_camera_info() -> None:
    camera = camera_from_info(info())
    assert camera is not None and camera.size_wh == (1280, 720) and camera.K[0, 0] == 1000
    assert camera_from_info(info(k=[0.0] * 9)) is None
    for wrong in (
        {"k": [float("nan")] * 9}, {"d": [float("inf")] * 5}, {"width": 0}, {"distortion_model": "kaleidoscope"},
        {"roi": roi(1000, 0, 640, 480)}, {"binning_x": 2000},
    ):  # fmt: skip
        with pytest.raises(CalibrationError):
            camera_from_info(info(**wrong))


def test_camera_info_of_a_part_of_the_sensor() -> None:
    """REP 104: offset and size in unbinned pixels; the whole image may be written out as a region of its size."""
    whole = camera_from_info(info(roi=roi(0, 0, 1280, 720), binning_x=1, binning_y=1))
    assert whole is not None and whole.size_wh == (1280, 720) and whole.K[0, 2] == 640
    part = camera_from_info(info(roi=roi(320, 180, 640, 360), binning_x=2, binning_y=2))
    assert part is not None and part.size_wh == (320, 180)
    # the sensor's pixel 640 is the window's 320; the centre of block (160, 90) is at 160.5 - 0.5 / 2 of it
    np.testing.assert_allclose(part.K, [[500, 0, 159.75], [0, 500, 89.75], [0, 0, 1]])
    binned = camera_from_info(info(binning_y=2))
    assert binned is not None and binned.size_wh == (1280, 360) and binned.K[1, 1] == 500


def test_calibration_file(tmp_path: Path) -> None:
    path = tmp_path / "calibration.yaml"
    path.write_text(
        "ground_frame: base_footprint\ncameras:\n"
        "  front: {mount: {height_m: 1.4, x_m: 1.5, pitch_down_deg: 3}}\n"
        "  rear: {pose: {translation_m: [0, 0, 1.2], quaternion_xyzw: [-0.5, 0.5, -0.5, 0.5]},\n"
        "         intrinsics: {image_size_wh: [640, 480], K: [500, 0, 320, 0, 500, 240, 0, 0, 1]}}\n"
    )
    calibration = load_calibration(path, ("front", "rear", "other"))
    assert calibration.ground_frame == "base_footprint" and set(calibration.cameras) == {"front", "rear"}
    want = SE3.from_mount(height_m=1.4, x_m=1.5, pitch_down_rad=np.radians(3))
    np.testing.assert_allclose(calibration.cameras["front"].ground_SE3_cam.rotation, want.rotation)
    assert calibration.cameras["rear"].camera is not None
    assert load_calibration("", ("front",)).cameras == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as YAML"),
        ("cameras: 3", "expected a mapping"),
        ("cameras: {rear: {}}", "none of"),
        ("cameras: {front: {}}", "exactly one of mount and pose"),
        ("cameras: {front: {mount: 1.4}}", r"cameras\.front"),
        ("cameras: {front: {mount: {}}}", "height_m' is missing"),
        ("cameras: {front: {mount: {height_m: high}}}", "could not convert"),
        ("cameras: {front: {mount: {height_m: 1, tilt: 3}}}", "unknown"),
        ("cameras: {front: {pose: {translation_m: [0, 0, 1], quaternion_xyzw: [0, 0, 0, 9]}}}", "norm"),
        ("cameras: {front: {pose: {translation_m: [0, 0, 1], quaternion: [0, 0, 0, 1]}}}", r"pose: unknown \['quaternion'\]"),
        ("cameras: {front: {mount: {height_m: 1}, intrinsics: {image_size_wh: [2, 2], d: [1]}}}", r"intrinsics: unknown \['d'\]"),
    ],
)
def test_wrong_calibration_files_name_the_mistake(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "calibration.yaml"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=message):
        load_calibration(path, ("front",))
    with pytest.raises(CalibrationError, match="cannot be read"):
        load_calibration(tmp_path / "absent.yaml", ("front",))
