"""What the node adds to the model, and what gets lost on the way: raw and compressed images through real processes.

    python -m scripts.bench_node [--bundle nano] [--seconds 15] [--width 1280] [--rate-hz 15] [--overlay] [--json FILE]

Camera source, node and this program are three processes. Overhead is the processing time (message to published scene) beyond
`Perceiver.run`; age is measured at publication. Run it on a machine that does nothing else.
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
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    env = environment()
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
