"""JSON values as dataclasses, strictly: every field there, no other, each of its type."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from typing import Any, TypeVar

from getok_drive.errors import BundleError

_T = TypeVar("_T")


def read_dataclass(expected: type[_T], value: Any, where: str) -> _T:
    """``value`` as a dataclass, checked field by field: all fields, no others, of their types; nested as the hints say.

    Args:
        expected: the dataclass; its fields are numbers, texts, tuples or dictionaries of one type, or dataclasses.
        value: what a JSON reader gave.
        where: how the value is called in messages.

    Raises:
        BundleError: names the field.
    """
    if not isinstance(value, dict):
        raise BundleError(f"{where}: expected an object, got {_short(value)}")
    hints = typing.get_type_hints(expected)
    names = [item.name for item in dataclasses.fields(expected)]  # type: ignore[arg-type]
    if missing := [name for name in names if name not in value]:
        raise BundleError(f"{where}.{missing[0]} is missing")
    if unknown := [name for name in value if name not in names]:
        raise BundleError(f"{where}.{unknown[0]} is unknown to this version")
    return expected(**{name: _value(hints[name], value[name], f"{where}.{name}") for name in names})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return read_dataclass(typing.cast(type, hint), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint in (int, str) and type(value) is hint:
        return value
    kind = getattr(hint, "__name__", str(hint)) if origin is None else origin.__name__
    raise BundleError(f"{where}: expected {kind}, got {_short(value)}")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
