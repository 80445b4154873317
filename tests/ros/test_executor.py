"""The callbacks' threads: nothing is destroyed under a callback that runs, and a callback's error is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from std_msgs.msg import String

from getok_drive.ros.executor import PoolExecutor


class Pool:
    """A node on a `PoolExecutor` of rclpy's default context."""

    def __init__(self) -> None:
        self.node = Node("pool_test")
        self.errors: list[str] = []
        self.executor = PoolExecutor(2, self.errors.append)
        self.executor.add_node(self.node)

    def timer(self, callback: Callable[[], None]) -> None:
        self.node.create_timer(0.01, callback, callback_group=ReentrantCallbackGroup())

    def spin_until(self, done: threading.Event) -> None:
        for _ in range(1000):
            if done.is_set():
                return
            self.executor.spin_once(0.05)
        raise AssertionError("the callback was never called")


@pytest.fixture
def pool() -> Iterator[Pool]:
    rclpy.init()
    made = Pool()
    yield made
    made.executor.shutdown(0)
    made.node.destroy_node()
    rclpy.shutdown()


def test_drain_waits_for_the_callbacks_that_run(pool: Pool) -> None:
    publisher = pool.node.create_publisher(String, "words", 1)
    running, go, published = threading.Event(), threading.Event(), threading.Event()

    def callback() -> None:
        running.set()
        go.wait()
        publisher.publish(String(data="still here"))
        published.set()

    pool.timer(callback)
    pool.spin_until(running)
    assert pool.executor.drain(0.05) is False and not published.is_set()
    go.set()
    assert pool.executor.drain(10.0) and published.is_set()
    assert not pool.errors


def test_an_error_is_told_while_nothing_else_happens(pool: Pool) -> None:
    called = threading.Event()

    def callback() -> None:
        if not called.is_set():
            called.set()
            raise ValueError("broken on purpose")

    pool.timer(callback)
    pool.spin_until(called)
    assert pool.executor.drain(10.0)
    assert len(pool.errors) == 1 and "broken on purpose" in pool.errors[0] and "callback" in pool.errors[0]
