"""Every setting of the node, once: ROS parameters, YAML file, JSON schema and README table are made from `NodeParams`.

    python -m getok_drive.ros.params yaml|schema|table      prints the files that the package ships; a test compares them

Free of rclpy, so that the command line and tools can use the same dataclass.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, cast

from getok_drive.errors import ConfigError

KINDS = ("lanes", "drivable", "boxes", "signs")
_MOST_CELLS = 4_000_000  # of drivable_grid: 4 MB a message
_TOPIC = re.compile(r"[~/]?(?:[A-Za-z0-9_/]|\{camera\})+")


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    when: str = "always",
) -> Any:
    """A dataclass field with what ROS, YAML and README say about it.

    Args:
        default: value when nothing is given; its type is the parameter's type (bool, int, float, str or tuple of str).
        description: one sentence.
        unit: of the value; empty for none.
        low: least value of a number.
        high: largest value of a number.
        choices: allowed words; for a tuple, allowed items.
        when: latest lifecycle state in which it may change: ``always``, ``inactive`` (not while active) or ``unconfigured``.
    """
    meta = {"description": description, "unit": unit, "low": low, "high": high, "choices": choices, "when": when}
    return field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True)
class NodeParams:
    """Settings of the perception node; checked on construction, `ConfigError` names the setting and the allowed values."""

    cameras: tuple[str, ...] = setting(
        ("camera",), "Names of the cameras, one to six; they stand in topic names and in Scene.camera.", when="unconfigured"
    )
    image_topic: str = setting("{camera}/image_raw", "Image topic; {camera} becomes each name.", when="unconfigured")
    info_topic: str = setting("{camera}/camera_info", "CameraInfo topic; {camera} becomes each name.", when="unconfigured")
    transport: str = setting(
        "raw", "raw: sensor_msgs/Image; compressed: sensor_msgs/CompressedImage on IMAGE_TOPIC/compressed.",
        choices=("raw", "compressed"), when="unconfigured",
    )  # fmt: skip
    mono16_bits: int = setting(
        16, "Significant bits of 16-bit images (12 for most machine-vision cameras).", unit="bit", low=8, high=16
    )

    bundle: str = setting("nano", "Model bundle: the name of a shipped one or the path of a bundle folder.", when="unconfigured")
    backend: str = setting("onnx", "Inference backend.", when="unconfigured")
    threads: int = setting(0, "CPU threads of the backend; 0 leaves the choice to it.", low=0, high=256, when="unconfigured")

    calibration: str = setting(
        "", "YAML file with camera poses (and intrinsics, if camera_info has none); empty: pixels only.", when="unconfigured"
    )
    ground_frame: str = setting(
        "", "Frame with z=0 on the ground (such as base_footprint): camera poses come from /tf_static; empty: from calibration.",
        when="unconfigured",
    )  # fmt: skip
    max_range_m: float = setting(
        60.0, "Ground points further ahead are left out.", unit="m", low=1.0, high=500.0, when="inactive"
    )

    max_age_s: float = setting(
        0.5, "Images older than this when their turn comes are dropped and counted.", unit="s", low=0.01, high=60.0
    )
    future_tolerance_s: float = setting(
        0.1, "Images stamped further ahead of the node's clock than this are refused.", unit="s", low=0.0, high=60.0
    )
    watchdog_s: float = setting(2.0, "No image for this long is an ERROR diagnostic.", unit="s", low=0.1, high=3600.0)
    slow_warn_ms: float = setting(400.0, "Median processing time above this is a WARN.", unit="ms", low=1.0, high=60000.0)
    slow_error_ms: float = setting(1500.0, "Median processing time above this is an ERROR.", unit="ms", low=1.0, high=60000.0)
    diagnostics_period_s: float = setting(
        1.0, "Time between two messages on /diagnostics.", unit="s", low=0.05, high=60.0, when="unconfigured"
    )

    kinds: tuple[str, ...] = setting(KINDS, "Kinds of elements wanted.", choices=KINDS)
    box_classes: tuple[str, ...] = setting((), "Box classes wanted; empty: all.")
    sign_classes: tuple[str, ...] = setting((), "Sign classes wanted; empty: all.")
    min_confidence: float = setting(
        -1.0, "Elements below this confidence are left out; below 0: as the bundle says for each kind.", low=-1.0, high=1.0
    )
    max_rate_hz: float = setting(
        0.0, "Most images per second and camera that are processed; 0: no limit.", unit="Hz", low=0.0, high=240.0
    )
    patience: float = setting(
        0.3, "Share of the processing time that an image may have waited when its turn comes; beyond it the next image, if it is "
        "due, is waited for: younger scenes, fewer of them. 0: never.", low=0.0, high=10.0,
    )  # fmt: skip
    token_budget: int = setting(0, "Most tokens decoded per image; 0: the decoder's own limit.", unit="token", low=0, high=100000)
    deadline_ms: float = setting(
        0.0, "Decoding stops here and hands over finished elements (truncated); 0: no limit.", unit="ms", low=0.0, high=60000.0
    )

    degrade: str = setting(
        "auto", "When to run in degraded mode; auto: under overload or heat.", choices=("never", "auto", "always")
    )
    degraded_kinds: tuple[str, ...] = setting(("lanes", "drivable", "boxes"), "Kinds kept in degraded mode.", choices=KINDS)
    degraded_token_budget: int = setting(120, "token_budget in degraded mode; 0: unchanged.", unit="token", low=0, high=100000)
    degraded_max_rate_hz: float = setting(5.0, "max_rate_hz in degraded mode; 0: unchanged.", unit="Hz", low=0.0, high=240.0)
    degraded_hold_s: float = setting(
        10.0, "Shortest stay in degraded mode; doubles, up to 16 times this, when the load comes back at once.",
        unit="s", low=0.1, high=3600.0,
    )  # fmt: skip
    hot_c: float = setting(
        95.0,
        "CPU or GPU temperature that counts as heat in degrade=auto (thermal zones of Linux).",
        unit="degC",
        low=20.0,
        high=150.0,
    )

    grid_resolution_m: float = setting(0.2, "Cell size of drivable_grid.", unit="m", low=0.02, high=5.0, when="inactive")
    grid_length_m: float = setting(
        40.0, "Extent of drivable_grid ahead of the ground frame.", unit="m", low=1.0, high=500.0, when="inactive"
    )
    grid_width_m: float = setting(
        20.0, "Extent of drivable_grid to both sides together.", unit="m", low=1.0, high=500.0, when="inactive"
    )
    overlay_quality: int = setting(80, "JPEG quality of overlay/compressed.", low=1, high=100)
    overlay_width_px: int = setting(960, "Largest width of overlay/compressed.", unit="px", low=64, high=8192)

    def __post_init__(self) -> None:
        for info in fields(self):
            object.__setattr__(self, info.name, _checked(info.name, getattr(self, info.name)))
        if not 1 <= len(self.cameras) <= 6 or len(set(self.cameras)) != len(self.cameras):
            raise ConfigError(f"cameras: expected one to six different names, got {list(self.cameras)}")
        for name in self.cameras:
            if not (name.isascii() and name.isidentifier()):
                raise ConfigError(f"cameras: {name!r} must consist of letters, digits and _ (it becomes part of topic names)")
        for name in ("image_topic", "info_topic"):
            if not _TOPIC.fullmatch(getattr(self, name)):
                raise ConfigError(f"{name}: {getattr(self, name)!r} is no topic name; only {{camera}} may stand in braces")
            if len(self.cameras) > 1 and "{camera}" not in getattr(self, name):
                raise ConfigError(f"{name}: with several cameras it must contain {{camera}}, got {getattr(self, name)!r}")
        if self.slow_error_ms < self.slow_warn_ms:
            raise ConfigError(f"slow_error_ms: {self.slow_error_ms} ms is below slow_warn_ms ({self.slow_warn_ms} ms)")

        if self.grid_resolution_m > min(self.grid_length_m, self.grid_width_m):
            raise ConfigError(f"grid_resolution_m: a cell of {self.grid_resolution_m} m is larger than the grid")
        cells = self.grid_length_m / self.grid_resolution_m * self.grid_width_m / self.grid_resolution_m
        if cells > _MOST_CELLS:
            raise ConfigError(
                f"grid_resolution_m: {self.grid_length_m} m x {self.grid_width_m} m in cells of {self.grid_resolution_m} m are "
                f"{cells / 1e6:.0f} million cells, of which {_MOST_CELLS / 1e6:.0f} million are allowed; take larger cells"
            )

    def changed(self, changes: Mapping[str, Any], state: str) -> NodeParams:
        """A copy with ``changes``; raises `ConfigError` for an unknown name, a bad value or a wrong lifecycle ``state``."""
        known = {f.name: f for f in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise ConfigError(f"{name}: no such parameter")
            when = known[name].metadata["when"]
            fixed = (when == "unconfigured" and state != "unconfigured") or (when == "inactive" and state == "active")
            if fixed and _checked(name, value) != getattr(self, name):
                how = "clean up" if when == "unconfigured" else "deactivate"
                raise ConfigError(f"{name}: cannot change while the node is {state}; {how} the node first")
        return replace(self, **changes)


def _checked(name: str, value: Any) -> Any:
    """``value`` in the setting's own type; `ConfigError` when its type, range or words do not fit."""
    info = NodeParams.__dataclass_fields__[name]
    meta, default = info.metadata, info.default
    if isinstance(default, tuple):
        if isinstance(value, str) or not all(isinstance(item, str) for item in value or ()):
            raise ConfigError(f"{name}: expected a list of words, got {value!r}")
        value = tuple(item for item in value or () if item)
        wrong = [item for item in value if meta["choices"] and item not in meta["choices"]]
        if wrong:
            raise ConfigError(f"{name}: {wrong[0]!r} is unknown; use {', '.join(meta['choices'])}")
        return value
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{name}: expected {type(default).__name__}, got {value!r}")
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        low, high = meta["low"], meta["high"]
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise ConfigError(f"{name}: {value} is outside {low}..{high} {meta['unit']}".rstrip())
    if meta["choices"] and value not in meta["choices"]:
        raise ConfigError(f"{name}: {value!r} is unknown; use {', '.join(meta['choices'])}")
    return value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def as_yaml(node: str = "/**") -> str:
    """The parameter file with all defaults; comments give unit, range and meaning."""
    lines = ["# All parameters of the perception node with their defaults. Made by: python -m getok_drive.ros.params yaml",
             f"{node}:", "  ros__parameters:"]  # fmt: skip
    for info in fields(NodeParams):
        assert info.default is not MISSING
        lines.append(f"    # {info.metadata['description']}{_hint(info.metadata)}")
        value = _plain(info.default)
        # An empty list has no type in YAML; ROS wants a list of one empty string, which the node reads as empty.
        lines.append(f"    {info.name}: {json.dumps([''] if value == [] else value)}")
    return "\n".join(lines) + "\n"


def _hint(meta: Mapping[str, Any]) -> str:
    words = []
    if meta["low"] is not None:
        words.append(f"{meta['low']:g}..{meta['high']:g} {meta['unit']}".rstrip())
    if meta["choices"]:
        words.append(" | ".join(meta["choices"]))
    if meta["when"] != "always":
        words.append(f"fixed unless {meta['when']}")
    return f" [{'; '.join(words)}]" if words else ""


def as_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the mapping under ``ros__parameters``."""
    words = {bool: "boolean", int: "integer", float: "number", str: "string"}
    properties: dict[str, Any] = {}
    for info in fields(NodeParams):
        meta, default = info.metadata, info.default
        entry: dict[str, Any] = {"description": meta["description"], "default": _plain(default)}
        if isinstance(default, tuple):
            items: dict[str, Any] = {"type": "string"}
            if meta["choices"]:
                items["enum"] = [*meta["choices"], ""]
            entry |= {"type": "array", "items": items}
        else:
            entry["type"] = words[cast(type, type(default))]
            if meta["choices"]:
                entry["enum"] = list(meta["choices"])
        if meta["low"] is not None:
            entry |= {"minimum": meta["low"], "maximum": meta["high"]}
        if meta["unit"]:
            entry["unit"] = meta["unit"]
        properties[info.name] = entry
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Parameters of the GETok-Drive perception node",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def as_table() -> str:
    """The README's parameter table."""
    rows = ["| parameter | default | unit | range | may change | meaning |", "|---|---|---|---|---|---|"]
    for info in fields(NodeParams):
        meta = info.metadata
        limits = " ".join(f"`{word}`" for word in meta["choices"])
        if meta["low"] is not None:
            limits = f"{meta['low']:g} .. {meta['high']:g}"
        when = {"always": "always", "inactive": "not while active", "unconfigured": "while unconfigured"}[meta["when"]]
        default = json.dumps(_plain(info.default))
        rows.append(f"| `{info.name}` | `{default}` | {meta['unit']} | {limits} | {when} | {meta['description']} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Prints one of the generated files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("yaml", "schema", "table"))
    what = parser.parse_args().what
    text = as_yaml() if what == "yaml" else as_table() if what == "table" else json.dumps(as_schema(), indent=2) + "\n"
    print(text, end="")


if __name__ == "__main__":
    main()
