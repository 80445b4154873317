"""Tensors of a safetensors file without its library: where they lie, and one of them as a mapped array.

The format (https://github.com/huggingface/safetensors): eight bytes with the header's length, the header in JSON, bare bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from getok_drive.errors import BackendError

_DTYPES = {"F16": np.float16, "F32": np.float32}
_MOST_HEADER_BYTES = 100 << 20  # the format's own limit


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor lies.

    Attributes:
        dtype: as the format names it, such as ``F16``.
        shape: its shape.
        offset: of its first byte in the file.
        length: bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def tensor_places(path: Path) -> dict[str, TensorPlace]:
    """The tensors of a file by name.

    Raises:
        BackendError: it cannot be read, is no safetensors file, or names bytes that it does not have.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            count = int.from_bytes(file.read(8), "little")
            if not 0 < count <= min(_MOST_HEADER_BYTES, size - 8):
                raise ValueError(f"a header of {count} bytes in a file of {size}")
            header: dict[str, Any] = json.loads(file.read(count))
        places = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = (int(at) for at in entry["data_offsets"])
            if not 0 <= begin <= end <= size - 8 - count:
                raise ValueError(f"{name} lies at bytes {begin} to {end} of {size - 8 - count}")
            places[name] = TensorPlace(str(entry["dtype"]), tuple(int(n) for n in entry["shape"]), 8 + count + begin, end - begin)
        return places
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BackendError(f"{path}: cannot be read as safetensors: {error}; export the bundle again") from error


def mapped_tensor(path: Path, ending: str) -> npt.NDArray[np.floating]:
    """A half- or single-precision tensor of a file, mapped, not read.

    Args:
        path: the file.
        ending: of the tensor's name, which begins in its own way in every release of transformers.

    Raises:
        BackendError: as `tensor_places`, or the file has not exactly one such tensor.
    """
    found = [(n, p) for n, p in tensor_places(path).items() if n.endswith(ending) and p.dtype in _DTYPES]
    if len(found) != 1:
        raise BackendError(f"{path}: {len(found)} {' or '.join(_DTYPES)} tensors named {ending}; export the bundle again")
    ((name, place),) = found
    dtype = np.dtype(_DTYPES[place.dtype])
    if place.length != dtype.itemsize * int(np.prod(place.shape, dtype=np.int64)):
        raise BackendError(
            f"{path}: {name} has {place.length} bytes, which is not the shape {place.shape}; export the bundle again"
        )
    mapped: npt.NDArray[np.floating] = np.memmap(path, dtype, "r", place.offset, place.shape)
    return mapped.view(np.ndarray)  # np.memmap's own indexing is several times slower
