"""MCAP recordings that Foxglove opens: the image, annotations over it, and the scene as JSON. Needs the package ``mcap``.

Topics: ``/camera/image`` (``foxglove.CompressedImage``), ``/perception/annotations`` (``foxglove.ImageAnnotations``: choose it in
the image panel) and ``/perception/scene`` (the line of ``scenes.jsonl``).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import Frame, Scene
from getok_drive.views import overlay

_LINE_LOOP, _LINE_STRIP = 2, 3  # of foxglove.PointsAnnotation


def _object(title: str = "", **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {"title": title, **schema} if title else schema


def _array(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_NUMBER, _TEXT, _INTEGER = {"type": "number"}, {"type": "string"}, {"type": "integer"}
_TIME = _object(title="time", sec=_INTEGER, nsec=_INTEGER)
_POINT = _object(title="foxglove.Point2", x=_NUMBER, y=_NUMBER)
_COLOR = _object(title="foxglove.Color", r=_NUMBER, g=_NUMBER, b=_NUMBER, a=_NUMBER)
_SCHEMAS = {
    "/camera/image": _object(
        "foxglove.CompressedImage",
        timestamp=_TIME,
        frame_id=_TEXT,
        data={"type": "string", "contentEncoding": "base64"},
        format=_TEXT,
    ),
    "/perception/annotations": _object(
        "foxglove.ImageAnnotations",
        circles=_array(
            _object(
                timestamp=_TIME, position=_POINT, diameter=_NUMBER, thickness=_NUMBER, fill_color=_COLOR, outline_color=_COLOR
            )
        ),
        points=_array(
            _object(
                timestamp=_TIME,
                type=_INTEGER,
                points=_array(_POINT),
                outline_color=_COLOR,
                outline_colors=_array(_COLOR),
                fill_color=_COLOR,
                thickness=_NUMBER,
            )
        ),
        texts=_array(
            _object(timestamp=_TIME, position=_POINT, text=_TEXT, font_size=_NUMBER, text_color=_COLOR, background_color=_COLOR)
        ),
    ),
    "/perception/scene": _object("getok_drive.Scene"),
}


class McapFile:
    """One recording.

    Args:
        path: the file to write.
        jpeg_quality: of the images, 1..100.

    Raises:
        ConfigError: when the package ``mcap`` is missing.
    """

    def __init__(self, path: Path, jpeg_quality: int = 90) -> None:
        try:
            from mcap.writer import Writer
        except ImportError as error:
            raise ConfigError("MCAP needs the package mcap; install it with pip install 'getok-drive[mcap]'") from error
        self.path = path
        self._jpeg_quality = jpeg_quality
        self._file = path.open("wb")
        self._writer: Any = Writer(self._file)
        self._writer.start(profile="", library="getok-drive")
        self._channels: dict[str, int] = {}
        for topic, schema in _SCHEMAS.items():
            data = json.dumps(schema).encode()
            schema_id = self._writer.register_schema(name=schema["title"], encoding="jsonschema", data=data)
            self._channels[topic] = self._writer.register_channel(topic=topic, message_encoding="json", schema_id=schema_id)
        self._last_ns = -1
        self._offset_ns = 0  # between a source's own time and the recording's

    def write(self, frame: Frame, scene: Scene) -> None:
        """Append a frame and what was seen in it.

        Frames without a time of their own follow one another at 10 Hz; a video whose time begins anew follows the one before it.
        """
        if frame.stamp_ns + self._offset_ns <= self._last_ns:
            self._offset_ns = self._last_ns + 100_000_000 - frame.stamp_ns
        stamp_ns = frame.stamp_ns + self._offset_ns
        self._last_ns = stamp_ns
        done, data = cv2.imencode(".jpg", frame.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, self._jpeg_quality])
        if not done:
            raise InputError(f"{frame.source}: OpenCV cannot encode this picture as JPEG")
        time = {"sec": stamp_ns // 1_000_000_000, "nsec": stamp_ns % 1_000_000_000}
        image = {"timestamp": time, "frame_id": "camera", "data": base64.b64encode(data.tobytes()).decode(), "format": "jpeg"}
        self._add("/camera/image", image, stamp_ns)
        self._add("/perception/annotations", image_annotations(scene, time), stamp_ns)
        self._add("/perception/scene", scene.to_json(), stamp_ns)

    def close(self) -> None:
        """Write the index and close the file; without it a recording is incomplete."""
        self._writer.finish()
        self._file.close()

    def __enter__(self) -> McapFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _add(self, topic: str, message: Mapping[str, Any], stamp_ns: int) -> None:
        data = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
        self._writer.add_message(self._channels[topic], log_time=stamp_ns, data=data, publish_time=stamp_ns)


def image_annotations(scene: Scene, time: Mapping[str, int]) -> dict[str, Any]:
    """The scene as ``foxglove.ImageAnnotations``; Foxglove counts pixels from the corner, not the centre, of the first one."""

    def points(array: npt.NDArray[np.floating]) -> list[dict[str, float]]:
        return [{"x": round(float(x) + 0.5, 2), "y": round(float(y) + 0.5, 2)} for x, y in array]

    def outline(
        array: npt.NDArray[np.floating], kind: int, color: overlay.Color, fill: float, thickness: float
    ) -> dict[str, Any]:
        return {
            "timestamp": time, "type": kind, "points": points(array), "outline_color": _rgba(color), "outline_colors": [],
            "fill_color": _rgba(color, fill), "thickness": thickness,
        }  # fmt: skip

    def text(position: npt.NDArray[np.floating], words: str, color: overlay.Color) -> dict[str, Any]:
        return {
            "timestamp": time, "position": points(position[None])[0], "text": words, "font_size": font_px,
            "text_color": _rgba(overlay.DARK), "background_color": _rgba(color, 0.85),
        }  # fmt: skip

    font_px = max(10.0, scene.image_size_wh[1] / 45)
    width = max(1.0, scene.image_size_wh[1] / 300)
    shapes = [outline(area.polygon_px, _LINE_LOOP, overlay.DRIVABLE_COLOR, 0.3, width / 2) for area in scene.drivable]
    for lane in scene.lanes:
        shapes.append(outline(lane.points_px, _LINE_STRIP, overlay.LANE_COLORS.get(lane.type, overlay.OTHER_COLOR), 0.0, width))
    texts, circles = [], []
    for box in scene.boxes:
        color = overlay.BOX_COLORS.get(box.class_name, overlay.OBSTACLE_COLOR)
        shapes.append(outline(box.xyxy_px[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2), _LINE_LOOP, color, 0.0, width))
        texts.append(text(box.xyxy_px[:2], f"{box.class_name} {box.confidence:.2f}", color))
    for sign in scene.signs:
        color = overlay.SIGN_COLORS.get(sign.color, overlay.OTHER_COLOR)
        circles.append(
            {
                "timestamp": time, "position": points(sign.point_px[None])[0], "diameter": 4 * width, "thickness": width / 2,
                "fill_color": _rgba(color), "outline_color": _rgba((255, 255, 255)),
            }
        )  # fmt: skip
        texts.append(text(sign.point_px + 2 * width, f"{sign.class_name} {sign.confidence:.2f}", color))
    return {"circles": circles, "points": shapes, "texts": texts}


def _rgba(color: overlay.Color, alpha: float = 1.0) -> dict[str, float]:
    blue, green, red = (round(value / 255, 4) for value in color)
    return {"r": red, "g": green, "b": blue, "a": alpha}
