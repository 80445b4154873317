"""Prompted tasks: what is asked, what counts as right, files of answers, and the command from queries to report."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from getok_drive.errors import ConfigError, InputError
from tests.training.prompted.samples import LEFT, RIGHT, right_answer, sample
from training import evaluate
from training.datasets.jsonl import record_of
from training.evaluation import Collector
from training.evaluation_runs import predict_answers
from training.prompted import TASKS
from training.prompted.answers import Answer, answer_from_json, query_id
from training.prompted.queries import queries_of
from training.samples import Phrase, Region
from training.sources import open_source


def _score(answer_of, tasks=TASKS, count=3):
    collector = Collector(())
    for seed in range(count):
        picture = sample(seed)
        collector.add_answers(f"made:{seed}", picture, [(q, answer_of(q)) for q in queries_of(picture, tasks)])
    return collector.report()


def test_what_is_asked():
    by_task = {task: queries_of(sample(), [task]) for task in TASKS}
    assert {task: len(queries) for task, queries in by_task.items()} == {
        "classification": 6, "rec": 2, "res": 3, "gres": 4, "reason": 4, "caption": 2, "pointing": 2,
    }  # fmt: skip
    assert [query.text for query in by_task["classification"]] == [
        "box_class", "visible_state", "sign_class", "sign_color", "traffic_density", "sign_color",
    ]  # fmt: skip
    assert "<grid_" in by_task["classification"][0].segments[1]  # the region is given as tokens
    assert by_task["classification"][4].region_px.shape == (0, 2)  # the whole picture
    assert by_task["gres"][3].text == "a zebra"
    assert not by_task["gres"][3].mask.any()
    assert by_task["caption"][0].references == ("the left block", "a block on the left side")
    assert all(query.number == index for queries in by_task.values() for index, query in enumerate(queries))


def test_the_right_answers_score_full_marks():
    report = _score(right_answer)
    headline = report.headline()
    assert set(headline) == {
        "classification/accuracy", "rec/acc_0.5", "res/giou", "gres/giou", "reason/giou", "caption/cider", "pointing/f1",
    }  # fmt: skip
    assert headline.pop("caption/cider") > 0
    assert all(value == 1.0 for value in headline.values())
    assert report.numbers["rec"]["acc_0.8"].value == report.numbers["res"]["ciou"].value == 1.0
    assert report.numbers["gres"]["n_acc"].value == report.numbers["gres"]["t_acc"].value == 1.0
    assert report.numbers["gres"]["boundary_f"].value == 1.0
    assert report.numbers["classification"]["balanced_accuracy/sign_color"].value == 1.0
    assert report.numbers["classification"]["precision/sign_color/red"].value == 1.0
    words, matrix = report.confusion["sign_color"]
    assert matrix[words.index("red"), words.index("red")] == matrix[words.index("blue"), words.index("blue")] == 3
    assert report.speed["query_p50_ms"] == 3.0
    assert "referred boxes, Acc@0.5" in report.table()


def test_no_answers_score_nothing_but_what_is_rightly_empty():
    report = _score(lambda query: Answer())
    headline = report.headline()
    assert headline.pop("gres/giou") == 0.25  # the phrase without a target
    assert set(headline.values()) == {0.0}
    assert report.numbers["gres"]["n_acc"].value == 1.0
    assert report.numbers["gres"]["t_acc"].value == 0.0
    assert report.numbers["gres"]["boundary_f"].value == 0.25  # likewise
    assert "precision/sign_color/red" not in report.numbers["classification"]  # never said
    assert len(report.worst_prompted) == 12
    assert report.worst_prompted[0].quality == 0.0


def test_edges_and_words_that_are_somewhat_wrong():
    def wrong(query):
        if query.mask is not None and query.mask.any():
            return Answer(mask=np.roll(query.mask, 3, axis=1))
        return Answer(word="red" if query.text == "sign_color" else query.word)

    numbers = _score(wrong).numbers
    assert 0.3 < numbers["res"]["boundary_f"].value < numbers["res"]["giou"].value < 1.0
    colors = numbers["classification"]
    assert colors["precision/sign_color/red"].value == colors["recall/sign_color/blue"].value + 0.5 == 0.5


def test_what_is_ignored_counts_neither_way():
    above = RIGHT.copy()
    above[12:16] = False
    report = _score(lambda q: Answer(mask=above if "sit on" in q.text else q.mask), ["reason"])
    assert report.numbers["reason"]["giou"].value == 1.0
    half = LEFT.copy()
    half[20:] = False
    report = _score(lambda q: Answer(mask=half), ["res"])
    assert report.numbers["res"]["giou"].value == pytest.approx((0.5 + 0.5 + 160 / 720) / 3)
    assert report.numbers["res"]["ciou"].value == pytest.approx((160 + 160 + 160) / (320 + 320 + 720))


def test_points_hit_masks_once_and_points_within_a_radius():
    report = _score(lambda q: Answer(points_px=np.array([[5.0, 11], [6, 12], [3, 2]])), ["pointing"], 1)
    # two blocks: one hit, two wrong, one missed; the corner: one hit (1 px, the radius is 1.28), two wrong
    assert report.numbers["pointing"]["f1"].value == pytest.approx(2 * 2 / (2 * 2 + 4 + 1))


def test_references_are_pointed_at_where_nothing_else_is_and_boxes_end_half_a_pixel_out():
    boxes = (Region([9.5, 9.5, 19.5, 19.5]), Region([10.5, 20.5, 12.5, 21.5]))
    picture = replace(sample(), phrases=(Phrase("refer", "two", regions=boxes), Phrase("refer", "a zebra")))
    two, none = queries_of(picture, ["pointing"])
    assert [np.argwhere(t)[[0, -1]].tolist() for t in two.targets] == [[[10, 10], [19, 19]], [[21, 11], [21, 12]]]
    assert none.targets == ()
    assert len(queries_of(sample(), ["pointing"])) == 2  # the two that ask for points


def test_an_answer_survives_its_line():
    mask = LEFT | RIGHT
    answer = Answer(
        "car", np.array([[1.25, 2, 3, 4]]), mask, np.array([[5.0, 6]]), "a car", 0.5, 2.5, True, {"conversation_full": 1}
    )
    line = json.loads(json.dumps(answer.to_json("k", "res", 3)))
    assert query_id(line) == ("k", "res", 3)
    again = answer_from_json(line, (64, 48))
    assert again.to_json("k", "res", 3) == line
    assert np.array_equal(again.mask, mask)
    polygons = answer_from_json({"polygons_px": [[[4, 10], [19.5, 10], [19.5, 29.5], [4, 29.5]]]}, (64, 48))
    assert np.array_equal(polygons.mask, LEFT)
    assert answer_from_json({}, (64, 48)).mask is None


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"boxes_px": [[1, 2, 3]]}, "boxes_px: expected a list of 4 finite"),
        ({"points_px": [[1, "x"]]}, "points_px"),
        ({"rle": {"size": [4, 4], "counts": [16]}}, r"rle: a mask of \[4, 4\].*the picture has \[48, 64\]"),
        ({"rle": {"size": [48, 64], "counts": [3]}}, "rle: run lengths"),
        ({"confidence": "high"}, "confidence"),
    ],
)
def test_malformed_answers_are_refused(record, message):
    with pytest.raises(InputError, match=message):
        answer_from_json({"_where": "f:1", **record}, (64, 48))


def test_lines_name_their_query():
    with pytest.raises(InputError, match="f:2: expected task"):
        query_id({"_where": "f:2", "task": "cats", "query": 0})


@pytest.fixture
def folder(tmp_path):
    """The pictures as a data set in the project's own format."""
    lines = []
    for seed in range(2):
        picture = sample(seed)
        cv2.imwrite(str(tmp_path / f"{seed}.png"), picture.image_bgr)
        lines.append(json.dumps(record_of(picture, f"{seed}.png")))
    (tmp_path / "test.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_from_queries_to_the_report(folder, tmp_path):
    tasks = ",".join(["boxes", *TASKS])
    asked = tmp_path / "queries.jsonl"
    assert evaluate.run(["--dataset", f"jsonl:{folder}", "--tasks", tasks, "--write-queries", str(asked)]) is None
    queries = [json.loads(line) for line in asked.read_text().splitlines()]
    assert len(queries) == 2 * 23
    assert not any("word" in query or "boxes_px" in query for query in queries)  # what is right is not told

    source = open_source(f"jsonl:{folder}")
    lines = []
    for index in range(2):
        picture, key = source.load(index), source.key(index)
        lines.append({"image_size_wh": [64, 48], "source": key, "boxes": [{"xyxy_px": [4, 10, 20, 30], "class": "car"}]})
        lines += [right_answer(q).to_json(key, q.task, q.number) for q in queries_of(picture)]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out"
    argv = ["--dataset", f"jsonl:{folder}", "--tasks", tasks, "--predictions", str(answers), "--out", str(out), "--worst", "3"]
    report = evaluate.run(argv)
    assert report.headline()["boxes/f1"] == report.headline()["rec/acc_0.5"] == report.headline()["reason/giou"] == 1.0
    page = (out / "report.html").read_text()
    assert "Confusion" in page
    assert page.count("data:image/jpeg;base64") == 2 + 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert [record["key"] for record in scores] == [source.key(0), source.key(1)]
    assert {"boxes", "rec", "res", "cider", "classification/sign_color"} <= set(scores[0]["rows"])

    answers.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    with pytest.raises(InputError, match="query 1 of pointing"):
        evaluate.run(argv)
    report = evaluate.run([*argv, "--allow-missing"])
    assert report.outputs["missing_answers"] == 1
    assert report.headline()["pointing/f1"] < 1.0


def test_answers_resume_and_notice_changes(folder, tmp_path):
    source, asked = open_source(f"jsonl:{folder}"), []

    class Oracle:
        def ask(self, image_bgr, query):
            asked.append(query)
            if len(asked) == 8:
                raise KeyboardInterrupt
            return right_answer(query)

    with pytest.raises(KeyboardInterrupt):
        predict_answers(source, tmp_path / "run", {"a": 1}, Oracle, Collector(()), ["rec", "res"])
    collector = Collector(())
    predict_answers(source, tmp_path / "run", {"a": 1}, Oracle, collector, ["rec", "res"])
    assert len(asked) == 8 + 3  # 2 pictures of 5 queries, 7 of which were kept
    assert collector.report().headline() == {"rec/acc_0.5": 1.0, "res/giou": 1.0}
    with pytest.raises(ConfigError, match="a differ"):
        predict_answers(source, tmp_path / "run", {"a": 2}, Oracle, Collector(()), ["rec"])
    cv2.imwrite(str(folder / "0.png"), 255 - sample(0).image_bgr)
    with pytest.raises(InputError, match="has changed since"):
        predict_answers(source, tmp_path / "run", {"a": 1}, Oracle, Collector(()), ["rec"])
