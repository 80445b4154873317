"""Released models as a base, on the real classes at tiny size: extend, adapt, train, merge, reload, generate, export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft", reason="needs the extra 'train'")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer  # noqa: E402

from getok_drive.errors import ConfigError  # noqa: E402
from getok_drive.tokens import prompts  # noqa: E402
from getok_drive.tokens.vocab import GRID_SIZE, TOKEN_ID, TOKENS  # noqa: E402
from tests.training.base_models import IMAGE_SIZE_WH, KINDS, base_model, base_tokenizer, save_base  # noqa: E402
from training import export, merge, sft  # noqa: E402
from training.base_model import load_base  # noqa: E402
from training.collate import Collator, Layout  # noqa: E402
from training.datasets import world  # noqa: E402
from training.lora import Tuning, prepare  # noqa: E402
from training.model import load_checkpoint  # noqa: E402
from training.presets import PRESETS, override  # noqa: E402
from training.recipes.driving import DrivingRecipe  # noqa: E402
from training.rollout import Sampler, Sampling  # noqa: E402
from training.visual import Pixels, encode_pictures, picture_inputs  # noqa: E402
from training.vocabulary import add_table, extend, first_token_id  # noqa: E402

TIED = {"qwen2_5_vl": False, "qwen3_vl": True}  # as the 7B and the 2B


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(kind, tmp_path_factory) -> Path:
    """A released folder."""
    return save_base(tmp_path_factory.mktemp("base") / kind, kind, TIED[kind])


def settings(base: Path, kind: str, steps: int = 6, **more) -> list[str]:
    width, height = IMAGE_SIZE_WH[kind]
    values = {
        "stages": f"(({steps}, ({width}, {height})),)", "tuning.lora_rank": 4, "learning_rate": 0.003, "dense_weight": 0.0,
        "ema_decay": 0.0, "warmup_steps": 1, "batch_size": 2, "tuning.gradient_checkpointing": True, "save_every": 3, **more,
    }  # fmt: skip
    return ["--preset", "tiny", f"base={base}", *(f"{name}={value}" for name, value in values.items())]


@pytest.fixture(scope="module")
def run(kind, base, tmp_path_factory) -> Path:
    """A finished run of ``training.sft`` with LoRA."""
    out = tmp_path_factory.mktemp("run")
    assert sft.main(["--out", str(out), *settings(base, kind, eval_every=1)]) == 0
    return out


# --- the vocabulary ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_extending_leaves_the_model_as_it_was(kind, tied):
    tokenizer = base_tokenizer(kind)
    model = base_model(kind, tokenizer, tied).eval()
    text = tokenizer.encode("Find the lanes.\n<|im_end|>")
    ids = torch.tensor([text])
    with torch.no_grad():
        before = model(input_ids=ids).logits
    old_size = len(tokenizer)
    extended = extend(model, tokenizer)
    first = first_token_id(extended)
    assert first == old_size
    assert extended.encode("Find the lanes.\n<|im_end|>") == text
    rows = model.get_input_embeddings().weight.shape[0]
    assert rows % 128 == 0
    assert rows == model.config.text_config.vocab_size == model.lm_head.weight.shape[0]
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits[..., :first], before[..., :first], atol=0, rtol=0)
    for matrix in {id(m): m for m in (model.get_input_embeddings().weight, model.lm_head.weight)}.values():
        grid = torch.nn.functional.normalize(matrix[first : first + GRID_SIZE].detach(), dim=1)
        assert (grid[0] @ grid[1]) > 0.5 + (grid[0] @ grid[GRID_SIZE - 1])
    again = extend(model, extended)  # a second time changes nothing
    assert again is extended
    assert model.get_input_embeddings().weight.shape[0] == rows


def test_a_word_that_the_base_has_already_makes_room():
    """Qwen3's own <think> keeps its id and row under another text; the table stays one block and starts from it."""
    tokenizer = base_tokenizer("qwen3_vl")
    model = base_model("qwen3_vl", tokenizer, tied=True)
    old = tokenizer.convert_tokens_to_ids("<think>")
    former = model.get_input_embeddings().weight[old].detach().clone()
    extended = extend(model, tokenizer)
    first = first_token_id(extended)
    assert extended.encode("<think>") == [first + TOKEN_ID["<think>"]]
    assert extended.convert_ids_to_tokens(old) == "<|base:think|>"
    rows = model.get_input_embeddings().weight.detach()
    torch.testing.assert_close(rows[old], former)
    nearest = torch.nn.functional.cosine_similarity(rows[first : first + len(TOKENS)], former[None])
    assert int(nearest.argmax()) == TOKEN_ID["<think>"]
    assert extended.eos_token == "<|im_end|>"


def test_another_vocabulary_is_refused_by_name(base, kind, tmp_path):
    tokenizer = base_tokenizer(kind)
    tokenizer.add_tokens(["<grid_0_0>", "<grid_1_0>"])
    with pytest.raises(ConfigError, match=r"<grid_0_0> but not <grid_2_0>"):
        add_table(tokenizer)
    with pytest.raises(ConfigError, match=f"{base.name}.*<grid_0_0> is missing"):
        load_checkpoint(base)
    assert sft.main(["--preset", "tiny", "--out", str(tmp_path), "--start-from", str(base)]) == 2


def test_bases_that_cannot_be_used_are_named(tmp_path, base, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert sft.main(["--preset", "tiny", "--out", str(tmp_path), f"base={tmp_path / 'nowhere'}"]) == 2
    assert "nowhere: cannot be loaded" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama", "hidden_size": 64}')
    with pytest.raises(ConfigError, match="is a llama model"):
        load_base(str(other))
    with pytest.raises(ConfigError, match="dtype='int4'"):
        load_base(str(base), dtype="int4")
    with pytest.raises(ConfigError, match="round small updates away"):
        prepare(*load_base(str(base), dtype="bfloat16"), override(PRESETS["tiny"], ["tuning.dtype=bfloat16"]).tuning)


# --- the forward -------------------------------------------------------------------------------------------------------


def test_batches_give_the_logits_of_transformers(base, kind):
    """Windows, frames in pairs, the position grid and deepstack are all in our one forward, and so are the positions."""
    model, tokenizer = load_base(str(base))
    model.eval()
    layout = Layout.of(tokenizer, model.config)
    recipe = DrivingRecipe(layout)
    pre = layout.pixels.preprocessor(IMAGE_SIZE_WH[kind])
    rng = np.random.default_rng(0)
    batch = Collator(pre, layout)([recipe(world.render(seed, (224, 112)), rng) for seed in (3, 4)])
    with torch.no_grad():
        visual = encode_pictures(model, batch.pixel_values, pre.grid_hw)
        inputs = picture_inputs(model, batch.ids, visual, batch.visual)
        hidden = model.model.language_model(**inputs, position_ids=batch.positions, use_cache=False).last_hidden_state
        ours = model.lm_head(hidden)
        for row, length in enumerate(batch.lengths.tolist()):
            ids = batch.ids[row : row + 1, :length]
            theirs = model(
                input_ids=ids,
                pixel_values=batch.pixel_values[row],
                image_grid_thw=torch.tensor([[1, *pre.grid_hw]]),
                mm_token_type_ids=(ids == layout.image_pad).int(),
            ).logits[0]
            # up to the refinement, from which on points are left out of the sequence and positions jump
            stop = int((ids[0] == layout.first_id + TOKEN_ID["<offset>"]).nonzero()[0])
            torch.testing.assert_close(ours[row, :stop], theirs[:stop], atol=1e-5, rtol=1e-4)
    assert len(visual.deepstack) == (2 if kind == "qwen3_vl" else 0)


def test_a_frozen_tower_is_not_run_backwards(kind):
    """Transformers' and PEFT's checkpointing make the pixels need gradients: a frozen tower's whole backward pass for nothing."""
    tokenizer = base_tokenizer(kind)
    model = base_model(kind, tokenizer, tied=True)
    tokenizer = extend(model, tokenizer)
    prepare(model, tokenizer, Tuning(lora_rank=2, train_vision=False, train_merger=False, gradient_checkpointing=True))
    assert model.is_gradient_checkpointing
    pre = Pixels.of(model.config).preprocessor(IMAGE_SIZE_WH[kind])
    visual = encode_pictures(model.train(), torch.zeros(1, pre.num_patches, pre.patch_dim), pre.grid_hw)
    assert not any(part.requires_grad for part in (visual.tokens, *visual.deepstack))


def test_freezing(kind):
    tokenizer = base_tokenizer(kind)
    model = base_model(kind, tokenizer, tied=False)
    tokenizer = extend(model, tokenizer)
    prepare(model, tokenizer, Tuning(train_vision=False))
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(
        name.startswith(("model.visual.blocks", "model.visual.patch_embed", "model.visual.pos_embed")) for name in learning
    )
    assert any(name.startswith("model.visual.merger") for name in learning)
    prepare(model, tokenizer, Tuning(lora_rank=2, train_vision=False, train_merger=False))
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning
    assert not any("visual" in name for name in learning)
    assert any(name.startswith("lm_head.token_adapter") for name in learning)  # an untied head learns its new rows itself
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in learning)


# --- training ----------------------------------------------------------------------------------------------------------


def losses(out: Path, name: str = "language") -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def test_sft_learns_in_adapters_and_new_rows_only(run, base, kind):
    values = losses(run, "val_language")  # of the same pictures after every step
    assert values[6] < values[1]
    before, _ = load_base(str(base))
    after, tokenizer = load_checkpoint(run / "final")
    first = first_token_id(tokenizer)
    assert set(after.state_dict()) == set(before.state_dict())
    old, new = before.get_input_embeddings().weight, after.get_input_embeddings().weight
    torch.testing.assert_close(old[:first], new[:first], atol=0, rtol=0)
    moved = (old != new).any(dim=1)[first : first + len(TOKENS)]
    assert moved[TOKEN_ID["</scene>"]]
    assert (after.lm_head.weight is after.get_input_embeddings().weight) == TIED[kind]
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])}
    assert any("layers.2.mlp.down_proj" in name for name in changed)
    assert any("visual.blocks" in name for name in changed)  # adapted too unless frozen
    assert not any("norm" in name or "bias" in name for name in changed)


def test_merging_equals_the_adapted_model(run, base, kind, tmp_path):
    """Merged by name, by ``training.merge`` from the adapter alone, and by PEFT itself."""
    from peft import PeftModel

    assert merge.main([str(run / "final" / "adapter"), "--out", str(tmp_path / "merged")]) == 0
    ours, _ = load_checkpoint(run / "final")
    from_adapter, _ = load_checkpoint(tmp_path / "merged")
    plain, _ = load_base(str(base), "random", seed=5)  # the rows are the adapter's, whatever they started from
    theirs = PeftModel.from_pretrained(plain, run / "final" / "adapter").merge_and_unload()
    for name, value in ours.state_dict().items():
        if not name.startswith("lm_head") or not TIED[kind]:
            torch.testing.assert_close(from_adapter.state_dict()[name], value, atol=1e-6, rtol=1e-5, msg=name)
            table = slice(0, None) if "embed" not in name and "lm_head" not in name else slice(0, first_of(run) + len(TOKENS))
            torch.testing.assert_close(theirs.state_dict()[name][table], value[table], atol=1e-6, rtol=1e-5, msg=name)
    assert merge.main([str(base), "--out", str(tmp_path / "no")]) == 2


def first_of(run: Path) -> int:
    return first_token_id(AutoTokenizer.from_pretrained(run / "final"))


def test_a_killed_run_goes_on_bit_for_bit(run, base, kind, tmp_path):
    """Adapters, rows and optimiser come back; the base is read again."""
    out = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(out / "checkpoint-0000006")
    shutil.rmtree(out / "final")
    assert sft.main(["--out", str(out), *settings(base, kind)]) == 0
    assert losses(out) == losses(run)
    weights = [load_file(folder / "final" / "model.safetensors") for folder in (out, run)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_checkpoints_hold_what_learns_and_a_hash_of_the_rest(run, base, kind, tmp_path, capsys):
    out = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("final", "*6"))
    checkpoint = out / "checkpoint-0000003"
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        names = sorted(file.keys())
    heads = ("dense_head.", "class_head.")
    assert names and all("lora_" in name or "trainable_tokens_delta" in name or name.startswith(heads) for name in names)
    record = json.loads((checkpoint / "frozen.json").read_text())
    assert record["source"] == str(base)
    assert not set(record["sha256"]) & set(names)
    # the folder is there under its name, with one weight changed a little
    path, former = base / "model.safetensors", load_file(base / "model.safetensors")
    changed = next(name for name in sorted(former) if "layers.1.mlp.up_proj" in name)
    try:
        save_file({**former, changed: former[changed] * 1.001}, path, {"format": "pt"})
        assert sft.main(["--out", str(out), *settings(base, kind)]) == 2
    finally:
        save_file(former, path, {"format": "pt"})
    told = capsys.readouterr().err
    assert f"{base.name}, that this run starts from, 1 frozen weights are others" in told and "layers.1.mlp.up_proj" in told
    (checkpoint / "frozen.json").write_text("{")
    assert sft.main(["--out", str(out), *settings(base, kind)]) == 2
    assert "frozen.json: cannot be read" in capsys.readouterr().err


def test_half_precision_base(base, kind, tmp_path):
    more = {"tuning.dtype": "bfloat16", "tuning.train_vision": False, "tuning.rows_lr_ratio": 3.0}
    assert sft.main(["--out", str(tmp_path), *settings(base, kind, 2, **more)]) == 0
    model, _ = load_checkpoint(tmp_path / "final", "bfloat16")
    assert model.dtype == torch.bfloat16
    assert json.loads((tmp_path / "final" / "config.json").read_text())["dtype"] == "bfloat16"
    state = torch.load(tmp_path / "checkpoint-0000002" / "optimizer.bin", weights_only=True)
    assert all(value["exp_avg"].dtype == torch.float32 for value in state["state"].values())
    assert state["param_groups"][-1]["lr"] == pytest.approx(3 * state["param_groups"][0]["lr"])


# --- what comes out ----------------------------------------------------------------------------------------------------


def test_plain_transformers_loads_and_generates(run, kind):
    folder = run / "final"
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": prompts.PROPOSE_PROMPT}]
    text = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
    before, after = prompts.propose_segments()
    assert text == f"{before}<|image_pad|>{after}"  # the very conversation of training: no system turn
    pre = Layout.of(tokenizer, model.config).pixels.preprocessor(IMAGE_SIZE_WH[kind])
    pixels, _ = pre(world.render(3, (224, 112)).image_bgr)
    ids = tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * pre.num_visual_tokens), return_tensors="pt").input_ids
    out = model.generate(
        input_ids=ids, pixel_values=torch.from_numpy(pixels), image_grid_thw=torch.tensor([[1, *pre.grid_hw]]),
        mm_token_type_ids=(ids == model.config.image_token_id).int(), max_new_tokens=5, do_sample=False,
    )  # fmt: skip
    assert out.shape[1] > ids.shape[1]
    answer = [TOKEN_ID[word] + first_token_id(tokenizer) for word in ("<lane>", "</scene>")]
    assert tokenizer.decode(answer, skip_special_tokens=True).replace(" ", "") == "<lane></scene>"


def test_the_folder_holds_what_released_ones_hold(run, base, kind):
    folder = run / "final"
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "preprocessor_config.json", "chat_template.jinja", "training.json", "adapter",
    }  # fmt: skip
    assert json.loads((folder / "preprocessor_config.json").read_text())["marker"] == "released"
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "Qwen2Tokenizer"
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == json.loads((base / "config.json").read_text())["architectures"]
    with safe_open(folder / "model.safetensors", "pt") as after, safe_open(base / "model.safetensors", "pt") as before:
        assert sorted(after.keys()) == sorted(before.keys())  # the names that other engines look for


def test_generation_under_the_grammar(run, kind):
    model, tokenizer = load_checkpoint(run / "final")
    model.eval()
    layout = Layout.of(tokenizer, model.config)
    pre = layout.pixels.preprocessor(IMAGE_SIZE_WH[kind])
    pixels = torch.from_numpy(np.stack([pre(world.render(seed, (224, 112)).image_bgr)[0] for seed in (5, 6)]))
    sampler = Sampler(model, layout, pre.grid_hw, Sampling(temperature=0.0))
    rollouts = sampler.place(pixels, 1, 0)
    assert len(rollouts) == 2
    for rollout in rollouts:
        local = [token - layout.first_id for token in rollout.ids]
        assert all(0 <= token < len(TOKENS) for token in local[:-1])


def test_export(run, kind, tmp_path):
    if kind == "qwen3_vl":
        with pytest.raises(ConfigError, match="does not support qwen3_vl yet"):
            export.export(run / "final", tmp_path / "bundle")
        return
    bundle = export.export(run / "final", tmp_path / "bundle")
    assert bundle.contract.model.position_rule == "text"
    assert bundle.contract.image.temporal_patch_size == 2
    assert bundle.contract.tokens.first_token_id == first_of(run)


def test_the_image_processor_loads(run, kind):
    pytest.importorskip("PIL")
    processor = AutoImageProcessor.from_pretrained(run / "final", use_fast=False)
    assert processor.patch_size == (16 if kind == "qwen3_vl" else 14)
    model, tokenizer = load_checkpoint(run / "final")
    ours = Layout.of(tokenizer, model.config).pixels.preprocessor(IMAGE_SIZE_WH[kind])
    image = np.random.default_rng(0).integers(0, 256, (*IMAGE_SIZE_WH[kind][::-1], 3), np.uint8)
    from PIL import Image

    theirs = processor(images=[Image.fromarray(image[:, :, ::-1])], return_tensors="np")
    np.testing.assert_array_equal(theirs["image_grid_thw"], [[1, *ours.grid_hw]])
    np.testing.assert_allclose(theirs["pixel_values"], ours(image)[0], atol=1e-5)


def test_the_presets_are_the_papers():
    paper = PRESETS["qwen2.5-vl-7b"]
    assert paper.base == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert (paper.tuning.lora_rank, paper.learning_rate, paper.tuning.dtype) == (64, 1e-6, "bfloat16")
    assert (paper.batch_size // paper.accumulate, paper.accumulate, paper.stages[0].image_size_wh) == (2, 8, (840, 840))
    small = PRESETS["qwen3-vl-2b"]
    assert all(side % 32 == 0 for stage in small.stages for side in stage.image_size_wh)
