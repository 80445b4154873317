"""The SROS 2 policy grants what the running nodes open, and nothing else.

A name missing in it would be silent under Enforce; one too many is a right that nobody needs.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.ros.harness import NODE, SCRIPTS, Client

# Granted, but opened only under some settings or by some distributions.
SOMETIMES = {
    "/clock",  # use_sim_time
    "/tf_static",  # ground_frame
    "/parameter_events",  # subscribed to by some distributions
    f"{NODE}/detections",  # where vision_msgs is installed
    "/camera/image_raw",  # transport
    "/camera/image_raw/compressed",
    f"{NODE}/get_type_description",  # from Jazzy on
    "/camera_source/get_type_description",
}


def granted(node: str, tag: str, attribute: str) -> set[str]:
    tree = ET.parse(SCRIPTS.parent / "config/sros2_policy.xml")
    (profile,) = [p for p in tree.iter("profile") if p.get("node") == node]
    names = {entry.text or "" for group in profile if group.get(attribute) == "ALLOW" for entry in group.iter(tag)}
    return {f"/{node}/{name[2:]}" if name.startswith("~/") else f"/{name}" for name in names}


def compare(ros: Client, name: str) -> tuple[set[str], set[str], set[str]]:
    """Compares a running node with the policy, both ways; gives what it publishes, subscribes to and serves."""
    graph, found = ros.node, []
    for names, tag, attribute in (
        (graph.get_publisher_names_and_types_by_node(name, "/"), "topic", "publish"),
        (graph.get_subscriber_names_and_types_by_node(name, "/"), "topic", "subscribe"),
        (graph.get_service_names_and_types_by_node(name, "/"), "service", "reply"),
    ):
        opened, allowed = {topic for topic, _ in names}, granted(name, tag, attribute)
        assert opened <= allowed, f"{attribute}: the policy lacks {opened - allowed}"
        assert allowed - SOMETIMES <= opened, (
            f"{attribute}: the policy grants what {name} never opens: {allowed - SOMETIMES - opened}"
        )
        found.append(opened)
    return found[0], found[1], found[2]


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_policy_fits_the_node(ros: Client, transport: str) -> None:
    ros.perception(transport=transport)
    ros.activate()
    name = NODE.strip("/")
    image = f"/camera/image_raw{'/compressed' if transport == 'compressed' else ''}"
    ros.wait(lambda: image in dict(ros.node.get_subscriber_names_and_types_by_node(name, "/")), what=f"subscription to {image}")
    ros.wait(lambda: f"{NODE}/scene" in dict(ros.node.get_publisher_names_and_types_by_node(name, "/")), what="publishers")
    _, _, services = compare(ros, name)
    assert {f"{NODE}/change_state", f"{NODE}/load_bundle"} <= services


def test_policy_fits_the_camera_source(ros: Client) -> None:
    settings = {"source": "world:3", "width_px": 128, "max_frames": 2, "ground_truth": "true"}
    ros.start("camera_source", *[word for name, value in settings.items() for word in ("-p", f"{name}:={value}")])

    def publishes() -> bool:
        nodes = ros.node.get_node_names()
        return "camera_source" in nodes and "/camera/ground_truth" in dict(
            ros.node.get_publisher_names_and_types_by_node("camera_source", "/")
        )

    ros.wait(publishes, 60.0, "publishers of the source")
    published, _, _ = compare(ros, "camera_source")
    assert {"/camera/camera_info", "/camera/ground_truth", "/camera/image_raw"} <= published
