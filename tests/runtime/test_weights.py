"""Weights without safetensors' library: the same numbers, and every broken file refused by name."""

import json

import numpy as np
import pytest

from getok_drive.errors import BackendError
from getok_drive.runtime.weights import mapped_tensor, tensor_places


def written(path, header, data=b"\0" * 64):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_it_reads_what_the_library_writes(tmp_path, dtype):
    save_file = pytest.importorskip("safetensors.numpy", reason="needs the extra 'train'").save_file
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(size=shape).astype(dtype) for name, shape in (("a", (3, 5)), ("b", (7,)), ("model.c.weight", (2, 2, 2)))
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "np"})
    places = tensor_places(tmp_path / "x.safetensors")
    assert set(places) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(mapped_tensor(tmp_path / "x.safetensors", name.removeprefix("model.")), array)
        data = (tmp_path / "x.safetensors").read_bytes()[places[name].offset :][: places[name].length]
        assert data == array.tobytes()


def entry(dtype="F16", shape=(4, 8), offsets=(0, 64)):
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "a header of 0 bytes"),
        (b"{", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        ([], "cannot be read"),
        ({"w": 3}, "cannot be read"),
        ({"w": {"dtype": "F16"}}, "cannot be read"),
        (entry(offsets=(0, 65)), "w lies at bytes 0 to 65 of 64"),
        (entry(offsets=(-2, 62)), "w lies at"),
        (entry(offsets=(32, 0)), "w lies at"),
        (entry(shape=(4, 9)), r"64 bytes, which is not the shape \(4, 9\)"),
        (entry(dtype="I64"), "0 F16 or F32 tensors named w"),
        ({"a.w": entry()["w"], "b.w": entry()["w"]}, "2 F16 or F32 tensors named w"),
        ({"v": entry()["w"]}, "0 F16 or F32 tensors named w"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, header, message):
    with pytest.raises(BackendError, match=message):
        mapped_tensor(written(tmp_path / "x.safetensors", header), "w")


def test_a_file_that_is_cut_off_or_absent_is_refused(tmp_path):
    path = written(tmp_path / "x.safetensors", entry())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BackendError, match="w lies at bytes 0 to 64 of 63"):
        mapped_tensor(path, "w")
    for data in (b"", b"\1\0"):
        path.write_bytes(data)
        with pytest.raises(BackendError, match=r"x\.safetensors: cannot be read"):
            mapped_tensor(path, "w")
    with pytest.raises(BackendError, match=r"none\.safetensors"):
        mapped_tensor(tmp_path / "none.safetensors", "w")
