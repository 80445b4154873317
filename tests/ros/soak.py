"""The soak: cameras that stop, restart, change resolution and encoding, and are killed, while the node must keep its head.

    python -m tests.ros.soak --minutes 30 --bundle nano --report docs/soak.md        (make soak)

`test_soak` runs a short form over the scripted backend.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "0")  # the tests' checks would count as the node's time
from tests.ros import conftest  # sets the DDS environment before rclpy is loaded

assert conftest.HAS_ROS, conftest.REASON

from getok_drive_msgs.msg import Scene  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from getok_drive.ros.camera import stamp_ns  # noqa: E402
from tests.ros.harness import NODE, Client, Process  # noqa: E402

CAMERAS = ("front", "rear")
WATCHDOG_S = 2.0
_SIZES = ((320, 180), (640, 360), (1280, 720))  # the largest last, of both
_ENCODINGS = ("bgr8", "rgb8", "mono8", "bgra8")
_SETTLED = 0.2  # memory is compared from this part of the run on: libraries and buffers have been loaded by then


@dataclass
class Result:
    """What a soak showed; `failures` is empty when all targets hold."""

    seconds: float
    events: int = 0
    scenes: int = 0
    rejected: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    heap_mb: list[float] = field(default_factory=list)
    crashed: bool = False
    exit_code: int = -1

    @property
    def growth_mb(self) -> float:
        """Growth of the resident memory."""
        return growth(self.rss_mb)

    def failures(self, most_growth_mb: float = 20.0) -> list[str]:
        """Targets missed."""
        found = ["the node crashed"] if self.crashed else []
        if self.exit_code != 0:
            found.append(f"exit code {self.exit_code} on SIGINT")
        if not self.growth_mb < most_growth_mb:
            found.append(f"memory grew by {self.growth_mb:.1f} MB")
        late = [s for s in self.recoveries_s if not s <= WATCHDOG_S]  # also where it is not a number: no image ever came
        if late or not self.recoveries_s:
            most = f"{len(late)} of {len(self.recoveries_s)} recoveries took longer than {WATCHDOG_S} s"
            found.append(f"{most} (up to {max(late, default=0):.1f} s)")
        return found

    def as_markdown(self, what: str) -> str:
        """The page of the last result."""
        missed = self.failures()
        verdict = f"Missed: {'; '.join(missed)}." if missed else "All targets hold."
        slowest_s = max(self.recoveries_s, default=float("nan"))
        rows = [
            ("length", f"{self.seconds / 60:.1f} min", ""),
            ("camera events (stop, kill, restart with another size and encoding)", str(self.events), ""),
            ("scenes published", str(self.scenes), ""),
            ("crashes", str(int(self.crashed)), "0"),
            ("memory growth", f"{self.growth_mb:.1f} MB", "under 20 MB"),
            ("of it the heaps' (the rest is shared memory of the transport)", f"{growth(self.heap_mb):.1f} MB", ""),
            ("memory in each tenth of the run", f"{_tenths(self.rss_mb)} MB", ""),
            ("of it the heaps'", f"{_tenths(self.heap_mb)} MB", ""),
            ("recovery after a restart, largest", f"{slowest_s:.2f} s", f"under {WATCHDOG_S} s (watchdog)"),
            ("exit code on SIGINT", str(self.exit_code), "0"),
        ]
        lines = ["# Soak", "", f"{what} Made by `make soak`. {verdict}", "", "| | measured | target |", "|---|---|---|"]
        lines += [f"| {name} | {value} | {target} |" for name, value, target in rows]
        return "\n".join(lines) + "\n"


class Viewer:
    """An independent subscriber of one camera and of its scenes. Before it has an image, there is nothing to recover to."""

    def __init__(self, ros: Client, camera: str) -> None:
        self.image_ns = 0  # stamp of the latest image
        self.scene_ns = 0  # stamp of the image that the latest scene was seen in
        self.scenes = 0
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        ros.node.create_subscription(Image, f"/{camera}/image_raw", self._on_image, qos, raw=True)
        ros.node.create_subscription(Scene, f"{NODE}/{camera}/scene", self._on_scene, 10)

    def _on_image(self, data: bytes) -> None:
        seconds, nanoseconds = struct.unpack_from("<iI", data, 4)  # behind CDR's header
        self.image_ns = seconds * 10**9 + nanoseconds

    def _on_scene(self, msg: Scene) -> None:
        self.scene_ns = stamp_ns(msg.header.stamp)
        self.scenes += 1


def growth(values: list[float]) -> float:
    """Last values (median of a tenth of all) above those once settled (median of as many); NaN when there are none."""
    width = max(1, len(values) // 10)
    first = int(len(values) * _SETTLED)
    return float(np.median(values[-width:]) - np.median(values[first : first + width])) if values else float("nan")


def _tenths(values: list[float]) -> str:
    """Median of each tenth of the values, which shows whether memory still grows or has settled."""
    return ", ".join(f"{np.median(part):.0f}" for part in np.array_split(values, 10) if len(part))


def start_camera(ros: Client, name: str, size_wh: tuple[int, int], encoding: str, rate_hz: float) -> Process:
    """A camera process."""
    width, height = size_wh
    picture = ros.folder / f"picture_{width}.png"
    if not picture.exists():
        cv2.imwrite(str(picture), np.random.default_rng(0).integers(60, 120, (height, width, 3), np.uint8))
    settings = {"source": picture, "camera": name, "rate_hz": rate_hz, "encoding": encoding}
    return ros.start("camera_source", *(word for key, value in settings.items() for word in ("-p", f"{key}:={value}")))


def soak(ros: Client, seconds: float, seed: int = 0, pause_s: float = 5.0, **parameters: object) -> Result:
    """Runs the soak against a fresh node: for ``seconds``, or longer until two cameras have come back.

    Both cameras begin with the largest images of all, so that memory that grows later grows for no good reason.
    """
    rng, result = random.Random(seed), Result(seconds)
    settings = {"watchdog_s": WATCHDOG_S, "max_age_s": 10.0, "degrade": "never", **parameters}
    node = ros.perception(cameras=f"[{', '.join(CAMERAS)}]", **settings)
    ros.activate()
    viewers = {name: Viewer(ros, name) for name in CAMERAS}
    cameras = {name: start_camera(ros, name, _SIZES[-1], _ENCODINGS[-1], 5.0) for name in CAMERAS}
    ros.wait(lambda: min(viewer.scenes for viewer in viewers.values()) > 5, 120.0, "scenes of both cameras")
    started = time.monotonic()
    while (time.monotonic() - started < seconds or result.events < 2) and node.alive:
        name = rng.choice(CAMERAS)
        if cameras[name].alive:
            cameras[name].stop(rng.choice((signal.SIGINT, signal.SIGKILL)))
            ros.forget(cameras[name])
        time.sleep(rng.uniform(0.0, 1.0))
        viewer, since_ns = viewers[name], time.time_ns()
        size_wh, encoding, rate_hz = rng.choice(_SIZES), rng.choice(_ENCODINGS), rng.choice((5.0, 15.0))
        cameras[name] = start_camera(ros, name, size_wh, encoding, rate_hz)
        result.events += 1
        back_s = _first(ros, lambda viewer=viewer, since_ns=since_ns: viewer.image_ns > since_ns, 60.0)
        seen_s = _first(ros, lambda viewer=viewer, since_ns=since_ns: viewer.scene_ns > since_ns, 30.0)
        result.recoveries_s.append(seen_s - back_s)
        pause_end = time.monotonic() + pause_s
        while time.monotonic() < pause_end:
            if node.alive:
                rss_mb, heap_mb = node.memory_mb()
                result.rss_mb.append(rss_mb)
                result.heap_mb.append(heap_mb)
            time.sleep(0.25)
        ros.diagnostics[:-50] = []
    result.scenes = sum(viewer.scenes for viewer in viewers.values())
    result.seconds, result.crashed = time.monotonic() - started, not node.alive
    result.exit_code = node.stop()[0]
    return result


def _first(ros: Client, condition: Callable[[], bool], timeout_s: float) -> float:
    """When the condition came true, by the fair clock (that is the wall clock, with cores to spare); infinity: not in time."""
    end_s = ros.clock.now() + timeout_s
    while (now_s := ros.clock.now()) < end_s:
        if condition():
            return now_s
        time.sleep(0.01)
    return float("inf")


def main() -> int:
    """The long form; 0 when all targets hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--bundle", default="", help="model bundle (default: the scripted one, which costs no time)")
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    model = {"bundle": options.bundle, "backend": "onnx"} if options.bundle else {}
    with Client() as ros:
        result = soak(ros, options.minutes * 60, **model)
    page = result.as_markdown(f"Two cameras, bundle `{options.bundle or 'scripted'}`.")
    print(page)
    if options.report:
        before = options.report.read_text() if options.report.exists() else ""
        _, heading, others = before.partition("\n## ")  # what stands below, such as the fuzz's result, is not this program's
        options.report.write_text(page + heading + others)
    return 1 if result.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
