"""The rows of the token table start with the shape of the image in them, at the scale of the rows that were there."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from getok_drive.errors import ConfigError  # noqa: E402
from getok_drive.tokens.vocab import GRID_SIZE, TABLE, TOKEN_ID, TOKENS  # noqa: E402
from training.model import SIZES, build_model, build_tokenizer  # noqa: E402
from training.vocabulary import first_token_id, initialise_rows, name_ids  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def table_rows(tokenizer, dim, method, mean=0.0, std=0.02, seed=0):
    """The table's rows after initialisation, in a matrix whose other rows have this mean and scale."""
    generator = torch.Generator().manual_seed(1)
    first = first_token_id(tokenizer)
    weight = mean + std * torch.randn(first + len(TOKENS) + 9, dim, generator=generator)
    initialise_rows(weight, tokenizer, method, seed)
    return weight[first : first + len(TOKENS)].double().numpy(), weight


def similarity(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def distances(side):
    row, column = np.divmod(np.arange(side**2), side)
    return np.hypot(row[:, None] - row, column[:, None] - column)


@pytest.mark.parametrize("dim", [32, 192, 1536])
def test_grid_tokens_are_the_less_alike_the_further_apart(tokenizer, dim):
    rows, _ = table_rows(tokenizer, dim, "spatial")
    alike = similarity(rows[: TABLE.offset_base])
    distance = distances(GRID_SIZE)
    means = [alike[(distance >= d) & (distance < d + 1)].mean() for d in range(1, 24)]
    assert all(near > far for near, far in itertools.pairwise(means)), means
    assert means[0] > 0.75
    assert means[-1] < 0.2
    assert alike[distance > 0].max() < 0.95  # and yet any two can be told apart
    nearest = np.argsort(-alike, axis=1)[:, 1:5]
    assert np.take_along_axis(distance, nearest, axis=1).mean() < (3 if dim < 64 else 1.6)


def test_random_rows_are_not_alike(tokenizer):
    rows, _ = table_rows(tokenizer, 192, "random")
    alike = similarity(rows[: TABLE.offset_base])
    assert np.abs(alike - np.eye(len(alike))).max() < 0.5
    assert abs(alike[distances(GRID_SIZE) == 1].mean()) < 0.01


@pytest.mark.parametrize("method", ["spatial", "random"])
def test_scale_and_centre_are_those_of_the_rows_that_were_there(tokenizer, method):
    rows, weight = table_rows(tokenizer, 256, method, mean=0.5, std=0.02)
    old = weight[: first_token_id(tokenizer)].double().numpy()
    centre = old.mean(axis=0)
    deviation = np.sqrt(np.square(rows - centre).mean(axis=1))
    np.testing.assert_allclose(deviation, old.std(axis=0).mean(), rtol=0.01)  # every row, not only on the average
    spare = weight[first_token_id(tokenizer) + len(TOKENS) :].double().numpy()
    np.testing.assert_allclose(spare, np.broadcast_to(centre, spare.shape), atol=1e-6)


def test_opposite_offsets_are_the_least_alike(tokenizer):
    rows, _ = table_rows(tokenizer, 192, "spatial")
    alike = similarity(rows)
    right, left, down, rest = (TOKEN_ID[f"<OFF_{name}>"] for name in ("1_0", "-1_0", "0_1", "0_0"))
    assert alike[right, rest] > alike[right, down] > alike[right, left]
    assert abs(alike[right, TABLE.delete]) < 0.35


def test_words_start_near_their_names(tokenizer):
    rows, weight = table_rows(tokenizer, 192, "spatial")
    car = weight[name_ids(tokenizer, "<car>")].mean(0).double().numpy()
    alike = [float(row @ car / np.linalg.norm(row) / np.linalg.norm(car)) for row in rows]
    assert int(np.argmax(alike)) == TOKEN_ID["<car>"]
    assert alike[TOKEN_ID["<car>"]] > 0.9
    opening, closing = (rows[TOKEN_ID[text]] for text in ("<seg>", "</seg>"))
    assert not np.allclose(opening, closing, atol=0.01)
    assert name_ids(tokenizer, "</fallen_tree>") == tokenizer.encode("end fallen tree")


def test_the_seed_decides(tokenizer):
    one, again, other = (table_rows(tokenizer, 64, "spatial", seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01


def test_small_models_use_it(tokenizer):
    first = first_token_id(tokenizer)
    models = {method: build_model(SIZES["tiny"], tokenizer, 0, method) for method in ("spatial", "random")}
    grids = {m: model.lm_head.weight[first : first + 32].detach().double().numpy() for m, model in models.items()}
    neighbours = {m: np.diag(similarity(rows), 1).mean() for m, rows in grids.items()}
    assert neighbours["spatial"] > 0.7
    assert neighbours["random"] < 0.2
    assert grids["spatial"].std() == pytest.approx(grids["random"].std(), rel=0.1)
    with pytest.raises(ConfigError, match="token_init='sinus'"):
        build_model(SIZES["tiny"], tokenizer, 0, "sinus")


def test_wrong_vocabularies_and_small_matrices_are_refused(tokenizer):
    with pytest.raises(ConfigError, match="resize"):
        initialise_rows(torch.zeros(100, 8), tokenizer)
