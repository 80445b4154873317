"""One kind of record for everything that stands on or beside the road."""

from __future__ import annotations

from dataclasses import dataclass

Bgr = tuple[float, float, float]


@dataclass(slots=True)
class Thing:
    """A thing at road coordinates ``(s, d)``.

    Attributes:
        art: how it is drawn: ``vehicle``, ``person``, ``rider``, ``obstacle``, ``sign``, ``tree``, ``bush``, ``building``,
            ``wall``, ``rail``, ``fence``, ``lamp``, ``mast``, ``gantry``, ``bridge``.
        s, d: metres along and to the left, at time 0; heading: relative to the road, radians.
        size_m: length, width, height.
        label: box or sign class, empty for scenery; color_name: a sign's colour.
        model: vehicle or obstacle name; index: variant; scale: of a vehicle.
        speed: metres per second along ``s`` (negative comes towards ego); drift: along ``d``.
        base_m: height of a sign's lower edge above the ground.
        color: of scenery; seed: for the vehicle's paint; braking: its brake lamps are lit.
        blockage: of a static obstacle.
        track: number that stays with the thing through a drive.
    """

    art: str
    s: float
    d: float
    size_m: tuple[float, float, float]
    label: str = ""
    color_name: str = ""
    model: str = ""
    index: int = 0
    scale: float = 1.0
    heading: float = 0.0
    speed: float = 0.0
    drift: float = 0.0
    base_m: float = 0.0
    color: Bgr = (128.0, 128.0, 128.0)
    seed: int = 0
    braking: bool = False
    flip: bool = False
    blockage: str = ""
    track: int = 0

    def at(self, time_s: float) -> tuple[float, float]:
        """``(s, d)`` at a time."""
        return self.s + self.speed * time_s, self.d + self.drift * time_s


@dataclass(slots=True)
class Spot:
    """Where a thing stands as seen by the camera: level frame, metres and radians.

    Attributes:
        x, y: forward and left; z: of the ground; bearing: of the road there; clip: lowest canvas row not hidden by a crest.
    """

    x: float
    y: float
    z: float
    bearing: float
    clip: float
