"""Names that people give to things, in the words of the token table.

For formats whose class names are free (COCO, CVAT, Datumaro, Pascal VOC). Data sets with a fixed list of classes have their own
table in their own file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from getok_drive.tokens.vocab import BOX_CLASSES, LANE_COLORS, LANE_TYPES, SIGN_CLASSES, SIGN_COLORS


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a class name means here.

    Attributes:
        kind: ``lanes``, ``drivable``, ``boxes`` or ``signs``.
        word: class of a box or sign, type of a lane line, empty for drivable areas.
        color: colour of a sign or lane line where the name says it; else empty.
    """

    kind: str
    word: str = ""
    color: str = ""


SIGN_COLOR = {
    "stop": "red", "yield": "red", "speed_limit": "white", "prohibition": "red", "warning": "yellow", "mandatory": "blue",
    "direction": "blue", "crosswalk": "blue", "traffic_light": "black",
}  # fmt: skip
"""The usual colour of each sign, as the driving world paints it; ``black`` for a light whose lamp is not known."""

_BOXES = {
    "car": "car van suv pickup taxi minivan jeep sedan caravan autorickshaw auto_rickshaw automobile",
    "truck": "lorry trailer heavy_truck",
    "bus": "coach minibus",
    "two_wheeler": "motorcycle motorbike bicycle bike motor cyclist rider bicyclist scooter motorcyclist motorcycle_scooter",
    "pedestrian": "person people child pedestrians person_sitting",
    "cone": "traffic_cone trafficcone",
    "barrier": "guard_rail_end water_barrier road_block",
    "debris": "obstacle tyre tire rubble",
    "fallen_tree": "tree_on_road",
    "works": "roadworks construction works_site construction_vehicle",
}
_SIGNS = {
    "stop": "stop_sign stopsign",
    "yield": "give_way giveway yield_sign",
    "speed_limit": "speedlimit speed_limit_sign",
    "prohibition": "no_entry do_not_enter prohibitory",
    "warning": "danger caution warning_sign",
    "mandatory": "mandatory_sign",
    "direction": "guide direction_sign",
    "crosswalk": "crosswalk_sign pedestrian_crossing_sign",
    "traffic_light": "trafficlight traffic_lights traffic_signal",
}
_DRIVABLE = "drivable drivable_area drivablearea road carriageway free_space freespace driveable driveable_area road_surface"
_LANES = "lane lanes lane_line laneline lane_marking lane_divider marking lane_boundary line"


def _table() -> dict[str, Meaning]:
    table: dict[str, Meaning] = {}
    for word in BOX_CLASSES:
        for name in (word, *_BOXES[word].split()):
            table[name] = Meaning("boxes", word)
    for word in SIGN_CLASSES:
        for name in (word, *_SIGNS[word].split()):
            table[name] = Meaning("signs", word, SIGN_COLOR[word])
    for color in ("red", "yellow", "green"):
        table[f"traffic_light_{color}"] = Meaning("signs", "traffic_light", color)
        table[f"{color}_light"] = Meaning("signs", "traffic_light", color)
    table |= {name: Meaning("drivable") for name in _DRIVABLE.split()}
    table |= {name: Meaning("lanes") for name in _LANES.split()}
    for kind in LANE_TYPES:
        table[f"{kind}_line"] = table[f"{kind}_lane"] = Meaning("lanes", kind)
        for color in LANE_COLORS:
            for name in (f"{kind}_{color}", f"{color}_{kind}", f"{kind}_{color}_line", f"{color}_{kind}_line"):
                table[name] = Meaning("lanes", kind, color)
    return table


MEANINGS = _table()


def meaning_of(name: str) -> Meaning | None:
    """What a free class name means, or None when it is nothing that this project labels.

    Upper case, spaces, hyphens and slashes make no difference: ``Traffic-Light`` is ``traffic_light``.
    """
    return MEANINGS.get(re.sub(r"[\s/\-.]+", "_", name.strip().lower()))


def sign_color(given: str | None, fallback: str) -> str:
    """A colour word of the token table: the given one if it is one, else ``fallback``."""
    word = (given or "").strip().lower()
    return word if word in SIGN_COLORS else fallback
