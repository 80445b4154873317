"""What the options of ``python -m training.export`` say that go by kind of element."""

from __future__ import annotations

import json
from pathlib import Path

from getok_drive.bundle import CalibrationSpec
from getok_drive.errors import ConfigError
from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.vocab import OFFSET_ROUNDS


def read_calibration(path: Path) -> dict[str, CalibrationSpec]:
    """A calibration: what ``python -m training.evaluate --fit-calibration`` wrote, one for all kinds or one for each; or a
    bundle's, from its ``contract.json``.

    Raises:
        ConfigError: on another content.
    """
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
        record = dict(record.get("calibration", record))
        each = record if "temperature" not in record else dict.fromkeys(KINDS, record)
        found = {k: CalibrationSpec(float(each[k]["temperature"]), float(each[k]["bias"])) for k in KINDS if k in each}
        if not found:
            raise ValueError("neither a temperature nor a kind in it")
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: no calibration: {error}; make one with python -m training.evaluate --fit-calibration"
        ) from error


def rounds_by_kind(text: str) -> dict[str, int]:
    """``--rounds``: offset rounds that the runtime asks for, by kind; all where none is said.

    Raises:
        ConfigError: it is not what the option expects.
    """
    rounds = dict.fromkeys(KINDS, OFFSET_ROUNDS)
    for part in text.split(","):
        kind, _, number = part.rpartition("=")
        if (kind and kind not in KINDS) or number not in map(str, range(1, OFFSET_ROUNDS + 1)):
            expected = f"a number of 1..{OFFSET_ROUNDS} and KIND=NUMBER of {', '.join(KINDS)}"
            raise ConfigError(f"--rounds {text!r}: {part!r} is none; expected {expected}, such as 3,box=1")
        rounds.update({kind: int(number)} if kind else dict.fromkeys(KINDS, int(number)))
    return rounds


def least_confidence_by_kind(text: str) -> dict[str, float]:
    """``--least-confidence`` by kind; 0 where none is said.

    Raises:
        ConfigError: it is not what the option expects.
    """
    least = dict.fromkeys(KINDS, 0.0)
    for part in text.split(","):
        kind, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if kind not in KINDS or not 0 <= value <= 1:
            expected = f"KIND=NUMBER of {', '.join(KINDS)} and numbers in 0..1, such as box=0.2,sign=0.2"
            raise ConfigError(f"--least-confidence {text!r}: {part!r} is none; expected {expected}")
        least[kind] = value
    return least
