"""What a step's rewards say about the run: their mean and spread, and how much the groups have to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def reward_statistics(rewards: Sequence[dict[str, float]], overall: npt.NDArray[np.float64]) -> dict[str, float]:
    """Mean and deviation of each reward over all answers (NaN left out), and how much the groups have to learn from.

    Args:
        rewards: of each answer.
        overall: ``(B, G)``.
    """
    result: dict[str, float] = {}
    for name in rewards[0]:
        values = np.array([reward[name] for reward in rewards])
        finite = values[np.isfinite(values)]
        result[f"reward/{name}"] = float(finite.mean()) if len(finite) else float("nan")
        result[f"reward/{name}_spread"] = float(finite.std()) if len(finite) else float("nan")
    deviations = overall.std(axis=1)
    result["group_spread"] = float(deviations.mean())
    result["zero_variance_groups"] = float((deviations <= 1e-9).mean())
    return result
