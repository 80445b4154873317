"""What the node knows of its own condition, and the verdicts on it. No rclpy: times come in, levels and words go out."""

from __future__ import annotations

import math
import statistics
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from getok_drive.ros.params import NodeParams

OK, WARN, ERROR = 0, 1, 2  # the levels of diagnostic_msgs/DiagnosticStatus
_WINDOW = 20  # processed frames that medians and rates look back on
LONGEST_STAY = 16.0  # in degraded mode, hold times
_FRESH_S = 30.0  # a frame finished longer ago says nothing about how busy the node is now


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of diagnostics: level, sentence and numbers."""

    level: int
    message: str
    values: dict[str, str] = field(default_factory=dict)


class CameraHealth:
    """Counts everything that happens to one camera's frames. Thread-safe; times are monotonic seconds."""

    def __init__(self, now_s: float) -> None:
        self._lock = threading.Lock()
        self._alive_since_s = now_s
        self._received_s: float | None = None
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=_WINDOW)  # (finished_s, processing_ms, age_ms)
        self._rejected: Counter[str] = Counter()
        self._issues: Counter[str] = Counter()
        self._received = self._processed = self._superseded = self._truncated = 0
        self._dropped = self._news = self._taken = self._overtaken = 0
        self._work_since_s: float | None = None  # when the frame in work was taken
        self._problem = ""
        self.calibration = "not calibrated: pixels only"
        self.calibration_problem = ""  # what was asked for and could not be had; a WARN

    def received(self, now_s: float, superseded: bool) -> None:
        """A frame arrived; ``superseded``: it replaced one that was waiting."""
        with self._lock:
            self._received += 1
            self._received_s = now_s
            if superseded:
                self._superseded += 1
                self._dropped += 1

    def taken(self, now_s: float, newer: int) -> None:
        """A frame's turn came while ``newer`` later ones had already arrived; there should never be any."""
        with self._lock:
            self._taken += 1
            self._overtaken += newer > 0
            self._work_since_s = now_s

    def finished(self) -> None:
        """Work on the frame taken last has ended, however it did."""
        with self._lock:
            self._work_since_s = None

    def rejected(self, reason: str, detail: str, is_frame: bool = True) -> None:
        """A frame (or, with ``is_frame`` false, another message) could not be used."""
        with self._lock:
            self._rejected[reason] += 1
            self._problem = detail
            self._news += 1
            if is_frame:
                self._dropped += 1

    def processed(self, now_s: float, processing_ms: float, age_ms: float, issues: dict[str, int], truncated: bool) -> None:
        """A scene was published."""
        with self._lock:
            self._processed += 1
            self._recent.append((now_s, processing_ms, age_ms))
            self._issues.update(issues)
            self._truncated += truncated

    def take_dropped(self) -> int:
        """Frames that arrived but were not processed since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            return dropped

    def processing_ms(self, now_s: float) -> float | None:
        """What a frame takes: the latest frames' median, or the time that the one in work has taken already, if that is longer.

        None where there is neither: before the first frame, and some time after the last. So a node that is stuck in its first
        frame does not look idle, and one whose cameras are silent does not look overloaded.
        """
        with self._lock:
            recent_ms = [ms for finished_s, ms, _ in self._recent if now_s - finished_s <= _FRESH_S]
            found = [statistics.median(recent_ms)] if recent_ms else []
            if self._work_since_s is not None:
                found.append((now_s - self._work_since_s) * 1e3)
        return max(found, default=None)

    def restart(self, now_s: float) -> None:
        """The node was activated: the watchdog starts anew, old times are forgotten, counts stay."""
        with self._lock:
            self._alive_since_s, self._received_s = now_s, None
            self._recent.clear()
            self._dropped = 0

    def rejections(self) -> dict[str, int]:
        """Counts by reason."""
        with self._lock:
            return dict(self._rejected)

    def verdict(self, params: NodeParams, now_s: float, topic: str, publishers: int) -> Verdict:
        """The camera's line of diagnostics; reports each new rejection once."""
        slow_ms = self.processing_ms(now_s)
        with self._lock:
            quiet_s = now_s - (self._alive_since_s if self._received_s is None else self._received_s)
            ages_ms = [row[2] for row in self._recent]
            values = {
                "topic": topic,
                "publishers": str(publishers),
                "images received": str(self._received),
                "images superseded by a newer one": str(self._superseded),
                "images taken": str(self._taken),
                "images processed": str(self._processed),
                "images taken with a newer one there": str(self._overtaken),
                "scenes truncated": str(self._truncated),
                "since last image [s]": f"{quiet_s:.2f}",
                "calibration": self.calibration,
                **{f"rejected: {reason}": str(count) for reason, count in sorted(self._rejected.items())},
                **{f"decode issue: {reason}": str(count) for reason, count in sorted(self._issues.items())},
            }
            if self._work_since_s is not None:
                values["image in work for [s]"] = f"{now_s - self._work_since_s:.2f}"
            if self._recent:
                values["processing, median [ms]"] = f"{statistics.median(row[1] for row in self._recent):.1f}"
                values["age at publication, median [ms]"] = f"{statistics.median(ages_ms):.1f}"
                values["age at publication, largest [ms]"] = f"{max(ages_ms):.1f}"
                values["rate [Hz]"] = f"{_rate_hz([row[0] for row in self._recent], now_s):.2f}"
            if self._problem:
                values["last problem"] = self._problem
            news, self._news = self._news, 0
            problem = self._problem
        if quiet_s > params.watchdog_s:
            why = "nobody publishes it" if publishers == 0 else f"{publishers} publisher(s) are silent"
            return Verdict(ERROR, f"no image on {topic} for {quiet_s:.1f} s: {why}", values)
        if slow_ms is not None and slow_ms > params.slow_error_ms:
            return Verdict(ERROR, f"processing takes {slow_ms:.0f} ms, above slow_error_ms", values)
        if news:
            return Verdict(WARN, f"{news} message(s) rejected, last: {problem}", values)
        if self.calibration_problem:
            return Verdict(WARN, self.calibration_problem, values)
        if slow_ms is not None and slow_ms > params.slow_warn_ms:
            return Verdict(WARN, f"processing takes {slow_ms:.0f} ms, above slow_warn_ms", values)
        return Verdict(OK, "running" if self._taken else "waiting for the first image", values)


def _rate_hz(finished_s: Sequence[float], now_s: float) -> float:
    """Frames a second; a pause that is longer than the usual one lowers it while it lasts."""
    count, span_s = len(finished_s) - 1, finished_s[-1] - finished_s[0]
    if count < 1 or span_s <= 0.0:
        return 0.0
    return count / max(span_s, now_s - span_s / count - finished_s[0])


class DegradeControl:
    """Decides between normal and degraded mode with hysteresis: in at once, out after ``degraded_hold_s`` without cause.

    Degraded frames are cheaper, so the cause may be gone only as long as the mode is in force. Whenever it comes back within a
    hold time of the end, the next stay is twice as long, up to `LONGEST_STAY` hold times, so that a node that is steadily
    overloaded tries normal mode ever more rarely.
    """

    def __init__(self) -> None:
        self.reason = ""  # why degraded; empty: normal mode
        self._until_s = -math.inf  # the stay lasts, or lasted, till then
        self._stay = 1.0  # hold times

    def update(self, params: NodeParams, now_s: float, slowest_ms: float | None, temperature_c: float | None) -> bool:
        """Whether degraded mode is in force.

        Args:
            params: mode, limits and hold time.
            now_s: monotonic seconds.
            slowest_ms: largest processing time of all cameras (`CameraHealth.processing_ms`); None before the first frame.
            temperature_c: hottest thermal zone; None when the machine has none.
        """
        if params.degrade != "auto":
            self.reason = "parameter degrade is always" if params.degrade == "always" else ""
            return bool(self.reason)
        cause = ""
        if temperature_c is not None and temperature_c > params.hot_c:
            cause = f"heat: {temperature_c:.0f} degC"
        elif slowest_ms is not None and slowest_ms > params.slow_warn_ms:
            cause = f"overload: {slowest_ms:.0f} ms per image"
        hold_s = params.degraded_hold_s
        if cause:
            if not self.reason:
                self._stay = min(2.0 * self._stay, LONGEST_STAY) if now_s < self._until_s + hold_s else 1.0
            self.reason, self._until_s = cause, now_s + self._stay * hold_s
        elif now_s >= self._until_s:
            self.reason = ""
        return bool(self.reason)


def hottest_c(folder: Path = Path("/sys/class/thermal")) -> float | None:
    """Temperature of the hottest thermal zone, degrees Celsius; None when Linux reports none."""
    found = []
    for path in folder.glob("thermal_zone*/temp"):
        try:
            found.append(int(path.read_text()) / 1000.0)
        except (OSError, ValueError):
            continue
    return max(found, default=None)
