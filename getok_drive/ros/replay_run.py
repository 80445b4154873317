"""What replay does with each message, and its report."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.serialization import serialize_message

from getok_drive.ros.accuracy import Accuracy, as_text
from getok_drive.ros.bag import BagWriter, type_name
from getok_drive.ros.calibration import load_calibration
from getok_drive.ros.camera import CameraIntake
from getok_drive.ros.convert import Context, scene_to_msg, stages
from getok_drive.ros.engine import Engine, Wanted
from getok_drive.ros.images import FrameRejected
from getok_drive.ros.labels import frame_key
from getok_drive.ros.markers import scene_to_markers
from getok_drive.ros.params import NodeParams
from getok_drive.ros.transforms import StaticTransforms
from getok_drive.types import Frame, Scene
from getok_drive.views.files import JsonLines, OverlayFiles

if TYPE_CHECKING:
    from getok_drive.ros.replay import Recorded


_ONE_CLOCK_NS = 60 * 10**9  # stamp and time of recording further apart than this are from two clocks


class Replay:
    """Runs messages through intake, engine and conversions on the bag's clock."""

    def __init__(
        self,
        cameras: dict[str, tuple[str, str, bool]],
        rates_hz: dict[str, float],
        options: argparse.Namespace,
        writer: BagWriter,
        labels: Mapping[str, Mapping[int, Any]],
        transforms: StaticTransforms | None = None,
    ) -> None:
        """``transforms``: poses of the cameras in ``options.ground_frame``; where they lack one, the calibration file's holds."""
        self.processed = 0
        self._labels, self._accuracy = labels, {name: Accuracy(options.tasks) for name in labels}
        self._options, self._writer, self._rates_hz = options, writer, rates_hz
        self._params = NodeParams()
        calibration = load_calibration(options.calibration, tuple(cameras))
        self._intakes = {
            name: CameraIntake(name, *where, calibration, transforms, options.ground_frame) for name, where in cameras.items()
        }
        self._engine = Engine()
        self._engine.load(options.bundle, options.backend)
        self._rows: list[dict[str, Any]] = []
        self._received = dict.fromkeys(cameras, 0)
        self._superseded = dict.fromkeys(cameras, 0)
        self._other_clock = dict.fromkeys(cameras, 0)
        self._lines = JsonLines(options.out / "scenes.jsonl")
        self._videos: dict[str, OverlayFiles] = {}
        self._span_ns = (0, 0)

    def play(self, recorded: Iterable[Recorded]) -> None:
        """All messages; in real-time mode only what the latest-frame slots let through."""
        free_ns = 0
        waiting: dict[str, Recorded] = {}
        for message in recorded:
            self._span_ns = (self._span_ns[0] or message.time_ns, message.time_ns)
            if self._options.max_frames and self.processed >= self._options.max_frames:
                return
            if not message.is_image:
                self._intakes[message.camera].take_info(message.data)
                continue
            while waiting and free_ns <= message.time_ns:
                free_ns = self._next(waiting, free_ns)
            self._received[message.camera] += 1
            self._superseded[message.camera] += message.camera in waiting
            waiting[message.camera] = message
            if not self._options.realtime:
                free_ns = self._next(waiting, message.time_ns)
        while waiting:
            free_ns = self._next(waiting, free_ns)

    def _next(self, waiting: dict[str, Recorded], free_ns: int) -> int:
        """Processes the camera that waits longest; when the worker is free again, on the bag's clock."""
        camera = next(iter(waiting))
        message = waiting.pop(camera)
        start_ns = max(free_ns, message.time_ns)
        started = time.perf_counter()
        try:
            processing_ms = self._process(message, start_ns, started)
        except FrameRejected as error:
            self._intakes[camera].health.rejected(error.reason, str(error))
            processing_ms = (time.perf_counter() - started) * 1e3
        return start_ns + int(processing_ms * 1e6) if self._options.realtime else start_ns

    def _process(self, message: Recorded, start_ns: int, started: float) -> float:
        """One frame as the node treats it; then what only the replay does. Gives the node's part of the time, milliseconds."""
        intake = self._intakes[message.camera]
        # In a bag every image counts, however late and by whatever clock it was stamped: age limits are for live cameras.
        capture = intake.unpack(message.data, self._params, None)
        convert_ms = (time.perf_counter() - started) * 1e3
        frame = Frame(capture.image_bgr, capture.stamp_ns, intake.image_topic, self._received[message.camera] - 1)
        scene = self._engine.run(frame, Wanted())
        projector = intake.projector(frame.size_wh, self._params.max_range_m, str(capture.header.frame_id))
        context = Context(capture.header, intake.name, intake.ground_frame if projector else "", projector)
        msg = scene_to_msg(scene, context)
        processing_ms = (time.perf_counter() - started) * 1e3
        one_clock = abs(message.time_ns - capture.stamp_ns) < _ONE_CLOCK_NS
        self._other_clock[message.camera] += not one_clock
        msg.age_ms = (start_ns - (capture.stamp_ns if one_clock else message.time_ns)) / 1e6 + processing_ms
        msg.stages = stages({"convert": convert_ms, "perceive": scene.timings.total_ms})
        prefix = f"/perception_node/{intake.name}" if len(self._intakes) > 1 else "/perception_node"
        out_ns = start_ns + int(processing_ms * 1e6)
        for topic, out in (("scene", msg), ("markers", scene_to_markers(scene, context, 1.0))):
            self._writer.write(f"{prefix}/{topic}", type_name(type(out)), out_ns, serialize_message(out))
        self._lines.write(replace(scene, source=frame_key(frame.source, frame.stamp_ns)))
        self._show(intake.name, frame, scene)
        labels = self._labels.get(intake.name, {}).get(frame.stamp_ns)
        if labels is not None:
            self._accuracy[intake.name].add(frame, scene, labels, processing_ms)
        self.processed += 1
        self._rows.append(
            {
                "camera": intake.name,
                "processing_ms": processing_ms,
                "age_ms": float(msg.age_ms),
                "perceive_ms": scene.timings.total_ms,
                "elements": scene.elements,
                "truncated": scene.truncated,
                "issues": scene.report.dropped,
            }
        )
        return processing_ms

    def _show(self, camera: str, frame: Frame, scene: Scene) -> None:
        if self._options.no_video:
            return
        from getok_drive.views.overlay import draw

        if camera not in self._videos:
            self._videos[camera] = OverlayFiles(self._options.out)
        rate_hz = min(max(self._rates_hz[camera], 1.0), 60.0)
        self._videos[camera].write(draw(frame.image_bgr, scene), f"overlay_{camera}.mp4", camera, rate_hz)

    def finish(self, wall_s: float) -> str:
        """Closes all files, writes ``report.json`` and ``report.md`` and gives the latter's text."""
        self._lines.close()
        for video in self._videos.values():
            video.close()
        bag_s = (self._span_ns[1] - self._span_ns[0]) / 1e9
        report: dict[str, Any] = {
            "bag": str(self._options.bag),
            "bundle": self._engine.bundle_name,
            "bundle_sha256": self._engine.bundle_sha256,
            "realtime": self._options.realtime,
            "bag_seconds": round(bag_s, 3),
            "wall_seconds": round(wall_s, 3),
            "cameras": {},
        }
        for name, intake in self._intakes.items():
            rows = [row for row in self._rows if row["camera"] == name]
            report["cameras"][name] = {
                "topic": intake.image_topic,
                "received": self._received[name],
                "processed": len(rows),
                "superseded": self._superseded[name],
                "rejected": intake.health.rejections(),
                "stamped_by_another_clock": self._other_clock[name],
                "rate_hz": round(len(rows) / bag_s, 2) if bag_s > 0 else None,
                "processing_ms": percentiles([row["processing_ms"] for row in rows]),
                "age_ms": percentiles([row["age_ms"] for row in rows]),
                "overhead_ms": percentiles([row["processing_ms"] - row["perceive_ms"] for row in rows]),
                "elements_per_frame": round(float(np.mean([row["elements"] for row in rows])), 2) if rows else None,
                "truncated": sum(row["truncated"] for row in rows),
                "decode_issues": sum(row["issues"] for row in rows),
                "calibration": intake.health.calibration,
            }
            if name in self._accuracy:
                report["cameras"][name]["accuracy"] = self._accuracy[name].summary(self._score_command(intake.image_topic))
        out: Path = self._options.out
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        text = as_table(report)
        (out / "report.md").write_text(text + "\n")
        return text

    def _score_command(self, topic: str) -> str:
        """Scores the same frames from bag and ``scenes.jsonl``; labelled frames that were not processed count as empty scenes."""
        options = self._options
        words = ["python", "-m", "training.evaluate", "--dataset", f"bag:{options.bag}", "--split", topic]
        words += ["--tasks", ",".join(options.tasks), *(["--allow-missing"] if options.realtime else [])]
        return shlex.join([*words, "--predictions", f"{options.out}/scenes.jsonl", "--out", f"{options.out}/accuracy"])


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p95, p99 and the largest; None without values."""
    if not values:
        return None
    p50, p95, p99 = np.percentile(values, [50, 95, 99]).tolist()
    return {"p50": round(p50, 2), "p95": round(p95, 2), "p99": round(p99, 2), "max": round(max(values), 2)}


def as_table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['bag']} ({report['bag_seconds']} s) through {report['bundle']} in {report['wall_seconds']} s"
        + (", real time" if report["realtime"] else ", every frame"),
        "",
        "times in ms, as p50 / p95 / p99:",
        "",
        "| camera | received | processed | superseded | rejected | rate Hz | processing | age at publication |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in report["cameras"].items():
        times = [
            " / ".join(f"{value:.1f}" for rank, value in row[key].items() if rank != "max") if row[key] else ""
            for key in ("processing_ms", "age_ms")
        ]
        lines.append(
            f"| {name} | {row['received']} | {row['processed']} | {row['superseded']} | {sum(row['rejected'].values())} "
            f"| {row['rate_hz']} | {times[0]} | {times[1]} |"
        )
    if other := sum(row["stamped_by_another_clock"] for row in report["cameras"].values()):
        lines += ["", f"{other} images are stamped by another clock than the recorder's; their age counts from recording on"]
    return "\n".join(lines) + as_text({name: row["accuracy"] for name, row in report["cameras"].items() if "accuracy" in row})
