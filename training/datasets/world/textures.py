"""Noise pictures, made once per process and tiled without a seam; all deterministic."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

ATLAS_PX = 512


@lru_cache(maxsize=16)
def fractal(seed: int, beta: float, size: int = ATLAS_PX) -> F32:
    """Tileable ``(size, size)`` noise of power spectrum ``1 / f**(2 beta)``, zero mean, unit deviation."""
    rng = np.random.Generator(np.random.PCG64(seed))
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(spectrum / frequency**beta, s=(size, size))
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)


def to_gain(field: F32, contrast: float) -> U8:
    """Noise as a gain picture: 128 is 1.0."""
    return np.clip(128 * (1 + contrast * field), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def asphalt() -> U8:
    """Gain of a paved surface: grain, blotches, cracks and sealed patches; one texel is 3 cm."""
    rng = np.random.Generator(np.random.PCG64(11))
    picture = to_gain(0.032 * fractal(1, 0.1) + 0.055 * fractal(2, 1.2), 1.0)
    for _ in range(7):
        x, y, w, h = rng.integers(0, ATLAS_PX, 2).tolist() + rng.integers(20, 90, 2).tolist()
        shade = float(rng.uniform(0.8, 1.12))
        picture[y : y + h, x : x + w] = np.clip(picture[y : y + h, x : x + w] * shade, 0, 255).astype(np.uint8)
    for _ in range(9):
        walk = np.cumsum(rng.normal(0, 4, (40, 2)) + rng.normal(0, 3, 2), axis=0) + rng.integers(0, ATLAS_PX, 2)
        layer = np.full_like(picture, 128)
        cv2.polylines(layer, [np.round(walk * 16).astype(np.int32)], False, 104, 1, cv2.LINE_AA, 4)
        picture = cv2.multiply(picture, layer, scale=1 / 128)
    return picture


@lru_cache(maxsize=1)
def terrain() -> U8:
    """Gain of grass and soil: strong clumps."""
    return to_gain(0.09 * fractal(3, 0.4) + 0.1 * fractal(4, 1.1), 1.0)


@lru_cache(maxsize=1)
def blotches() -> U8:
    """Soft blobs over the whole range 0..255: wear of paint, puddles, dapples of light."""
    return np.clip(128 + 62 * fractal(5, 1.0), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def clouds() -> U8:
    """Cloud density 0..255."""
    return np.clip(128 + 55 * fractal(6, 1.7), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def foliage() -> U8:
    """Gain of leaves: dark holes between bright tufts."""
    return np.clip(128 + 34 * fractal(7, 0.35) + 26 * fractal(8, 1.0), 20, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def grain(width: int, height: int) -> U8:
    """Sensor noise around 128, deviation 32, slightly correlated between channels and neighbours: ``(2 h, 2 w, 3)`` at most."""
    rng = np.random.Generator(np.random.PCG64(21))
    luma = rng.standard_normal((height + 128, width + 128, 1), dtype=np.float32)
    chroma = rng.standard_normal((height + 128, width + 128, 3), dtype=np.float32)
    mixed = cv2.GaussianBlur(0.75 * luma + 0.65 * chroma, (3, 3), 0.55)
    return np.clip(128 + 32 * mixed / mixed.std(), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def skyline_noise() -> F32:
    """Periodic 1-D rough curve of 4096 samples over the full turn, unit deviation: hills and tree lines."""
    rng = np.random.Generator(np.random.PCG64(31))
    spectrum = np.fft.rfft(rng.standard_normal(4096))
    frequency = np.fft.rfftfreq(4096) * 4096
    frequency[0] = np.inf
    field = np.fft.irfft(spectrum / frequency**0.9, 4096)
    return np.asarray(field / field.std(), dtype=np.float32)
