"""One camera: the checks that every frame passes, its calibration and its subscriptions."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from getok_drive.errors import CalibrationError
from getok_drive.geometry.camera import SE3, CameraModel
from getok_drive.geometry.ground import GroundProjector
from getok_drive.ros.calibration import Calibration, camera_from_info
from getok_drive.ros.health import CameraHealth
from getok_drive.ros.images import FrameRejected, compressed_to_bgr, image_to_bgr
from getok_drive.ros.labels import stamp_ns
from getok_drive.ros.params import NodeParams
from getok_drive.ros.slot import LatestSlots
from getok_drive.ros.transforms import StaticTransforms
from getok_drive.types import ImageBgr

# The callback only moves bytes to the slot, so the queue is drained at once and makes no frame older; it is there so that a
# stall of the executor does not hide frames from the counts.
_QUEUE = 2
_MOST_UPRIGHT = 0.999  # cosine of viewing direction and vertical; above it, the frame is a link's own, not the optical one
_MAX_MESSAGE_BYTES = 400_000_000  # refuses before anything is unpacked
_LEAST_MESSAGE_BYTES = 4  # the header of every serialised message; given fewer, Humble's rmw_cyclonedds_cpp reads beyond the end


def _deserialize(data: bytes, kind: type) -> Any:
    """rclpy's own, for sizes that it can be trusted with; raises ValueError for others."""
    if not _LEAST_MESSAGE_BYTES <= len(data) <= _MAX_MESSAGE_BYTES:
        raise ValueError(f"{len(data)} bytes")
    return deserialize_message(data, kind)


@dataclass(frozen=True, slots=True)
class Capture:
    """A frame that passed all checks."""

    header: Header
    stamp_ns: int
    image_bgr: ImageBgr


class CameraIntake:
    """The checks that every frame of one camera passes, and its calibration. Needs no node: the replay of bags uses it, too."""

    def __init__(
        self,
        name: str,
        image_topic: str,
        info_topic: str,
        compressed: bool,
        calibration: Calibration,
        transforms: StaticTransforms | None = None,
        ground_frame: str = "",
    ) -> None:
        """With ``transforms`` the pose is looked up there, in ``ground_frame``; when that fails, ``calibration``'s is left."""
        self.name = name
        self.image_topic, self.info_topic = image_topic, info_topic
        self.kind = CompressedImage if compressed else Image
        self.health = CameraHealth(time.monotonic())
        self.ground_frame = calibration.ground_frame  # of the projector in use
        self._calibration, self._transforms, self._tf_ground_frame = calibration, transforms, ground_frame
        self._mount = calibration.cameras.get(name)
        self._last_stamp_ns = 0
        self._info_key: tuple[Any, ...] = ()
        self._camera: CameraModel | None = self._mount.camera if self._mount else None
        self._projector: GroundProjector | None = None
        self._projector_key: tuple[Any, ...] = ()

    def unpack(self, data: bytes, params: NodeParams, now_ns: int | None) -> Capture:
        """Serialised message to checked frame.

        Args:
            data: one serialised message of the camera's type.
            params: limits in force.
            now_ns: the node's clock; None: there is none to compare stamps with.

        Raises:
            FrameRejected: ``malformed_message``, ``stamp_zero``, ``stamp_future``, ``stamp_backwards``, ``stamp_repeated``,
                ``stale``, or one of the reasons of `images`.
        """
        try:
            msg = _deserialize(data, self.kind)
        except Exception as error:  # whatever rclpy raises for bytes from outside
            raise FrameRejected("malformed_message", f"{self.image_topic}: message cannot be read: {error}") from error
        stamp = stamp_ns(msg.header.stamp)
        self._check_stamp(stamp, params, now_ns)
        image = image_to_bgr(msg, params.mono16_bits) if self.kind is Image else compressed_to_bgr(msg)
        return Capture(msg.header, stamp, image)

    def projector(self, size_wh: tuple[int, int], max_range_m: float, frame_id: str = "") -> GroundProjector | None:
        """Pixels to ground for images of this size; None where the camera is not calibrated for them (diagnostics say why).

        Args:
            size_wh: of the image, pixels.
            max_range_m: as `GroundProjector` has it.
            frame_id: the image's frame, for the pose from `/tf_static`.
        """
        key = (size_wh, max_range_m, self._camera, frame_id, self._transforms.version if self._transforms else 0)
        if key == self._projector_key:
            return self._projector
        self._projector_key, self._projector = key, None
        pose, note = self._pose(frame_id)
        self.health.calibration_problem = note
        try:
            if pose is None:
                raise CalibrationError(note or "no pose of this camera in the calibration file")
            if self._camera is None:
                raise CalibrationError("no valid camera_info yet")
            self._projector = GroundProjector(self._camera.for_image(size_wh), pose, max_range_m)
            self.health.calibration = f"calibrated, ground frame {self.ground_frame}"
        except CalibrationError as error:
            self.health.calibration = f"pixels only: {error}"
        return self._projector

    def _pose(self, frame_id: str) -> tuple[SE3 | None, str]:
        """``ground_SE3_cam``, if there is one, and what was wrong with the pose from `/tf_static`; sets `ground_frame`."""
        note = ""
        if self._transforms is not None:
            try:
                pose = self._transforms.lookup(self._tf_ground_frame, frame_id)
                if abs(pose.rotation[2, 2]) > _MOST_UPRIGHT:
                    raise CalibrationError(f"{frame_id!r} looks straight up or down: is it the camera's optical frame (z ahead)?")
                self.ground_frame = self._tf_ground_frame
                return pose, ""
            except CalibrationError as error:
                note = f"no pose from /tf_static: {error}"
        self.ground_frame = self._calibration.ground_frame
        return self._mount.ground_SE3_cam if self._mount else None, note

    def take_info(self, data: bytes) -> None:
        """Takes over a changed calibration; a broken one is counted once and the last good one stays in use."""
        if self._mount is not None and self._mount.camera is not None:
            return  # the file's intrinsics win
        try:
            info = _deserialize(data, CameraInfo)
            # repr, because NaN is not equal to itself and must not look like news with every message
            binning = info.binning_x, info.binning_y
            key = (info.width, info.height, info.distortion_model, repr(info.k), repr(info.d), binning, repr(info.roi))
            if key == self._info_key:
                return
            self._info_key = key
            self._camera = camera_from_info(info)
        except CalibrationError as error:
            self.health.rejected("camera_info_invalid", f"{self.info_topic}: {error}", is_frame=False)
        except Exception as error:  # whatever rclpy raises for bytes from outside
            self.health.rejected("camera_info_malformed", f"{self.info_topic}: message cannot be read: {error}", is_frame=False)

    def _check_stamp(self, stamp: int, params: NodeParams, now_ns: int | None) -> None:
        """Refuses frames whose capture time cannot be right; a clock that jumps back costs one frame, not all that follow."""
        last, age_s = self._last_stamp_ns, 0.0 if now_ns is None else (now_ns - stamp) / 1e9
        if stamp == 0:
            raise FrameRejected("stamp_zero", f"{self.image_topic}: header.stamp is zero; the driver must set the capture time")
        if age_s < -params.future_tolerance_s:
            raise FrameRejected(
                "stamp_future", f"{self.image_topic}: stamped {-age_s:.3f} s ahead of this node's clock; compare clocks"
            )
        self._last_stamp_ns = stamp
        if stamp < last:
            raise FrameRejected(
                "stamp_backwards", f"{self.image_topic}: stamped {(last - stamp) / 1e9:.3f} s before the image before it"
            )
        if stamp == last:
            raise FrameRejected("stamp_repeated", f"{self.image_topic}: has the same stamp as the image before it")
        if age_s > params.max_age_s:
            raise FrameRejected("stale", f"{self.image_topic}: image is {age_s:.3f} s old, max_age_s is {params.max_age_s}")


class CameraInput(CameraIntake):
    """Subscribes to one camera; frames go to its slot as serialised bytes, so that superseded ones cost almost nothing."""

    def __init__(
        self,
        node: Node,
        index: int,
        params: NodeParams,
        slots: LatestSlots[bytes],
        calibration: Calibration,
        transforms: StaticTransforms | None = None,
    ) -> None:
        name, compressed = params.cameras[index], params.transport == "compressed"
        # Names before remapping: what is created by a name that was remapped already would be remapped a second time. As
        # image_transport has it, a remapping of the image topic holds for its compressed twin, too.
        image_name, self._info_name = params.image_topic.format(camera=name), params.info_topic.format(camera=name)
        self._image_name = f"{node.resolve_topic_name(image_name)}/compressed" if compressed else image_name
        image_topic, info_topic = node.resolve_topic_name(self._image_name), node.resolve_topic_name(self._info_name)
        super().__init__(name, image_topic, info_topic, compressed, calibration, transforms, params.ground_frame)
        self._node, self._index, self._slots = node, index, slots
        self._group = MutuallyExclusiveCallbackGroup()
        self._subscribing = threading.Lock()  # a change of QoS and the end of the active state come from different threads
        self._images: Subscription | None = None
        self._infos: Subscription | None = None
        self._reliable = False

    def subscribe(self) -> None:
        """Starts to receive; the watchdog starts anew."""
        self.health.restart(time.monotonic())
        self._last_stamp_ns = 0
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # takes from reliable publishers, too
        with self._subscribing:
            self._reliable = self._publishers_are_reliable()
            self._subscribe_images()
            self._infos = self._node.create_subscription(
                CameraInfo, self._info_name, self.take_info, qos, callback_group=self._group, raw=True
            )

    def unsubscribe(self) -> None:
        """Stops to receive."""
        with self._subscribing:
            for subscription in (self._images, self._infos):
                if subscription is not None:
                    self._node.destroy_subscription(subscription)
            self._images = self._infos = None

    def match_qos(self) -> None:
        """Subscribes anew when the publishers' reliability changed: reliable when all of them are, else best effort.

        A reliable subscription gets nothing from a best-effort publisher; a best-effort one can lose large images.
        """
        with self._subscribing:
            if self._images is None or self.publishers() == 0 or self._publishers_are_reliable() == self._reliable:
                return
            self._reliable = not self._reliable
            self._node.destroy_subscription(self._images)
            self._subscribe_images()

    def publishers(self) -> int:
        """Number of publishers of the image topic."""
        return int(self._node.count_publishers(self.image_topic))

    def _subscribe_images(self) -> None:
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=_QUEUE,
            reliability=ReliabilityPolicy.RELIABLE if self._reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.VOLATILE,
        )
        self._images = self._node.create_subscription(
            self.kind, self._image_name, self._on_image, qos, callback_group=self._group, raw=True
        )

    def _publishers_are_reliable(self) -> bool:
        found = self._node.get_publishers_info_by_topic(self._image_name)  # which remaps
        return bool(found) and all(info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in found)

    def _on_image(self, data: bytes) -> None:
        self.health.received(time.monotonic(), self._slots.put(self._index, data))
