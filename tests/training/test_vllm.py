"""vLLM itself, where it is installed (docs/scale.md): it draws what our own generator draws, and follows the policy's weights."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from tests.training.base_models import IMAGE_SIZE_WH, KINDS, save_base  # noqa: E402
from training import sft  # noqa: E402

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]

# vLLM is opened first: on a CPU, 0.32 stumbles over libraries of numba's that are loaded before it.
PROGRAM = """
import json, sys
from dataclasses import replace
from pathlib import Path
from training.vllm_engine import VllmEngine, open_llm

def main(folder, work, size_wh):
    llm = open_llm(folder)
    import numpy as np, torch
    from getok_drive.tokens.grammar import choose
    from getok_drive.tokens.limits import Limits
    from training import rollout
    from training.collate import Layout
    from training.datasets import world
    from training.engines import OwnEngine
    from training.model import load_checkpoint

    rollout.decide = choose  # at temperature 0 vLLM takes the likeliest token, so ours shall, too
    model, tokenizer = load_checkpoint(folder)
    model.eval()
    layout = Layout.of(tokenizer, model.config)
    pre = layout.pixels.preprocessor(size_wh)
    engines = OwnEngine(model, folder, layout, pre.grid_hw, torch.device("cpu")), VllmEngine(folder, layout, pre, work, llm)
    limits = Limits(lanes=2, lane_points=4, polygons=1, polygon_vertices=5, boxes=2, signs=1)
    greedy = rollout.Sampling(temperature=0.0, proposal_temperature=0.0, limits=limits)
    samples = [world.render(seed, size_wh) for seed in range(3)]
    pixels = torch.from_numpy(np.stack([pre(sample.image_bgr)[0] for sample in samples]))
    found = {}

    def compare(name, stage):
        own, theirs = (engine.draw(stage, samples, pixels, 2, greedy, 3, 10) for engine in engines)
        apart = [np.abs(np.subtract(a.log_probs, b.log_probs)).max() for a, b in zip(own, theirs) if a.ids == b.ids]
        same = [(a.ids, a.places, a.truncated) == (b.ids, b.places, b.truncated) for a, b in zip(own, theirs)]
        decisions = float(np.mean([len(a.places) for a in own]))
        found[name] = {"same": same, "apart": float(max(apart, default=9.0)), "decisions": decisions, "first": own[0].ids}

    for stage in ("placement", "movement"):
        compare(stage, stage)
    drawn = engines[1].draw("placement", samples, pixels, 8, replace(greedy, temperature=1.0), 3, 10)
    found["different at temperature 1"] = len({tuple(one.ids) for one in drawn[:8]})
    again = engines[1].draw("placement", samples, pixels, 8, replace(greedy, temperature=1.0), 3, 10)
    found["drawn again"] = [one.ids for one in drawn] == [one.ids for one in again]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    engines[1].follow(model)
    compare("other weights", "placement")
    Path(work, "found.json").write_text(json.dumps(found))

main(Path(sys.argv[1]), Path(sys.argv[2]), (int(sys.argv[3]), int(sys.argv[4])))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_vllm_draws_what_our_generator_draws(kind, tmp_path):
    size_wh = IMAGE_SIZE_WH[kind]
    base = save_base(tmp_path / "base", kind, tied=False, width=128)  # heads of 64: vLLM's kernels know none of 16
    settings = [f"base={base}", f"stages=((30, {size_wh}),)", "tuning.lora_rank=0", "learning_rate=0.002", "dense_weight=0.0"]
    assert sft.main(["--preset", "tiny", "--out", str(tmp_path / "run"), *settings, "ema_decay=0.0", "save_every=30"]) == 0
    (tmp_path / "work").mkdir()
    places = (tmp_path / "run" / "final", tmp_path / "work", *size_wh)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_USE_V2_MODEL_RUNNER": "0", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, places)], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / "work" / "found.json").read_text())
    for name in ("placement", "movement", "other weights"):
        assert all(found[name]["same"]) and found[name]["apart"] < 1e-4 and found[name]["decisions"] > 3, (name, found[name])
    assert found["other weights"]["first"] != found["placement"]["first"]
    assert found["different at temperature 1"] > 4 and found["drawn again"]
