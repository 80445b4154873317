"""``python -m training.merge ADAPTER --out FOLDER``: adapters and their base become one ordinary checkpoint folder.

``ADAPTER`` is the folder ``final/adapter`` of a run of ``training.sft`` with ``tuning.lora_rank``: LoRA factors and the rows of
the token table, in PEFT's format. The base is named in it; ``--base`` says where it lies now. The result loads in plain
transformers, vLLM and ms-swift (docs/base_models.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from getok_drive.errors import ConfigError, GetokError
from training.base_model import load_base, save_folder
from training.vocabulary import first_token_id


def merge(adapter: Path, out: Path, base: str | None = None) -> None:
    """Write the merged checkpoint.

    Args:
        adapter: folder in PEFT's format.
        out: folder of the checkpoint; must not hold one yet.
        base: folder or hub name of the base; by default the one that the adapter names.

    Raises:
        ConfigError: the adapter, its base or ``out`` cannot be used.
    """
    from peft import PeftConfig, PeftModel

    if not (adapter / "adapter_config.json").is_file():
        raise ConfigError(f"{adapter}: no adapter_config.json; expected the folder 'adapter' that training.sft wrote")
    if (out / "config.json").exists():
        raise ConfigError(f"{out} holds a checkpoint already; choose another folder")
    config = PeftConfig.from_pretrained(adapter)
    source = base or config.base_model_name_or_path
    if not source:
        raise ConfigError(f"{adapter}: does not name its base; say --base")
    model, tokenizer = load_base(source, dtype="bfloat16" if _is_half(source) else "float32")
    rows: list[int] = next(iter((config.trainable_token_indices or {}).values()), [])
    first = first_token_id(tokenizer)
    if rows and rows[0] != first:
        raise ConfigError(f"{adapter}: its table begins at id {rows[0]}, that of {source} at {first}: it is of another base")
    try:
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{adapter}: does not fit {source}: {error}") from error
    save_folder(merged, tokenizer, out, source=source)


def _is_half(source: str) -> bool:
    from transformers import AutoConfig

    return "16" in str(AutoConfig.from_pretrained(source).dtype)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.merge", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("adapter", type=Path, help="folder 'adapter' of a run of training.sft")
    parser.add_argument("--out", type=Path, required=True, help="folder of the merged checkpoint")
    parser.add_argument("--base", metavar="NAME", help="folder or hub name of the base (default: as the adapter says)")
    options = parser.parse_args(arguments)
    try:
        merge(options.adapter, options.out, options.base)
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {options.adapter} merged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
