"""A procedural driving world: seeded, endless images with perfect labels.

`render` makes one still frame, `Drive` a continuous drive. The same seed gives the same bytes on the same library versions.
"""

from __future__ import annotations

from training.datasets.world import scene
from training.datasets.world.drive import Drive
from training.samples import Sample

TEST_SEEDS = range(500)
VAL_SEEDS = range(1000, 1500)
TRAIN_SEEDS = range(1_000_000, 1_000_000_000)


def render(seed: int, size_wh: tuple[int, int] = (448, 252), *, masks: bool = False, crowded: bool = False) -> Sample:
    """One still frame with its labels.

    Args:
        seed: the scene; see `TRAIN_SEEDS`, `VAL_SEEDS`, `TEST_SEEDS`.
        size_wh: image size, pixels, at least 64x36; the scene does not depend on it.
        masks: also fill ``masks["semantic"]`` and ``masks["instance"]``.
        crowded: the same scene with more people, riders, big vehicles, obstacles and signs in it, for training (`crowd`).

    Returns:
        The sample; every kind is labelled.

    Raises:
        ValueError: negative seed or an image too small.
    """
    if seed < 0:
        raise ValueError(f"world: the seed must not be negative, got {seed}")
    return scene.picture(scene.create(seed, crowded=crowded), size_wh, masks)


__all__ = ["TEST_SEEDS", "TRAIN_SEEDS", "VAL_SEEDS", "Drive", "render"]
