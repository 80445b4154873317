"""Light and weather of a scene, and how far away things fade."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.datasets.world.dice import Dice, clamp, pick

Bgr = tuple[float, float, float]


@dataclass(slots=True)
class Look:
    """The picture's mood.

    Attributes:
        time: ``day``, ``dusk``, ``night``; weather: ``clear``, ``cloudy``, ``overcast``, ``rain``, ``fog``, ``snow``.
        surface: one of ``SURFACE_CONDITIONS``.
        sun: world azimuth and elevation, radians; shadow: 0..1, how dark cast shadows are.
        ambient: gain of everything at night or dusk, BGR; beam: strength of the own headlights.
        haze: colour that far things fade to; visibility_m: distance of 37 % contrast.
        sky_top, sky_low: gradient; cloud: 0..1 cover.
        asphalt, grass, dry, dirt, pavement: base colours, BGR 0..255.
    """

    time: str
    weather: str
    surface: str
    sun: tuple[float, float]
    shadow: float
    ambient: Bgr
    beam: float
    haze: Bgr
    visibility_m: float
    sky_top: Bgr
    sky_low: Bgr
    cloud: float
    materials: dict[str, Bgr]

    @property
    def see_m(self) -> float:
        """Distance beyond which not even paint can be made out."""
        return min(self.visibility_m * 1.9, 75.0 + 35 * self.beam if self.time == "night" else 1e9)

    def shade(self, x: float, y: float = 0.0, lamp: float = 1.0) -> tuple[Bgr, Bgr]:
        """Gain and offset for the colour of a thing ``x`` metres ahead, ``y`` to the left; ``lamp`` > 1 reflects headlights."""
        clear = math.exp(-max(x, 0.0) / self.visibility_m)
        lit = self.beam_at(x, y) * lamp if self.beam > 0 else 0.0
        a, h, dim = self.ambient, self.haze, 1 - clear
        return ((a[0] + lit) * clear, (a[1] + lit) * clear, (a[2] + lit) * clear), (h[0] * dim, h[1] * dim, h[2] * dim)

    def beam_at(self, x: float, y: float) -> float:
        """Light of the own headlights, relative to daylight."""
        if self.beam <= 0:
            return 0.0
        return self.beam * math.exp(-x / 28.0 - (y / (2.5 + 0.22 * max(x, 0.0))) ** 2)


def _mix(a: Bgr, b: Bgr, t: float) -> Bgr:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t


def sample(rng: Dice, kind: str) -> Look:
    """A random light and weather for a road of this kind."""
    time = pick(rng, ["day", "dusk", "night"], [0.8, 0.07, 0.13])
    weather = pick(rng, ["clear", "cloudy", "overcast", "rain", "fog", "snow"], [0.4, 0.21, 0.2, 0.1, 0.05, 0.04])
    surface = {"rain": "wet", "snow": "snowy"}.get(weather, "wet" if rng.random() < 0.05 else "dry")
    if kind == "unpaved":
        surface = "unpaved"
    sunny = weather in ("clear", "cloudy") and time == "day"
    elevation = math.radians(rng.uniform(14, 65) if time == "day" else 8)
    azimuth = rng.uniform(-math.pi, math.pi)
    shadow = rng.uniform(0.35, 0.68) if sunny else 0.0
    tint = rng.uniform(0, 1)
    if weather == "clear":
        top, low = _mix((150, 95, 45), (235, 185, 130), tint), _mix((225, 195, 160), (245, 240, 235), rng.random())
    elif weather == "cloudy":
        top, low = _mix((190, 140, 90), (225, 190, 150), tint), (238, 232, 225)
    else:
        top = _mix((150, 145, 140), (250, 250, 248), tint)
        low = _mix(top, (240, 240, 240), 0.5)
    haze = _mix(low, (235, 220, 205), 0.4)
    visibility = rng.uniform(500, 2500)
    if weather == "fog":
        visibility = rng.uniform(35, 150)
        top = low = haze = _mix((165, 163, 160), (225, 224, 222), tint)
    elif weather in ("rain", "snow"):
        visibility = rng.uniform(120, 600)
    ambient: Bgr = (1.0, 1.0, 1.0)
    beam = 0.0
    if weather in ("overcast", "rain", "fog"):
        ambient = _mix((0.75, 0.72, 0.7), (1.0, 1.0, 1.0), rng.random())
    if time == "dusk":
        g = rng.uniform(0.3, 0.6)
        ambient, beam = (g * 1.05, g * 0.97, g), 0.15
        top, low = _mix((120, 80, 55), (90, 60, 50), tint), _mix((150, 160, 205), (120, 150, 230), rng.random())
        haze = _mix(low, (140, 120, 110), 0.5)
    elif time == "night":
        g = rng.uniform(0.04, 0.22)
        ambient, beam = (g, g * 1.0, g * 1.15), rng.uniform(0.75, 1.4)
        top, low = (12, 7, 6), _mix((18, 14, 12), (35, 40, 55), rng.random())
        haze = _mix(low, (40, 38, 36), 0.4)
    return Look(
        time=time, weather=weather, surface=surface, sun=(azimuth, elevation), shadow=shadow, ambient=ambient, beam=beam,
        haze=haze, visibility_m=visibility, sky_top=top, sky_low=low,
        cloud=rng.uniform(0.3, 0.9) if weather == "cloudy" else rng.uniform(0, 0.35) * (weather == "clear"),
        materials=_materials(rng, surface),
    )  # fmt: skip


def _materials(rng: Dice, surface: str) -> dict[str, Bgr]:
    def vary(color: Bgr, by: float = 0.12) -> Bgr:
        """The colour lighter or darker, with a slight tint."""
        gain = clamp(1 + rng.normal(0, by), 0.55, 1.5)
        return tuple(clamp(c * gain * (1 + rng.normal(0, 0.03)), 8, 250) for c in color)  # type: ignore[return-value]

    grey = clamp(rng.normal(106, 24), 58, 168)
    asphalt: Bgr = (grey + rng.normal(1.0, 3.0), grey + rng.normal(0.0, 3.0), grey + rng.normal(-1.5, 3.0))
    found = {
        "road": asphalt,
        "shoulder": _mix(asphalt, vary((120, 120, 122)), rng.uniform(0, 0.7)),
        "parking": _mix(asphalt, vary((105, 105, 105)), rng.uniform(0, 0.5)),
        "pavement": vary((138, 141, 145)),
        "grass": vary((52, 98, 88)),
        "dry": vary((100, 145, 168)),
        "dirt": vary((105, 125, 140)),
        "kerb": vary((165, 167, 170)),
    }
    if surface == "wet":
        found |= {k: tuple(c * 0.68 for c in found[k]) for k in ("road", "shoulder", "parking", "pavement")}  # type: ignore
    elif surface == "snowy":
        snow = (238.0, 232.0, 228.0)
        found |= {k: _mix(found[k], snow, t) for k, t in (("grass", 0.9), ("dry", 0.9), ("dirt", 0.8), ("pavement", 0.7))}
        found |= {k: _mix(found[k], snow, rng.uniform(0.2, 0.5)) for k in ("road", "shoulder", "parking")}
    elif surface == "unpaved":
        found["road"] = vary((110, 140, 165))
    return found
