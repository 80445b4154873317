"""The latest-frame slots: one per camera, so that no old frame is ever processed when a newer one is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Taken(Generic[T]):
    """An item as the consumer gets it.

    Attributes:
        index: its producer.
        item: what that producer put.
        sequence: which of the producer's items it is; the first is 1.
        newer: how many newer ones the producer had put when this one was taken. Anything but 0 breaks the slots' promise.
    """

    index: int
    item: T
    sequence: int
    newer: int


class LatestSlots(Generic[T]):
    """Several producers, one consumer; each producer's newest item replaces the one before it. Thread-safe."""

    def __init__(self, count: int) -> None:
        self._items: list[tuple[int, T] | None] = [None] * count
        self._put = [0] * count  # items so far, by producer
        self._changed = threading.Condition()
        self._last = count - 1
        self._closed = False

    def put(self, index: int, item: T) -> bool:
        """Stores the newest item of producer ``index``; True when an item that nobody took was replaced."""
        with self._changed:
            replaced = self._items[index] is not None
            self._put[index] += 1
            self._items[index] = self._put[index], item
            self._changed.notify()
            return replaced

    def take(self, timeout_s: float, wait_s: Callable[[int], float] = lambda index: 0.0) -> Taken[T] | None:
        """The next item, producers in turn; None after ``timeout_s`` or once closed.

        Args:
            timeout_s: longest wait.
            wait_s: how long producer ``index`` still has to pause (rate limits). Its item stays in the slot meanwhile, where a
                newer one can replace it.
        """
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while not self._closed:
                pause_s = end_s - time.monotonic()
                for step in range(1, len(self._items) + 1):
                    index = (self._last + step) % len(self._items)
                    entry = self._items[index]
                    if entry is None:
                        continue
                    rest_s = wait_s(index)
                    if rest_s <= 0:
                        self._items[index] = None
                        self._last = index
                        sequence, item = entry
                        return Taken(index, item, sequence, self._put[index] - sequence)
                    pause_s = min(pause_s, rest_s)
                if end_s - time.monotonic() <= 0:
                    return None
                self._changed.wait(max(pause_s, 0.0005))
        return None

    def close(self) -> None:
        """Wakes the consumer for good; every later `take` gives None."""
        with self._changed:
            self._closed = True
            self._items = [None] * len(self._items)
            self._changed.notify_all()
