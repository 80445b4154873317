"""The environment that ROS processes want, and in which one starts another."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_BOOTSTRAPPED = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"


def stay_on_this_machine() -> None:
    """Has this process and its children discover nothing beyond this machine, as the ROS 2 that is sourced wants to be told.

    Humble knows only ``ROS_LOCALHOST_ONLY``; the later ones call that outdated, and so they are not given it.
    """
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"


def child_environment() -> dict[str, str]:
    """This process's environment with the repository on ``PYTHONPATH``, for a Python that uses ROS 2 as this one does.

    PyPI's wheels set ``LD_LIBRARY_PATH`` for this process alone, by starting Python anew, and would not do so again: a child does
    that for itself. A ROS 2 that was sourced set it, too, and cannot be imported without.
    """
    of_the_wheels = {"LD_LIBRARY_PATH", _BOOTSTRAPPED} if _BOOTSTRAPPED in os.environ else set()
    env = {name: value for name, value in os.environ.items() if name not in of_the_wheels}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), env.get("PYTHONPATH", "")]))
    return env
