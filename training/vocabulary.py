"""The token table in a checkpoint: where its block is, what its rows start from, and how a released model gets one.

**Where the rows start** (`initialise_rows`). A grid token's two-dimensional index *is* its place in the image; ``spatial`` builds
that in from the first step. With mu the mean and sigma the standard deviation of the rows that the
model already has, every new row is ``mu + sigma * sqrt(D) * u``, where u is a unit vector:

| tokens | u |
|---|---|
| grid | inner products ``exp(-distance / 8 cells)``: neighbours alike, and less so the further apart |
| offsets | likewise on their 3 x 3 lattice of directions, ``exp(-distance / 1.5)``: opposites are the least alike |
| ``<DELETE>`` | random |
| structure, kinds, words | the mean of the rows of the name's sub-tokens ("fallen tree"), with a little noise |

The exponential kernel (Matern 1/2) has fine and coarse scales at once, so that adjacent cells can still be told apart. Its
strongest principal components, as many as D, are turned by a random rotation; what the others would add to a row's length is
made up for by a random vector, so that narrow models keep the fine scale too. ``random`` draws u at random throughout.
"""

from __future__ import annotations

import json
import math
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from getok_drive.errors import ConfigError
from getok_drive.tokens.vocab import GRID_SIZE, TABLE, TOKENS

TOKEN_INITS = ("spatial", "random")
GRID_LENGTH_CELLS = 8.0  # the distance at which two grid tokens' similarity has fallen to 1/e
OFFSET_LENGTH_STEPS = 1.5
NAME_NOISE = 0.3  # relative to the name's direction, so that no new row repeats an old one


def first_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Model id of the table's first token; checks that the whole table is one contiguous block.

    Raises:
        ConfigError: a token of the table is missing or out of place.
    """
    ids = tokenizer.convert_tokens_to_ids(list(TOKENS))
    first = ids[0] if ids[0] is not None else -1
    for text, got, want in zip(TOKENS, ids, range(first, first + len(TOKENS)), strict=True):
        if got is None or got != want or (tokenizer.unk_token_id is not None and got == tokenizer.unk_token_id):
            place = "missing" if got is None or got == tokenizer.unk_token_id else f"number {got} instead of {want}"
            raise ConfigError(
                f"tokenizer of {tokenizer.name_or_path or 'this model'}: {text} is {place}; the checkpoint has another "
                "vocabulary than this project's token table (getok_drive/tokens/vocab.py): train from its base model anew"
            )
    return int(first)


def add_table(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with the table behind its own tokens, as one contiguous block of ordinary (not special) tokens.

    Qwen3's vocabulary has ``<think>`` and ``</think>`` already. Such a token keeps its id and gets another text
    (``<|base:think|>``), so that the table stays whole; the table's own starts from its row.

    Returns:
        The tokenizer, changed in place unless texts had to be freed.

    Raises:
        ConfigError: the vocabulary holds another table of spatial tokens.
    """
    known = tokenizer.get_vocab()
    taken = [text for text in TOKENS if text in known]
    if len(taken) == len(TOKENS):
        first_token_id(tokenizer)
        return tokenizer
    spatial = [text for text in TOKENS[: TABLE.spatial_count] if text in known]
    if spatial:
        missing = next(text for text in TOKENS if text not in known)
        raise ConfigError(
            f"tokenizer of {tokenizer.name_or_path}: it has {spatial[0]} but not {missing}: another table of spatial tokens than "
            "this project's (getok_drive/tokens/vocab.py); start from the original base model"
        )
    if taken:
        tokenizer = _renamed(tokenizer, {text: _former(text) for text in taken})
    # not special: decoders that skip special tokens would hide the whole answer
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in TOKENS])
    first_token_id(tokenizer)
    return tokenizer


def _former(text: str) -> str:
    return f"<|base:{text.strip('<>')}|>"


def _renamed(tokenizer: PreTrainedTokenizerBase, names: dict[str, str]) -> PreTrainedTokenizerBase:
    """The tokenizer with some added tokens' texts changed; ids stay."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            path = Path(folder) / name
            content = json.loads(path.read_text(encoding="utf-8"))
            entries = content.get("added_tokens", []) + list(content.get("added_tokens_decoder", {}).values())
            for entry in entries:
                entry["content"] = names.get(entry["content"], entry["content"])
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        again = AutoTokenizer.from_pretrained(folder)
        again.name_or_path = tokenizer.name_or_path
    still = [text for text in names if text in again.get_vocab()]
    if still:
        raise ConfigError(
            f"tokenizer of {tokenizer.name_or_path}: {still[0]} is part of its vocabulary proper and cannot be renamed"
        )
    return again


def extend(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, method: str = "spatial", seed: int = 0, multiple: int = 128
) -> PreTrainedTokenizerBase:
    """Adds the table to a released model: tokenizer, embedding, and head (tied or not); existing rows stay as they are.

    Args:
        model: changed in place.
        tokenizer: the model's; may be changed in place.
        method: what the new rows start from, see `initialise_rows`.
        seed: of the new rows.
        multiple: the matrices' rows are padded to a multiple of this, for kernels and for splitting over GPUs.

    Returns:
        The extended tokenizer; the given one where the table is there already, with nothing changed.
    """
    if all(text in tokenizer.get_vocab() for text in TOKENS):
        first_token_id(tokenizer)
        return tokenizer
    tokenizer = add_table(tokenizer)
    embedding = model.get_input_embeddings()
    rows = max(embedding.weight.shape[0], -(-len(tokenizer) // multiple) * multiple)
    if rows != embedding.weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    initialise_rows(embedding.weight, tokenizer, method, seed)
    if head.weight is not embedding.weight:
        initialise_rows(head.weight, tokenizer, method, seed)
    return tokenizer


@torch.no_grad()
def initialise_rows(weight: Tensor, tokenizer: PreTrainedTokenizerBase, method: str = "spatial", seed: int = 0) -> None:
    """Overwrites the table's rows of an embedding or head in place, and sets unused rows behind the table to the mean row.

    Args:
        weight: ``(rows, D)``; the rows before the table's first id give mean and scale.
        tokenizer: knows the table.
        method: ``spatial`` or ``random``, see the module.
        seed: of the rotation, the noise and the random rows.

    Raises:
        ConfigError: an unknown method, a tokenizer without the table, or too few rows.
    """
    if method not in TOKEN_INITS:
        raise ConfigError(f"token_init={method!r}: expected one of {', '.join(TOKEN_INITS)}")
    first, count, dim = first_token_id(tokenizer), len(TOKENS), weight.shape[1]
    if weight.shape[0] < first + count:
        raise ConfigError(f"the matrix has {weight.shape[0]} rows, the vocabulary {first + count}: resize it first")
    old = weight[:first].float().cpu().numpy()
    mean = old.mean(axis=0)
    scale = float(np.sqrt(np.square(old - mean).mean(dtype=np.float64))) * math.sqrt(dim)
    rng = np.random.default_rng(seed)
    directions = _unit(rng.standard_normal((count, dim)))
    if method == "spatial":
        spatial, offsets = TABLE.spatial_count, slice(TABLE.offset_base, TABLE.offset_base + 9)
        directions[: TABLE.offset_base] = lattice_code(GRID_SIZE, GRID_LENGTH_CELLS, dim, rng)
        directions[offsets] = lattice_code(3, OFFSET_LENGTH_STEPS, dim, rng)
        names = np.stack([(old[name_ids(tokenizer, text)] - mean).mean(axis=0) for text in TOKENS[spatial:]])
        directions[spatial:] = _unit(_unit(names) + NAME_NOISE * directions[spatial:])
    rows = torch.from_numpy(mean + scale * directions)
    weight[first : first + count] = rows.to(weight)
    weight[first + count :] = torch.from_numpy(mean).to(weight)


def name_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of the ordinary tokens that spell a table token's name: ``<fallen_tree>`` is "fallen tree", ``</seg>`` "end seg".

    A name that the base model had a token for (see `add_table`) is that token.
    """
    former = tokenizer.get_vocab().get(_former(text))
    if former is not None:
        return [former]
    name = text.strip("<>").replace("/", "end ").replace("_", " ")
    return [int(i) for i in tokenizer.encode(name, add_special_tokens=False)]


def lattice_code(side: int, length: float, dim: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Unit vectors for the points of a square lattice, their inner products near ``exp(-distance / length)``.

    Args:
        side: points along each axis.
        length: distance at which the similarity is 1/e, lattice steps.
        dim: of the vectors.
        rng: draws the rotation, and what stands in for the components that ``dim`` has no room for.

    Returns:
        ``(side**2, dim)``, row by row.
    """
    components = _kernel_components(side, length)[:, :dim]
    rotation, _ = np.linalg.qr(rng.standard_normal((dim, components.shape[1])))
    missing = np.sqrt(np.maximum(1.0 - np.square(components).sum(axis=1, keepdims=True), 0.0))
    return _unit(components @ rotation.T + missing * _unit(rng.standard_normal((side**2, dim))))


@lru_cache(maxsize=4)
def _kernel_components(side: int, length: float) -> npt.NDArray[np.float64]:
    """Principal components of the lattice's kernel matrix, strongest first: ``C @ C.T`` is the kernel."""
    rows, columns = np.divmod(np.arange(side**2), side)
    distance = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    values, vectors = np.linalg.eigh(np.exp(-distance / length))
    return (vectors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1]


def _unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float64)
