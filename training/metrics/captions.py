"""CIDEr of captions (Vedantam et al., 2015), the variant CIDEr-D with the constants of the COCO caption code.

Definition. Captions are lower-case words. For n = 1..4 each caption is a vector over n-grams w: g(w) = count(w) * (ln N - ln
max(1, df(w))) with N the number of pictures and df(w) the number of pictures whose references contain w. With hypothesis h,
reference r and their lengths (as the original code counts them: bigrams) l_h, l_r:

    sim_n(h, r) = exp(-(l_h - l_r)^2 / (2 * 6^2)) * sum_w min(g_h(w), g_r(w)) g_r(w) / (|g_h| |g_r|)

CIDEr = 10 * mean over n of the mean over references of sim_n; the set's number is the mean over pictures. `tokenize` is a plain
one (words and numbers, punctuation dropped); published numbers use Stanford's PTB tokenizer, so pass its tokens to compare with
those.

METEOR is `training.metrics.meteor`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

_SIGMA = 6.0
_ORDERS = 4

Grams = list[Counter[tuple[str, ...]]]


def tokenize(caption: str) -> list[str]:
    """Lower-case words and numbers, without punctuation."""
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", caption.lower())


def _grams(words: Sequence[str]) -> Grams:
    return [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, _ORDERS + 1)]


def cider(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """CIDEr of each picture's caption.

    Args:
        hypotheses: one list of words a picture.
        references: one or more lists of words a picture.

    Raises:
        ValueError: another number of references than hypotheses, or a picture without any.
    """
    if len(hypotheses) != len(references) or any(not each for each in references):
        raise ValueError("CIDEr: every picture needs one hypothesis and at least one reference")
    of_references = [[_grams(words) for words in each] for each in references]
    frequency = Counter(gram for each in of_references for gram in {g for grams in each for order in grams for g in order})
    log_count = float(np.log(len(references))) if references else 0.0
    idf = {gram: log_count - float(np.log(count)) for gram, count in frequency.items()}

    def vector(grams: Grams) -> list[tuple[dict[tuple[str, ...], float], float]]:
        weighted = [{gram: count * idf.get(gram, log_count) for gram, count in order.items()} for order in grams]
        return [(weights, float(np.sqrt(sum(value * value for value in weights.values())))) for weights in weighted]

    scores = []
    for words, each in zip(hypotheses, of_references, strict=True):
        grams = _grams(words)
        hypothesis, total = vector(grams), 0.0
        for reference_grams in each:
            gap = sum(grams[1].values()) - sum(reference_grams[1].values())
            similarity = 0.0
            for (ours, our_norm), (theirs, their_norm) in zip(hypothesis, vector(reference_grams), strict=True):
                dot = sum(min(value, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, value in ours.items())
                similarity += dot / (our_norm * their_norm) if our_norm and their_norm else dot
            total += similarity * float(np.exp(-(gap**2) / (2.0 * _SIGMA**2)))
        scores.append(10.0 * total / _ORDERS / len(each))
    return scores
