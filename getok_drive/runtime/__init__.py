"""Backends that run a model, and the one decoder that drives them. This page knows the backends by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from getok_drive.errors import ConfigError
from getok_drive.runtime.backend import Backend, Geometry
from getok_drive.tokens.positions import PositionSpec

# name: module and class. Each is imported when it is opened, as each needs libraries of its own.
BACKENDS: dict[str, tuple[str, str]] = {
    "onnx": ("getok_drive.runtime.onnx", "OnnxBackend"),
    "torch": ("getok_drive.runtime.torch", "TorchBackend"),
}


def open_backend(name: str, folder: Path, geometry: Geometry, spec: PositionSpec, capacity: int, threads: int = 0) -> Backend:
    """Load a model into a backend.

    Args:
        name: a key of `BACKENDS`.
        folder: the bundle's.
        geometry: the model's shape, which its files must have.
        spec: where the conversation's tokens stand.
        capacity: most positions of a conversation.
        threads: CPU threads; 0 lets the backend choose.

    Raises:
        ConfigError: on an unknown name.
        BackendError: when the backend's library is missing, or the model cannot be loaded.
    """
    if name == "tensorrt":
        raise ConfigError(
            "there is no TensorRT backend yet: python -m training.build_engine compiles a bundle's graphs into engines "
            "(docs/tensorrt.md), but nothing here runs them; expected one of " + ", ".join(sorted(BACKENDS))
        )
    if name not in BACKENDS:
        raise ConfigError(f"unknown backend {name!r}; expected one of {', '.join(sorted(BACKENDS))}")
    module, made = BACKENDS[name]
    make: Callable[..., Backend] = getattr(importlib.import_module(module), made)
    return make(folder, geometry, spec, capacity, threads)
