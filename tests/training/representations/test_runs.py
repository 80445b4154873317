"""Runs of the tables from end to end on a tiny tower: the same data for every form, exact continuation, results in a table."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from getok_drive.tokens.positions import PositionSpec  # noqa: E402
from getok_drive.tokens.vocab import TOKEN_ID  # noqa: E402
from training.collate import Layout  # noqa: E402
from training.model import SIZES, build_model, build_tokenizer  # noqa: E402
from training.recipes.conversation import IGNORE  # noqa: E402
from training.recipes.encoder import Encoder  # noqa: E402
from training.representations.__main__ import main  # noqa: E402
from training.representations.answers import PictureConversations, free_lanes, ruled_lanes  # noqa: E402
from training.representations.forms import FORMS  # noqa: E402
from training.representations.frames import Frames, visual_tokens, write_frames  # noqa: E402
from training.representations.lanes import LaneRecipe, lane_elements  # noqa: E402
from training.representations.places import PlacedPositions, marks_of  # noqa: E402
from training.representations.reader import add_bins, fresh_decoder, picture_cache, reading_losses  # noqa: E402
from training.representations.runs import FrameCollator, FrameTrainer, RunSettings, sft_config  # noqa: E402
from training.representations.scores import LANE_COLUMNS, lane_row  # noqa: E402
from training.representations.table import tables  # noqa: E402
from training.targets import Noise  # noqa: E402
from training.visual import Visual, picture_inputs  # noqa: E402

SIZE = (112, 56)


@pytest.fixture(scope="module")
def parts():
    """A tiny model that has learnt nothing, its encoder and its collator."""
    tokenizer = add_bins(build_tokenizer())
    model = fresh_decoder(build_model(SIZES["tiny"], build_tokenizer()), tokenizer).eval()
    layout = Layout.of(tokenizer, model.config)
    return model, Encoder(tokenizer, layout), FrameCollator(layout, (2, 4), marks_of(tokenizer, layout.first_id))


def command(folder, task, form, name, *more):
    frames, tower = str(folder / "frames"), str(folder / "tower")
    settings = ["--frames", frames, "--tower", tower, "--steps", "3", "--set", "batch_size=4", "--set", "log_every=1", *more]
    return main(["run", task, form, "--out", str(folder / name), *settings])


def test_frames_hold_what_the_world_gave(folder):
    from training.datasets import world

    frames = Frames(folder / "frames" / "test")
    sample = world.render(2, (224, 126))
    assert len(frames) == 4 and frames.image_size_wh == SIZE
    assert frames[2].size_wh == (224, 126)
    assert len(frames[2].lanes) == len(sample.lanes)
    for ours, theirs in zip(frames[2].lanes, sample.lanes, strict=True):
        assert np.allclose(ours.points_px, theirs.points_px, atol=0.006)
    write_frames(frames.folder, range(4), SIZE, (224, 126))  # nothing to do
    assert (Frames(frames.folder).picture(3) == frames.picture(3)).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_teaches_its_form_and_nothing_else(folder, parts, form):
    _, encoder, _ = parts
    sample = next(s for s in Frames(folder / "frames" / "train") if len(s.lanes) > 1)
    conversation = LaneRecipe(encoder, FORMS[form])(sample, np.random.default_rng(0))
    taught = encoder.tokenizer.convert_ids_to_tokens([label for label in conversation.labels if label != IGNORE])
    elements = lane_elements(sample)
    count = sum(len(e.cells) for e in elements)
    rounds = FORMS[form].rounds
    written = sum(len(FORMS[form].write(e.points_norm)) for e in elements)
    assert taught.count("<lane>") == len(elements)
    assert len(taught) == 3 * len(elements) + written + 2 + (1 + count * rounds if rounds else 0)
    assert sum(token.startswith("<OFF_") for token in taught) == count * rounds


def test_every_form_stands_on_its_last_point(parts):
    _, encoder, collate = parts
    layout = encoder.layout
    spec = PositionSpec("image", len(layout.before), (2, 4), layout.first_id)
    point = np.array([[0.3, 0.7]])
    for form, tolerance in (("text", 0.02), ("bins", 0.07), ("grid", 0.51)):
        places = PlacedPositions(spec, collate.marks)
        ids = encoder.tokenizer.convert_tokens_to_ids(["<lane>", *FORMS[form].write(point)])
        at = places.append(ids)[1:, -1] - len(layout.before)  # row, column in cells
        assert np.abs(at - point[0, ::-1] * 32).max() < tolerance, form
        again = places.copy().append(encoder.table([TOKEN_ID["<lane>"]]))[1:, 0] - len(layout.before)
        assert (again == 16).all()
    text = PlacedPositions(PositionSpec("text", len(layout.before), (2, 4), layout.first_id), collate.marks)
    positions = text.append(encoder.tokenizer.convert_tokens_to_ids(FORMS["text"].write(point)))
    assert (positions[0] == positions[1]).all() and (positions[0] == positions[2]).all()


def test_the_real_architecture_through_the_cache_is_the_ordinary_forward(folder, parts):
    model, encoder, collate = parts
    sample = Frames(folder / "frames" / "train")[0]
    visual = torch.randn(2, 8, 32)
    rows = [LaneRecipe(encoder, FORMS["text"])(sample, np.random.default_rng(0))] * 2
    batch = collate(rows, visual)
    inputs = picture_inputs(model, batch.ids, Visual(visual), batch.visual)
    hidden = model.model.language_model(**inputs, position_ids=batch.positions, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[:, :-1])
    taught = batch.labels[:, 1:] != IGNORE
    expected = torch.nn.functional.cross_entropy(logits[taught], batch.labels[:, 1:][taught])
    losses = reading_losses(model, batch, visual, "rewritten")
    assert torch.allclose(losses.total, expected, atol=1e-5)
    assert not torch.allclose(reading_losses(model, batch, visual, "read").total, expected, atol=1e-5)


@pytest.mark.parametrize("reading", ["read", "rewritten"])
def test_answering_gives_the_scores_that_training_gave(folder, parts, reading):
    """Token by token over the cache, rows of different lengths: the logits of the whole text at once."""
    model, encoder, collate = parts
    frames = Frames(folder / "frames" / "train")
    samples = [frames[0], next(s for s in frames if len(s.lanes) != len(frames[0].lanes))]
    visual = torch.randn(2, 8, 32)
    batch = collate([LaneRecipe(encoder, FORMS["bins"])(s, np.random.default_rng(0)) for s in samples], visual)
    stop = batch.visual.stop
    embedded = model.get_input_embeddings()(batch.ids)
    prefix = torch.cat((embedded[:, : batch.visual.start], visual), dim=1)
    with torch.no_grad():
        cache = picture_cache(model, prefix, batch.positions[:, :, :stop], reading)
        whole = model.lm_head(
            model.model.language_model(
                inputs_embeds=embedded[:, stop:], position_ids=batch.positions[:, :, stop:], past_key_values=cache, use_cache=True
            ).last_hidden_state
        ).numpy()
        rows = PictureConversations(model, collate, visual, reading)
        for row in (0, 1):
            rows.waiting[row] += batch.ids[row, stop : stop + 5 + row].tolist()
        assert np.allclose(rows.scores()[[0, 1]], whole[[0, 1], [4, 5]], atol=1e-4)
        rows.waiting[1] += batch.ids[1, stop + 6 : stop + 9].tolist()
        assert np.allclose(rows.scores()[[0, 1]], whole[[0, 1], [4, 8]], atol=1e-4)


def test_a_model_that_knows_the_answer_gives_it_back(folder, parts):
    """Scores that follow the truth, free and under the grammar: each form's lanes lie within its resolution."""
    _, encoder, _ = parts
    frames = Frames(folder / "frames" / "train")
    sample = next(s for s in frames if len(s.lanes) > 1)
    truth = [e.points_norm for e in lane_elements(sample)]
    for form, step in (("text", 1e-3), ("bins", 1 / 256), ("grid", 1 / 32), ("grid-offset", 1 / 64), ("grid-offsets", 1 / 256)):
        recipe = LaneRecipe(encoder, FORMS[form], noise=Noise(jitter=0.0, shift=0.0, phantoms=0.0))
        conversation = recipe(sample, np.random.default_rng(0))
        talks = [free_lanes(encoder, FORMS[form])]
        talks += [ruled_lanes(encoder, FORMS[form], sample.size_wh)] if form.startswith("grid") else []
        for talk in talks:
            read = list(next(talk))
            answer = None
            while answer is None:
                assert tuple(read) == conversation.ids[: len(read)], form
                scores = np.zeros(4096, np.float32)
                scores[conversation.labels[len(read)]] = 1.0
                try:
                    read += talk.send(scores)
                except StopIteration as end:
                    answer = end.value
            assert (answer.malformed, answer.bad_offsets, answer.complete) == (0, 0, True)
            assert len(answer.lanes) == len(truth)
            for ours, theirs in zip(answer.lanes, truth, strict=True):
                assert np.abs(ours - theirs).max() <= step / 2 + 1e-6, form
            row = dict(zip(LANE_COLUMNS, lane_row(sample, answer), strict=True))
            assert row["malformed"] == row["incomplete"] == 0
            assert row["lanes_written"] == len(truth)


def test_runs_of_all_forms_see_the_same_pictures_and_end_in_a_table(folder, capsys):
    for form in ("text", "grid-offset"):
        assert command(folder, "lanes", form, f"runs/lanes-{form}", "--reading", "read") == 0
    for form in ("grid", "drawn"):
        assert command(folder, "regions", form, f"runs/regions-{form}", "--reading", "read", "--layers", "1") == 0
    starts = [
        (folder / "runs" / f"lanes-{form}" / "start" / "model.safetensors").read_bytes() for form in ("text", "grid-offset")
    ]
    assert starts[0] == starts[1]
    result = json.loads((folder / "runs" / "lanes-grid-offset" / "result.json").read_text())
    assert len(result["free"]) == len(result["ruled"]) == 4
    before = (folder / "runs" / "lanes-text" / "result.json").stat().st_mtime_ns
    assert command(folder, "lanes", "text", "runs/lanes-text", "--reading", "read") == 0  # done: left alone
    assert (folder / "runs" / "lanes-text" / "result.json").stat().st_mtime_ns == before
    capsys.readouterr()
    assert main(["table", str(folder / "runs")]) == 0
    page = capsys.readouterr().out
    assert "Free answers" in page and "Under the runtime's grammar" in page
    assert "| sign color |" in page and "drawn (seeds 0)" in page


def test_a_batch_is_a_function_of_its_number(folder, tmp_path):
    settings = RunSettings("lanes", "grid", str(folder / "frames" / "train"), str(folder / "tower"), "read")
    config = sft_config(settings, 4, 0, SIZE)
    trainer = FrameTrainer(settings, config, tmp_path / "one")
    batches = list(trainer.batches())
    trainer.step = 2
    again = next(iter(trainer.batches()))
    assert again[0] == 2
    assert torch.equal(again[2].ids, batches[2][2].ids)
    assert torch.equal(again[2].pixel_values, batches[2][2].pixel_values)
    tokens = visual_tokens(trainer.frames, trainer.plain.model)
    assert tokens.shape == (12, 8, 32)


def test_bad_requests_say_what_is_wrong(folder, tmp_path, capsys):
    assert command(folder, "lanes", "drawn", "runs/none") == 2
    assert "expected one of lanes: text, bins" in capsys.readouterr().err
    assert main(["run", "lanes", "grid", "--frames", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "training.representations frames" in capsys.readouterr().err
    assert main(["table", str(tmp_path)]) == 2


def test_the_table_by_hand():
    perfect = dict.fromkeys(LANE_COLUMNS, 0.0) | {"tp@0.015": 2, "culane_tp": 1, "culane_fn": 1, "lanes_written": 2, "tokens": 9}
    perfect |= {"pictures": 1, "lanes": 2}
    half = perfect | {"tp@0.015": 0, "fp@0.015": 2, "fn@0.015": 2, "malformed": 1, "lanes_written": 3}
    rows = [[perfect[name] for name in LANE_COLUMNS], [half[name] for name in LANE_COLUMNS]]
    settings = {"task": "lanes", "form": "text", "reading": "read", "layers": 3, "position_rule": "image"}
    result = {"settings": settings, "steps": 1, "seed": 0, "train_pictures": 1, "test_pictures": 2, "free": rows}
    grid = result | {"settings": settings | {"form": "grid"}, "free": [rows[0], rows[0]]}
    page = tables([result, grid])
    assert "| text | 0 | 0.500 [0.000, 1.000] | 0.500 [0.000, 1.000] | 0.500 [0.000, 1.000] | 0.500 | - |" in page
    assert (
        "| grid | 0 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | 1.000 | 0.500 [0.000, 1.000] |" in page
    )
    assert "0.667 [0.667, 0.667]" in page  # CULane: 2 TP of 2 TP + 1 FN each
    assert "| 3.6 | 0.200 [0.000, 0.333] |" in page  # 18 tokens, 5 lanes, 1 malformed
