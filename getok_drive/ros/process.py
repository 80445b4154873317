"""Running a node as a process: executor, signals, exit code. Used by every executable of the package."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from getok_drive.errors import GetokError

_GRACE_S = 1.6  # from a signal to the end of the process at the latest; whatever takes longer (a load, a frame) is cut off
_CALLBACKS_S = 0.7  # of it, for the callbacks that run
# mallopt's M_ARENA_MAX, M_MMAP_THRESHOLD (the most that glibc allows), M_TRIM_THRESHOLD
_HEAP = {-8: 1, -3: 32 << 20, -1: 64 << 20}
_TRIM_S = 10.0  # between two returns of unused memory: 5 ms each, and a millisecond for each of the next few image buffers


class Signals:
    """SIGINT and SIGTERM as an event, and the promise that the process ends soon after the first of them.

    The interpreter's C handler writes the signal's number to a pipe, whatever the main thread does just then, and a thread of
    its own reads it. Python's own handlers run between two instructions of the main thread: too late while that sits in native
    code, and not free to take a lock, which the main thread may hold.
    """

    def __init__(self) -> None:
        self.received = threading.Event()
        self._on_signal: Callable[[], None] = lambda: None
        self._pipe, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def call(self, on_signal: Callable[[], None]) -> None:
        """Has ``on_signal`` called at the first signal, in the signals' own thread."""
        self._on_signal = on_signal

    def _watch(self) -> None:
        os.read(self._pipe, 1)
        self.received.set()
        end_s = time.monotonic() + _GRACE_S
        try:
            self._on_signal()
        finally:
            time.sleep(max(end_s - time.monotonic(), 0.0))
            os._exit(0)  # no flushing: a thread that hangs in its output must not hold this one up


def reuse_large_buffers() -> Callable[[], None]:
    """Has the C library keep one heap for all threads, so that one image's buffer becomes the next one's, whoever frees it.

    Left alone, glibc has a heap for every few threads and moves the size from which on it maps and unmaps each block; images
    that change size then leave holes in all heaps, and the process grows by tens of megabytes before it settles. (Mapping each
    block would keep it smallest, but its pages are faulted in anew for every image: 2 ms and more of 1280x720.) Only with glibc,
    and not where the user has set limits of his own (``MALLOC_...``).

    Returns:
        What to call now and then: it gives the pages between the buffers in use back to the system, all over the heap. Without
        it the process keeps the most that it ever had at once, which creeps upwards for hours while images change their size.
    """
    library = ctypes.CDLL(None)
    is_glibc = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    if not is_glibc or any(name.startswith("MALLOC_") for name in os.environ):
        return lambda: None
    for option, value in _HEAP.items():
        library.mallopt(option, value)
    return lambda: library.malloc_trim(0)


def run_node(make: Callable[[], Any], threads: int, args: list[str] | None = None) -> int:
    """Spins a node until SIGINT or SIGTERM.

    Args:
        make: makes the node once rclpy is up. The node may have ``stopping``, a `threading.Event` set at once on a signal;
            ``release()``, called before it is destroyed, when no callback runs any more; and ``finished``, a
            `threading.Event` that ends the process from inside.
        threads: of the executor.
        args: command line with ROS arguments; default: this process's.

    Returns:
        1 when the node could not be made. Else it does not return: the process ends with exit code 0, after a signal within
        2 s in any state, if need be without waiting for native code in other threads. The node is only taken apart when nothing
        uses it any more; else the process ends with the node whole, and the others on the graph notice a little later.
    """
    signals = Signals()
    trim = reuse_large_buffers()
    # The PyPI wheels are found through this variable; a sourced ROS 2 sets it itself.
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.signals import SignalHandlerOptions

    from getok_drive.ros.executor import PoolExecutor

    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make()
    except Exception as error:
        why = str(error) if isinstance(error, GetokError) else f"{type(error).__name__}: {error}"
        print(f"cannot start: {why}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1

    def report(failure: str) -> None:  # a callback's error must not end the node
        node.get_logger().error(f"callback failed: {failure}")

    executor = PoolExecutor(threads, report)
    executor.add_node(node)
    stopping = getattr(node, "stopping", threading.Event())
    finished = getattr(node, "finished", signals.received)

    def on_signal() -> None:
        stopping.set()
        executor.wake()

    signals.call(on_signal)
    trim_at_s = time.monotonic() + _TRIM_S
    while not signals.received.is_set() and not finished.is_set():
        if time.monotonic() >= trim_at_s:
            trim()
            trim_at_s = time.monotonic() + _TRIM_S
        try:
            executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            break
        except Exception as error:
            if type(error).__name__ != "InvalidHandle":  # see PoolExecutor
                node.get_logger().error(f"executor: {traceback.format_exc()}", throttle_duration_sec=5.0)
    stopping.set()
    if executor.drain(_CALLBACKS_S):
        if hasattr(node, "release"):
            node.release()
        executor.shutdown(timeout_sec=0)
        node.destroy_node()
        if machine := getattr(node, "_state_machine", None):  # rclpy's own keeps the DDS participant, whose shared memory stays
            machine.destroy_when_not_in_use()
        rclpy.try_shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a pool thread may still sit in native code (a load, a frame); Python would wait for it


def perception_main(args: list[str] | None = None) -> int:
    """The executable ``perception_node``."""

    def make() -> Any:
        from getok_drive.ros.node import PerceptionNode

        return PerceptionNode()

    return run_node(make, threads=4, args=args)
