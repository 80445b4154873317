"""How right the scenes of a replayed bag are, where the bag carries labels (`labels` says how).

The numbers are those of ``python -m training.evaluate``. Metrics live in the repository, not in the installed package, and the
runtime does not depend on them: they are imported by name where there is a checkout. Elsewhere the replay says with which command
to have them; that works from the bag and ``scenes.jsonl`` alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from getok_drive.errors import InputError
from getok_drive.ros.labels import frame_key, scene_from_msg
from getok_drive.sources import on_checkout
from getok_drive.types import Frame, Scene

KINDS = ("lanes", "drivable", "boxes", "signs")


class Accuracy:
    """Scores the frames of one camera that have a label.

    Args:
        tasks: kinds that the labels cover.

    Attributes:
        labelled: frames with a usable label so far.
        refused: labels that cannot be used, and why the first of them.
        unscored: why there will be no numbers; empty when there will.
    """

    def __init__(self, tasks: Sequence[str] = KINDS) -> None:
        self.labelled = self.refused = 0
        self.first_refusal = ""
        self.unscored = ""
        try:
            self._collector = on_checkout("training.evaluation").Collector(tasks, worst=0)
            self._sample = importlib.import_module("training.datasets.bag").sample_of
            self._scene_from_json = importlib.import_module("training.predictions").scene_from_json
        except InputError as error:
            self.unscored = str(error)

    def add(self, frame: Frame, scene: Scene, labels: Any, wall_ms: float) -> None:
        """Scores what ``scenes.jsonl`` will say of one frame; a broken label is counted and costs nothing else.

        Args:
            frame: the image; ``frame.source`` is its topic.
            scene: what was seen in it.
            labels: what is in it, a ``getok_drive_msgs/Scene``.
            wall_ms: processing time, milliseconds.
        """
        try:
            truth = scene_from_msg(labels)
            if truth.image_size_wh != frame.size_wh:
                raise InputError(f"the label is for an image of {truth.image_size_wh} px, the image has {frame.size_wh}")
        except InputError as error:
            self.refused += 1
            self.first_refusal = self.first_refusal or str(error)
            return
        self.labelled += 1
        if not self.unscored:
            key = frame_key(frame.source, frame.stamp_ns)
            sample = self._sample(frame.image_bgr, truth, key, frame.source)
            self._collector.add(key, sample, self._scene_from_json(scene.to_json(), key), wall_ms)

    def summary(self, command: str) -> dict[str, Any]:
        """What the report says.

        Args:
            command: scores the same frames in a checkout.

        Returns:
            ``labelled`` and ``refused`` (frames), ``command``; ``headline`` and ``metrics``, or ``unscored``, the reason.
        """
        known: dict[str, Any] = {"labelled": self.labelled, "refused": self.refused, "command": command}
        if self.refused:
            known["first_refusal"] = self.first_refusal
        if self.unscored:
            return {**known, "unscored": self.unscored}
        report = self._collector.report()
        numbers = {kind: {name: e.to_json()["value"] for name, e in each.items()} for kind, each in report.numbers.items()}
        titles = importlib.import_module("training.evaluation").HEADLINES
        headline = {titles[kind][1]: each[titles[kind][0]] for kind, each in numbers.items()}
        if "all" in report.reliability:
            headline["expected calibration error"] = round(report.reliability["all"].ece, 5)
        return {**known, "headline": headline, "metrics": numbers}


def as_text(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """The accuracy of each camera for people; empty when no bag carried labels."""
    lines = []
    for camera, found in summaries.items():
        lines += ["", f"accuracy of {camera} on {found['labelled']} labelled frames:", ""]
        if found["refused"]:
            lines.append(f"{found['refused']} labels cannot be used, the first: {found['first_refusal']}")
        if found.get("unscored"):
            lines.append(f"not scored: {found['unscored']}")
        for name, value in found.get("headline", {}).items():
            lines.append(f"- {name}: {'no such element' if value is None else f'{value:.4f}'}")
        lines += ["", f"again, with intervals and curves: `{found['command']}`"]
    return "\n".join(lines)
