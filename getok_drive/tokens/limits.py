"""`Limits`: how much one scene may hold; shared by the canonical text, the grammar and the parser."""

from __future__ import annotations

from dataclasses import dataclass, fields

from getok_drive.errors import ConfigError
from getok_drive.tokens.vocab import OFFSET_ROUNDS

_LEAST = {"lane_points": 2, "polygon_vertices": 3}
_MOST = {"lane_points": 32, "polygon_vertices": 256}  # 32: a lane along one row of the grid always finds a free cell


@dataclass(frozen=True, slots=True)
class Limits:
    """Greatest numbers of elements and points in one scene; counts, no units.

    Attributes:
        lanes: lane markings, 0..1024.
        lane_points: points of one lane, 2..32.
        polygons: drivable areas, 0..1024.
        polygon_vertices: vertices of one drivable area, 3..256.
        boxes: boxes, 0..1024; the nearest are kept.
        signs: signs and lights, 0..1024.
    """

    lanes: int = 12
    lane_points: int = 16
    polygons: int = 4
    polygon_vertices: int = 32
    boxes: int = 32
    signs: int = 16

    def __post_init__(self) -> None:
        for item in fields(self):
            value, least, most = getattr(self, item.name), _LEAST.get(item.name, 0), _MOST.get(item.name, 1024)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(f"limits.{item.name}: expected a whole number in {least}..{most}, got {value!r}")

    def elements(self, kind: str) -> int:
        """Greatest number of elements of a kind: ``lane``, ``drivable``, ``box`` or ``sign``."""
        return {"lane": self.lanes, "drivable": self.polygons, "box": self.boxes, "sign": self.signs}[kind]

    def points(self, kind: str) -> int:
        """Greatest number of points of one element of a kind."""
        return {"lane": self.lane_points, "drivable": self.polygon_vertices, "box": 2, "sign": 1}[kind]

    @property
    def max_points(self) -> int:
        """Greatest number of points of a whole scene."""
        return sum(self.elements(kind) * self.points(kind) for kind in ("lane", "drivable", "box", "sign"))

    @property
    def max_propose_tokens(self) -> int:
        """Greatest length of a constrained proposal, with ``</scene>`` (a polygon may take back each of its vertices)."""
        heads = 3 * self.lanes + self.polygons + 2 * self.boxes + 3 * self.signs
        return heads + self.max_points + self.polygons * self.polygon_vertices + 1

    def max_refine_tokens(self, rounds: int = OFFSET_ROUNDS) -> int:
        """Greatest length of a constrained refinement turn."""
        return 2 + self.max_points * (1 + rounds)
