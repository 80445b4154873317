"""One dataclass, four appearances: ROS parameters, YAML, schema and README agree."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from getok_drive.errors import ConfigError
from getok_drive.ros.params import NodeParams, as_schema, as_table, as_yaml

PACKAGE = Path(__file__).parents[2] / "ros2_ws/src/getok_drive"


def test_shipped_files_are_the_generated_ones() -> None:
    hint = "make it again: python -m getok_drive.ros.params"
    assert (PACKAGE / "config/perception.yaml").read_text() == as_yaml(), hint
    assert json.loads((PACKAGE / "config/perception.schema.json").read_text()) == as_schema(), hint
    assert as_table() in (PACKAGE / "README.md").read_text(), hint


def test_yaml_gives_back_the_defaults() -> None:
    values = yaml.safe_load(as_yaml())["/**"]["ros__parameters"]
    assert NodeParams(**values) == NodeParams()


def test_no_word_means_something_else_in_yaml() -> None:
    """``-p degrade:=off`` would reach the node as false."""
    for info in fields(NodeParams):
        for word in info.metadata["choices"]:
            assert yaml.safe_load(word) == word, f"{info.name}: {word}"


def test_schema_accepts_the_yaml_and_refuses_mistakes() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    values = yaml.safe_load(as_yaml())["/**"]["ros__parameters"]
    jsonschema.validate(values, as_schema())
    for wrong in ({"max_age_s": -1.0}, {"transport": "carrier pigeon"}, {"kinds": ["cats"]}, {"max_age": 1.0}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**values, **wrong}, as_schema())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_age_s": 0.0}, "max_age_s: 0.0 is outside 0.01..60.0 s"),
        ({"max_age_s": float("nan")}, "outside"),
        ({"max_age_s": "long"}, "expected float"),
        ({"token_budget": 1.5}, "expected int"),
        ({"transport": "tcp"}, "raw, compressed"),
        ({"kinds": ("lanes", "cats")}, "'cats' is unknown"),
        ({"kinds": "lanes"}, "list of words"),
        ({"cameras": ()}, "one to six"),
        ({"cameras": tuple("abcdefg")}, "one to six"),
        ({"cameras": ("a", "a")}, "different"),
        ({"cameras": ("front left",)}, "letters"),
        ({"cameras": ("a", "b"), "image_topic": "image"}, "must contain"),
        ({"image_topic": "{cam}/image_raw"}, "only {camera} may stand in braces"),
        ({"info_topic": "{camera/info"}, "is no topic name"),
        ({"image_topic": ""}, "is no topic name"),
        ({"grid_resolution_m": 0.02, "grid_length_m": 500.0, "grid_width_m": 500.0}, "625 million cells"),
        ({"grid_resolution_m": 5.0, "grid_width_m": 2.0}, "larger than the grid"),
        ({"slow_warn_ms": 500.0, "slow_error_ms": 400.0}, "below slow_warn_ms"),
    ],
)
def test_bad_values_are_refused_by_name(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        NodeParams(**changes)


def test_changes_depend_on_the_lifecycle_state() -> None:
    params = NodeParams()
    assert params.changed({"max_age_s": 1.0}, "active").max_age_s == 1.0
    assert params.changed({"bundle": "other"}, "unconfigured").bundle == "other"
    assert params.changed({"grid_width_m": 5}, "inactive").grid_width_m == 5.0
    assert params.changed({"bundle": params.bundle}, "active") == params  # the same value again is no change
    with pytest.raises(ConfigError, match="clean up the node first"):
        params.changed({"bundle": "other"}, "inactive")
    with pytest.raises(ConfigError, match="deactivate the node first"):
        params.changed({"grid_width_m": 5.0}, "active")
    with pytest.raises(ConfigError, match="no such parameter"):
        params.changed({"max_age": 1.0}, "active")


def test_every_setting_is_described() -> None:
    for info in fields(NodeParams):
        assert len(info.metadata["description"]) > 10, info.name
        assert (info.metadata["low"] is None) == (info.metadata["high"] is None), info.name
        unit = info.metadata["unit"]
        suffix = {"_s": "s", "_ms": "ms", "_m": "m", "_hz": "Hz", "_px": "px", "_c": "degC"}
        for ending, want in suffix.items():
            if info.name.endswith(ending) and isinstance(info.default, (int, float)):
                assert unit == want, info.name
