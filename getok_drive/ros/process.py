"""Running a node as a process: executor, signals, exit code. Used by every executable of the package."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

_GRACE_S = 1.5  # after a signal; a load or a frame in work that takes longer is cut off


def run_node(make: Callable[[], Any], threads: int, args: list[str] | None = None) -> int:
    """Spins a node until SIGINT or SIGTERM.

    Args:
        make: makes the node once rclpy is up; the node may have ``release()``, called before it is destroyed, and
            ``finished``, a `threading.Event` that ends the process from inside.
        threads: of the executor.
        args: command line with ROS arguments; default: this process's.

    Returns:
        0 after a signal or ``finished``; 1 when the node could not be made. After a signal the process ends within 2 s in
        any state, if need be without waiting for native code in other threads.
    """
    # The PyPI wheels are found through this variable; a sourced ROS 2 sets it itself.
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    import rclpy
    from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    stop = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        if not stop.is_set():
            stop.set()
            watchdog = threading.Timer(_GRACE_S, _leave, (0,))
            watchdog.daemon = True
            watchdog.start()

    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    try:
        node = make()
    except Exception as error:
        print(f"cannot start: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = MultiThreadedExecutor(num_threads=threads)
    executor.add_node(node)
    finished = getattr(node, "finished", stop)
    while not stop.is_set() and not finished.is_set():
        try:
            executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            break
        except Exception as error:  # a callback's error must not end the node
            # An entity that was destroyed while the executor was about to serve it; rclpy's own name for that race has moved
            # between distributions.
            if type(error).__name__ != "InvalidHandle" and not stop.is_set():
                node.get_logger().error(f"callback failed: {traceback.format_exc()}")
    if hasattr(node, "release"):
        node.release()
    executor.shutdown(timeout_sec=0.5)
    node.destroy_node()
    rclpy.try_shutdown()
    _leave(0)  # a pool thread may still sit in native code (a load in progress); Python would wait for it
    return 0


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def perception_main(args: list[str] | None = None) -> int:
    """The executable ``perception_node``."""

    def make() -> Any:
        from getok_drive.ros.node import PerceptionNode

        return PerceptionNode()

    return run_node(make, threads=4, args=args)
