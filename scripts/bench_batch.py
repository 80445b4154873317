"""What one call for several images would save: the vision tower over 1 to 6 images at once, per image, in time on one core.

    python -m scripts.bench_batch [--bundle nano] [--frames 5]

With torch, whose graph takes any number of images; the ONNX graph has one image's shape. The decoder is shown beside it, because
it is what a frame costs most.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

from getok_drive.pipeline import Perceiver
from getok_drive.types import Frame


def core_ms(work: Callable[[], object], times: int) -> float:
    """Least time on the core of several runs, milliseconds; what else the machine does hardly counts."""
    work()
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found) * 1e3


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--frames", type=int, default=5, help="runs of each size")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    picture = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
    onnx = Perceiver(options.bundle, backend="onnx", threads=1)
    whole_ms = core_ms(lambda: onnx.run(Frame(picture)), options.frames)
    pixels, _ = onnx.bundle.preprocessor()(picture)
    print(f"onnx: vision {core_ms(lambda: onnx.backend.encode(pixels), options.frames):.1f} ms, whole frame {whole_ms:.1f} ms")
    backend = Perceiver(options.bundle, backend="torch").backend
    visual, grid_thw = backend._model.model.visual, backend._grid_thw  # type: ignore[attr-defined]
    for count in (1, 2, 3, 6):
        batch, grids = torch.from_numpy(np.concatenate([pixels] * count)), grid_thw.repeat(count, 1)
        with torch.inference_mode():
            batch_ms = core_ms(lambda batch=batch, grids=grids: visual(batch, grid_thw=grids), options.frames)  # type: ignore[misc]
        print(f"torch: vision over {count} image(s): {batch_ms / count:.1f} ms per image")


if __name__ == "__main__":
    main()
