"""The threads that run a node's callbacks."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from rclpy.executors import ConditionReachedException, Executor, ShutdownException, TimeoutException

_PAUSE_S = 0.002


class PoolExecutor(Executor):  # type: ignore[misc]  # rclpy is untyped
    """rclpy's `MultiThreadedExecutor` with an end: `drain` waits for the callbacks that run.

    ``shutdown`` of rclpy's own does not (it raises its flag before it looks whether to wait), so a node that is destroyed next
    disappears under its callbacks, and they fail with ``InvalidHandle``. And rclpy keeps a callback's error until some later
    callback is served; here it is told at once.

    Args:
        threads: most callbacks at a time.
        on_error: takes the traceback of a callback that failed; called in the callback's thread.
    """

    def __init__(self, threads: int, on_error: Callable[[str], None]) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="callback")
        self._running: dict[Future[None], Any] = {}  # the second is rclpy's task for the callback
        self._on_error = on_error

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Hands the next callback that is due to the pool; returns after ``timeout_sec`` or `wake` when none is.

        Raises:
            ExternalShutdownException: somebody else shut rclpy down.
        """
        try:
            handler, _, _ = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (TimeoutException, ConditionReachedException, ShutdownException):
            return
        self._running = {future: task for future, task in self._running.items() if not future.done()}
        if any(task is handler for task in self._running.values()):  # rclpy offers what has not begun again and again
            wait(self._running, _PAUSE_S, FIRST_COMPLETED)
        else:
            self._running[self._pool.submit(self._run, handler)] = handler

    def drain(self, timeout_s: float) -> bool:
        """Waits until no callback runs; False when one still does. Call it where `spin_once` is called, which begins new ones."""
        return not wait(self._running, timeout_s).not_done

    def _run(self, handler: Any) -> None:
        try:
            handler()
            if handler.done():
                handler.result()  # raises what the callback raised
        except Exception as error:
            # A subscription that its camera gave up while the executor was about to serve it; nothing of it is wanted any more.
            # By name: rclpy's own name for that race has moved between distributions.
            if type(error).__name__ != "InvalidHandle":
                self._on_error(traceback.format_exc())
