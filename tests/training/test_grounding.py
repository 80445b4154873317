"""GRPO on what a text names: the grammar, what it means, and the paper's rewards in the trainer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from getok_drive.errors import InputError  # noqa: E402
from getok_drive.tokens.codec import from_text  # noqa: E402
from getok_drive.tokens.vocab import TOKENS  # noqa: E402
from getok_drive.types import Box  # noqa: E402
from tests.training.datasets.minis import write, write_text  # noqa: E402
from training import grpo  # noqa: E402
from training.datasets import world  # noqa: E402
from training.grounding_grammar import GroundingGrammar, GroundingRefineGrammar, corners_px, read_grounding  # noqa: E402
from training.grounding_task import Asked, GroundingTask, asked_of  # noqa: E402
from training.model import build_tokenizer  # noqa: E402
from training.presets import override  # noqa: E402
from training.rewards.matching import Label  # noqa: E402
from training.rollout import Rollout  # noqa: E402
from training.samples import Sample  # noqa: E402

BOX_AND_MASK = "<answer><box><grid_8_8><grid_15_15><seg><grid_9_9><grid_14_14></seg></answer>"


def drawn(grammar, rng, most=400):
    while not grammar.done and len(grammar.ids) < most:
        legal = np.flatnonzero(grammar.legal())
        assert len(legal)
        forced = grammar.forced()
        assert (forced is not None) == (len(legal) == 1)
        token = int(rng.choice(legal))
        assert grammar.accepts(token)
        grammar.advance(token)
    return grammar


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 60))
def test_whatever_is_drawn_can_be_read_whole_or_cut(seed, cut):
    rng = np.random.default_rng(seed)
    whole = drawn(GroundingGrammar(4, 5), rng)
    things, sound = read_grounding(whole.finished_ids())
    assert sound and len(things) == len(whole.things) <= 4
    assert all(thing.cells == sorted(set(thing.cells)) and len(thing.cells) <= 5 for thing in things)
    short = drawn(GroundingGrammar(4, 5), np.random.default_rng(seed), cut)
    kept, sound = read_grounding(short.finished_ids())
    assert sound and len(kept) <= len(short.things)
    refined = drawn(GroundingRefineGrammar(whole.ids, 3), rng, 2000)
    moved, sound = read_grounding(whole.ids, refined.finished_ids())
    assert sound and all(len(thing.moves) == len(thing.anchors) for thing in moved)


@given(st.lists(st.integers(0, len(TOKENS) - 1), max_size=30), st.lists(st.integers(0, len(TOKENS) - 1), max_size=30))
def test_reading_never_raises(first, second):
    read_grounding(first, second)


def test_faults_are_seen():
    assert read_grounding(from_text(BOX_AND_MASK))[1]
    assert not read_grounding(from_text(BOX_AND_MASK[: -len("</answer>")]))[1]
    assert not read_grounding(from_text("<answer><box><grid_8_8><grid_3_3></answer>"))[1]  # turned round
    assert read_grounding(from_text("<answer></answer>")) == ([], True)
    ids = from_text(BOX_AND_MASK)
    good = "<offset><grid_8_8><OFF_1_0><grid_15_15><OFF_0_0><grid_9_9><DELETE><grid_14_14><OFF_0_1></offset>"
    things, sound = read_grounding(ids, from_text(good))
    assert sound and things[0].deleted.tolist() == [False, False, True, False]
    assert (things[0].points_norm(True)[0] - things[0].points_norm(False)[0]).tolist() == pytest.approx([1 / 64, 0.0])
    assert not read_grounding(ids, from_text(good.replace("<grid_9_9>", "<grid_9_8>")))[1]


def square(low, high, side=64):
    mask = np.zeros((side, side), bool)
    mask[low:high, low:high] = True
    return mask


def task(stage):
    config = override(grpo.PRESETS["tiny"], ["task=grounding", "image_size_wh=(112, 56)"])
    config = grpo.replace(config, stage=stage)
    from training.collate import Layout
    from training.model import SIZES, build_model
    from training.pictures import Pictures

    tokenizer = build_tokenizer()
    layout = Layout.of(tokenizer, build_model(SIZES["tiny"], tokenizer).config)
    return GroundingTask(config, layout, (112, 56), Pictures(config, (112, 56)), tokenizer)


def rollout(first, second=None):
    return Rollout(0, from_text(first), None if second is None else from_text(second), False, [], [], np.zeros(0), np.zeros(0))


def test_the_papers_rewards_by_hand():
    """A bright square from cell 8 to 15 of a picture of 64x64: the perfect box is two corners half a cell inside."""
    mask = square(16, 32)
    image = np.full((64, 64, 3), 40, np.uint8)
    image[mask] = 220
    item = Asked(Sample(image), "square", (Label(mask),))
    place = task("placement")
    hit, miss, nothing = place.rewards(
        [item], [rollout(BOX_AND_MASK), rollout(BOX_AND_MASK.replace("_1", "_2")), rollout("<answer></answer>")]
    )
    assert set(hit) == {"overall", "format", "non_repetition", "mask_iou", "box", "points"}
    assert hit["format"] == 1.0 and hit["mask_iou"] > 0.7 and hit["points"] > 0.1
    iou = 14.0**2 / 16.0**2  # corners at the centres of cells 8 and 15: 16.5 to 30.5 of 15.5 to 31.5
    corner = 1.0 - 1.0 / (18.0 * 64 / 840)
    assert hit["box"] == pytest.approx((iou + corner) / 2, abs=1e-6)
    assert hit["overall"] > miss["overall"] + 0.2 and nothing["overall"] < 0.2
    still = "<offset><grid_8_8><OFF_0_0><grid_15_15><OFF_0_0><grid_9_9><OFF_0_0><grid_14_14><OFF_0_0></offset>"
    better = still.replace("<grid_8_8><OFF_0_0>", "<grid_8_8><OFF_-1_-1>").replace(
        "<grid_15_15><OFF_0_0>", "<grid_15_15><OFF_1_1>"
    )
    stays, moves, gone = task("movement").rewards(
        [item],
        [rollout(BOX_AND_MASK, still), rollout(BOX_AND_MASK, better), rollout(BOX_AND_MASK, still.replace("OFF_0_0", "DELETE"))],
    )
    assert stays["box_refinement"] == 0.0 and moves["box_refinement"] == pytest.approx(1.0) and gone["box_refinement"] == -1.0
    assert stays["point_refinement"] == 1.0 and gone["point_refinement"] == -1.0
    assert stays["mask_gain"] == 0.0 and gone["mask_gain"] == -1.0


def test_questions_come_from_phrases_or_label_pictures():
    sample = world.render(3, (224, 112), masks=True)
    found = asked_of(sample, np.random.default_rng(0))
    assert found.labels and all(label.mask.shape == (112, 224) for label in found.labels)
    assert asked_of(sample, np.random.default_rng(0)).text == found.text
    with pytest.raises(InputError, match="no phrases with masks"):
        asked_of(world.render(3, (224, 112)), np.random.default_rng(0))
    one = task("placement")
    text = one.tokenizer.decode([*one.layout.after, *one.dialogue(found).opening])
    assert found.text in text and text.startswith("<|vision_end|>") and text.endswith("assistant\n")


def test_questions_name_classes_and_never_say_that_something_small_is_not_there():
    semantic = np.full((56, 112), 6, np.uint8)
    semantic[20:40, 30:60] = 3
    rng = np.random.default_rng(0)
    image = np.zeros((56, 112, 3), np.uint8)
    asked = {asked_of(Sample(image, known=(), masks={"semantic": semantic}, meta={"dataset": "idd"}), rng).text for _ in range(9)}
    assert asked == {"vehicle", "sky"}  # not the numbers 3 and 6
    with pytest.raises(InputError, match="no object of a named class"):
        asked_of(Sample(image, known=(), masks={"semantic": semantic}, meta={"dataset": "comma10k"}), rng)
    tiny = np.zeros((56, 112), np.uint16)
    tiny[30, 40:42] = 1  # a car too small to be asked for
    found = asked_of(Sample(image, boxes=(Box([39.5, 29.5, 41.5, 30.5], "car"),), masks={"instance": tiny}), rng)
    assert found.labels == ()
    assert found.text not in ("car", "")


def test_a_picture_of_no_use_is_passed_over_not_the_end_of_the_run(tmp_path, capsys):
    from training.pictures import Pictures

    for number in range(4):
        write(tmp_path / f"{number}.png", np.full((56, 112, 3), 60 * number, np.uint8))
    (tmp_path / "2.png").write_bytes(b"broken")
    phrase = {"task": "refer", "text": "it", "regions": [{"rle": {"size": [56, 112], "counts": [100, 200, 5972]}}]}
    lines = [
        {
            "schema": "getok-drive/2",
            "image": f"{n}.png",
            "size_wh": [112, 56],
            "known": [],
            "meta": {},
            "phrases": [phrase] * (n > 0),
        }
        for n in range(4)
    ]
    write_text(tmp_path / "train.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    config = override(grpo.PRESETS["tiny"], ["task=grounding", f"data=jsonl:{tmp_path}", "prompts=8"])

    def ask(sample, number):
        return asked_of(sample, np.random.default_rng(number))

    seen = [[int(asked.sample.image_bgr[0, 0, 0]) for asked in Pictures(config, (112, 56)).at(1, ask)] for _ in range(2)]
    assert seen[0] == seen[1]
    assert set(seen[0]) == {60, 180}  # the first has no phrase, the third cannot be read
    assert "2.png: not an image" in capsys.readouterr().err
    write_text(tmp_path / "train.jsonl", json.dumps(lines[0]) + "\n")
    with pytest.raises(InputError, match=r"in a row gave nothing; the last: 0\.png: has no phrases"):
        Pictures(config, (112, 56)).at(0, ask)


def test_a_box_of_one_cell_has_the_cells_extent():
    assert corners_px(np.array([[3.0, 5.0], [3.0, 9.0]]), np.array([1.0, 2.0])).tolist() == [2.0, 5.0, 4.0, 9.0]


@pytest.mark.parametrize("stage", ["placement", "movement"])
def test_the_trainer_runs_on_it(tiny_checkpoint, tmp_path, stage):
    arguments = [
        "--preset", "tiny", "--start-from", str(tiny_checkpoint), "--stage", stage, "--out", str(tmp_path), "task=grounding",
        "steps=2", "image_size_wh=(112, 56)", "sampling.limits.boxes=3", "sampling.limits.polygon_vertices=5", "rewards.box=0",
        "epochs=2", "pictures_every=1", "eval_every=2", "eval_images=2", "sampling.proposal_temperature=1.0",
    ]  # fmt: skip
    assert grpo.main(arguments) == 0
    first, second, validation = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    names = {"placement": ("mask_iou", "box", "points"), "movement": ("point_refinement", "box_refinement", "mask_gain")}[stage]
    for name in ("overall", "format", *names):
        assert f"reward/{name}" in first and f"reward/{name}_spread" in first and f"val_{name}" in validation
    assert first["decisions"] + second["decisions"] > 0 and second["kl"] >= 0
    import cv2

    sheet = cv2.imread(str(tmp_path / "samples" / "0000001.jpg"))
    assert sheet.shape == (2 * 240, 3 * 480, 3) and sheet.std() > 5
    settings_kept = json.loads((tmp_path / "config.json").read_text())["rewards"]
    assert settings_kept["placement"]["box"] == settings_kept["driving_placement"]["box"] == 0
