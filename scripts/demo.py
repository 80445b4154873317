"""The demo: a camera source and the perception node as processes of their own over DDS; this program drives and records them.

    python -m scripts.demo [--source world:7 | my.mp4 | folder] [--out out/demo] [--seconds 20]

Leaves a bag (MCAP), an overlay video, a contact sheet and a table of latencies in the folder, and says so. Exit code 0 only when
the node has produced scenes with something in them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.ros_domain import free_domain
from scripts.ros_environment import child_environment, stay_on_this_machine

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ros2_ws" / "src" / "getok_drive"
NODE = "/perception_node"
CAMERA = "camera"


class DemoError(Exception):
    """Why there is nothing to show."""


def environment() -> dict[str, str]:
    """For all processes: a DDS domain of this run alone, this machine only, the profile for large images."""
    profile = str(PACKAGE / "config" / "fastdds_large_images.xml")
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    if "ROS_DOMAIN_ID" not in os.environ:
        os.environ["ROS_DOMAIN_ID"] = free_domain()
    stay_on_this_machine()
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = profile
    return child_environment()


def start(executable: str, log: Path, parameters: dict[str, Any], env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts an executable of the package with the command line that ``ros2 launch`` uses."""
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    command = [sys.executable, str(PACKAGE / "scripts" / executable), "--ros-args", "-r", f"__node:={executable}", *words]
    with log.open("wb") as out:
        return subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)


def wait(condition: Callable[[], Any], what: str, timeout_s: float, processes: dict[str, tuple[Any, Path]]) -> None:
    """Waits for a condition; a process that ends meanwhile, or the time running out, is an error with its last words."""
    end = time.monotonic() + timeout_s
    while not condition():
        for name, (process, log) in processes.items():
            if process.poll() is not None:
                raise DemoError(f"{name} ended with exit code {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
        if time.monotonic() > end:
            logs = "\n".join(f"--- {name}\n{log.read_text(errors='replace')[-3000:]}" for name, (_, log) in processes.items())
            raise DemoError(f"{what}: not within {timeout_s:.0f} s\n{logs}")
        time.sleep(0.05)


def run(options: argparse.Namespace) -> None:
    """Everything from start to results."""
    for module in ("rclpy", "getok_drive_msgs", "rosbags"):
        if importlib.util.find_spec(module) is None:
            raise DemoError(
                f"{module} is not installed here; make demo installs it (ROS 2 from apt: ros2_ws/src/getok_drive/README.md)"
            )
    env = environment()
    out: Path = options.out
    if (out / "bag").exists():
        shutil.rmtree(out / "bag")  # the last demo's
    out.mkdir(parents=True, exist_ok=True)
    calibration = (out / "calibration.yaml").resolve()
    calibration.unlink(missing_ok=True)

    from scripts.demo_recorder import Recorder

    processes: dict[str, tuple[Any, Path]] = {}
    recorder = Recorder(out / "bag", NODE)
    try:
        note = " (the driving world is rendered first)" if options.source.startswith("world:") else ""
        print(f"1/5  camera source: {options.source}{note}", flush=True)
        camera = {"source": options.source, "camera": CAMERA, "rate_hz": options.rate_hz, "calibration_out": calibration}
        if options.source.startswith("world:"):
            camera["max_frames"] = max(1, int(options.seconds * options.rate_hz))
        processes["camera_source"] = start("camera_source", out / "camera_source.log", camera, env), out / "camera_source.log"
        wait(calibration.exists, "camera source", 120, processes)
        print("2/5  perception node: configure (load and verify the bundle, warm up), activate", flush=True)
        node = {
            "cameras": f"[{CAMERA}]",
            "calibration": calibration,
            "bundle": options.bundle,
            "backend": options.backend,
            "max_age_s": 2.0,
            "degrade": "never",  # show everything, also on a slow machine
            "watchdog_s": 5.0,
        }
        processes["perception_node"] = (
            start("perception_node", out / "perception_node.log", node, env),
            out / "perception_node.log",
        )
        for transition in ("configure", "activate"):
            answer = recorder.transition(transition)
            wait(answer.done, transition, 120, processes)
            if not answer.result().success:
                raise DemoError(f"{transition} failed:\n{(out / 'perception_node.log').read_text()[-3000:]}")
        wait(lambda: recorder.scenes, "first scene", 180, processes)
        print(f"3/5  recording {options.seconds:g} s", flush=True)
        recorder.restart()
        end = time.monotonic() + options.seconds
        wait(lambda: time.monotonic() > end, "recording", options.seconds + 10, processes)
    finally:
        recorder.close()
        for process, _ in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        codes = {name: _end(process) for name, (process, _) in processes.items()}
    print(f"4/5  processes ended: {', '.join(f'{name} exit code {code}' for name, code in codes.items())}", flush=True)
    if any(codes.values()):
        raise DemoError(f"a process did not end cleanly; logs are in {out}")
    if not recorder.scenes:
        raise DemoError(f"the node produced no scene; logs are in {out}")
    if not recorder.overlays:
        raise DemoError(f"the node produced scenes, but no overlay picture to show; logs are in {out}")

    from scripts.demo_report import contact_sheet, overlay_video, report, table

    print("5/5  pictures, video, table", flush=True)
    summary = report(recorder.scenes, options.seconds)
    (out / "latency.json").write_text(json.dumps(summary, indent=2) + "\n")
    text = table(summary)
    (out / "latency.md").write_text(text + "\n")
    overlay_video(recorder.overlays, out / "overlay.mp4")
    contact_sheet(recorder.overlays, out / "contact_sheet.png")
    print(f"\n{text}\n")
    for name, how in (
        ("contact_sheet.png", "any image viewer: start here"),
        ("overlay.mp4", "any video player"),
        ("bag", f"Foxglove, with the layout {PACKAGE.relative_to(ROOT)}/config/foxglove_layout.json; or ros2 bag play"),
        ("latency.json", "the numbers above"),
    ):
        print(f"  {out / name}  ({how})")
    if summary["elements per scene"] == 0:
        raise DemoError("the node ran, but no scene had anything in it")


def _end(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def main() -> int:
    """Command line; 0 when there is something to show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="world:7", help="video, image, folder or world:SEED (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the results (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the recording (default: %(default)s)")
    parser.add_argument("--rate-hz", type=float, default=10.0, help="of the camera (default: %(default)s)")
    parser.add_argument("--bundle", default="nano", help="model bundle (default: %(default)s)")
    parser.add_argument("--backend", default="onnx", help="inference backend (default: %(default)s)")
    try:
        run(parser.parse_args())
    except DemoError as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
