"""Memory and time of supervised training, worked out: ``python -m training.estimate --preset qwen2.5-vl-7b --gpus 8``.

Nothing is run; `training.costs` says how everything is computed, and so does the report. The share of a GPU's peak that
training reaches (MFU) is an assumption, stated, not a measurement.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from getok_drive.errors import ConfigError, GetokError
from training.costs import GIB, Costs, config_of
from training.presets import PRESETS, SftConfig, override

GPUS = {  # memory in GiB, dense bfloat16 peak in TFLOP/s, from the vendors' data sheets
    "a100-40": (40, 312), "a100": (80, 312), "a800": (80, 312), "h100": (80, 989), "h200": (141, 989), "l40s": (48, 362),
    "rtx4090": (24, 165),
}  # fmt: skip
SHARDINGS = ("ddp", "zero2", "fsdp2")


def report(costs: Costs, gpus: int = 1, gpu: str = "a800", sharding: str = "ddp", mfu: float = 0.35) -> str:
    """The estimate as text.

    Args:
        costs: model and settings.
        gpus: in all nodes together.
        gpu: a key of `GPUS`.
        sharding: one of `SHARDINGS`.
        mfu: share of the GPU's peak that training reaches, communication included.
    """
    settings, (memory_gib, tera) = costs.settings, GPUS[gpu]
    out = [f"{settings.base or settings.size}: {costs.parameters / 1e9:.3f} G parameters, {costs.learning / 1e6:.1f} M learn"]
    seconds = 0.0
    for stage in settings.stages:
        work = costs.work(stage.image_size_wh)
        step_s = settings.batch_size * work.total / (tera * 1e12 * mfu)
        seconds += stage.steps * step_s
        width, height = stage.image_size_wh
        text, rate = f"{costs.text_tokens} of text, {costs.taught_tokens} taught", gpus * settings.batch_size / step_s
        out += [
            f"{stage.steps} steps at {width}x{height}" + " (counted as if with the decoder: too much)" * stage.dense_only,
            f"  a picture: {work.patches} patches, {work.tokens} tokens ({text})",
            f"  {work.forward / 1e12:.2f} TFLOP forward, {work.total / 1e12:.2f} with backward and what is computed again",
            f"  a step: {settings.batch_size} pictures a GPU, {step_s:.2f} s; {rate:.2f} pictures/s",
        ]
    out += [
        f"time: {seconds / 3600:.1f} h for {settings.total_steps} steps of {settings.batch_size * gpus} pictures",
        f"  = pictures x operations / ({gpus} x {tera} TFLOP/s x {mfu:.0%} of the peak); the share is assumed",
        f"memory on each GPU at the peak ({sharding}, {gpus} x {gpu}):",
    ]
    largest = max(settings.stages, key=lambda stage: stage.image_size_wh[0] * stage.image_size_wh[1])
    lines = costs.memory(largest.image_size_wh, gpus, sharding)
    out += [f"  {line.bytes / GIB:7.2f} GiB  {line.what:17}{line.how}" for line in lines]
    total = sum(line.bytes for line in lines) / GIB
    verdict = "fits" if total <= memory_gib else "does NOT fit; raise accumulate, checkpoint gradients, or shard with fsdp2"
    return "\n".join([*out, f"  {total:7.2f} GiB  of {memory_gib}: {verdict}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.estimate", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="qwen2.5-vl-7b")
    parser.add_argument("--gpus", type=int, default=1, help="in all nodes together")
    parser.add_argument("--gpu", choices=sorted(GPUS), default="a800", help="default: %(default)s, the paper's")
    parser.add_argument("--sharding", choices=SHARDINGS, default="ddp", help="as in training/configs")
    parser.add_argument("--mfu", type=float, default=0.35, help="share of the GPU's peak that is reached (default: %(default)s)")
    parser.add_argument("--text-tokens", type=int, default=400, help="tokens of a conversation beside the image")
    parser.add_argument("--taught-tokens", type=int, default=250, help="of these, how many are taught")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of training.sft")
    options = parser.parse_intermixed_args(arguments)
    try:
        if options.gpus < 1 or not 0 < options.mfu <= 1:
            raise ConfigError(f"--gpus {options.gpus}, --mfu {options.mfu}: expected 1 or more, and above 0 up to 1")
        settings: SftConfig = override(PRESETS[options.preset], options.settings)
        costs = Costs(config_of(settings), settings, options.text_tokens, options.taught_tokens)
        print(report(costs, options.gpus, options.gpu, options.sharding, options.mfu))
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
