"""What running as a process adds to a node, without a node: signals at awkward moments, and memory that is used again."""

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
import re, sys, threading
from getok_drive.ros.process import reuse_large_buffers

def rss_mb():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e3

if sys.argv[1] == "as the node does":
    reuse_large_buffers()
bytearray(20_000_000)  # freed at once: from now on glibc alone would keep blocks of this size
before = rss_mb()
pins = []  # what lives on beside the images

def receive(done):
    images = []
    for _ in range(10):
        images.append(bytearray(b"x") * 2_000_000)
        pins.append(bytearray(b"x") * 100_000)
    del images
    done.set()
    threading.Event().wait()

for _ in range(6):
    done = threading.Event()
    threading.Thread(target=receive, args=(done,), daemon=True).start()
    done.wait()
print(rss_mb() - before)
"""

HOLES = """
import re
from getok_drive.ros.process import reuse_large_buffers

def rss_mb():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e3

trim = reuse_large_buffers()
images = [(bytearray(b"x") * 2_000_000, bytearray(b"x") * 10_000) for _ in range(30)]
pins = [pin for _, pin in images]  # one behind each image
del images
before = rss_mb()
trim()
print(before - rss_mb())
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
def test_threads_reuse_one_another_s_images() -> None:
    def growth_mb(how: str) -> float:
        return float(program(GROWTH, how).communicate(timeout=60)[0])

    assert growth_mb("as the node does") < 45.0  # one thread's images are 20 MB, the pins of all 6 MB
    assert growth_mb("glibc alone") > 60.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_holes_between_buffers_are_given_back() -> None:
    assert float(program(HOLES).communicate(timeout=60)[0]) > 45.0  # of 60 MB


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
