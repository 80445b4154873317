"""What running as a process adds to a node, without a node: signals at awkward moments, and memory that is given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

GROWTH = """
import re, sys
from getok_drive.ros.process import return_large_buffers

def rss_mb():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e3

if sys.argv[1] == "as the node does":
    return_large_buffers()
bytearray(20_000_000)  # freed at once: from now on glibc alone would keep blocks of this size
before = rss_mb()
blocks, pins = [], []
for _ in range(40):
    blocks.append(bytearray(b"x") * 2_000_000)
    pins.append(bytearray(b"x") * 100_000)  # what lives on beside an image
del blocks
print(rss_mb() - before)
"""

DEAF = """
import sys, time
from getok_drive.ros.process import Signals

signals = Signals()
print("ready", flush=True)
if sys.argv[1] == "main thread in native code":
    import _thread
    lock = _thread.allocate_lock()
    lock.acquire()
    lock.acquire()  # no instruction of the main thread's ever again
while not signals.received.is_set():
    time.sleep(0.01)
print("seen", flush=True)
"""


def program(text: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", text, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_images_leave_the_process() -> None:
    def growth_mb(how: str) -> float:
        return float(program(GROWTH, how).communicate(timeout=60)[0])

    assert growth_mb("as the node does") < 10.0  # the pins are 4 MB
    assert growth_mb("glibc alone") > 40.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_event(number: int) -> None:
    process = program(DEAF, "main thread runs")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "seen\n"
    assert process.wait(20) == 0


def test_the_process_ends_even_where_python_handlers_never_run() -> None:
    process = program(DEAF, "main thread in native code")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert time.monotonic() - started > 1.0  # after the grace, not by the signal's own effect
