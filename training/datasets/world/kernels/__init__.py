"""The world's loops over pixels, compiled with numba: what numpy and OpenCV could only do in many passes over small pictures.

A kernel is compiled when it is first called, with types that never change, and kept on disk for every later process. Kernels
call each other across modules, which numba's own cache does not notice; so where it lies depends on the text of all of them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def _digest() -> str:
    """Number of this version of the kernels."""
    crc = 0
    for path in sorted(Path(__file__).parent.glob("*.py")):
        crc = zlib.crc32(path.read_bytes(), crc)
    return f"{crc:08x}"


def _writable_cache() -> str:
    """A folder for the machine code: beside the kernels, or in the user's cache when the repository cannot be written to."""
    beside = Path(__file__).parent
    root = beside / "__pycache__" if os.access(beside, os.W_OK) else Path.home() / ".cache" / "getok_drive"
    return str(Path(numba.config.CACHE_DIR or root) / f"world-{_digest()}")  # type: ignore[attr-defined]


_CACHE = _writable_cache()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of numbers and arrays; without bounds checks, so callers pass windows inside the picture."""
    previous = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = _CACHE  # type: ignore[attr-defined]
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # nowhere to keep it: every process compiles for itself
        return numba.njit(nogil=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = previous  # type: ignore[attr-defined]
