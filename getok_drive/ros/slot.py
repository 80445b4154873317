"""The latest-frame slots: one per camera, so that no old frame is ever processed when a newer one is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_PERIODS = 8  # a producer's rhythm is that of about so many items
_LATE = 1.2  # of its period after the last item a producer counts as late
_PAUSE = 2.0  # periods: what a longer gap counts as, because a pause is no rhythm


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

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._put_s = [clock()] * count  # when each producer's newest item came
        self._period_s = [0.0] * count  # running mean of the time between a producer's items
        self._items: list[tuple[int, T] | None] = [None] * count
        self._put = [0] * count  # items so far, by producer
        self._changed = threading.Condition()
        self._last = count - 1
        self._closed = False

    def put(self, index: int, item: T) -> bool:
        """Stores the newest item of producer ``index``; True when an item that nobody took was replaced."""
        with self._changed:
            replaced = self._items[index] is not None
            now_s = self._clock()
            if self._put[index]:
                since_s, period_s = now_s - self._put_s[index], self._period_s[index]
                if self._put[index] > 2:
                    since_s = min(since_s, _PAUSE * period_s)
                self._period_s[index] += (since_s - period_s) / min(self._put[index], _PERIODS)
            self._put_s[index] = now_s
            self._put[index] += 1
            self._items[index] = self._put[index], item
            self._changed.notify()
            return replaced

    def worth_waiting_s(self, index: int, most_s: float) -> float:
        """How long to wait for the producer's next item, because the one in its slot is older than that and the next one is due.

        Args:
            index: the producer.
            most_s: so long an item may have lain in its slot.

        Returns:
            0 where there is nothing to wait for: the item is young enough, or the producer is late or has no rhythm yet; or where
            another producer's item would be taken meanwhile, so that nobody's turn is put off again and again.
        """
        with self._changed:
            if any(item is not None for other, item in enumerate(self._items) if other != index):
                return 0.0
            lain_s, period_s = self._clock() - self._put_s[index], self._period_s[index]
            rest_s = _LATE * period_s - lain_s
            return rest_s if self._put[index] > 2 and most_s < lain_s < period_s * _LATE and rest_s < period_s else 0.0

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
