"""The node as its users meet it: a process of its own, driven over DDS."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from getok_drive_msgs.msg import Scene
from getok_drive_msgs.srv import LoadBundle, SetElements
from lifecycle_msgs.srv import GetState
from nav_msgs.msg import OccupancyGrid
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool
from visualization_msgs.msg import MarkerArray

from getok_drive.ros.camera import stamp_ns
from getok_drive.ros.feed import Calibrated
from getok_drive.ros.source import compressed_msg, image_msg, info_msg
from tests.ros.harness import NODE, Client
from tests.ros.scripted import scene_elements, write_bundle

SCENE = f"{NODE}/scene"
PICTURE = np.full((180, 320, 3), 90, np.uint8)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class Camera:
    """Publishes pictures by hand; remembers the stamps it sent."""

    def __init__(
        self, ros: Client, name: str = "camera", kind: Any = Image, qos: QoSProfile | int = 1, **publisher_options: Any
    ) -> None:
        self.ros, self.name = ros, name
        topic = f"/{name}/image_raw" + ("/compressed" if kind is CompressedImage else "")
        self.publisher = ros.node.create_publisher(kind, topic, qos, **publisher_options)
        self.make: Callable[[], Any] = lambda: image_msg(PICTURE) if kind is Image else compressed_msg(PICTURE)
        self.stamps: list[int] = []

    def connected(self) -> Camera:
        """Waits until the node's subscription is there, with the reliability that it settles on."""
        topic, reliability = self.publisher.topic_name, self.publisher.qos_profile.reliability

        def settled() -> bool:
            found = self.ros.node.get_subscriptions_info_by_topic(topic)
            return self.publisher.get_subscription_count() > 0 and [i.qos_profile.reliability for i in found] == [reliability]

        self.ros.wait(settled, what=f"subscription of {self.name}")
        time.sleep(0.2)  # the reader's side of the match
        return self

    def send(self, stamp: int | None = None, **changes: Any) -> int:
        msg = self.make()
        now = self.ros.node.get_clock().now().nanoseconds if stamp is None else stamp
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(now, 1_000_000_000)
        msg.header.frame_id = f"{self.name}_optical"
        for name, value in changes.items():
            setattr(msg, name, value)
        self.publisher.publish(msg)
        self.stamps.append(now)
        return now

    def send_until(self, condition: Callable[[], Any], timeout_s: float = 15.0, period_s: float = 0.05) -> None:
        end = self.ros.clock.now() + timeout_s
        while not condition():
            assert self.ros.clock.now() < end, "\n".join(p.output() for p in self.ros.processes)
            self.send()
            time.sleep(period_s)


def rejected(ros: Client, reason: str, camera: str = "camera") -> int:
    return int(ros.value(camera, f"rejected: {reason}") or 0)


def test_image_in_scene_out(ros: Client) -> None:
    ros.perception()
    ros.activate()
    scenes = ros.collect(Scene, SCENE)
    camera = Camera(ros).connected()
    camera.send_until(lambda: scenes)
    scene = scenes[0]
    assert stamp_ns(scene.header.stamp) in camera.stamps and scene.header.frame_id == "camera_optical"
    assert (scene.image_width, scene.image_height, scene.camera) == (320, 180, "camera")
    lanes, _, boxes, _ = scene_elements((320, 180))
    got = np.array([(p.x, p.y) for p in scene.lanes[0].points_px])
    np.testing.assert_allclose(got, lanes[0].points_px, atol=1.0)
    box = scene.boxes[0]
    corners = (box.top_left_px.x, box.top_left_px.y, box.bottom_right_px.x, box.bottom_right_px.y)
    np.testing.assert_allclose(corners, boxes[0].xyxy_px, atol=1.0)
    assert len(scene.lanes) == 2 and len(scene.drivable_areas) == 1 and scene.signs[0].class_name == "stop"
    assert scene.bundle_name == "scripted" and len(scene.bundle_sha256) == 64
    assert 0 < scene.age_ms < (time.time_ns() - stamp_ns(scene.header.stamp)) / 1e6
    stages = {s.stage: s.duration_ms for s in scene.stages}
    assert stages["perceive"] > 0 and stages["perceive"] <= scene.age_ms


def test_graph_is_alive_while_the_bundle_loads(ros: Client) -> None:
    gate = ros.folder / "loaded"
    ros.perception(env={"SCRIPTED_LOAD_GATE": str(gate)})
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    client = ros.node.create_client(ChangeState, f"{NODE}/change_state")
    ros.wait(client.service_is_ready)
    done = client.call_async(ChangeState.Request(transition=Transition(label="configure")))
    ros.wait(lambda: (ros.status("engine") or 0) and "loading bundle" in ros.status("engine").message)
    assert ros.call(GetState, f"{NODE}/get_state").current_state.label == "configuring"
    assert ros.set_parameter("bundle", "other") == (
        False,
        "bundle: cannot change while the node is loading; clean up the node first",
    )
    assert ros.set_parameter("max_age_s", 1.5)[0]
    assert ros.transition("configure") is False  # another transition is under way
    assert not done.done()
    gate.touch()
    ros.wait(done.done)
    assert done.result().success
    assert "inactive" in ros.wait(lambda: "inactive" in ros.status("engine").message and ros.status("engine").message)


def test_lifecycle_frees_and_comes_back(ros: Client) -> None:
    process = ros.perception()
    assert ros.transition("activate") is False and ros.state() == "unconfigured"  # impossible: refused, nothing breaks
    scenes = ros.collect(Scene, SCENE)
    camera = Camera(ros)
    for _ in range(2):
        ros.activate()
        assert ros.state() == "active"
        count = len(scenes)
        camera.connected().send_until(lambda count=count: len(scenes) > count)
        assert ros.transition("deactivate") and ros.state() == "inactive"
        ros.wait(lambda: camera.publisher.get_subscription_count() == 0)
        assert ros.transition("cleanup") and ros.state() == "unconfigured"
        ros.wait(lambda: ros.node.count_publishers(SCENE) == 0)
    assert ros.transition("shutdown") and ros.state() == "finalized"
    assert process.alive


def test_failed_configuration_gives_the_reason_and_can_be_mended(ros: Client) -> None:
    ros.perception(bundle="/nowhere/at/all")
    assert ros.transition("configure") is False
    assert ros.state() == "unconfigured"
    ros.wait(lambda: ros.status("engine") and ros.status("engine").level == b"\x02")
    assert "/nowhere/at/all" in ros.status("engine").message
    assert ros.set_parameter("bundle", str(write_bundle(ros.folder / "good"))) == (True, "")
    ros.activate()
    ros.wait(lambda: ros.status("engine").level == b"\x00")


def test_every_processed_frame_is_the_newest(ros: Client) -> None:
    """While the model is held on one image, others come; which of them is next does not depend on anybody's speed."""
    gate = ros.folder / "gate"
    gate.mkdir()
    (gate / "0").touch()  # the warm-up
    ros.perception(env={"SCRIPTED_GATE": str(gate)}, diagnostics_period_s=0.1, max_age_s=60.0, patience=0.0)
    ros.activate()
    scenes = ros.collect(Scene, SCENE)
    camera = Camera(ros, qos=10).connected()

    def arrived() -> bool:
        return ros.value("camera", "images received") == str(len(camera.stamps))

    newest = [camera.send()]
    ros.wait(lambda: ros.value("camera", "images taken") == "1", what="work on the first image")
    bursts = (3, 1, 2, 3, 3)
    for number, burst in enumerate(bursts, start=1):
        for _ in range(burst):
            stamp = camera.send()
            ros.wait(arrived, what=f"image {len(camera.stamps)} received")
        newest.append(stamp)
        (gate / str(number)).touch()
        ros.wait(lambda number=number: len(scenes) == number, what=f"scene {number}")
    (gate / str(len(newest))).touch()
    ros.wait(lambda: len(scenes) == len(newest), what="the last scene")
    assert [stamp_ns(scene.header.stamp) for scene in scenes] == newest
    assert [scene.dropped_since_last for scene in scenes] == [*(burst - 1 for burst in bursts), 0]
    ros.wait(lambda: ros.value("camera", "images processed") == str(len(newest)))
    assert ros.value("camera", "images taken with a newer one there") == "0"
    assert ros.value("camera", "images superseded by a newer one") == str(len(camera.stamps) - len(newest))


def test_broken_frames_cost_one_diagnostic_each(ros: Client) -> None:
    process = ros.perception()
    ros.activate()
    scenes = ros.collect(Scene, SCENE)
    camera = Camera(ros).connected()
    camera.send_until(lambda: scenes)
    now = ros.node.get_clock().now().nanoseconds
    broken: list[tuple[str, dict[str, Any]]] = [
        ("wrong_step", {"step": 7}),
        ("wrong_size", {"height": 181}),
        ("empty_image", {"width": 0}),
        ("unknown_encoding", {"encoding": "smoke signals"}),
        ("image_too_large", {"width": 2**31, "height": 2**31}),
        ("stamp_zero", {"stamp": 0}),
        ("stamp_future", {"stamp": now + 3600 * 10**9}),
        ("stamp_backwards", {"stamp": now - 10**9}),
        ("stamp_repeated", {"stamp": now - 10**9}),
        ("stale", {"stamp": now - 9 * 10**8, "wait": True}),
    ]
    camera.send()
    for reason, changes in broken:
        time.sleep(0.05)
        if changes.pop("wait", False):
            assert ros.set_parameter("max_age_s", 0.1)[0]
        camera.send(**changes)
        ros.wait(lambda reason=reason: rejected(ros, reason) == 1, what=reason)
    assert ros.set_parameter("max_age_s", 2.0)[0]
    info = ros.node.create_publisher(CameraInfo, "/camera/camera_info", 1)
    ros.wait(lambda: info.get_subscription_count() > 0)
    for _ in range(5):
        info.publish(CameraInfo(width=320, height=180, k=[float("nan")] * 9, distortion_model="plumb_bob", d=[0.0] * 5))
        time.sleep(0.05)
    ros.wait(lambda: rejected(ros, "camera_info_invalid") >= 1, what="NaN camera_info")
    assert rejected(ros, "camera_info_invalid") == 1  # the same broken calibration again is no news
    count = len(scenes)
    camera.send_until(lambda: len(scenes) > count)
    assert process.alive
    assert "Traceback" not in process.output()


def test_compressed_images_and_corrupt_ones(ros: Client) -> None:
    ros.perception(transport="compressed")
    ros.activate()
    scenes = ros.collect(Scene, SCENE)
    camera = Camera(ros, kind=CompressedImage).connected()
    camera.send_until(lambda: scenes)
    good = compressed_msg(PICTURE)
    camera.make = lambda: CompressedImage(format="jpeg", data=good.data[:50])
    camera.send()
    ros.wait(lambda: rejected(ros, "corrupt_image") == 1)


@pytest.mark.parametrize("first", [BEST_EFFORT, QoSProfile(depth=1)], ids=["best effort", "reliable"])
def test_qos_follows_the_publisher(ros: Client, first: QoSProfile) -> None:
    """Whatever the camera offers, and also when it comes back offering something else."""
    ros.perception()
    ros.activate()
    scenes = ros.collect(Scene, SCENE)
    camera = Camera(ros, qos=first)
    camera.send_until(lambda: scenes)
    ros.node.destroy_publisher(camera.publisher)
    other = QoSProfile(depth=1) if first is BEST_EFFORT else BEST_EFFORT
    camera = Camera(ros, qos=other)
    count = len(scenes)
    camera.send_until(lambda: len(scenes) > count + 3)
    ros.wait(lambda: _subscription_reliability(ros) == other.reliability, what="QoS of the subscription")


def _subscription_reliability(ros: Client) -> Any:
    found = ros.node.get_subscriptions_info_by_topic("/camera/image_raw")
    return found[0].qos_profile.reliability if found else None


def test_calibrated_outputs_on_demand(ros: Client) -> None:
    path = ros.folder / "calibration.yaml"
    path.write_text("cameras: {camera: {mount: {height_m: 1.5, pitch_down_deg: 1.0}}}\n")
    ros.perception(calibration=path)
    ros.activate()
    scenes = ros.collect(Scene, SCENE)
    camera = Camera(ros).connected()
    info = ros.node.create_publisher(CameraInfo, "/camera/camera_info", 1)
    ros.wait(lambda: info.get_subscription_count() > 0)
    message = info_msg(Calibrated.guess((320, 180), 60.0, 1.5, 0.02))

    def calibrated() -> bool:
        info.publish(message)
        return bool(scenes) and scenes[-1].calibrated

    camera.send_until(calibrated)
    scene = scenes[-1]
    assert scene.ground_frame_id == "base_link"
    near = scene.lanes[0].points_ground_m[0]
    assert 2 < near.x < 10 and 0 < near.y < 5 and near.z == 0
    markers = ros.collect(MarkerArray, f"{NODE}/markers")
    grids = ros.collect(OccupancyGrid, f"{NODE}/drivable_grid")
    overlays = ros.collect(CompressedImage, f"{NODE}/overlay/compressed")
    camera.send_until(lambda: markers and grids and overlays)
    assert {m.ns for m in markers[-1].markers} >= {"lanes", "drivable", "boxes", "signs"}
    assert 0 in grids[-1].data and 100 in grids[-1].data
    picture = cv2.imdecode(np.frombuffer(overlays[-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[0] / picture.shape[1] == PICTURE.shape[0] / PICTURE.shape[1]
    assert np.ptp(picture) > 60  # the image is plain grey, the drawing is not
    assert stamp_ns(overlays[-1].header.stamp) in camera.stamps


def test_several_cameras_take_turns(ros: Client) -> None:
    ros.perception(cameras="[front, rear, left]", env={"SCRIPTED_RUN_S": "0.03"})
    ros.activate()
    names = ("front", "rear", "left")
    scenes = {name: ros.collect(Scene, f"{NODE}/{name}/scene") for name in names}
    cameras = [Camera(ros, name).connected() for name in names]
    end = ros.clock.now() + 15.0
    while min(map(len, scenes.values())) < 6 and ros.clock.now() < end:
        for camera in cameras:
            camera.send()
        time.sleep(0.03)
    counts = {name: len(found) for name, found in scenes.items()}
    assert min(counts.values()) >= 6 and max(counts.values()) - min(counts.values()) <= 4, counts
    for camera in cameras:
        found = scenes[camera.name]
        assert all(s.camera == camera.name and stamp_ns(s.header.stamp) in camera.stamps for s in found)


@pytest.mark.parametrize("kind", [Image, CompressedImage])
def test_two_cameras_can_be_swapped_by_remapping(ros: Client, kind: Any) -> None:
    """A name that has been remapped must not be remapped again; and the rule for an image holds for its compressed twin."""
    swapped = {"left/image_raw": "/right/image_raw", "right/image_raw": "/left/image_raw"}
    transport = "raw" if kind is Image else "compressed"
    ros.perception(cameras="[left, right]", transport=transport, remap=swapped)
    ros.activate()
    scenes = ros.collect(Scene, f"{NODE}/right/scene")
    camera = Camera(ros, "left", kind).connected()
    camera.send_until(lambda: scenes)
    assert scenes[0].camera == "right" and scenes[0].header.frame_id == "left_optical"
    topic = f"/left/image_raw{'' if kind is Image else '/compressed'}"
    ros.wait(lambda: ros.value("right", "topic") == topic and ros.value("right", "publishers") == "1")


def test_services_and_parameters_while_running(ros: Client) -> None:
    ros.perception()
    ros.activate()
    scenes = ros.collect(Scene, SCENE)
    camera = Camera(ros).connected()
    camera.send_until(lambda: scenes)

    answer = ros.call(SetElements, f"{NODE}/set_elements", kinds=["boxes"], box_classes=["truck"])
    assert answer.success and "boxes: truck" in answer.message
    camera.send_until(lambda: not scenes[-1].lanes and not scenes[-1].boxes)
    assert not ros.call(SetElements, f"{NODE}/set_elements", kinds=["cats"]).success
    assert "'unicorn'" in ros.call(SetElements, f"{NODE}/set_elements", box_classes=["unicorn"]).message
    assert ros.call(SetElements, f"{NODE}/set_elements").success
    camera.send_until(lambda: scenes[-1].lanes and scenes[-1].boxes and scenes[-1].signs)

    assert ros.set_parameter("token_budget", 20)[0]
    camera.send_until(lambda: scenes[-1].truncated and scenes[-1].tokens < 30)
    assert ros.set_parameter("token_budget", 0)[0]
    refused, reason = ros.set_parameter("cameras", ["other"])
    assert not refused and "clean up the node first" in reason
    assert not ros.set_parameter("max_age_s", -1.0)[0]

    assert ros.call(SetBool, f"{NODE}/enable", data=False).success
    time.sleep(0.2)
    count = len(scenes)
    for _ in range(5):
        camera.send()
        time.sleep(0.05)
    assert len(scenes) == count
    assert ros.call(SetBool, f"{NODE}/enable", data=True).success
    camera.send_until(lambda: len(scenes) > count)

    answer = ros.call(LoadBundle, f"{NODE}/load_bundle", bundle="/nowhere")
    assert not answer.success and "stays" in answer.message and answer.bundle_name == "scripted"
    answer = ros.call(LoadBundle, f"{NODE}/load_bundle", bundle=str(write_bundle(ros.folder / "next", "next")))
    assert answer.success and answer.bundle_name == "next"
    camera.send_until(lambda: scenes[-1].bundle_name == "next")


def test_degraded_mode_under_overload(ros: Client) -> None:
    ros.perception(
        env={"SCRIPTED_RUN_S": "0.06"},
        degrade="auto",
        slow_warn_ms=30.0,
        degraded_kinds="[lanes]",
        degraded_max_rate_hz=4.0,
        degraded_hold_s=60.0,
    )
    ros.activate()
    scenes = ros.collect(Scene, SCENE)
    camera = Camera(ros).connected()
    camera.send_until(lambda: scenes and scenes[-1].mode == Scene.MODE_DEGRADED, period_s=0.03)
    assert scenes[-1].lanes and not scenes[-1].boxes and not scenes[-1].signs
    assert scenes[0].mode == Scene.MODE_NORMAL and scenes[0].boxes
    ros.wait(lambda: "overload" in (ros.value("engine", "mode") or ""))
    assert ros.status("engine").level == b"\x01"
    count = len(scenes)
    camera.send_until(lambda: len(scenes) >= count + 6, period_s=0.03)
    published_s = [stamp_ns(scene.header.stamp) / 1e9 + scene.age_ms / 1e3 for scene in scenes[count:]]
    assert published_s[-1] - published_s[0] > 0.8 * (len(published_s) - 1) / 4.0  # 4 Hz; twenty times as many would be possible


def test_under_simulation_time_the_watchdog_needs_no_clock(ros: Client) -> None:
    """Without /clock (not started, paused, crashed) diagnostics go on; with it, stamps and ages are the simulation's."""
    ros.perception(use_sim_time=True, watchdog_s=0.5)
    ros.activate()
    ros.wait(lambda: ros.status("camera") and ros.status("camera").level == b"\x02" and "nobody" in ros.status("camera").message)
    scenes = ros.collect(Scene, SCENE)
    camera, clock = Camera(ros).connected(), ros.node.create_publisher(Clock, "/clock", 10)
    now = Clock()
    for second in itertools.count(1000):
        now.clock.sec = second
        clock.publish(now)
        time.sleep(0.1)  # the node's clock follows
        camera.send(stamp=second * 1_000_000_000 - 20_000_000)
        time.sleep(0.1)
        if scenes or second > 1100:
            break
    assert scenes and 20.0 <= scenes[0].age_ms < 1500.0
    ros.wait(lambda: int(ros.value("camera", "images processed") or 0) >= 1)


def test_watchdog_and_a_failing_engine(ros: Client) -> None:
    ros.perception(watchdog_s=0.5, env={"SCRIPTED_FAIL": "1"}, bundle=write_bundle(ros.folder / "b"))
    assert ros.transition("configure") is False  # warm-up already fails
    ros.wait(lambda: "scripted failure" in (ros.status("engine").message if ros.status("engine") else ""))
    ros.processes[0].stop()
    ros.wait(ros.gone)
    ros.diagnostics.clear()
    ros.perception(watchdog_s=0.5)
    ros.activate()
    ros.wait(lambda: ros.status("camera") and ros.status("camera").level == b"\x02" and "nobody" in ros.status("camera").message)
    camera = Camera(ros).connected()
    camera.send_until(lambda: ros.status("camera").level == b"\x00")
    ros.wait(lambda: "silent" in ros.status("camera").message)
