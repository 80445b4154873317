"""What the node adds to the model, and what gets lost on the way: raw and compressed images through real processes.

    python -m scripts.bench_node [--bundle nano] [--seconds 15] [--width 1280] [--rate-hz 15] [--overlay] [--json FILE]
    python -m scripts.bench_node --calls

Camera source, node and this program are three processes. Overhead is the processing time (message to published scene) beyond
`Perceiver.run`; age is measured at publication. Run it on a machine that does nothing else.

With ``--calls`` no node runs: it is what each of the node's own calls costs, in time on the core, for 1280x720 and a scene of 18
elements; what else the machine does hardly counts.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench_batch import core_ms
from scripts.demo import CAMERA, NODE, DemoError, environment, start, wait


def measure(options: argparse.Namespace, transport: str, env: dict[str, str], folder: Path) -> dict[str, Any]:
    """One run; the numbers of the README's table."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from getok_drive_msgs.msg import Scene
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState
    from sensor_msgs.msg import CompressedImage

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("bench", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    scenes: list[Scene] = []
    received: list[int] = []

    def on_diagnostics(msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name.endswith(f": {CAMERA}"):
                received.append(next(int(v.value) for v in status.values if v.key == "images received"))

    node.create_subscription(Scene, f"{NODE}/scene", scenes.append, 50)
    overlays: list[bytes] = []
    if options.overlay:
        node.create_subscription(CompressedImage, f"{NODE}/overlay/compressed", overlays.append, 1, raw=True)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 50)
    logs = folder / f"{transport}_node.log", folder / f"{transport}_camera.log"
    settings = {
        "transport": transport,
        "bundle": options.bundle,
        "backend": options.backend,
        "degrade": "never",
        "max_age_s": 5.0,
    }
    processes = {"perception_node": (start("perception_node", logs[0], settings, env), logs[0])}
    try:
        client = node.create_client(ChangeState, f"{NODE}/change_state")
        for label in ("configure", "activate"):
            wait(lambda: executor.spin_once(timeout_sec=0.05) or client.service_is_ready(), "services", 60, processes)
            answer = client.call_async(ChangeState.Request(transition=Transition(label=label)))
            wait(lambda answer=answer: executor.spin_once(timeout_sec=0.05) or answer.done(), label, 120, processes)
            if not answer.result().success:
                raise DemoError(f"{label} failed:\n{logs[0].read_text()[-2000:]}")
        camera = {"source": options.source, "camera": CAMERA, "rate_hz": options.rate_hz, "width_px": options.width}
        processes["camera_source"] = start("camera_source", logs[1], {**camera, "max_frames": 60}, env), logs[1]
        wait(lambda: executor.spin_once(timeout_sec=0.05) or len(scenes) > 5, "scenes", 120, processes)
        before, first = len(scenes), received[-1] if received else 0
        started = time.monotonic()
        while time.monotonic() < started + options.seconds:
            executor.spin_once(timeout_sec=0.05)
        seconds = time.monotonic() - started
        got = received[-1] - first
    finally:
        for process, _ in processes.values():
            process.send_signal(2)
        for process, _ in processes.values():
            process.wait(10)
        node.destroy_node()
        rclpy.shutdown(context=context)
    sent = [int(n) for n in re.findall(r"sent (\d+)", logs[1].read_text())]
    rows = [{s.stage: s.duration_ms for s in scene.stages} | {"age": scene.age_ms} for scene in scenes[before:]]
    # "publish" is that of the scene before: what the node spends after the scene itself is out
    overhead = [row["convert"] + row["publish"] for row in rows]
    processing = [row["convert"] + row["perceive"] + row["publish"] for row in rows]
    return {
        "transport": transport,
        "scenes": len(rows),
        "overlays": len(overlays),
        "received Hz": round(got / seconds, 2),
        "sent": sent[-1] if sent else None,
        "overhead p50 ms": round(float(np.median(overhead)), 2),
        "perceive p50 ms": round(float(np.median([row["perceive"] for row in rows])), 1),
        "age p50 ms": round(float(np.median([row["age"] for row in rows])), 1),
        "age p95 / processing p95": round(
            float(np.percentile([row["age"] for row in rows], 95) / np.percentile(processing, 95)), 2
        ),
    }


def calls(times: int = 200) -> dict[str, float]:
    """Milliseconds on one core of the calls between a message's bytes and the messages that are published."""
    import cv2
    from getok_drive_msgs.msg import Scene as SceneMsg
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header

    from getok_drive.geometry.ground import GroundProjector
    from getok_drive.ros.convert import Context, scene_to_msg
    from getok_drive.ros.drawing import Drawing
    from getok_drive.ros.feed import Calibrated
    from getok_drive.ros.grid import scene_to_grid
    from getok_drive.ros.images import compressed_to_bgr, image_to_bgr
    from getok_drive.ros.markers import scene_to_markers
    from getok_drive.ros.params import NodeParams
    from getok_drive.ros.source import compressed_msg, image_msg
    from getok_drive.types import Box, DrivableArea, Lane, Scene, Sign

    cv2.setNumThreads(1)
    size_wh, params = (1280, 720), NodeParams()
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8), (0, 0), 4)
    lanes = [Lane(np.linspace((320.0 + 160 * i, 700.0), (600.0 + 20 * i, 400.0), 12, dtype=np.float32)) for i in range(5)]
    area = DrivableArea(np.array([[320, 700], [600, 400], [680, 400], [960, 700]], np.float32))
    boxes = [Box(np.array([200 + 80 * i, 380, 250 + 80 * i, 430 + 10 * i], np.float32), "car") for i in range(10)]
    scene = Scene(
        size_wh, tuple(lanes), (area,), tuple(boxes), tuple(Sign(np.array([900.0 + 40 * i, 300.0]), "stop") for i in range(2))
    )
    guess = Calibrated.guess(size_wh, fov_deg=60.0, height_m=1.5, pitch_down_rad=0.03)
    projector, header = GroundProjector(guess.camera, guess.ground_SE3_cam, params.max_range_m), Header(frame_id="camera")
    raw, jpeg = (bytes(serialize_message(msg)) for msg in (image_msg(image), compressed_msg(image)))

    def context() -> Context:  # a new one, because it remembers the projected points
        return Context(header, "camera", "base_link", projector)

    def typed() -> tuple[SceneMsg, Context]:
        made = context()
        return scene_to_msg(scene, made), made

    alone = {
        "unpacking a raw image": lambda: image_to_bgr(deserialize_message(raw, Image)),
        "unpacking a JPEG": lambda: compressed_to_bgr(deserialize_message(jpeg, CompressedImage)),
        "typed scene, pixels only": lambda: scene_to_msg(scene, Context(header, "camera")),
        "typed scene, calibrated": typed,
        "overlay, 960 px wide": lambda: Drawing(scene, image, header, 960, 80).to_msg(),
        "overlay, 640 px wide": lambda: Drawing(scene, image, header, 640, 80).to_msg(),
    }
    found = {name: core_ms(work, times) for name, work in alone.items()}
    both = core_ms(lambda: scene_to_markers(scene, typed()[1], params.watchdog_s), times)
    found["markers on top of it"] = both - found["typed scene, calibrated"]
    both = core_ms(lambda: scene_to_grid(scene, typed()[1], params), times)
    found["grid on top of it"] = both - found["typed scene, calibrated"]
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="world:7")
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--width", type=int, default=1280, help="pixels")
    parser.add_argument("--rate-hz", type=float, default=15.0)
    parser.add_argument("--overlay", action="store_true", help="subscribe to the overlay, so that it is drawn")
    parser.add_argument("--calls", action="store_true", help="only the costs of single calls; no node runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    env = environment()
    if options.calls:
        print("| call | ms |\n|---|---|")
        print("\n".join(f"| {name} | {cost_ms:.2f} |" for name, cost_ms in calls().items()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            results = [measure(options, transport, env, Path(folder)) for transport in ("raw", "compressed")]
        except DemoError as error:
            print(f"bench failed: {error}", file=sys.stderr)
            return 1
    print("| " + " | ".join(results[0]) + " |\n|" + "---|" * len(results[0]))
    for row in results:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
