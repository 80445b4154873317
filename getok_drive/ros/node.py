"""The perception node: a managed (lifecycle) node around the `Perceiver`.

=============  =====================================================================================================
state          what exists
=============  =====================================================================================================
unconfigured   parameters, services, diagnostics
inactive       and the loaded, warmed-up engine, calibration, publishers
active         and the subscriptions and the worker thread
=============  =====================================================================================================

Loading runs in the transition's own callback while other threads of the executor keep parameters, services and diagnostics
alive. A failed transition ends in unconfigured again, by way of the error state, with the reason in diagnostics and log.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

from getok_drive.errors import ConfigError, GetokError
from getok_drive.ros import services, tf
from getok_drive.ros.calibration import load_calibration
from getok_drive.ros.camera import CameraInput
from getok_drive.ros.diagnostics import to_msg
from getok_drive.ros.engine import Engine
from getok_drive.ros.health import ERROR, OK, WARN, DegradeControl, Verdict, hottest_c
from getok_drive.ros.outputs import CameraOutputs
from getok_drive.ros.parameters import declare, read
from getok_drive.ros.params import NodeParams
from getok_drive.ros.slot import LatestSlots
from getok_drive.ros.worker import Worker

SUCCESS, ERROR_RETURN = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.ERROR
_ENGINE_FAILURES = 3  # in a row, from which on the engine counts as broken


class PerceptionNode(LifecycleNodeMixin, Node):  # type: ignore[misc]  # rclpy is untyped
    """Images in, scenes out; see the module's table of states and `NodeParams` for the parameters."""

    def __init__(self, **node_options: Any) -> None:
        self._transition = threading.Lock()
        Node.__init__(self, "perception_node", **node_options)
        # A group of its own, reentrant: get_state and get_available_* answer while a transition is loading.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        declare(self)
        self.params: NodeParams = read(self)
        self.state = "unconfigured"
        self.enabled = True
        self.engine = Engine()
        self.stopping = threading.Event()
        self.cameras: list[CameraInput] = []
        self._outputs: list[CameraOutputs] = []
        self._worker: Worker | None = None
        self._transforms: tf.Listener | None = None
        self._degrade = DegradeControl()
        self._degraded = False
        self._failure = ""
        self._loading_since_s: float | None = None
        self.add_on_set_parameters_callback(self._on_set_parameters)
        services.advertise(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        # Steady under use_sim_time, too: a watchdog must outlive the simulation's clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        for period_s, callback in ((self.params.diagnostics_period_s, self._publish_diagnostics), (0.5, self._match_qos)):
            self.create_timer(period_s, callback, callback_group=MutuallyExclusiveCallbackGroup(), clock=steady)

    # Transitions -------------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads and verifies bundle, engine and calibration, warms up, creates the publishers."""
        return self._guarded("configure", self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes and starts the worker."""
        return self._guarded("activate", self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribes and stops the worker; the engine stays loaded."""
        return self._guarded("deactivate", self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees everything that configure made."""
        return self._guarded("cleanup", self._free)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees everything; the node only answers questions afterwards."""
        result = self._guarded("shutdown", self._free)
        self.state = "finalized"
        return result

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees everything, so that the node can be configured again once the cause is mended."""
        self._free()
        self.get_logger().error(self._failure)
        return SUCCESS

    def _guarded(self, name: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            action()
        except GetokError as error:
            self._failure = f"{name} failed: {error}"
            return ERROR_RETURN
        except Exception as error:  # rclpy would swallow it without a word
            self._failure = f"{name} failed: {type(error).__name__}: {error}"
            self.get_logger().error(traceback.format_exc())
            return ERROR_RETURN
        self._failure = ""
        return SUCCESS

    def _configure(self) -> None:
        params = self.params = read(self)
        self._loading_since_s = time.monotonic()
        try:
            calibration = load_calibration(params.calibration, params.cameras)
            self.engine.check_classes(params.box_classes, params.sign_classes)
            self.engine.load(params.bundle, params.backend, params.threads, self.stopping.is_set)
        finally:
            self._loading_since_s = None
        self._calibration = calibration
        self._transforms = tf.Listener(self) if params.ground_frame else None
        self._outputs = [CameraOutputs(self, name, len(params.cameras) == 1) for name in params.cameras]
        self.state = "inactive"
        self.get_logger().info(f"configured: {self.engine.progress}")

    def _activate(self) -> None:
        params = self.params
        slots: LatestSlots[bytes] = LatestSlots(len(params.cameras))
        transforms = self._transforms.tree if self._transforms else None
        cameras = [CameraInput(self, i, params, slots, self._calibration, transforms) for i in range(len(params.cameras))]
        self._worker = Worker(
            self, self.engine, cameras, self._outputs, slots, lambda: (self.params, self._degraded, self.enabled)
        )
        self._worker.start()
        self.cameras = cameras  # before subscribing: should one fail, all are given up again
        for camera in cameras:
            camera.subscribe()
        self.state = "active"

    def _deactivate(self, wait_s: float = 1.0) -> None:
        cameras, self.cameras = self.cameras, []
        worker, self._worker = self._worker, None
        for camera in cameras:
            camera.unsubscribe()
        if worker is not None and not worker.stop(wait_s):
            self.get_logger().warning("a frame is still in work; its result will not be published")
        if self.state == "active":
            self.state = "inactive"

    def _free(self) -> None:
        self._deactivate()
        self._destroy_outputs()
        listener, self._transforms = self._transforms, None
        if listener is not None:
            listener.stop()
        self.engine.unload()
        self.state = "unconfigured"

    def _destroy_outputs(self) -> None:
        outputs, self._outputs = self._outputs, []
        for output in outputs:
            output.destroy()

    # Runs in place of LifecycleNodeMixin.__on_change_state, which lets an exception for an impossible transition end the process.
    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: ChangeState.Response) -> ChangeState.Response:
        response.success = False
        if not self._transition.acquire(blocking=False):
            self.get_logger().warning("transition refused: another one is under way")
            return response
        try:
            label, number = request.transition.label, request.transition.id
            for transition in self._state_machine.available_transitions:
                if (transition[1] == label) if label else (transition[0] == number):
                    result = self._LifecycleNodeMixin__change_state(transition[0])
                    response.success = result == SUCCESS
                    break
            else:
                state = self._state_machine.current_state[1]
                self.get_logger().warning(f"transition {label or number!r} refused: impossible in state {state}")
        finally:
            self._transition.release()
        return response

    # Parameters --------------------------------------------------------------------------------------------------------

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        ours = {p.name: p.value for p in changes if p.name in NodeParams.__dataclass_fields__}
        state = "loading" if self._loading_since_s is not None else self.state
        try:
            params = self.params.changed(ours, state)
            self.engine.check_classes(params.box_classes, params.sign_classes)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.params = params
        return SetParametersResult(successful=True)

    # Condition ---------------------------------------------------------------------------------------------------------

    def _match_qos(self) -> None:
        for camera in list(self.cameras):
            camera.match_qos()

    def _publish_diagnostics(self) -> None:
        cameras, params, now_s = list(self.cameras), self.params, time.monotonic()
        found_ms = [ms for ms in (camera.health.processing_ms(now_s) for camera in cameras) if ms is not None]
        temperature_c = hottest_c() if params.degrade == "auto" else None
        self._degraded = self._degrade.update(params, now_s, max(found_ms, default=None), temperature_c)
        verdicts = {"engine": self._engine_verdict(now_s)}
        for camera in cameras if self.enabled else []:
            verdicts[camera.name] = camera.health.verdict(params, now_s, camera.image_topic, camera.publishers())
        name = self.get_fully_qualified_name().lstrip("/")
        self._diagnostics.publish(to_msg(verdicts, name, self.engine.bundle_sha256, self.get_clock().now().to_msg()))

    def _engine_verdict(self, now_s: float) -> Verdict:
        mode = f"degraded ({self._degrade.reason})" if self._degraded else "normal"
        values = {
            "state": self.state,
            "mode": mode,
            "bundle": self.engine.bundle_name,
            "bundle sha256": self.engine.bundle_sha256,
            "backend": self.engine.backend,
            "enabled": str(self.enabled),
        }
        since_s = self._loading_since_s
        if since_s is not None:
            return Verdict(OK, f"{self.engine.progress} ({now_s - since_s:.1f} s)", values)
        if self._failure:
            return Verdict(ERROR, self._failure, values)
        if self._worker is not None and self._worker.engine_failures >= _ENGINE_FAILURES:
            return Verdict(ERROR, f"the engine failed on {self._worker.engine_failures} images in a row", values)
        if self._degraded and self.state == "active":
            return Verdict(WARN, f"degraded mode: {self._degrade.reason}", values)
        if not self.enabled:
            return Verdict(WARN, "processing is switched off by the service ~/enable", values)
        return Verdict(OK, f"{self.state}: {self.engine.progress}", values)

    def release(self) -> None:
        """Ends everything that publishes, in whatever state the node is, so that the node can be destroyed.

        Waits for no frame in work. To be called when no callback runs any more.
        """
        self._deactivate(wait_s=0.1)
        self._destroy_outputs()
