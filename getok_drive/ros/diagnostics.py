"""Verdicts to `/diagnostics`."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from getok_drive.ros.health import Verdict


def to_msg(verdicts: Mapping[str, Verdict], node: str, hardware_id: str, stamp: Time) -> DiagnosticArray:
    """One `DiagnosticArray`; each verdict becomes the status ``NODE: KEY``, and new problems are in its message."""
    out = DiagnosticArray()
    out.header.stamp = stamp
    for name, verdict in verdicts.items():
        out.status.append(
            DiagnosticStatus(
                level=bytes([verdict.level]),
                name=f"{node}: {name}",
                message=verdict.message,
                hardware_id=hardware_id,
                values=[KeyValue(key=key, value=value) for key, value in verdict.values.items()],
            )
        )
    return out
