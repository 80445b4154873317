"""Curves given by points, as `numpy.interp` reads them, to the same bits."""

from __future__ import annotations

import numpy as np

from training.datasets.world.kernels import compiled


@compiled
def value(at, xs, ys, guess):  # type: ignore[no-untyped-def]
    """``ys`` at one place, and the index of the last of the rising ``xs`` that is not beyond it: a guess for the next place."""
    last = len(xs) - 1
    if at >= xs[last]:
        return ys[last], last
    if at < xs[0]:
        return ys[0], 0
    i = guess
    while xs[i] > at:
        i -= 1
    while xs[i + 1] <= at:
        i += 1
    if xs[i] == at:
        return ys[i], i
    return (ys[i + 1] - ys[i]) / (xs[i + 1] - xs[i]) * (at - xs[i]) + ys[i], i


@compiled
def interp(at, xs, ys):  # type: ignore[no-untyped-def]
    """``ys`` at the places ``at`` of a curve over rising ``xs``; fastest where neighbours of ``at`` are near each other."""
    found = np.empty(len(at))
    guess = 0
    for i in range(len(at)):
        found[i], guess = value(at[i], xs, ys, guess)
    return found
