"""``getok-drive replay BAG --out DIR``: a recorded bag through the node's own pipeline.

Reads MCAP and sqlite3 bags with any number of cameras; writes ``scenes`` (a bag with the results), ``overlay_CAMERA.mp4``,
``scenes.jsonl``, ``report.json`` and ``report.md``. Frames pass the node's own checks (`CameraIntake`) and conversions.

Time runs on the bag's clock. By default every frame is processed. With ``--realtime`` the clock moves on by the time that each
frame took, and what arrives meanwhile goes through the latest-frame slot, as on the robot: this shows drops, ages and rates of
this machine without waiting for the pauses in the bag.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from getok_drive.errors import GetokError, InputError

_IMAGE_TYPES = {"sensor_msgs/msg/Image": False, "sensor_msgs/msg/CompressedImage": True}


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message of a bag: when it was recorded, of which camera, whether an image, and its bytes."""

    time_ns: int
    camera: str
    is_image: bool
    data: bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("bag", type=Path, help="bag folder, .mcap or .db3 file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results; must be new or empty")
    parser.add_argument("--topics", nargs="+", default=[], help="image topics (default: all in the bag)")
    parser.add_argument("--bundle", default="nano", help="model bundle: name or folder (default: %(default)s)")
    parser.add_argument("--backend", default="onnx", help="inference backend (default: %(default)s)")
    parser.add_argument("--calibration", default="", help="calibration file with the cameras' poses")
    parser.add_argument("--realtime", action="store_true", help="drop what comes too fast, as on the robot")
    parser.add_argument("--max-frames", type=int, default=0, metavar="N", help="stop after N processed frames")
    parser.add_argument("--no-video", action="store_true", help="write no overlay videos")


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command to ``getok-drive``; ``options.command(options)`` runs it."""
    parser: argparse.ArgumentParser = subparsers.add_parser("replay", help="run a ROS bag through the node's pipeline")
    add_arguments(parser)
    parser.set_defaults(command=run)
    return parser


def parser() -> argparse.ArgumentParser:
    """The parser of the executable ``replay``."""
    made = argparse.ArgumentParser(prog="replay", description="Runs a ROS bag through the perception pipeline.")
    add_arguments(made)
    return made


def cameras_of(connections: Sequence[Any], topics: Sequence[str]) -> dict[str, tuple[str, str, bool]]:
    """Cameras in a bag: name -> (image topic, info topic, compressed); a raw topic is preferred to its compressed twin.

    Raises:
        InputError: a wanted topic is not there, or there are no images at all.
    """
    found = {c.topic: _IMAGE_TYPES[c.msgtype] for c in connections if c.msgtype in _IMAGE_TYPES}
    missing = [topic for topic in topics if topic not in found]
    if missing or not found:
        known = ", ".join(sorted(found)) or "none"
        raise InputError(f"bag has no image topic {missing[0] if missing else ''}; its image topics: {known}")
    originals = [topic for topic in found if "/overlay" not in topic]  # a recorded result is no camera
    wanted = topics or [t for t in originals if not (found[t] and t.removesuffix("/compressed") in found)]
    cameras: dict[str, tuple[str, str, bool]] = {}
    for topic in sorted(wanted):
        base = topic.removesuffix("/compressed")
        folder = base.rsplit("/", 1)[0]
        name = "".join(c if c.isalnum() else "_" for c in folder.strip("/")) or base.strip("/").replace("/", "_")
        name = name if name not in cameras else topic.strip("/").replace("/", "_")
        cameras[name] = (topic, f"{folder}/camera_info", found[topic])
    return cameras


def messages(reader: Any, cameras: dict[str, tuple[str, str, bool]]) -> Iterator[Recorded]:
    """The cameras' images and camera_info in the order of recording."""
    role = {image: (name, True) for name, (image, _, _) in cameras.items()}
    role |= {info: (name, False) for name, (_, info, _) in cameras.items()}
    connections = [c for c in reader.connections if c.topic in role]
    for connection, time_ns, data in reader.messages(connections):
        name, is_image = role[connection.topic]
        yield Recorded(time_ns, name, is_image, bytes(data))


def run(options: argparse.Namespace) -> int:
    """Runs the command; 0 when scenes were written, 1 when not a single frame could be used."""
    from rosbags.highlevel import AnyReader

    from getok_drive.ros.bag import BagWriter, typestore
    from getok_drive.ros.replay_run import Replay

    if not options.bag.exists():
        raise InputError(f"{options.bag}: no such bag")
    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"{options.out} is not empty; choose another folder")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        reader = AnyReader([options.bag], default_typestore=typestore())
        reader.open()
    except Exception as error:  # rosbags' own errors have no common base for damaged files
        raise InputError(f"{options.bag}: cannot be read as a bag: {error}") from error
    with closing(reader), BagWriter(options.out / "scenes") as writer:
        cameras = cameras_of(reader.connections, options.topics)
        seconds = max(reader.duration / 1e9, 1e-3)
        counts = {
            name: sum(c.msgcount for c in reader.connections if c.topic == topic) for name, (topic, _, _) in cameras.items()
        }
        replay = Replay(cameras, {name: count / seconds for name, count in counts.items()}, options, writer)
        started = time.monotonic()
        try:
            replay.play(messages(reader, cameras))
        finally:
            report = replay.finish(time.monotonic() - started)
    print(report)
    print(
        f"\nresults in {options.out}: scenes (bag), scenes.jsonl, report.json" + ("" if options.no_video else ", overlay_*.mp4")
    )
    return 0 if replay.processed else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The executable ``replay``."""
    try:
        return run(parser().parse_args(arguments))
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
