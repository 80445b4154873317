"""METEOR against the official program, on data in its own format that was invented for the purpose."""

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from getok_drive.errors import ConfigError
from training.metrics import meteor_data
from training.metrics.meteor import meteor_of, meteor_rows, normalise
from training.metrics.meteor_data import MeteorData
from training.metrics.meteor_search import Match, search

pytest.importorskip("snowballstemmer")
CASES = json.loads((Path(__file__).parent / "meteor_official.json").read_text())


def write_data(folder: Path) -> Path:
    """The invented words, synonyms and paraphrases as the files that METEOR reads."""
    data = CASES["data"]
    (folder / "data").mkdir()
    with zipfile.ZipFile(folder / "meteor-1.5.jar", "w") as jar:
        jar.writestr("function/english.words", "\n".join(data["function"]) + "\n")
        lines = [f"{word}\n{' '.join(map(str, sets))}\n" for word, sets in data["synsets"].items()]
        jar.writestr("synonym/english.synsets", "".join(lines))
        lines = [f"{base}\n{' '.join(forms)}\n" for base, forms in data["exceptions"].items()]
        jar.writestr("synonym/english.exceptions", "".join(lines))
    with gzip.open(folder / "data" / "paraphrase-en.gz", "wt") as file:
        file.writelines(f"0.1\n{first}\n{second}\n" for first, second in data["paraphrases"])
    return folder


@pytest.fixture
def data(tmp_path):
    return MeteorData.load(write_data(tmp_path))


def test_meteor_equals_the_official_program(data):
    hypotheses = [text.split() for text in CASES["hypotheses"]]
    references = [[text.split() for text in each] for each in CASES["references"]]
    rows = meteor_rows(hypotheses, references, data)
    np.testing.assert_allclose(meteor_of(rows), CASES["scores"], atol=1e-9)
    assert meteor_of(rows.sum(axis=0)) == pytest.approx(CASES["set"], abs=1e-9)
    assert (rows.sum(axis=0)[4:20].reshape(4, 4).sum(axis=1) > 0).all()  # every module was at work


def test_by_hand(data):
    def score(hypothesis, *references):
        return float(meteor_of(meteor_rows([hypothesis.split()], [[text.split() for text in references]], data))[0])

    assert score("red car", "red car") == 1.0
    assert score("", "red car") == score("bus", "red car") == 0.0
    assert score("red car", "bus", "red car") == 1.0
    # two words match in two chunks: all the penalty there is
    assert score("car red", "red car") == pytest.approx(1 - 0.6)
    # equal in everything but a synonym of weight 0.8
    assert score("red automobile car", "red automobile vehicle") == pytest.approx(2.8 / 3)
    assert score("red cars", "red car") == pytest.approx((1 + 0.6) / 2)  # same stem
    assert score("cars", "car") == 0.0  # alone it covers floor(0.5) words, so the program prefers no chunk to one


def test_normalisation_splits_apostrophes_and_hyphens():
    assert normalise(["Don't", "well-lit"]) == ("don", "'t", "well", "lit")


def test_the_search_prefers_few_chunks():
    equal = [Match(0, j, 1, i, 1) for j, b in enumerate("abab") for i, a in enumerate("abab") if a == b]
    assert [m.other_start for m in search(equal, 4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("block_bytes", [1, 40, 4096])
def test_the_table_is_read_in_blocks(data, monkeypatch, block_bytes):
    monkeypatch.setattr(meteor_data, "BLOCK_BYTES", block_bytes)
    entries = [(tuple(first.split()), tuple(second.split())) for first, second in CASES["data"]["paraphrases"]]
    words = {word for entry in entries for phrase in entry for word in phrase} - {"truck"}
    found = data.phrases_within(words)
    assert sum(map(len, found.values())) == sum(words.issuperset(first + second) for first, second in entries) < len(entries)
    for first, second in entries:
        assert (second in found.get(first, ())) == words.issuperset(first + second)
    assert data.phrases_within(()) == {}


def test_an_installed_package_is_found(tmp_path, monkeypatch):
    folder = tmp_path / "pycocoevalcap" / "meteor"  # as it is installed: without an __init__.py
    folder.mkdir(parents=True)
    write_data(folder)
    monkeypatch.delenv("METEOR_DATA", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = MeteorData.find()
    assert found is not None
    assert found.paraphrases == folder / "data" / "paraphrase-en.gz"


def test_missing_data_is_said(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"meteor-1\.5\.jar cannot be read"):
        MeteorData.load(tmp_path)
    write_data(tmp_path)
    monkeypatch.setenv("METEOR_DATA", str(tmp_path))
    assert MeteorData.find() is not None
    (tmp_path / "data" / "paraphrase-en.gz").unlink()
    with pytest.raises(ConfigError, match="paraphrase-en"):
        MeteorData.find()
    with pytest.raises(ValueError, match="at least one reference"):
        meteor_rows([["a"]], [[]], MeteorData(frozenset(), {}, {}, tmp_path))
