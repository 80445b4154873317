"""``getok-drive replay BAG --out DIR``: a recorded bag through the node's own pipeline.

Reads MCAP and sqlite3 bags with any number of cameras; writes ``scenes`` (a bag with the results), ``overlay_CAMERA.mp4``,
``scenes.jsonl``, ``report.json`` and ``report.md``. Frames pass the node's own checks (`CameraIntake`) and conversions. Where the
bag carries labels (`labels` says how), the report tells how right the scenes are.

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
from getok_drive.ros.accuracy import KINDS
from getok_drive.ros.bag import SCENE_TYPE, BagWriter, cameras_of, open_bag, read_messages
from getok_drive.ros.labels import labels_topic, stamp_ns_of
from getok_drive.ros.transforms import StaticTransforms


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
    parser.add_argument("--ground-frame", default="", help="frame on the ground: camera poses from the bag's /tf_static instead")
    parser.add_argument("--realtime", action="store_true", help="drop what comes too fast, as on the robot")
    parser.add_argument("--max-frames", type=_count, default=0, metavar="N", help="stop after N processed frames")
    parser.add_argument("--no-video", action="store_true", help="write no overlay videos")
    parser.add_argument(
        "--tasks",
        type=_kinds,
        default=KINDS,
        metavar="KIND,...",
        help=f"kinds that the bag's labels cover (default: {','.join(KINDS)})",
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 (all) or more, got {text!r}")
    return int(text)


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in text.split(","))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no kind; use {', '.join(KINDS)}")
    return kinds


def parser() -> argparse.ArgumentParser:
    """The parser of the executable ``replay``."""
    made = argparse.ArgumentParser(prog="replay", description="Runs a ROS bag through the perception pipeline.")
    add_arguments(made)
    return made


def messages(reader: Any, cameras: dict[str, tuple[str, str, bool]]) -> Iterator[Recorded]:
    """The cameras' images and camera_info in the order of recording."""
    role = {image: (name, True) for name, (image, _, _) in cameras.items()}
    role |= {info: (name, False) for name, (_, info, _) in cameras.items()}
    connections = [c for c in reader.connections if c.topic in role]
    for connection, time_ns, data in read_messages(reader, connections):
        name, is_image = role[connection.topic]
        yield Recorded(time_ns, name, is_image, bytes(data))


def labels_in(reader: Any, cameras: dict[str, tuple[str, str, bool]]) -> dict[str, dict[int, Any]]:
    """The cameras' labels in an open bag: camera -> stamp (ns) -> scene message; cameras without any are absent.

    They are read ahead of the images, because nothing says in which order a recorder stores two messages of one stamp.
    """
    wanted = {name: labels_topic(image) for name, (image, _, _) in cameras.items()}
    connections = [c for c in reader.connections if c.topic in wanted.values() and c.msgtype == SCENE_TYPE]
    found: dict[str, dict[int, Any]] = {}
    for connection, _, data in read_messages(reader, connections):
        msg = reader.deserialize(data, connection.msgtype)
        for name in (name for name, topic in wanted.items() if topic == connection.topic):
            found.setdefault(name, {})[stamp_ns_of(msg)] = msg
    return found


def transforms_in(reader: Any) -> StaticTransforms:
    """All of a bag's `/tf_static`, read ahead: what is fixed holds for the images before it, too."""
    tree = StaticTransforms()
    wanted = [c for c in reader.connections if c.topic == "/tf_static" and c.msgtype == "tf2_msgs/msg/TFMessage"]
    for connection, _, data in read_messages(reader, wanted):
        tree.put(reader.deserialize(data, connection.msgtype).transforms)
    return tree


def run(options: argparse.Namespace) -> int:
    """Runs the command; 0 when scenes were written, 1 when not a single frame could be used."""
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"--out {options.out} is a file; name a folder")
    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"{options.out} is not empty; choose another folder")
    with closing(open_bag(options.bag)) as reader:
        cameras = cameras_of(reader.connections, options.topics)
        options.out.mkdir(parents=True, exist_ok=True)
        return _run(reader, cameras, options)


def _run(reader: Any, cameras: dict[str, tuple[str, str, bool]], options: argparse.Namespace) -> int:
    from getok_drive.ros.replay_run import Replay  # with rclpy, which a mistake in the arguments need not wait for

    with BagWriter(options.out / "scenes") as writer:
        seconds = max(reader.duration / 1e9, 1e-3)
        rates_hz = {
            name: sum(c.msgcount for c in reader.connections if c.topic == topic) / seconds
            for name, (topic, _, _) in cameras.items()
        }
        transforms = transforms_in(reader) if options.ground_frame else None
        replay = Replay(cameras, rates_hz, options, writer, labels_in(reader, cameras), transforms)
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
