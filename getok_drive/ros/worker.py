"""The thread that turns frames into scenes while the node is active."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence

from rclpy.node import Node

from getok_drive.errors import GetokError
from getok_drive.ros.camera import CameraInput, Capture
from getok_drive.ros.convert import Context
from getok_drive.ros.engine import Engine, Wanted
from getok_drive.ros.images import FrameRejected
from getok_drive.ros.outputs import CameraOutputs
from getok_drive.ros.params import NodeParams
from getok_drive.ros.slot import LatestSlots
from getok_drive.types import Frame, Scene


class Worker:
    """Takes the newest frame of each camera in turn, runs the engine and publishes. One frame's failure costs that frame only."""

    def __init__(
        self,
        node: Node,
        engine: Engine,
        cameras: Sequence[CameraInput],
        outputs: Sequence[CameraOutputs],
        slots: LatestSlots[bytes],
        settings: Callable[[], tuple[NodeParams, bool, bool]],
    ) -> None:
        """``settings`` gives parameters, whether degraded mode is in force and whether processing is enabled, per frame."""
        self._node, self._engine, self._cameras, self._outputs = node, engine, cameras, outputs
        self._slots, self._settings = slots, settings
        self._next_s = [0.0] * len(cameras)
        self._patience_s = 0.0  # so long an image may have waited when its turn comes
        self._index = [0] * len(cameras)
        self._stop = threading.Event()
        self._publishing = threading.Lock()  # held while anything of the node's is used to publish
        self._thread = threading.Thread(target=self._loop, name="perception", daemon=True)
        self.engine_failures = 0  # in a row

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Ends the thread after the frame in work; nothing is published any more once this returns.

        Returns:
            False when the frame takes longer than ``timeout_s``; the thread then ends by itself and touches no publisher.
        """
        self._stop.set()
        self._slots.close()
        with self._publishing:
            pass  # a publication that has begun ends; `_stop` keeps the next one from beginning
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while not self._stop.is_set():
            taken = self._slots.take(0.5, self._pause_s)
            if taken is None:
                continue
            camera = self._cameras[taken.index]
            camera.health.taken(time.monotonic(), taken.newer)
            try:
                self._process(taken.index, taken.item)
            except FrameRejected as error:
                camera.health.rejected(error.reason, str(error))
            except Exception as error:
                camera.health.rejected("internal_error", f"{type(error).__name__}: {error}")
                self._node.get_logger().error(f"frame dropped: {traceback.format_exc()}", throttle_duration_sec=5.0)
            finally:
                camera.health.finished()

    def _pause_s(self, index: int) -> float:
        """How long a camera's turn still has to wait: for its rate, or for an image younger than the one that is there."""
        rest_s = self._next_s[index] - time.monotonic()
        return max(rest_s, self._slots.worth_waiting_s(index, self._patience_s)) if self._patience_s else rest_s

    def _process(self, index: int, data: bytes) -> None:
        params, degraded, enabled = self._settings()
        camera = self._cameras[index]
        if not enabled:
            return
        wanted = Wanted.of(params, degraded)
        started = time.perf_counter()
        if wanted.max_rate_hz > 0:
            self._next_s[index] = max(self._next_s[index] + 1.0 / wanted.max_rate_hz, time.monotonic())
        capture = camera.unpack(data, params, self._node.get_clock().now().nanoseconds)
        convert_ms = (time.perf_counter() - started) * 1e3
        self._index[index] += 1
        frame = Frame(capture.image_bgr, capture.stamp_ns, camera.image_topic, self._index[index] - 1)
        scene = self._run(frame, wanted)
        projector = camera.projector(frame.size_wh, params.max_range_m, str(capture.header.frame_id))
        ground_frame = camera.ground_frame if projector else ""
        context = Context(capture.header, camera.name, ground_frame, projector, degraded)
        with self._publishing:
            if self._stop.is_set():
                return
            dropped = camera.health.take_dropped()
            age_ms = self._outputs[index].publish(
                scene, capture.image_bgr, context, params, convert_ms, dropped, lambda: self._age_ms(capture)
            )
        processing_ms = (time.perf_counter() - started) * 1e3
        self._patience_s = params.patience * processing_ms / 1e3
        camera.health.processed(time.monotonic(), processing_ms, age_ms, dict(scene.report.issues), scene.truncated)

    def _run(self, frame: Frame, wanted: Wanted) -> Scene:
        try:
            scene = self._engine.run(frame, wanted)
        except Exception as error:
            self.engine_failures += 1
            what = str(error) if isinstance(error, GetokError) else f"{type(error).__name__}: {error}"
            raise FrameRejected("engine_error", f"{frame.source}: {what}") from error
        self.engine_failures = 0
        return scene

    def _age_ms(self, capture: Capture) -> float:
        return float(self._node.get_clock().now().nanoseconds - capture.stamp_ns) / 1e6
