"""A client for tests: starts the package's executables as processes and talks to them over DDS."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

from scripts.ros_environment import child_environment
from tests.ros.fair import FairClock
from tests.ros.scripted import write_bundle

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "ros2_ws" / "src" / "getok_drive" / "scripts"
SCRIPTED = Path(__file__).parent / "scripted.py"
NODE = "/perception_node"
_SEGMENT = re.compile(r"fast(rtps|dds)_[0-9a-f]{16}")


def shared_memory() -> set[str]:
    """Fast DDS's segments on this machine, one or more a process; each takes up to 35 MB with the profile for large images."""
    return {path.name for path in Path("/dev/shm").iterdir() if _SEGMENT.fullmatch(path.name)}


class Process:
    """One executable; its output goes to a file that failures show."""

    def __init__(self, executable: str, *ros_args: str, env: dict[str, str] | None = None) -> None:
        self.log = Path(tempfile.mkstemp(prefix=f"{executable}_", suffix=".log")[1])
        program = SCRIPTED if executable == "scripted" else SCRIPTS / executable
        command = [sys.executable, str(program), *(["--ros-args", *ros_args] if ros_args else [])]
        with self.log.open("w") as out:
            environment = {**child_environment(), **(env or {})}
            self.popen = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    def output(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace")

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory now, and the part of it that is neither a file's nor shared (the heaps), MB."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        rss_kb, own_kb = (int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) for key in ("VmRSS", "RssAnon"))  # type: ignore[index]
        return rss_kb * 1.024e-3, own_kb * 1.024e-3

    def shared_memory(self) -> set[str]:
        """The segments that it has open, its own and those of others."""
        maps = Path(f"/proc/{self.popen.pid}/maps").read_text()
        return {name for name in re.findall(r"/dev/shm/(\S+)", maps) if _SEGMENT.fullmatch(name)}

    def stop(self, number: int = signal.SIGINT, timeout_s: float = 10.0) -> tuple[int, float]:
        """Sends a signal; exit code and fair seconds (see `FairClock`) until the process was gone."""
        clock = FairClock(lambda: [self.popen.pid])
        if self.alive:
            self.popen.send_signal(number)
        while self.alive:
            if clock.now() > timeout_s:
                self.popen.kill()
                self.popen.wait()
                raise AssertionError(f"still alive {timeout_s} s after signal {number}\n{self.output()}")
            time.sleep(0.005)
        return self.popen.returncode, clock.now()


class Client:
    """A node with a spinning thread, and the processes it started."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("test_client", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._temporary = tempfile.TemporaryDirectory(prefix="getok_ros_")
        self.folder = Path(self._temporary.name)
        self.processes: list[Process] = []
        self.clock = FairClock(lambda: [process.popen.pid for process in list(self.processes) if process.alive])
        self.diagnostics: list[DiagnosticStatus] = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=50))
        self._shared_memory = shared_memory()  # its own, and what others have

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        left = set[str]()  # what is killed cannot take its shared memory away
        for process in self.processes:
            if process.alive:
                left |= process.shared_memory() - self._shared_memory
                process.popen.kill()
                process.popen.wait()
            if error[0] is not None:
                print(f"--- {process.popen.args}\n{process.output()}")
            process.log.unlink()
        for name in left & shared_memory():
            for path in Path("/dev/shm").glob(f"{name}*"):
                path.unlink(missing_ok=True)
        self._temporary.cleanup()
        self._stop.set()
        self._thread.join()  # before the node goes: it must not be destroyed under a thread that spins it
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        self.diagnostics.extend(msg.status)

    def start(self, executable: str, *ros_args: str, env: dict[str, str] | None = None) -> Process:
        """Starts an executable of the package."""
        process = Process(executable, *ros_args, env=env)
        self.processes.append(process)
        return process

    def forget(self, process: Process) -> None:
        """Drops a process that has ended, with its output."""
        self.processes.remove(process)
        process.log.unlink()

    def perception(
        self, *, env: dict[str, str] | None = None, remap: Mapping[str, str] | None = None, **parameters: object
    ) -> Process:
        """Starts the perception node over the scripted backend unless told otherwise; waits until its services are there."""
        if "bundle" not in parameters:
            parameters["bundle"] = write_bundle(self.folder / "scripted")
        # a crowded machine must not send a test into degraded mode
        settings = {"backend": "fake", "diagnostics_period_s": 0.2, "max_age_s": 2.0, "degrade": "never", **parameters}
        args = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
        args += [word for name, to in (remap or {}).items() for word in ("-r", f"{name}:={to}")]
        process = self.start("scripted", "-r", "__node:=perception_node", "-r", "__ns:=/", *args, env=env)
        client = self.node.create_client(ChangeState, f"{NODE}/change_state")
        self.wait(lambda: client.service_is_ready() or not process.alive, what="services of the node")
        self.node.destroy_client(client)
        assert process.alive, process.output()
        return process

    def picture(self) -> Path:
        """A picture file for `camera_source`."""
        path = self.folder / "picture.png"
        cv2.imwrite(str(path), np.full((180, 320, 3), 90, np.uint8))
        return path

    def collect(
        self, kind: Any, topic: str, qos: QoSProfile | int = 50, keep: Callable[[Any], Any] = lambda msg: msg
    ) -> list[Any]:
        """Subscribes; the list grows with each message."""
        found: list[Any] = []
        self.node.create_subscription(kind, topic, lambda msg: found.append(keep(msg)), qos)
        return found

    def wait(self, condition: Callable[[], Any], timeout_s: float = 15.0, what: str = "") -> Any:
        """Waits until the condition gives something true and returns that; fails loudly after ``timeout_s`` fair seconds."""
        end = self.clock.now() + timeout_s
        while self.clock.now() < end:
            result = condition()
            if result:
                return result
            time.sleep(0.01)
        raise AssertionError(f"not within {timeout_s} s: {what or condition}\n{self.outputs()}")

    def outputs(self) -> str:
        """What all processes wrote so far."""
        return "\n".join(process.output() for process in self.processes)

    def call(self, kind: Any, name: str, timeout_s: float = 15.0, **fields: Any) -> Any:
        """Calls a service and gives its response."""
        client = self.node.create_client(kind, name)
        try:
            self.wait(client.service_is_ready, timeout_s, f"service {name}")
            future = client.call_async(kind.Request(**fields))
            self.wait(future.done, timeout_s, f"answer of {name}")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def gone(self) -> bool:
        """Whether the graph knows no perception node (any more)."""
        return NODE.removeprefix("/") not in self.node.get_node_names()

    def transition(self, label: str, timeout_s: float = 30.0) -> bool:
        """Triggers a lifecycle transition by its label."""
        request = Transition(label=label)
        return bool(self.call(ChangeState, f"{NODE}/change_state", timeout_s, transition=request).success)

    def state(self) -> str:
        """The lifecycle state's label."""
        return str(self.call(GetState, f"{NODE}/get_state").current_state.label)

    def activate(self) -> None:
        """Configures and activates."""
        assert self.transition("configure"), self.outputs()
        assert self.transition("activate"), self.outputs()

    def set_parameter(self, name: str, value: Any) -> tuple[bool, str]:
        """Sets one parameter of the perception node: whether it was accepted, and the reason if not."""
        parameters = [Parameter(name, value=value).to_parameter_msg()]
        result = self.call(SetParameters, f"{NODE}/set_parameters", parameters=parameters).results[0]
        return result.successful, result.reason

    def status(self, name: str) -> DiagnosticStatus | None:
        """The latest diagnostic status whose name ends so."""
        return next((s for s in reversed(self.diagnostics) if s.name.endswith(name)), None)

    def value(self, name: str, key: str) -> str | None:
        """One value of the latest diagnostic status whose name ends so."""
        status = self.status(name)
        return next((v.value for v in status.values if v.key == key), None) if status else None
