"""A miniature of nuScenes in the tables' own format: one key frame, two cameras, a straight road of the map expansion."""

import uuid

import numpy as np

from .minis import road_photo, write, write_json

SCENE, PLACE = "scene-0061", "singapore-onenorth"  # a scene of the official mini_train
EGO_AT, EGO_YAW = np.array([1010.0, 605.0, 0.0]), 0.6
K = [[200.0, 0.0, 160.0], [0.0, 200.0, 80.0], [0.0, 0.0, 1.0]]
HEIGHT_M = 1.5
CAMERA_ROTATION = {"CAM_FRONT": [0.5, -0.5, 0.5, -0.5], "CAM_BACK": [0.5, -0.5, -0.5, 0.5]}  # w, x, y, z; optical to ego
CAMERA_X = {"CAM_FRONT": 1.5, "CAM_BACK": -1.0}
SIGHT = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}


def token():
    return uuid.uuid4().hex


def yaw_quaternion(yaw):
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


def to_global(points):
    """Ego points ``(N, 2)`` or ``(N, 3)`` on the map."""
    points = np.asarray(points, float)
    turn = np.array([[np.cos(EGO_YAW), -np.sin(EGO_YAW)], [np.sin(EGO_YAW), np.cos(EGO_YAW)]])
    return np.column_stack([points[:, :2] @ turn.T + EGO_AT[:2], points[:, 2:]])


class Mini:
    """Add boxes and map records, then `write`."""

    def __init__(self, root):
        self.root = root
        self.categories, self.annotations, self.instances, self.attributes = {}, [], [], {}
        self.sample, self.scene, self.log = token(), token(), token()
        layers = ["polygon", "line", "node", "drivable_area", "road_segment", "road_block", "lane", "ped_crossing", "walkway"]
        layers += ["stop_line", "carpark_area", "road_divider", "lane_divider", "traffic_light", "lane_connector"]
        self.map = {"version": "1.3", "canvas_edge": [1585.6, 2025.0], "arcline_path_3": {}, "connectivity": {}}
        self.map |= {layer: [] for layer in layers}

    def box(self, name, at, size_wlh=(1.8, 4.4, 1.5), yaw=0.0, visibility="4", lidar=5, attribute=""):
        """A box standing at ``at`` (its foot, ego frame)."""
        category = self.categories.setdefault(name, token())
        instance, annotation = token(), token()
        center = to_global([(at[0], at[1], at[2] + size_wlh[2] / 2)])[0]
        self.instances.append(
            {
                "token": instance, "category_token": category, "nbr_annotations": 1,
                "first_annotation_token": annotation, "last_annotation_token": annotation,
            }
        )  # fmt: skip
        self.annotations.append(
            {
                "token": annotation, "sample_token": self.sample, "instance_token": instance, "visibility_token": visibility,
                "attribute_tokens": [self.attributes.setdefault(attribute, token())] if attribute else [],
                "translation": center.tolist(), "size": list(size_wlh),
                "rotation": yaw_quaternion(EGO_YAW + yaw), "prev": "", "next": "", "num_lidar_pts": lidar, "num_radar_pts": 0,
            }
        )  # fmt: skip
        return instance

    def nodes(self, points):
        """Node tokens of ego points ``(N, 2)``."""
        tokens = []
        for x, y in to_global(points):
            self.map["node"].append({"token": token(), "x": float(x), "y": float(y)})
            tokens.append(self.map["node"][-1]["token"])
        return tokens

    def polygon(self, points, holes=()):
        record = {
            "token": token(),
            "exterior_node_tokens": self.nodes(points),
            "holes": [{"node_tokens": self.nodes(hole)} for hole in holes],
        }
        self.map["polygon"].append(record)
        return record["token"]

    def line(self, points):
        record = {"token": token(), "node_tokens": self.nodes(points)}
        self.map["line"].append(record)
        return record

    def drivable(self, points, holes=()):
        self.map["drivable_area"].append({"token": token(), "polygon_tokens": [self.polygon(points, holes)]})

    def lane_divider(self, points, types):
        line = self.line(points)
        segments = [{"node_token": n, "segment_type": t} for n, t in zip(line["node_tokens"], types, strict=True)]
        self.map["lane_divider"].append({"token": token(), "line_token": line["token"], "lane_divider_segments": segments})

    def road_divider(self, points):
        record = {"token": token(), "line_token": self.line(points)["token"], "road_segment_token": None}
        self.map["road_divider"].append(record)

    def stop_line(self, points, kind="TRAFFIC_LIGHT"):
        self.map["stop_line"].append(
            {
                "token": token(), "polygon_token": self.polygon(points), "stop_line_type": kind, "ped_crossing_tokens": [],
                "traffic_light_tokens": [], "road_block_token": token(),
            }
        )  # fmt: skip

    def traffic_light(self, at, yaw, height=2.4):
        """A light at ``at`` (x, y) that faces ``yaw``, ego frame."""
        line = self.line([at, (at[0] + np.cos(yaw), at[1] + np.sin(yaw))])
        x, y = to_global([at])[0]
        lamps = [
            {
                "color": color, "shape": "CIRCLE", "to_road_block_tokens": [],
                "rel_pos": {"tx": 0.0, "ty": 0.0, "tz": tz, "rx": 0.0, "ry": 0.0, "rz": 0.0},
            }
            for color, tz in (("RED", 0.632), ("YELLOW", 0.381), ("GREEN", 0.13))
        ]  # fmt: skip
        pose = {"tx": float(x), "ty": float(y), "tz": height, "rx": 0.0, "ry": 0.0, "rz": yaw + EGO_YAW}
        self.map["traffic_light"].append(
            {
                "token": token(), "line_token": line["token"], "traffic_light_type": "VERTICAL",
                "from_road_block_token": token(), "items": lamps, "pose": pose,
            }
        )  # fmt: skip

    def write(self, version="v1.0-mini", with_map=True, photo=None):
        """Write tables, pictures and map."""
        root, sensors, mounted, shots, pose = self.root, [], [], [], token()
        stamp = 1532402927612460
        for channel in ("CAM_FRONT", "CAM_BACK"):
            sensors.append({"token": token(), "channel": channel, "modality": "camera"})
            mounted.append(
                {
                    "token": token(), "sensor_token": sensors[-1]["token"], "camera_intrinsic": K,
                    "translation": [CAMERA_X[channel], 0.0, HEIGHT_M], "rotation": CAMERA_ROTATION[channel],
                }
            )  # fmt: skip
            file = f"samples/{channel}/n015-2018-07-24-11-22-45+0800__{channel}__{stamp}.jpg"
            write(root / file, road_photo() if photo is None else photo)
            shots.append(
                {
                    "token": token(), "sample_token": self.sample, "ego_pose_token": pose, "is_key_frame": True,
                    "calibrated_sensor_token": mounted[-1]["token"], "timestamp": stamp, "fileformat": "jpg",
                    "height": 180, "width": 320, "filename": file, "prev": "", "next": "",
                }
            )  # fmt: skip
        sensors.append({"token": token(), "channel": "LIDAR_TOP", "modality": "lidar"})
        mounted.append(
            {
                "token": token(), "sensor_token": sensors[-1]["token"], "camera_intrinsic": [],
                "translation": [0.9, 0.0, 1.8], "rotation": [1.0, 0.0, 0.0, 0.0],
            }
        )  # fmt: skip
        file = {"fileformat": "pcd", "filename": f"samples/LIDAR_TOP/{stamp}.pcd.bin", "height": 0, "width": 0}
        shots.append({**shots[-1], **file, "token": token(), "calibrated_sensor_token": mounted[-1]["token"]})
        write(root / "maps/basemap.png", np.zeros((8, 8), np.uint8))
        scene = {"name": SCENE, "description": "", "nbr_samples": 1}
        log = {"token": self.log, "logfile": "n015", "vehicle": "n015", "date_captured": "2018-07-24", "location": PLACE}
        tables = {
            "category": [{"token": t, "name": name, "description": "", "index": 0} for name, t in self.categories.items()],
            "attribute": [{"token": t, "name": name, "description": ""} for name, t in self.attributes.items()],
            "visibility": [{"token": key, "level": level, "description": ""} for key, level in SIGHT.items()],
            "instance": self.instances,
            "sensor": sensors,
            "calibrated_sensor": mounted,
            "ego_pose": [
                {"token": pose, "timestamp": stamp, "translation": EGO_AT.tolist(), "rotation": yaw_quaternion(EGO_YAW)}
            ],
            "log": [log],
            "scene": [
                {
                    **scene, "token": self.scene, "log_token": self.log,
                    "first_sample_token": self.sample, "last_sample_token": self.sample,
                }
            ],
            "sample": [{"token": self.sample, "timestamp": stamp, "prev": "", "next": "", "scene_token": self.scene}],
            "sample_data": shots,
            "sample_annotation": self.annotations,
            "map": [{"token": token(), "category": "semantic_prior", "filename": "maps/basemap.png", "log_tokens": [self.log]}],
        }  # fmt: skip
        for name, records in tables.items():
            write_json(root / version / f"{name}.json", records)
        if with_map:
            write_json(root / f"maps/expansion/{PLACE}.json", self.map)
        return root
