"""``getok-drive doctor``: what this machine can run, and why not."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from getok_drive.errors import GetokError
from getok_drive.machine import cores

OK, WARN, FAIL = "ok", "--", "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: ``state`` is ``ok``, ``--`` (something optional is missing) or ``fail``."""

    name: str
    state: str
    detail: str

    def to_json(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)


def examine(bundle: str) -> list[Check]:
    """All checks, in the order in which a frame needs what they check.

    Args:
        bundle: the bundle to load and run.
    """
    return [
        _required("python", _python),
        _required("numpy", lambda: _version("numpy")),
        _required("opencv", lambda: _version("cv2")),
        _required("shapely", lambda: _version("shapely")),
        _required("onnxruntime", _onnxruntime),
        _required("bundle", lambda: _bundle(bundle)),
        _required("run on onnx", lambda: _try_backend(bundle, "onnx")),
        _optional("run on torch", lambda: _try_backend(bundle, "torch")),
        _optional("cuda", _cuda),
        _optional("read video", _video),
        _optional("mcap", lambda: _version("mcap")),
        _optional("ros 2", _ros),
        _optional("world", _world),
    ]


def table(checks: list[Check]) -> str:
    """The checks as text."""
    width = max(len(check.name) for check in checks)
    return "\n".join(f"{check.state:<5} {check.name:<{width}}  {check.detail}" for check in checks)


def _required(name: str, check: Callable[[], str]) -> Check:
    return _checked(name, check, FAIL)


def _optional(name: str, check: Callable[[], str]) -> Check:
    return _checked(name, check, WARN)


def _checked(name: str, check: Callable[[], str], otherwise: str) -> Check:
    try:
        return Check(name, OK, check())
    except GetokError as error:
        return Check(name, otherwise, str(error))
    except Exception as error:  # a broken installation fails in any way; the doctor reports it and goes on
        return Check(name, otherwise, f"{type(error).__name__}: {error}")


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}, {cores()} cores"


def _version(module: str) -> str:
    if importlib.util.find_spec(module) is None:
        raise GetokError(f"not installed: no module {module}")
    found: Any = importlib.import_module(module)
    return str(getattr(found, "__version__", "installed"))


def _onnxruntime() -> str:
    import onnxruntime as ort

    return f"{ort.__version__}, providers {', '.join(ort.get_available_providers())}"


def _bundle(name: str) -> str:
    from getok_drive.bundle import Bundle

    bundle = Bundle.load(name)
    width, height = bundle.contract.image.size_wh
    return f"{bundle.name} {bundle.sha256[:12]}, {width}x{height} px, verified"


def _try_backend(bundle: str, backend: str) -> str:
    """Two grey frames: the first warms up, the second is timed."""
    if backend == "torch" and importlib.util.find_spec("torch") is None:
        raise GetokError("not installed: no module torch; needed for training and for the reference backend only")
    import numpy as np

    from getok_drive.pipeline import Perceiver
    from getok_drive.types import Frame

    perceiver = Perceiver(bundle, backend)
    perceiver.warm_up()
    scene = perceiver.run(Frame(np.full((720, 1280, 3), 114, np.uint8)))
    return f"{perceiver.backend.device}; a grey frame took {scene.timings.total_ms:.0f} ms"


def _cuda() -> str:
    if importlib.util.find_spec("torch") is None:
        raise GetokError("unknown: torch is not installed")
    import torch

    if not torch.cuda.is_available():
        raise GetokError("torch finds no CUDA device; everything runs on the CPU")
    return str(torch.cuda.get_device_name())


def _video() -> str:
    """Write three frames as MP4 and read them back."""
    import cv2
    import numpy as np

    from getok_drive.sources import open_source
    from getok_drive.views.files import OverlayFiles

    with tempfile.TemporaryDirectory() as folder:
        with OverlayFiles(Path(folder)) as files:
            paths = [files.write(np.full((64, 96, 3), 80 * i, np.uint8), "clip", "clip", 10.0) for i in range(3)]
        frames = sum(item.frame is not None for item in open_source(str(paths[0])))
    if frames != 3:
        raise GetokError(f"wrote 3 frames as MP4 but read back {frames}; OpenCV {cv2.__version__} lacks a codec")
    return "MP4 written and read back"


def _ros() -> str:
    """What the node imports: rclpy, our messages, and the standard ones, which no other check would miss."""
    _version("rclpy")
    if importlib.util.find_spec("getok_drive_msgs") is None:
        raise GetokError(
            "rclpy is there, getok_drive_msgs is not: python scripts/build_msgs.py, or colcon build in ros2_ws and source"
        )
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)  # as the node does: how the wheels find their own libraries
    importlib.import_module("getok_drive.ros.node")
    return "rclpy and getok_drive_msgs; the node can run"


def _world() -> str:
    from getok_drive.sources import procedural_world

    return f"available from {Path(procedural_world().__file__).parents[3]}"
