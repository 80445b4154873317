"""``python -m training.export CHECKPOINT --out FOLDER``: a trained checkpoint becomes a bundle that the runtime can load.

Weights are rounded to half precision once and kept once, in ``model.safetensors``, to which the ONNX graphs refer: the
backends of one bundle compute with the same numbers. The written bundle is loaded and verified before the command ends.
``--graphs standard`` writes graphs that TensorRT compiles too (docs/tensorrt.md); a bundle may stand for the checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from getok_drive.bundle import (
    CONTRACT,
    FORMAT,
    Bundle,
    CalibrationSpec,
    Contract,
    ImageSpec,
    PromptSpec,
    TokenSpec,
    TrainingData,
    file_sha256,
)  # fmt: skip
from getok_drive.errors import ConfigError, GetokError
from getok_drive.preprocess import CLIP_MEAN_RGB, CLIP_STD_RGB, Preprocessor
from getok_drive.runtime.backend import Geometry
from getok_drive.tokens import prompts
from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.vocab import GRID_SIZE, OFFSET_ROUNDS, TOKENS
from training.checkpoints import trained_size_wh
from training.export_options import least_confidence_by_kind, read_calibration, rounds_by_kind
from training.model import load_checkpoint, parameter_count, position_rule
from training.onnx_builder import FORMS, Form
from training.onnx_graphs import decoder_graph, vision_graph
from training.onnx_weights import refer_to_weights
from training.recipes.provenance import provenance
from training.sources import parse_size
from training.visual import Pixels
from training.vocabulary import first_token_id


def export(
    checkpoint: Path,
    out: Path,
    name: str | None = None,
    image_size_wh: tuple[int, int] | None = None,
    calibration: Mapping[str, CalibrationSpec] | None = None,
    training: Sequence[TrainingData] | None = None,
    rounds: Mapping[str, int] | None = None,
    form: Form = FORMS["fused"],
    least_confidence: Mapping[str, float] | None = None,
) -> Bundle:
    """Write a bundle.

    Args:
        checkpoint: folder of `training.sft` (ordinary transformers files), or a bundle, whose settings are then the defaults.
        out: the bundle's folder; an older bundle there is replaced as a whole.
        name: the bundle's name; by default ``nano``.
        image_size_wh: the one input size; by default that of the last training stage.
        calibration: of the confidences, by element kind; by default none.
        training: what the model was trained on; by default what the checkpoint's ``training.json`` says.
        rounds: offset rounds that the runtime is to ask for, by element kind; fewer are faster. By default all.
        form: what the graphs are made of, one of `FORMS`.
        least_confidence: below which elements are left out, by element kind. By default none is.

    Returns:
        The bundle, loaded and verified.

    Raises:
        ConfigError: the checkpoint or a setting cannot be used, or ``out`` holds something else than a bundle.
    """
    if out.exists() and any(out.iterdir()) and not (out / CONTRACT).is_file():
        raise ConfigError(f"{out} exists and is no bundle; choose another folder or empty it")
    told = _told_by(checkpoint)
    model, tokenizer = load_checkpoint(checkpoint)
    _check_exportable(model, checkpoint)
    if calibration is None:
        calibration = told.calibration if told else {}
    if rounds is None:
        rounds = told.tokens.decided_rounds if told else dict.fromkeys(KINDS, OFFSET_ROUNDS)
    if least_confidence is None:
        least_confidence = told.least_confidence if told else dict.fromkeys(KINDS, 0.0)
    image_size_wh = image_size_wh or trained_size_wh(checkpoint)
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
    vision = model.config.vision_config
    preprocessor = Pixels.of(model.config).preprocessor(image_size_wh)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        fresh = Path(folder) / out.name
        fresh.mkdir()
        _write_model(model, tokenizer, preprocessor, fresh, form)
        contract = Contract(
            format=FORMAT,
            name=name or (told.name if told else "nano"),
            git_commit=_git_commit(),
            tokens=TokenSpec(GRID_SIZE, OFFSET_ROUNDS, dict(rounds), first_token_id(tokenizer), TOKENS),
            image=ImageSpec(
                image_size_wh,
                vision.patch_size,
                vision.spatial_merge_size,
                vision.temporal_patch_size,
                CLIP_MEAN_RGB,
                CLIP_STD_RGB,
            ),
            prompt=_prompt(tokenizer),
            model=geometry(model, preprocessor),
            calibration=dict(calibration),
            least_confidence=dict(least_confidence),
            training=_trained_on(checkpoint) if training is None else tuple(training),
            files={path.name: file_sha256(path) for path in sorted(fresh.iterdir())},
        )
        (fresh / CONTRACT).write_text(contract.to_json(), encoding="utf-8")
        Bundle.load(fresh)
        if out.exists():
            shutil.rmtree(out)
        fresh.rename(out)
    return Bundle.load(out)


def geometry(model: Qwen2_5_VLForConditionalGeneration, preprocessor: Preprocessor) -> Geometry:
    """The model's shape as the runtime needs it."""
    text: Any = model.config.text_config
    return Geometry(
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=text.hidden_size // text.num_attention_heads,
        rope_theta=float(text.rope_parameters["rope_theta"]),
        mrope_section=tuple(text.rope_parameters["mrope_section"]),
        position_rule=position_rule(model.config),
        grid_hw=preprocessor.grid_hw,
        merge_size=preprocessor.merge_size,
        patch_dim=preprocessor.patch_dim,
    )


def _write_model(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    preprocessor: Preprocessor,
    folder: Path,
    form: Form,
) -> None:
    graphs = {"vision.onnx": vision_graph(model, preprocessor.grid_hw, form), "decoder.onnx": decoder_graph(model, form)}
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as scratch:
        model.half().save_pretrained(scratch, safe_serialization=True)
        for name in ("model.safetensors", "config.json"):
            shutil.copyfile(Path(scratch) / name, folder / name)
    model.float()
    for name, graph in graphs.items():
        refer_to_weights(graph, folder / "model.safetensors")
        onnx.save(graph, str(folder / name))


def _check_exportable(model: PreTrainedModel, checkpoint: Path) -> None:
    """A bundle's graphs are Qwen2.5-VL's, and an ONNX file holds 2 GB at most."""
    elsewhere = "serve the checkpoint folder itself with transformers or vLLM (docs/base_models.md)"
    if model.config.model_type != "qwen2_5_vl":
        raise ConfigError(
            f"{checkpoint}: export does not support {model.config.model_type} yet: its deepstack feeds the decoder's first "
            f"layers, which the bundle's graphs have no input for; {elsewhere}"
        )
    half_bytes = 2 * parameter_count(model)
    if half_bytes > 2**31:
        raise ConfigError(f"{checkpoint}: {half_bytes / 1e9:.1f} GB of weights do not fit into an ONNX file (2 GB); {elsewhere}")


def _prompt(tokenizer: PreTrainedTokenizerFast) -> PromptSpec:
    before, after = prompts.propose_segments()
    parts = [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in (before, after, prompts.refine_segment())]
    return PromptSpec(prompts.prompt_hash(), *parts)


def _told_by(checkpoint: Path) -> Contract | None:
    """The contract, where the checkpoint is a bundle that has not been trained further."""
    trained = (checkpoint / "training.json").is_file() or not (checkpoint / CONTRACT).is_file()
    return None if trained else Bundle.load(checkpoint).contract


def _trained_on(checkpoint: Path) -> tuple[TrainingData, ...]:
    """The data sets that training noted in the checkpoint, or a bundle's own; one from elsewhere is named as a base model."""
    try:
        return tuple(TrainingData(str(one["name"]), str(one["terms"])) for one in provenance([], str(checkpoint)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        path = checkpoint / "training.json"
        raise ConfigError(f"{path}: training must be a list of name and terms ({error!r}); mend or delete the entry") from error


def _git_commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return "unknown"
    return result.stdout.strip() or "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("checkpoint", type=Path, help="folder written by training.sft, or a bundle to write in another form")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--name", help="the bundle's name (default: nano, or that of the bundle read)")
    parser.add_argument("--image-size", metavar="WxH", help="the one input size (default: that of the last training stage)")
    parser.add_argument("--calibration", type=Path, help="of training.evaluate --fit-calibration, or a contract.json")
    parser.add_argument(
        "--rounds", metavar="N[,KIND=N...]",
        help="offset rounds that the runtime is to ask for, such as 3,box=1 (three, for boxes one); fewer are faster "
        f"(default: all, {OFFSET_ROUNDS})",
    )  # fmt: skip
    parser.add_argument(
        "--least-confidence", metavar="KIND=NUMBER[,...]",
        help="confidence below which the runtime leaves elements out unless it is told otherwise, such as box=0.2,sign=0.2 "
        "(default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--graphs", default="fused", choices=FORMS,
        help="fused: for ONNX Runtime; standard: operations of the ONNX standard only, for TensorRT; standard-half: those, with "
        "matrix products in half precision (default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        size_wh = parse_size(options.image_size, "--image-size") if options.image_size else None
        calibration = read_calibration(options.calibration) if options.calibration else None
        rounds = rounds_by_kind(options.rounds) if options.rounds else None
        least = least_confidence_by_kind(options.least_confidence) if options.least_confidence else None
        form = FORMS[options.graphs]
        bundle = export(options.checkpoint, options.out, options.name, size_wh, calibration, None, rounds, form, least)
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in bundle.folder.iterdir())
    print(f"{bundle.folder}: bundle {bundle.name} {bundle.sha256[:12]}, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
