"""Classification of given regions (the paper's table 4): accuracy, per class, balanced, and the confusion matrix.

Definition. With C[i, j] the number of cases of class i that were answered j (the last column: no valid answer, which counts as
wrong): accuracy = sum_i C[i, i] / sum C; recall of class i = C[i, i] / sum_j C[i, j]; precision of class j = C[j, j] / sum_i
C[i, j]; balanced accuracy = mean recall over the classes that occur.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.metrics.intervals import ratio

FloatArray = npt.NDArray[np.float64]


def confusion_row(truth: str, answer: str | None, classes: Sequence[str]) -> FloatArray:
    """One case's flattened confusion matrix ``(K * (K + 1),)``: a single one. An answer outside ``classes`` is none."""
    matrix = np.zeros((len(classes), len(classes) + 1))
    matrix[classes.index(truth), classes.index(answer) if answer in classes else len(classes)] = 1.0
    return matrix.ravel()


def confusion(rows: FloatArray) -> FloatArray:
    """``(..., K, K + 1)`` from summed rows ``(..., K * (K + 1))``."""
    count = int(np.sqrt(rows.shape[-1] + 0.25))  # K * (K + 1) = n
    return rows.reshape(*rows.shape[:-1], count, count + 1)


def accuracy(rows: FloatArray) -> FloatArray:
    """Share of right answers."""
    matrix = confusion(rows)
    return ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def recalls(rows: FloatArray) -> FloatArray:
    """Recall of each class, ``(..., K)``; NaN for classes that do not occur."""
    matrix = confusion(rows)
    return ratio(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1))


def precisions(rows: FloatArray) -> FloatArray:
    """Precision of each class, ``(..., K)``; NaN for classes that were never answered."""
    matrix = confusion(rows)
    return ratio(np.diagonal(matrix, axis1=-2, axis2=-1), matrix[..., :-1].sum(axis=-2))


def balanced_accuracy(rows: FloatArray) -> FloatArray:
    """Mean recall over the classes that occur."""
    each = recalls(rows)
    present = np.isfinite(each)
    return ratio(np.where(present, each, 0.0).sum(axis=-1), present.sum(axis=-1))
