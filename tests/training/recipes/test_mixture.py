"""Which data a run is made of, and which example comes when."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from getok_drive.errors import ConfigError, InputError
from training.auxiliary import DENSE_CHANNELS
from training.batches import RecipeBatches, validation_batches, with_data
from training.datasets import world
from training.presets import PRESETS, Stage, override
from training.recipes.conversation import IGNORE
from training.recipes.domains import TABLE_12
from training.recipes.mixture import BLOCK, Mixture, shares
from training.recipes.pools import Pool, absent_rows, parse_pool, pools_of, validation_pools
from training.recipes.settings import RecipeConfig

STAGE = Stage(8, (112, 56))


def config(*settings, domain=None, data=(), out="unused"):
    from pathlib import Path

    return with_data(override(PRESETS["tiny"], ["render_size_wh=(96, 54)", *settings]), domain, data, Path(out))


# --- what the command line says ------------------------------------------------------------------------------------------


def test_pools_are_read_from_the_command_line():
    assert parse_pool("world:train", "driving") == Pool("driving", 1.0, "world", "train")
    assert parse_pool("caption=0.5*referring:/d/ref coco#val", "mix") == Pool("caption", 0.5, "referring", "/d/ref coco", "val")
    for text in ("nonsense", "0.5*tusimple", "1.2.3*tusimple:/x", "flying=tusimple:/x"):
        with pytest.raises(ConfigError, match="--data"):
            parse_pool(text, "driving")
    with pytest.raises(ConfigError, match="for which domain"):
        parse_pool("tusimple:/x", "mix")


def test_weights_sum_to_one():
    data = ("3*world:train", "tusimple:/x", "0*bdd100k:/y")
    assert [(p.kind, p.weight) for p in pools_of(RecipeConfig(data=data))] == [("world", 0.75), ("tusimple", 0.25)]
    assert pools_of(RecipeConfig()) == [Pool("driving", 1.0, "world", "train")]
    with pytest.raises(ConfigError, match="above 0"):
        pools_of(RecipeConfig(data=("0*world:train",)))
    with pytest.raises(ConfigError, match="needs --data"):
        pools_of(RecipeConfig(domain="referring"))
    with pytest.raises(ConfigError, match="expected one of"):
        pools_of(RecipeConfig(domain="flying"))


def test_the_mixture_names_what_is_absent():
    data = ("referring=3*referring:/a", "referring=referring:/b", "driving=world:train", "pointing=pixmo:/c")
    with pytest.raises(ConfigError, match=r"LLaVA-665K.*gRefCOCO.*allow_absent"):
        pools_of(RecipeConfig(domain="mix", data=data))
    pools = pools_of(RecipeConfig(domain="mix", data=data, allow_absent=True))
    rows = {row.domain: row.weight for row in TABLE_12}
    wanted = np.array([rows["referring"] * 0.75, rows["referring"] * 0.25, 1.0, rows["pointing"]])
    np.testing.assert_allclose([p.weight for p in pools], wanted / wanted.sum())
    assert len(absent_rows(pools)) == len(TABLE_12) - 2
    everything = tuple(f"{row.domain}=x:/y" for row in TABLE_12)
    assert not absent_rows(pools_of(RecipeConfig(domain="mix", data=everything)))


def test_missing_data_is_named(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        Pool("driving", 1.0, "tusimple", str(tmp_path / "no")).open((96, 54))
    with pytest.raises(ConfigError, match="no reader for 'reading'"):
        Pool("driving", 1.0, "reading", str(tmp_path)).open((96, 54))
    with pytest.raises(ConfigError, match="world:train, val, test or FIRST-LAST"):
        Pool("driving", 1.0, "world", "9-3").open((96, 54))


# --- which example comes when --------------------------------------------------------------------------------------------


def test_shares_are_whole_and_exact():
    rng = np.random.default_rng(0)
    for _ in range(50):
        weights = rng.random(int(rng.integers(1, 12))) ** 3 + 1e-6
        counts = shares(weights)
        assert counts.sum() == BLOCK and counts.min() >= 1
        assert np.abs(counts - weights / weights.sum() * BLOCK).max() < len(weights) + 1
    assert shares([0.5, 0.3, 0.2]).tolist() == [500, 300, 200]


class Plain(Mixture):
    """Without pictures."""

    def __init__(self, weights, sizes, seed=0):
        pools = [Pool("driving", weight, "x", str(number)) for number, weight in enumerate(weights)]
        self.given = iter(sizes)
        super().__init__(pools, self, (96, 54), seed)  # type: ignore[arg-type]

    def recipe(self, domain):
        return lambda sample, rng: sample


def test_every_picture_comes_once_an_epoch(monkeypatch):
    sizes = {"0": 40, "1": 7}
    monkeypatch.setattr(Pool, "open", lambda self, size_wh: [(self.path, n) for n in range(sizes[self.path])])
    mixture = Plain([0.75, 0.25], sizes.values())
    found = [mixture.conversation(number, np.random.default_rng(0)) for number in range(2 * BLOCK)]
    assert Counter(pool for pool, _ in found[:BLOCK]) == {"0": 750, "1": 250}
    for pool, size in sizes.items():
        visits = [n for p, n in found if p == pool]
        for epoch in range(len(visits) // size):
            assert sorted(visits[epoch * size : (epoch + 1) * size]) == list(range(size))
        assert visits[:size] != visits[size : 2 * size]
    again = Plain([0.75, 0.25], sizes.values())
    for number in (1999, 3, 1000, 512):  # in any order: a pure function of the number
        assert again.conversation(number, np.random.default_rng(0)) == found[number]
    assert [Plain([0.75, 0.25], sizes.values(), 1).conversation(n, None) for n in range(50)] != found[:50]


def test_what_gives_nothing_is_passed_over(monkeypatch, capsys):
    class Broken(list):
        def __getitem__(self, index):
            if index % 2:
                raise InputError(f"picture {index} is broken")
            return index

    monkeypatch.setattr(Pool, "open", lambda self, size_wh: Broken(range(10)))
    mixture = Plain([1.0], [10])
    mixture._recipes = [lambda sample, rng: sample if sample != 4 else None]
    assert all(mixture.conversation(n, None) in (0, 2, 6, 8) for n in range(40))
    assert capsys.readouterr().err.count("picture 3 is broken") == 1
    mixture._recipes = [lambda sample, rng: None]
    with pytest.raises(InputError, match="in a row gave no example"):
        mixture.conversation(0, None)


def test_the_world_alone_comes_in_the_order_of_its_seeds(encoder):
    made = RecipeBatches(config(), STAGE, encoder, rank=1, world_size=2)
    numbers = made._numbers(3)
    assert list(numbers) == [28, 29, 30, 31]
    text = made.example(29)
    frame = world.render(world.TRAIN_SEEDS.start + 29, (96, 54))
    np.testing.assert_array_equal(text.sample.image_bgr, frame.image_bgr)


def test_workers_get_the_same_batches(encoder, mini_jsonl, proposals):
    chosen = config(
        f"recipe.cache='{proposals}'".replace("'", ""),
        domain="driving",
        data=("world:train", f"classification=jsonl:{mini_jsonl}"),
    )
    made = RecipeBatches(chosen, STAGE, encoder, 0, 1)
    one = made[2][0]
    copied = pickle.loads(pickle.dumps(made))
    assert copied._mixture is None
    two = copied[2][0]
    for name in ("ids", "labels", "positions", "weights", "pixel_values", "dense"):
        assert getattr(one, name).equal(getattr(two, name)), name


def test_real_formats_are_mixed_with_the_world(tmp_path, encoder, minis):
    """A miniature BDD100K (boxes of some classes) and TuSimple (lanes alone) beside the world (everything)."""
    from getok_drive.tokens.vocab import TOKEN_ID

    lane = {"lanes": [[-2, 10, 20, 30]], "h_samples": [20, 30, 40, 50], "raw_file": "clips/0313-1/60/20.jpg"}
    box = {"category": "car", "box2d": {"x1": 10, "y1": 20, "x2": 40, "y2": 45}, "attributes": {"occluded": False}}
    for path in ("tusimple/clips/0313-1/60/20.jpg", "bdd/images/100k/train/a.jpg"):
        (tmp_path / path).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / path), minis[0].image_bgr)
    (tmp_path / "tusimple/label_data_0313.json").write_text(json.dumps(lane) + "\n")
    (tmp_path / "bdd/labels/det_20").mkdir(parents=True)
    (tmp_path / "bdd/labels/det_20/det_train.json").write_text(json.dumps([{"name": "a.jpg", "labels": [box]}]))
    data = ("world:train", f"2*tusimple:{tmp_path}/tusimple#all", f"bdd100k:{tmp_path}/bdd")
    made = RecipeBatches(config("noise.phantoms=0.0", domain="driving", data=data), STAGE, encoder, 0, 1)
    seen = {}
    for number in range(40):
        text = made.example(number)
        seen.setdefault(text.sample.meta.get("dataset", "world"), text)
    assert set(seen) == {"world", "tusimple", "bdd100k"}
    assert not seen["world"].alternatives and len(seen["tusimple"].alternatives) == 1
    box_token, car = (encoder.layout.first_id + TOKEN_ID[word] for word in ("<box>", "<car>"))
    bdd = seen["bdd100k"]
    assert bdd.labels[bdd.ids.index(box_token) + 1] == car and len(bdd.alternatives) == 2  # before the box, and after it
    assert box_token not in seen["tusimple"].ids
    batch = made.collator([seen["world"], seen["tusimple"], bdd])
    known = [(batch.dense[row] != 255).any(0).reshape(len(DENSE_CHANNELS) + 1, -1)[:6].any(1).tolist() for row in range(3)]
    assert known == [[True] * 6, [True, *[False] * 5], [False, False, True, True, False, False]]


# --- length groups -------------------------------------------------------------------------------------------------------


def padding(batches):
    computed = sum(batch.rows(__import__("torch").arange(len(batch.ids))).ids.numel() for batch in batches)
    used = sum(int(batch.lengths.sum()) for batch in batches)
    return 1 - used / computed


def test_length_groups_hold_the_same_examples_with_less_padding(encoder):
    plain = config("batch_size=2", data=("world:train", "classification=world:train"))
    grouped = replace(plain, recipe=replace(plain.recipe, length_group=4))
    apart = RecipeBatches(plain, STAGE, encoder, 0, 1)
    together = RecipeBatches(grouped, STAGE, encoder, 0, 1)[0]
    singles = [batch for step in range(4) for batch in apart[step]]

    def rows(batches):
        return Counter(
            tuple(i for i, label in zip(ids, labels, strict=True) if label != IGNORE)
            for batch in batches
            for ids, labels in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True)
        )

    assert rows(singles) == rows(together)
    assert padding(together) < padding(singles)
    assert len(RecipeBatches(grouped, STAGE, encoder, 0, 1)) == 3  # 12 steps


def test_bad_settings_are_named():
    for setting in ("recipe.length_group=0", "recipe.refine=2.0", "recipe.region=braille", "recipe.tau=0.0"):
        with pytest.raises(ConfigError, match=r"recipe"):
            override(PRESETS["tiny"], [setting])
    with pytest.raises(ConfigError, match="lanes is neither"):
        override(PRESETS["tiny"], ["recipe.assume_complete=('lanes',)"])


# --- validation ----------------------------------------------------------------------------------------------------------


def test_validation_uses_the_validation_parts(encoder, mini_jsonl, capsys):
    chosen = config("eval_images=3", data=("world:train", f"3*jsonl:{mini_jsonl}"))
    (batch,) = validation_batches(chosen, STAGE, encoder)
    assert len(batch.ids) == 3
    assert "validation does without" in capsys.readouterr().err  # the miniature has no part for validation
    again = next(iter(validation_batches(chosen, STAGE, encoder)))
    assert batch.ids.equal(again.ids)
    (mini_jsonl.parent / "chat.json").write_text(json.dumps([]))
    assert not list(validation_batches(config(domain="chat", data=(f"chat:{mini_jsonl.parent}/chat.json",)), STAGE, encoder))


# --- looking at it -------------------------------------------------------------------------------------------------------


def test_a_crowd_trains_beside_the_world_and_is_validated_on_the_world(encoder):
    chosen = config("eval_images=2", data=("world:1000000-1000003", "3*world-crowd:1000000-1000003"))
    assert [(p.kind, p.weight) for p in pools_of(chosen.recipe)] == [("world", 0.25), ("world-crowd", 0.75)]
    assert validation_pools(chosen.recipe) == [Pool("driving", 1.0, "world", "val")]
    plain, crowded = (p.open((96, 54))[1] for p in pools_of(chosen.recipe))
    assert crowded.meta["source"] == "world-crowd:1000001" and not np.array_equal(plain.image_bgr, crowded.image_bgr)
    assert RecipeBatches(chosen, STAGE, encoder, 0, 1)[0]
    with pytest.raises(ConfigError, match="world-crowd:train, val, test or FIRST-LAST"):
        pools_of(RecipeConfig(data=("world-crowd:some",)))[0].check()


def test_a_run_can_be_looked_at_before_it_starts(capsys, mini_jsonl):
    from training.recipes.__main__ import main

    data = ["--preset", "tiny", "--data", f"classification=jsonl:{mini_jsonl}", "--show", "1", "--steps", "2"]
    assert main(data) == 0
    out = capsys.readouterr().out
    assert out.count("[[<") == 1 and "<|im_end|>]]" in out and "2 batches of 4 in 1 parts" in out
    assert main(["--domain", "referring"]) == 2


def test_real_lanes_leave_the_rest_open(real_tusimple, encoder):
    made = RecipeBatches(config(domain="driving", data=(f"tusimple:{real_tusimple}",)), STAGE, encoder, 0, 1)
    batch = made[0][0]
    assert batch.choices is not None and bool((batch.choices.allowed.sum(1) == 4).all())
    assert (
        int(batch.dense_count) == int((batch.dense != 255).sum()) == batch.dense.numel() // (len(DENSE_CHANNELS) + 1)
    )  # one channel


def test_what_was_seen_goes_with_the_checkpoint(tmp_path, mini_jsonl):
    from training.export import _trained_on
    from training.recipes.provenance import provenance

    pools = [
        Pool("driving", 0.5, "world", "train"),
        Pool("driving", 0.3, "tusimple", "/x"),
        Pool("offset", 0.2, "world", "train"),
    ]
    (tmp_path / "training.json").write_text(json.dumps({"training": provenance(pools)}))
    assert [one.name.split()[0] for one in _trained_on(tmp_path)] == ["procedural", "tusimple"]
    assert "TuSimple" in _trained_on(tmp_path)[1].terms
    later = provenance([Pool("chat", 1.0, "chat", "/y/llava.json")], str(tmp_path))
    assert [one["name"].split()[0] for one in later] == ["procedural", "tusimple", "chat:"]
    assert provenance([], "Qwen/Qwen2.5-VL-7B-Instruct")[0]["name"] == "base model Qwen2.5-VL-7B-Instruct"
    assert len(provenance([Pool("driving", 1.0, kind, "0-9") for kind in ("world", "world-crowd", "world-drive")])) == 1
    (foreign,) = _trained_on(tmp_path / "foreign")  # a checkpoint that says nothing has not seen the world only
    assert foreign.name == "base model foreign" and foreign.terms == "those of that model"
    (tmp_path / "training.json").write_text(json.dumps({"training": ["x"]}))
    with pytest.raises(ConfigError, match="name and terms"):
        _trained_on(tmp_path)
