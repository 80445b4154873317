"""The SROS 2 policy covers all that the running node opens: a topic missing in it would be silent under Enforce."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.ros.harness import NODE, SCRIPTS, Client


def granted(node: str, tag: str, attribute: str) -> set[str]:
    tree = ET.parse(SCRIPTS.parent / "config/sros2_policy.xml")
    (profile,) = [p for p in tree.iter("profile") if p.get("node") == node]
    names = {entry.text or "" for group in profile if group.get(attribute) == "ALLOW" for entry in group.iter(tag)}
    return {f"/{node}/{name[2:]}" if name.startswith("~/") else f"/{name}" for name in names}


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_policy_covers_the_node(ros: Client, transport: str) -> None:
    ros.perception(transport=transport)
    ros.activate()
    graph = ros.node
    name, namespace = NODE.strip("/"), "/"
    ros.wait(lambda: any("scene" in topic for topic, _ in graph.get_publisher_names_and_types_by_node(name, namespace)))
    published = {topic for topic, _ in graph.get_publisher_names_and_types_by_node(name, namespace)}
    subscribed = {topic for topic, _ in graph.get_subscriber_names_and_types_by_node(name, namespace)}
    services = {service for service, _ in graph.get_service_names_and_types_by_node(name, namespace)}
    assert published <= granted(name, "topic", "publish")
    assert subscribed <= granted(name, "topic", "subscribe")
    assert f"/camera/image_raw{'/compressed' if transport == 'compressed' else ''}" in subscribed
    assert services <= granted(name, "service", "reply")
    assert {f"{NODE}/change_state", f"{NODE}/load_bundle"} <= services
