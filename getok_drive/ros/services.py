"""The node's services: ``~/enable``, ``~/set_elements``, ``~/load_bundle``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from getok_drive_msgs.srv import LoadBundle, SetElements
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from getok_drive.errors import GetokError
from getok_drive.ros.params import KINDS

if TYPE_CHECKING:
    from getok_drive.ros.node import PerceptionNode


def advertise(node: PerceptionNode) -> None:
    """Creates the services. Loading has a group of its own, so that it holds up nothing else."""

    def enable(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        node.enabled = bool(request.data)
        response.success, response.message = True, "enabled" if node.enabled else "disabled: images are dropped unprocessed"
        return response

    def set_elements(request: SetElements.Request, response: SetElements.Response) -> SetElements.Response:
        string_array = Parameter.Type.STRING_ARRAY
        wanted = [
            Parameter("kinds", string_array, [k for k in request.kinds if k] or list(KINDS)),
            Parameter("box_classes", string_array, [c for c in request.box_classes if c] or [""]),
            Parameter("sign_classes", string_array, [c for c in request.sign_classes if c] or [""]),
        ]
        result = node.set_parameters_atomically(wanted)
        params = node.params
        response.success = result.successful
        response.message = result.reason or (
            f"kinds: {', '.join(params.kinds)}; boxes: {', '.join(params.box_classes) or 'all'}; "
            f"signs: {', '.join(params.sign_classes) or 'all'}"
        )
        return response

    def load_bundle(request: LoadBundle.Request, response: LoadBundle.Response) -> LoadBundle.Response:
        try:
            if node.state not in ("inactive", "active"):
                raise GetokError(f"the node is {node.state}; configure it first")
            backend = request.backend or node.engine.backend
            node.engine.load(request.bundle or node.params.bundle, backend, node.params.threads, node.stopping.is_set)
            response.success, response.message = True, node.engine.progress
        except GetokError as error:
            response.message = f"{error} (the bundle in use stays)"
        except Exception as error:
            response.message = f"{type(error).__name__}: {error} (the bundle in use stays)"
        response.bundle_name, response.bundle_sha256 = node.engine.bundle_name, node.engine.bundle_sha256
        node.get_logger().info(f"load_bundle: {response.message}")
        return response

    node.create_service(SetBool, "~/enable", enable)
    node.create_service(SetElements, "~/set_elements", set_elements)
    node.create_service(LoadBundle, "~/load_bundle", load_bundle, callback_group=MutuallyExclusiveCallbackGroup())
