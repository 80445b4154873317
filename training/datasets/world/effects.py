"""From the level canvas to a photograph: lamps' glow, rain, glare, lens and sensor, bonnet, JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world import textures
from training.datasets.world.canvas import HOOD, ROAD, Canvas
from training.datasets.world.dice import Dice, clamp, pick
from training.datasets.world.kernels.lens import owners_seen
from training.datasets.world.look import Look

U8 = npt.NDArray[np.uint8]
_LEVELS = np.arange(256) / 255.0


@dataclass(slots=True)
class Lens:
    """What camera and car do to the picture; drawn once per scene.

    Attributes:
        exposure, gamma, balance: tone curve per channel; noise: deviation in grey levels; blur_px: at 448 px width.
        motion_px: length of a smear at 448 px width; quality: of JPEG, 0 for none; vignette: darkening of the corners.
        bonnet: height of the own bonnet as a share of the picture, 0 for none; glare: strength of the sun in the lens.
        reflection: of the dashboard in the windscreen; saturation.
    """

    exposure: float
    gamma: float
    balance: tuple[float, float, float]
    noise: float
    blur_px: float
    motion_px: float
    quality: int
    vignette: float
    bonnet: float
    bonnet_bow: float
    bonnet_color: tuple[float, float, float]
    glare: float
    reflection: float
    saturation: float
    seed: int


def sample(rng: Dice, look: Look) -> Lens:
    """A random camera for this light."""
    dark = look.time != "day"
    return Lens(
        exposure=clamp(rng.normal(1.15 if dark else 0.98, 0.16), 0.85 if dark else 0.55, 1.5),
        gamma=clamp(rng.normal(0.92 if dark else 1.18, 0.17), 0.7, 1.05 if dark else 1.65),
        balance=(_balance(rng), _balance(rng), _balance(rng)),
        noise=min(rng.exponential(0.9), 5.0) + (2.0 if dark else 0.3),
        blur_px=pick(rng, [0.0, 0.5, 0.8], [0.65, 0.22, 0.13]),
        motion_px=rng.uniform(2, 6) if rng.random() < 0.1 else 0.0,
        quality=rng.integers(35, 95) if rng.random() < 0.35 else 0,
        vignette=rng.uniform(0.05, 0.4) if rng.random() < 0.5 else 0.0,
        bonnet=rng.uniform(0.02, 0.13) if rng.random() < 0.35 else 0.0, bonnet_bow=rng.uniform(0.1, 0.6),
        bonnet_color=_tinted(rng, rng.uniform(12, 90)),
        glare=rng.uniform(0.3, 1.0) if look.shadow > 0 and rng.random() < 0.3 else 0.0,
        reflection=rng.uniform(0.03, 0.14) if not dark and rng.random() < 0.2 else 0.0,
        saturation=clamp(rng.normal(1.12, 0.22), 0.3, 1.6),
        seed=rng.integers(1 << 31),
    )  # fmt: skip


def _balance(rng: Dice) -> float:
    """White balance of one channel."""
    return clamp(rng.normal(1.0, 0.03), 0.9, 1.1)


def _tinted(rng: Dice, grey: float) -> tuple[float, float, float]:
    """A grey with a cast of colour."""
    return grey * rng.uniform(0.8, 1.2), grey * rng.uniform(0.8, 1.2), grey * rng.uniform(0.8, 1.2)


def glow(canvas: Canvas) -> None:
    """Add halos of lit lamps, on a quarter-size layer."""
    if not canvas.glow:
        return
    height, width = canvas.image.shape[:2]
    small = np.zeros((height // 4 + 1, width // 4 + 1, 3), np.uint8)
    strength = 0.35 if canvas.look.time == "day" else 1.0
    for u, v, radius, color in canvas.glow:
        shade = tuple(c * strength for c in color)
        cv2.circle(small, (int(u * 4), int(v * 4)), max(int(radius * 5), 10), shade, -1, cv2.LINE_AA, 4)
    wide = cv2.blur(small, (9, 9))
    small = cv2.addWeighted(cv2.GaussianBlur(small, (3, 3), 0), 0.55, wide, 0.8, 0)
    cv2.add(canvas.image, cv2.resize(small, (width, height)), dst=canvas.image)


def wet(canvas: Canvas) -> None:
    """Mirror what stands above the horizon in the wet road, smeared down the picture."""
    top = canvas.view.horizon
    ground = canvas.image[top:]
    height, width = ground.shape[:2]
    if top < 8 or height < 8:
        return
    small = cv2.resize(canvas.image[top - 1 :: -1], (width // 3, height // 6 + 2), interpolation=cv2.INTER_AREA)
    above = cv2.resize(cv2.blur(small, (1, 5)), (width, height))
    mirrored = cv2.addWeighted(ground, 0.64, above, 0.36, 0)
    cv2.copyTo(mirrored, cv2.inRange(canvas.owner[top:], ROAD, ROAD), ground)


def _bonnet(lens: Lens, image: U8, owner: U8, look: Look) -> None:
    height, width = image.shape[:2]
    x = np.linspace(-1.02, 1.02, 24)
    y = height * (1 - lens.bonnet * (1 - lens.bonnet_bow * np.abs(x) ** 2.5))
    outline = np.column_stack([(x + 1) / 2 * width, y])
    shape = np.concatenate([outline, [(width * 1.1, height * 1.1), (-width * 0.1, height * 1.1)]])
    gain = np.mean(look.ambient)
    color = tuple(c * gain for c in lens.bonnet_color)
    cv2.fillPoly(image, [np.round(shape * 16).astype(np.int32)], color, cv2.LINE_AA, 4)
    cv2.fillPoly(owner, [np.round(shape * 16).astype(np.int32)], HOOD, cv2.LINE_8, 4)
    shine = tuple(min(c + 70 * gain, 255) for c in color)
    for offset, share in ((0.25, 0.6), (0.55, 0.3)):
        edge = outline + np.array((0.0, height * lens.bonnet * offset))
        shade = tuple(c + (s - c) * share for c, s in zip(color, shine, strict=True))
        cv2.polylines(image, [np.round(edge * 16).astype(np.int32)], False, shade, max(1, height // 120), cv2.LINE_AA, 4)


def develop(canvas: Canvas, lens: Lens, stream: int) -> tuple[U8, U8]:
    """The photograph and the picture of who owns its pixels."""
    look, camera = canvas.look, canvas.view.camera
    width, height = camera.size_wh
    maps = camera.maps()
    four = cv2.cvtColor(canvas.image, cv2.COLOR_BGR2BGRA)  # OpenCV warps four channels in half the time of three
    four = cv2.remap(four, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image = cv2.cvtColor(four, cv2.COLOR_BGRA2BGR)
    owner: U8 = owners_seen(canvas.owner, maps)
    rng = Dice(lens.seed, stream)
    scale = width / 448
    if look.weather in ("rain", "snow"):
        image = _falling(image, rng, look.weather == "snow", scale)
    if lens.bonnet:
        _bonnet(lens, image, owner, look)
    if lens.motion_px:
        length = max(round(lens.motion_px * scale), 1)
        image = cv2.blur(image, (length, 1) if lens.seed % 2 else (1, max(length // 2, 1)))
    if lens.blur_px:
        image = cv2.GaussianBlur(image, (0, 0), lens.blur_px * scale)
    image = _light(image, lens, canvas)
    if lens.noise > 0.8:
        grain = textures.grain(width, height)
        x, y = rng.generator.integers(0, 128, 2)
        cv2.addWeighted(image, 1.0, grain[y : y + height, x : x + width], lens.noise / 32, -lens.noise * 4, dst=image)
    if lens.quality:
        ok, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, lens.quality))
        if ok:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return image, owner


@lru_cache(maxsize=8)
def _corners(width: int, height: int) -> npt.NDArray[np.float32]:
    """How far out each pixel lies: 0 in the middle, 1 in the corners."""
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    return np.asarray((((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2) ** 1.3)


def _light(image: U8, lens: Lens, canvas: Canvas) -> U8:
    """Glare, windscreen reflection, vignette, saturation and tone curve."""
    height, width = image.shape[:2]
    small_wh = (width // 8 + 1, height // 8 + 1)
    if lens.glare or lens.reflection:
        y, x = np.arange(small_wh[1], dtype=np.float32)[:, None], np.arange(small_wh[0], dtype=np.float32)[None]
        layer = np.zeros((small_wh[1], small_wh[0], 3), np.float32)
        if lens.glare:
            azimuth, elevation = canvas.look.sun
            turn = (azimuth - canvas.view.heading + np.pi) % (2 * np.pi) - np.pi
            u = (canvas.view.cx - np.tan(np.clip(turn, -1.3, 1.3)) * canvas.view.f) / 8
            v = (canvas.view.horizon - np.tan(min(elevation, 0.6)) * canvas.view.f) / 8
            if abs(turn) < 1.2:
                distance = np.hypot(x - u, y - v) / small_wh[0]
                layer += (lens.glare * (250 * np.exp(-((distance / 0.06) ** 2)) + 90 * np.exp(-distance / 0.22)))[..., None] * (
                    0.88,
                    0.97,
                    1.0,
                )
        if lens.reflection:
            layer += (lens.reflection * 255 * np.clip(y / small_wh[1] - 0.25, 0, 1) * (0.8 + 0.3 * np.sin(x / 5 + y / 9)))[
                ..., None
            ]
        image = cv2.add(image, cv2.resize(np.clip(layer, 0, 255).astype(np.uint8), (width, height)))
    if lens.vignette:
        gain = np.maximum(255 * (1 - lens.vignette * _corners(*small_wh)), 0).astype(np.uint8)
        gain = cv2.cvtColor(cv2.resize(gain, (width, height)), cv2.COLOR_GRAY2BGR)
        image = cv2.multiply(image, gain, scale=1 / 255)
    k = lens.saturation
    mix = k * np.eye(3) + (1 - k) * np.array((0.114, 0.587, 0.299))
    image = cv2.transform(image, np.array(lens.balance)[:, None] * mix)
    curve = _LEVELS * lens.exposure
    curve = np.minimum(curve, 0.75 + np.maximum(curve - 0.75, 0) * 0.7)  # soft shoulder
    table = np.minimum(255 * curve**lens.gamma, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table))


def _falling(image: U8, rng: Dice, snow: bool, scale: float) -> U8:
    """Rain streaks or snow flakes, and a few drops on the windscreen."""
    height, width = image.shape[:2]
    layer = np.zeros_like(image)
    count = rng.integers(30, 140)
    slant = rng.normal(0, 0.15)
    xy = rng.random((count, 2)) * (width, height)
    length = rng.generator.uniform(4, 14, count) * scale
    shade = rng.uniform(30, 75)
    if snow:
        for (x, y), r in zip(xy.tolist(), (rng.generator.uniform(0.4, 1.5, count) * scale).tolist(), strict=True):
            cv2.circle(layer, (int(x * 16), int(y * 16)), int(r * 16), (190, 190, 190), -1, cv2.LINE_AA, 4)
    else:
        ends = xy + np.column_stack([slant * length, length])
        streaks = np.round(np.stack([xy, ends], 1) * 16).astype(np.int32)
        cv2.polylines(layer, list(streaks), False, (shade, shade, shade), 1, cv2.LINE_AA, 4)
    image = cv2.add(image, layer)
    if not snow:
        for _ in range(rng.integers(0, 7)):
            r = max(1, int(rng.uniform(4, 12) * scale))
            x, y = rng.integers(r, width - r), rng.integers(r, height - r)
            area = image[y - r : y + r, x - r : x + r]
            mask = np.zeros(area.shape[:2], np.uint8)
            cv2.circle(mask, (r, r), r - 1, 255, -1)
            cv2.copyTo(cv2.blur(area, (2 * (r // 2) + 1, 2 * (r // 2) + 1)), mask, area)
    return image
