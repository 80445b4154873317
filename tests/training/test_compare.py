"""Runs side by side: paired differences, refusals that name the pictures, text, page and JSON."""

import json
import re

import numpy as np
import pytest

from training import compare as module
from training.compare import compare, main, read_run


def write_run(folder, boxes, signs=None, digest="d", keys=None, groups=None):
    """An evaluation's files: ``boxes`` are (TP, FP, FN) of each picture."""
    folder.mkdir(parents=True)
    keys = keys or [f"p:{i}" for i in range(len(boxes))]
    records = []
    for index, (key, row) in enumerate(zip(keys, boxes, strict=True)):
        rows = {"boxes": list(map(float, row))} | ({"signs": list(map(float, signs[index]))} if signs is not None else {})
        group = groups[index] if groups else key
        records.append({"key": key, "group": group, "sample_sha256": f"{digest}{key}", "rows": rows})
    (folder / "scores.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "report.json").write_text(json.dumps({"command": f"evaluate {folder.name} <b>", "speed": {"p50_ms": 5.0}}))
    return str(folder)


def counts(rng, n, rate):
    hits = rng.binomial(5, rate, n)
    return np.stack([hits, rng.binomial(2, 1 - rate, n), 5 - hits], axis=1)


@pytest.fixture
def runs(tmp_path):
    rng = np.random.default_rng(0)
    base = counts(rng, 120, 0.6)
    better = base + np.stack([rng.integers(0, 2, 120), np.zeros(120, int), np.zeros(120, int)], axis=1)
    noise = counts(rng, 120, 0.6)
    return [write_run(tmp_path / name, rows) for name, rows in (("base", base), ("better", better), ("noise", noise))]


def test_a_paired_difference_is_found_and_noise_is_not(runs):
    (boxes,) = compare([read_run(folder) for folder in runs])
    assert boxes.kind == "boxes"
    assert boxes.level == 0.025
    better, noise = boxes.differences
    assert better.value == pytest.approx(boxes.values[1].value - boxes.values[0].value)
    assert 0 < better.low < better.value < better.high
    assert boxes.p[0] < 0.01
    assert boxes.p[1] > 0.1
    assert noise.low < 0 < noise.high
    # the pairing is what makes it sharp: the two intervals on their own overlap
    assert boxes.values[1].low < boxes.values[0].high


def test_equal_runs_do_not_differ(runs):
    same = compare([read_run(runs[0]), read_run(f"again={runs[0]}")])[0]
    assert (same.differences[0].value, same.p[0]) == (0.0, 1.0)


def test_the_order_of_pictures_does_not_matter_and_groups_are_drawn_whole(tmp_path):
    rng = np.random.default_rng(1)
    rows = counts(rng, 40, 0.5)
    keys, groups = [f"p:{i}" for i in range(40)], [f"drive {i // 10}" for i in range(40)]
    a = write_run(tmp_path / "a", rows, keys=keys, groups=groups)
    b = write_run(tmp_path / "b", rows[::-1], keys=keys[::-1], groups=groups[::-1])
    result = compare([read_run(a), read_run(b)])[0]
    assert result.differences[0].value == result.differences[0].high == 0.0
    assert result.values[0].count == 4


def test_folders_may_have_an_equals_sign_in_their_names(tmp_path):
    folder = write_run(tmp_path / "lr=1e-3", [(1, 0, 0)] * 3)
    assert [read_run(argument).name for argument in (folder, f"base={folder}")] == ["lr=1e-3", "base"]


def test_different_pictures_are_refused_by_name(tmp_path, runs, capsys):
    rng = np.random.default_rng(0)
    fewer = write_run(tmp_path / "fewer", counts(rng, 118, 0.6))
    assert main([runs[0], fewer]) == 2
    assert "2 only base has: p:118, p:119" in capsys.readouterr().err
    assert main([fewer, runs[0]]) == 2
    assert "2 only base has: p:118, p:119" in capsys.readouterr().err
    other = write_run(tmp_path / "other", counts(rng, 120, 0.6), digest="e")
    assert main([runs[0], other]) == 2
    assert "120 with other pixels or labels: p:0, p:1, p:2, p:3, p:4, ..." in capsys.readouterr().err
    assert main([runs[0]]) == 2
    assert main([runs[0], str(tmp_path)]) == 2
    assert "no scores.jsonl" in capsys.readouterr().err
    (tmp_path / "fewer" / "report.json").write_text("{")
    assert main([runs[0], fewer]) == 2
    assert "not an evaluation" in capsys.readouterr().err


def test_only_headlines_that_all_have(tmp_path):
    rows = [(1, 0, 0), (1, 1, 0)]
    with_signs = read_run(write_run(tmp_path / "a", rows, signs=rows))
    without = read_run(write_run(tmp_path / "b", rows))
    assert [c.kind for c in compare([with_signs, without])] == ["boxes"]
    assert [c.kind for c in compare([with_signs, with_signs])] == ["boxes", "signs"]


def test_text_page_and_json(runs, tmp_path, capsys):
    out = tmp_path / "pages" / "compare.html"
    assert main([*runs[:2], f"third={runs[2]}", "--out", str(out), "--replicates", "500"]) == 0
    text = capsys.readouterr().out
    assert "120 pictures in 120 groups; differences to base; * p < 0.025" in text
    assert re.search(r"better +0\.\d+ \[.*\] +\+0\.\d+ \[.*\] p=0\.00\d\*", text)
    page = out.read_text()
    assert "third" in page
    assert "&lt;b&gt;" in page  # what runs say about themselves is text
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    record = json.loads(out.with_suffix(".json").read_text())["headlines"]["boxes/f1"]
    assert [entry.get("significant") for entry in record] == [None, True, False]


def test_less_jitter_is_better(tmp_path):
    rng = np.random.default_rng(0)
    for name, scale in (("calm", 1.0), ("nervous", 2.0)):
        folder = tmp_path / name
        write_run(folder, [(1, 0, 0)] * 60)
        records = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
        for record in records:
            record["rows"] = {"drive_lanes": [scale * rng.uniform(5, 6), 4, 1, 4, 0, 1, 0, 1]}
        (folder / "scores.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    runs = [read_run(str(tmp_path / name)) for name in ("calm", "nervous")]
    for first, verdict in ((0, "worse"), (1, "better")):
        order = [runs[first], runs[1 - first]]
        (jitter,) = compare(order)
        assert jitter.kind == "drive_lanes"
        module.write_html(order, [jitter], tmp_path / "page.html")
        assert f"<td class=n>{verdict}</td>" in (tmp_path / "page.html").read_text()


def test_the_smallest_p_depends_on_the_draws():
    assert module._p_value(np.ones(99)) == pytest.approx(0.02)
    assert np.isnan(module._p_value(np.full(3, np.nan)))
