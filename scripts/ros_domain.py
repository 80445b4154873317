"""A DDS domain that no other run on this machine uses: tests, demo and benchmarks side by side must not hear one another."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

_DOMAINS = range(1, 101)  # 0 is everybody's; above 101 the ports fall among those that Linux gives to whoever asks
_held: list[IO[str]] = []  # open, hence locked, as long as this process lives


def free_domain() -> str:
    """For `ROS_DOMAIN_ID`: one that nobody else has taken by this function; it is free again when this process ends.

    Raises:
        RuntimeError: all are taken.
    """
    for step in range(len(_DOMAINS)):
        domain = _DOMAINS[(os.getpid() + step) % len(_DOMAINS)]
        lock = (Path(tempfile.gettempdir()) / f"getok_ros_domain_{os.getuid()}_{domain}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        return str(domain)
    raise RuntimeError(f"all DDS domains from {_DOMAINS[0]} to {_DOMAINS[-1]} are in use by other runs")
