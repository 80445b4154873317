"""Time as the processes under test had it: a clock that runs slowly while they queue for a core."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_LEAST_PACE = 0.02  # of the wall clock; a hang is found on the most crowded machine, if late
_PERIOD_S = 0.05  # reading the numbers of all threads costs a millisecond or two


class FairClock:
    """Seconds, less those in which the processes watched were ready to run and another process had the core.

    With cores to spare this is the wall clock. Linux says how long each thread has queued (``/proc/PID/task/TID/schedstat``); as
    it does not say which thread others waited for, all of them count, so the clock errs on the slow side: never less patient
    than a quiet machine's wall clock, and no limit has to be widened for a busy one.
    """

    def __init__(self, processes: Callable[[], Iterable[int]] = lambda: ()) -> None:
        """``processes`` gives the ids of processes to watch beside this one, anew at each look."""
        self._processes = processes
        self._queued_ns: dict[str, int] = {}
        self._now_s = 0.0
        self._wall_s = time.monotonic()
        self._look()

    def now(self) -> float:
        """Fair seconds since the clock was made."""
        wall_s = time.monotonic()
        if wall_s - self._wall_s >= _PERIOD_S:
            queued_s = self._look()
            wall_s, passed_s = time.monotonic(), time.monotonic() - self._wall_s
            self._now_s += max(passed_s - queued_s, passed_s * _LEAST_PACE)
            self._wall_s = wall_s
        return self._now_s

    def _look(self) -> float:
        """Seconds queued since the last look, over all threads."""
        before, self._queued_ns = self._queued_ns, {}
        for pid in (os.getpid(), *self._processes()):
            try:
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    self._queued_ns[str(thread)] = int((thread / "schedstat").read_text().split()[1])
            except (OSError, IndexError):  # it has ended, or this kernel keeps no such numbers
                continue
        return sum(max(now - before.get(name, now), 0) for name, now in self._queued_ns.items()) / 1e9
