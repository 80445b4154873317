"""Rigid transforms and the camera model: pixels to rays and back, for every distortion model of ``sensor_msgs/CameraInfo``.

Frames follow REP-103: bodies x forward, y left, z up; camera (optical) frames x right, y down, z forward. A transform named
``a_SE3_b`` maps points of frame b to frame a. Pixels follow OpenCV: integer coordinates are pixel centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from getok_drive.errors import CalibrationError

Float64Array = npt.NDArray[np.float64]

# Columns: the optical frame's axes x right, y down, z forward, written in a body frame that looks the same way.
BODY_R_OPTICAL: Float64Array = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])

# Number of distortion coefficients that each model may carry, as CameraInfo and OpenCV order them.
_COEFFICIENTS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
_UNDISTORT_ITERATIONS = 12
_UNDISTORT_TOLERANCE = 1e-6  # of the normalised image plane; about a thousandth of a pixel


@dataclass(frozen=True, slots=True, eq=False)
class SE3:
    """A rigid transform: ``rotation (3, 3)`` orthonormal, ``translation_m (3,)`` in metres."""

    rotation: Float64Array
    translation_m: Float64Array

    def __post_init__(self) -> None:
        rotation = np.array(self.rotation, dtype=np.float64)
        translation_m = np.array(self.translation_m, dtype=np.float64).reshape(-1)
        if rotation.shape != (3, 3) or translation_m.shape != (3,):
            raise CalibrationError(f"transform: expected (3, 3) and (3,), got {rotation.shape} and {translation_m.shape}")
        if not np.isfinite(translation_m).all() or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6):
            raise CalibrationError("transform: the rotation is not orthonormal or a value is NaN or infinite")
        if np.linalg.det(rotation) < 0:
            raise CalibrationError("transform: the rotation mirrors; swap or flip an axis")
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation_m", translation_m)

    @classmethod
    def from_quaternion(cls, xyzw: Sequence[float], translation_m: Sequence[float]) -> SE3:
        """From a quaternion ``(x, y, z, w)``, normalised here; raises `CalibrationError` when its norm is far from 1."""
        q = np.array(xyzw, dtype=np.float64)
        norm = float(np.linalg.norm(q))
        if q.shape != (4,) or not abs(norm - 1.0) < 1e-2:
            raise CalibrationError(f"quaternion: expected (x, y, z, w) of norm 1, got {list(xyzw)} of norm {norm:.4f}")
        x, y, z, w = q / norm
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        return cls(rotation, np.array(translation_m, dtype=np.float64))

    @classmethod
    def from_mount(
        cls, *, x_m: float = 0.0, y_m: float = 0.0, height_m: float, pitch_down_rad: float = 0.0, roll_rad: float = 0.0,
        yaw_rad: float = 0.0,
    ) -> SE3:  # fmt: skip
        """``ground_SE3_cam`` of a forward-looking camera: yaw left, then pitch down, then roll right, all right-handed."""
        cr, sr = np.cos(roll_rad), np.sin(roll_rad)
        cp, sp = np.cos(pitch_down_rad), np.sin(pitch_down_rad)
        cy, sy = np.cos(yaw_rad), np.sin(yaw_rad)
        roll = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        pitch = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        return cls(yaw @ pitch @ roll @ BODY_R_OPTICAL, np.array([x_m, y_m, height_m]))

    def __matmul__(self, other: SE3) -> SE3:
        """Composition: ``a_SE3_b @ b_SE3_c == a_SE3_c``."""
        return SE3(self.rotation @ other.rotation, self.rotation @ other.translation_m + self.translation_m)

    def inverse(self) -> SE3:
        """``b_SE3_a`` of this ``a_SE3_b``."""
        return SE3(self.rotation.T, -self.rotation.T @ self.translation_m)

    def apply(self, points_m: npt.ArrayLike) -> Float64Array:
        """``(N, 3)`` points of frame b, metres, as ``(N, 3)`` points of frame a."""
        return np.asarray(np.asarray(points_m, dtype=np.float64) @ self.rotation.T + self.translation_m)


@dataclass(frozen=True, slots=True, eq=False)
class CameraModel:
    """Intrinsics and distortion of one camera.

    Attributes:
        size_wh: width and height of the calibrated image, pixels.
        K: ``(3, 3)`` intrinsic matrix, pixels.
        D: distortion coefficients in OpenCV's order; may be empty for ``plumb_bob``.
        model: ``plumb_bob`` (k1 k2 p1 p2 [k3]), ``rational_polynomial`` (k1 k2 p1 p2 k3..k6 [s1..s4 [tau tau]], tilt must be 0)
            or ``equidistant`` (fisheye, k1..k4).
    """

    size_wh: tuple[int, int]
    K: Float64Array
    D: Float64Array = field(default_factory=lambda: np.zeros(0))
    model: str = "plumb_bob"

    def __post_init__(self) -> None:
        K = np.array(self.K, dtype=np.float64)
        D = np.array(self.D, dtype=np.float64).reshape(-1)
        if K.size != 9 or not np.isfinite(K).all():
            raise CalibrationError(f"camera matrix: expected 9 finite numbers, got {K.reshape(-1).tolist()}")
        K = K.reshape(3, 3)
        if min(self.size_wh) < 1:
            raise CalibrationError(f"camera: image size {self.size_wh[0]}x{self.size_wh[1]} is empty")
        if K[0, 0] <= 0 or K[1, 1] <= 0 or not np.allclose(K[2], (0, 0, 1)) or K[1, 0] != 0:
            raise CalibrationError(f"camera matrix: fx and fy must be positive and the last row 0 0 1, got {K.tolist()}")
        if self.model not in _COEFFICIENTS:
            raise CalibrationError(f"distortion model {self.model!r} is unknown; use one of {', '.join(_COEFFICIENTS)}")
        if not np.isfinite(D).all() or len(D) not in _COEFFICIENTS[self.model]:
            counts = " or ".join(map(str, _COEFFICIENTS[self.model]))
            raise CalibrationError(f"distortion {self.model}: expected {counts} finite numbers, got {D.tolist()}")
        if len(D) == 14 and np.any(D[12:] != 0):
            raise CalibrationError("distortion rational_polynomial: a tilted sensor (tau) is not supported")
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "D", D)

    def for_image(self, size_wh: tuple[int, int]) -> CameraModel:
        """The same camera delivering images of another size (a plain resize); pixel centres are kept aligned.

        Raises:
            CalibrationError: The aspect ratio differs by more than 1 %, so the image was cropped, not resized.
        """
        if size_wh == self.size_wh:
            return self
        sx, sy = size_wh[0] / self.size_wh[0], size_wh[1] / self.size_wh[1]
        if abs(sx / sy - 1.0) > 0.01:
            raise CalibrationError(
                f"calibration is for {self.size_wh[0]}x{self.size_wh[1]} px but the image is {size_wh[0]}x{size_wh[1]} px: "
                "another aspect ratio; calibrate for this image size"
            )
        # u' + 0.5 = s * (u + 0.5), because integer coordinates are pixel centres.
        resize = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
        return CameraModel(size_wh, resize @ self.K, self.D, self.model)

    def windowed(self, offset_px: tuple[int, int], size_wh: tuple[int, int], binning: tuple[int, int] = (1, 1)) -> CameraModel:
        """The same camera delivering a window of the image, in which blocks of ``binning`` (x, y) pixels became one.

        Args:
            offset_px: the window's first pixel (x, y), in unbinned pixels.
            size_wh: of the window, in unbinned pixels.
            binning: 1 or more.

        Raises:
            CalibrationError: the window is not inside the image.
        """
        (x, y), (width, height), (bx, by) = offset_px, size_wh, binning
        inside = x >= 0 and y >= 0 and 0 < x + width <= self.size_wh[0] and 0 < y + height <= self.size_wh[1]
        if not inside or width < bx or height < by or min(binning) < 1:
            raise CalibrationError(
                f"camera: a window of {width}x{height} px at ({x}, {y}), binned {bx}x{by}, does not fit into the image of "
                f"{self.size_wh[0]}x{self.size_wh[1]} px"
            )
        # u' + 0.5 = (u + 0.5 - x) / bx, because integer coordinates are pixel centres.
        move = np.array([[1 / bx, 0, (0.5 - x) / bx - 0.5], [0, 1 / by, (0.5 - y) / by - 0.5], [0, 0, 1]])
        return CameraModel((width // bx, height // by), move @ self.K, self.D, self.model)

    def project(self, points_cam_m: npt.ArrayLike) -> Float64Array:
        """``(N, 3)`` points of the optical frame as ``(N, 2)`` pixels; NaN for points not in front of the camera."""
        points = np.asarray(points_cam_m, dtype=np.float64)
        depth = np.where(points[:, 2] > 1e-9, points[:, 2], np.nan)
        xy = self._distort(points[:, :2] / depth[:, None])
        return np.column_stack([xy @ self.K[0, :2] + self.K[0, 2], xy[:, 1] * self.K[1, 1] + self.K[1, 2]])

    def rays(self, uv_px: npt.ArrayLike) -> Float64Array:
        """``(N, 2)`` pixels as ``(N, 3)`` optical directions ``(x, y, 1)``; NaN where the distortion has no inverse."""
        uv = np.asarray(uv_px, dtype=np.float64)
        y = (uv[:, 1] - self.K[1, 2]) / self.K[1, 1]
        x = (uv[:, 0] - self.K[0, 2] - self.K[0, 1] * y) / self.K[0, 0]
        xy = self._undistort(np.column_stack([x, y]))
        return np.column_stack([xy, np.ones(len(xy))])

    def _distort(self, xy: Float64Array) -> Float64Array:
        """Ideal to distorted points of the plane z = 1, ``(N, 2)``: OpenCV's calib3d equations, which CameraInfo adopts."""
        if len(self.D) == 0 or not self.D.any():
            return xy
        x, y = xy[:, 0], xy[:, 1]
        r2 = x * x + y * y
        if self.model == "equidistant":
            r = np.sqrt(r2)
            theta = np.arctan(r)
            t2 = theta * theta
            k1, k2, k3, k4 = self.D
            bent = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
            return np.asarray(xy * np.where(r > 1e-12, bent / np.maximum(r, 1e-12), 1.0)[:, None], dtype=np.float64)
        k = np.zeros(12)
        k[: min(len(self.D), 12)] = self.D[:12]
        radial = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
        p1, p2 = k[2], k[3]
        return np.column_stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (k[8] + r2 * k[9]),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (k[10] + r2 * k[11]),
            ]
        )

    def _undistort(self, distorted: Float64Array) -> Float64Array:
        """Inverse of `_distort` by Newton's method; points where it does not converge become NaN."""
        if len(self.D) == 0 or not self.D.any():
            return distorted
        if self.model == "equidistant":  # start near the answer: the ideal fisheye is r_d = atan(r)
            r_d = np.linalg.norm(distorted, axis=1)
            scale = np.tan(np.minimum(r_d, 1.5)) / np.maximum(r_d, 1e-12)
            xy = distorted * np.where(r_d > 1e-12, scale, 1.0)[:, None]
        else:
            xy = distorted.copy()
        step = 1e-6
        step_x, step_y = np.array([step, 0.0]), np.array([0.0, step])
        with np.errstate(all="ignore"):
            for _ in range(_UNDISTORT_ITERATIONS):
                error = self._distort(xy) - distorted
                dx = (self._distort(xy + step_x) - self._distort(xy - step_x)) / (2 * step)
                dy = (self._distort(xy + step_y) - self._distort(xy - step_y)) / (2 * step)
                det = dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0]
                xy = xy - np.column_stack(
                    [
                        (error[:, 0] * dy[:, 1] - error[:, 1] * dy[:, 0]) / det,
                        (error[:, 1] * dx[:, 0] - error[:, 0] * dx[:, 1]) / det,
                    ]
                )
            residual = np.abs(self._distort(xy) - distorted).max(axis=1)
            # det <= 0: beyond the fold of the distortion polynomial, where two directions share a pixel.
            bad = ~(residual < _UNDISTORT_TOLERANCE) | ~(det > 0)
        xy[bad] = np.nan
        return xy
