"""``python -m training.build_engine BUNDLE --out FOLDER``: TensorRT engines from a bundle's graphs of standard operations.

Works with NVIDIA's ``tensorrt`` (10 and 11), which compiles for the GPU that it runs on, and with ``tensorrt_rtx``, which
compiles on any machine. Beside the engines stands ``engines.json``: from which graphs, by which version, for which GPUs.
Whoever runs an engine refuses it where that differs (`stale`). Precision is the graphs' own (``--graphs`` of
`training.export`), so nothing here chooses it. See docs/tensorrt.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from getok_drive.bundle import Bundle, file_sha256
from getok_drive.errors import ConfigError, GetokError
from getok_drive.tokens.limits import Limits
from training.tensorrt_builder import Compiled, Compiler

RECORD = "engines.json"
FORMAT = 1
GRAPHS = ("vision", "decoder")
TIMING_CACHE = "timing.cache"
_STEP = 32  # positions that one step of the decoder may append; most append one to four
_CHUNK = 256  # positions of a prefill that a runtime may rely on, however short the prompt


def dimensions(bundle: Bundle, capacity: int) -> tuple[Mapping[str, tuple[int, int, int]], ...]:
    """Least, usual and greatest length of each dynamic axis of the graphs, one mapping for each optimisation profile.

    Two profiles: steps of the decoder, and the prefill. The cache's capacity is fixed, so that its buffers are.

    Args:
        bundle: whose prompt is meant.
        capacity: most positions of a conversation.
    """
    prompt = len(bundle.prompt.before) + bundle.contract.model.num_visual_tokens + len(bundle.prompt.after)
    fixed = (capacity, capacity, capacity)
    return {"T": (1, 1, _STEP), "capacity": fixed}, {"T": (1, prompt, max(prompt, _CHUNK)), "capacity": fixed}


def build(
    source: str | Path,
    out: Path,
    compiler: Compiler | None = None,
    capabilities: Sequence[str] = (),
    capacity: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Compile a bundle's graphs.

    Args:
        source: folder of a bundle exported with ``--graphs standard`` or ``standard-half``.
        out: folder of the engines, which is made; not the bundle's own, whose files its contract names.
        compiler: by default the TensorRT that is installed.
        capabilities: compute capabilities to compile for, such as ``8.6``; only TensorRT for RTX can choose.
        capacity: most positions of a conversation; by default what the bundle needs for the default `Limits`.
        force: compile even where the engines in ``out`` are what would be made.

    Returns:
        The content of ``engines.json``.

    Raises:
        BundleError: the bundle is broken.
        ConfigError: no TensorRT, a graph that it cannot parse or compile, or a folder that cannot be written.
    """
    bundle = Bundle.load(source)
    if out.resolve() == bundle.folder.resolve():
        raise ConfigError(f"{out} is the bundle itself, whose files its contract names; choose another folder for the engines")
    if missing := [f"{graph}.onnx" for graph in GRAPHS if f"{graph}.onnx" not in bundle.contract.files]:
        raise ConfigError(f"{bundle.folder} has no {' and no '.join(missing)}; export the bundle again")
    compiler = compiler or Compiler.find()
    needed = bundle.capacity(Limits())
    capacity = needed if capacity is None else capacity
    profiles = dimensions(bundle, capacity)
    longest = profiles[1]["T"][2]
    if capacity < longest:
        raise ConfigError(f"--capacity {capacity} does not hold a prefill of {longest} positions; a whole scene needs {needed}")
    wanted = {
        "format": FORMAT,
        "compiler": compiler.name,
        "version": compiler.version,
        "compute_capabilities": list(compiler.capabilities(capabilities)),
        "capacity": capacity,
        "bundle": {"name": bundle.name, "sha256": bundle.sha256},
        "onnx_sha256": {graph: bundle.contract.files[f"{graph}.onnx"] for graph in GRAPHS},
    }
    if not force and not (reason := stale(out, wanted)):
        return read_record(out)
    print(f"{out}: compiling with {compiler.name} {compiler.version}" + ("" if force else f", because {reason}"), flush=True)
    _writing(out, lambda: out.mkdir(parents=True, exist_ok=True))
    _writing(out, lambda: (out / RECORD).unlink(missing_ok=True))  # from here on, what lies there is nobody's
    engines = {}
    for graph in GRAPHS:
        started_s = time.perf_counter()
        compiled = compiler.compile(bundle.folder / f"{graph}.onnx", profiles, capabilities, out / TIMING_CACHE)
        path = out / f"{graph}.engine"
        _write(path, compiled.plan)
        engines[graph] = _about(path, compiled, time.perf_counter() - started_s)
        print(f"{path}: {len(compiled.plan) / 1e6:.1f} MB in {engines[graph]['seconds']:.1f} s", flush=True)
    record = wanted | {"engines": engines}
    _write(out / RECORD, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return record


def read_record(folder: Path) -> dict[str, Any]:
    """``engines.json`` of a folder of engines.

    Raises:
        ConfigError: there is none, or it is another file.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no record of engines ({error}); run python -m training.build_engine") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ConfigError(f"{path}: not a record of engines in format {FORMAT}; run python -m training.build_engine")
    return record


def stale(folder: Path, wanted: Mapping[str, Any]) -> str:
    """Why the engines in a folder are not those that are wanted; empty where they are.

    Args:
        folder: of the engines.
        wanted: entries that ``engines.json`` must have, such as ``version`` or ``onnx_sha256``.
    """
    try:
        record = read_record(folder)
    except ConfigError as error:
        return "nothing is there yet" if not (folder / RECORD).exists() else str(error)
    for key, value in wanted.items():
        if record.get(key) != value:
            return f"{key} was {record.get(key)} and is {value}"
    try:
        for graph in GRAPHS:
            about = record["engines"][graph]
            if file_sha256(folder / about["file"]) != about["sha256"]:
                return f"{about['file']} is not the file that {RECORD} tells of"
    except (OSError, KeyError, TypeError) as error:
        return f"{RECORD} tells of an engine that cannot be read ({error!r})"
    return ""


def _about(path: Path, compiled: Compiled, seconds: float) -> dict[str, Any]:
    return {
        "file": path.name,
        "sha256": file_sha256(path),
        "bytes": len(compiled.plan),
        "products": dict(compiled.products),
        "profiles": [dict(profile) for profile in compiled.profiles],
        "seconds": round(seconds, 1),
    }


def _write(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all."""
    part = path.with_name(f"{path.name}.part")

    def write() -> None:
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    _writing(path, write)


def _writing(path: Path, act: Callable[[], object]) -> None:
    try:
        act()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; make room, or choose another --out") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.build_engine", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("bundle", help="folder of a bundle exported with --graphs standard or standard-half")
    parser.add_argument("--out", type=Path, required=True, help="folder of the engines; not the bundle's own")
    parser.add_argument("--compiler", choices=Compiler.NAMES, help="default: tensorrt where it is installed, else tensorrt_rtx")
    parser.add_argument(
        "--compute-capability", action="append", default=[], metavar="X.Y",
        help="GPU generation to compile for, such as 8.6; may be given several times (tensorrt_rtx only; default: from 8.0 on)",
    )  # fmt: skip
    parser.add_argument("--capacity", type=int, metavar="N", help="most positions of a conversation (default: the bundle's need)")
    parser.add_argument("--force", action="store_true", help="compile even where the engines are there already")
    options = parser.parse_args(arguments)
    try:
        compiler = Compiler.find(options.compiler)
        record = build(options.bundle, options.out, compiler, options.compute_capability, options.capacity, options.force)
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    of, for_gpus = record["bundle"], ", ".join(record["compute_capabilities"])
    print(f"{options.out}: engines of {of['name']} {of['sha256'][:12]} for compute capability {for_gpus}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
