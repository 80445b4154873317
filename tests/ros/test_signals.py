"""SIGINT and SIGTERM in every lifecycle state: exit code 0 within two seconds, and no shared memory left behind."""

from __future__ import annotations

import os
import random
import re
import signal
import time

import pytest
from getok_drive_msgs.msg import Scene
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import CompressedImage
from visualization_msgs.msg import MarkerArray

from tests.ros.harness import NODE, Client, shared_memory

STATES = ("unconfigured", "configuring", "inactive", "active", "active and busy", "finalized")


@pytest.mark.parametrize(
    ("state", "number"),
    [(state, signal.SIGINT) for state in STATES] + [("configuring", signal.SIGTERM), ("active and busy", signal.SIGTERM)],
)
def test_signal_ends_the_node(ros: Client, state: str, number: signal.Signals) -> None:
    busy = state == "active and busy"
    before = shared_memory()
    # a busy node is half a minute into one image, in native code as far as Python is concerned
    process = ros.perception(
        env={"SCRIPTED_LOAD_S": "10"} if state == "configuring" else {"SCRIPTED_BUSY_S": "30"} if busy else {}
    )
    if state == "configuring":
        client = ros.node.create_client(ChangeState, f"{NODE}/change_state")
        ros.wait(client.service_is_ready)
        client.call_async(ChangeState.Request(transition=Transition(label="configure")))
        ros.wait(lambda: ros.status("engine") and "loading" in ros.status("engine").message)
    elif state != "unconfigured":
        assert ros.transition("configure")
    if state.startswith("active"):
        assert ros.transition("activate")
    if busy:
        ros.start("camera_source", "-p", f"source:={ros.picture()}", "-p", "rate_hz:=30.0")
        ros.wait(lambda: int(ros.value("camera", "images received") or 0) > 3)
    if state == "finalized":
        assert ros.transition("shutdown")
    own = process.shared_memory() - before
    code, seconds = process.stop(number)
    assert code == 0, process.output()
    assert seconds < 2.0
    if not busy and state != "configuring":  # there the process is cut off in native code
        assert own and not own & shared_memory()
    assert not re.search("Traceback|xception", process.output())


@pytest.mark.timeout(3600)
def test_random_moments_while_busy(ros: Client) -> None:
    """Two cameras, everything subscribed to, and a signal somewhere in configuring, activating, running or deactivating.

    ``GETOK_KILLS`` says how often; ``pytest -s`` shows what each took.
    """
    rng, taken_s = random.Random(0), []
    picture = ros.picture()
    for name in ("a", "b"):
        ros.start(
            "camera_source", "-p", f"source:={picture}", "-p", f"camera:={name}", "-p", "rate_hz:=10.0", "-r", f"__node:={name}"
        )
        for kind, topic in ((Scene, "scene"), (MarkerArray, "markers"), (CompressedImage, "overlay/compressed")):
            ros.collect(kind, f"{NODE}/{name}/{topic}")
    for _ in range(int(os.environ.get("GETOK_KILLS", "3"))):
        process = ros.perception(cameras="[a, b]", env={"SCRIPTED_RUN_S": str(rng.choice((0.0, 0.005, 0.05)))})
        label = rng.choice(("configure", "deactivate", ""))
        if label != "configure":
            ros.activate()
            time.sleep(rng.uniform(0.0, 1.0))
        if label:
            client = ros.node.create_client(ChangeState, f"{NODE}/change_state")
            ros.wait(client.service_is_ready)
            client.call_async(ChangeState.Request(transition=Transition(label=label)))
            time.sleep(rng.uniform(0.0, 0.05))
        number = rng.choice((signal.SIGINT, signal.SIGTERM))
        code, seconds = process.stop(number)
        assert code == 0 and seconds < 2.0, (label, number, code, seconds, process.output())
        assert not re.search("Traceback|rror|xception", process.output()), (label, number, process.output())
        ros.wait(ros.gone, what="the node gone from the graph")
        ros.forget(process)
        taken_s.append(seconds)
        print(f"{len(taken_s)}: {number.name} {label or 'running'}: exit code 0 after {seconds:.2f} s", flush=True)
    print(f"{len(taken_s)} signals, each with exit code 0, after {max(taken_s):.2f} s at most", flush=True)


def test_camera_source_ends_with_its_source_and_on_signals(ros: Client) -> None:
    source = ros.start("camera_source", "-p", f"source:={ros.picture()}", "-p", "loop:=false", "-p", "rate_hz:=20.0")
    ros.wait(lambda: not source.alive, 10.0, "the end of the source")
    assert source.popen.returncode == 0
    assert "ended after 1 images" in source.output()
    missing = ros.start("camera_source", "-p", "source:=/nowhere.mp4")
    ros.wait(lambda: not missing.alive, 10.0, "the end of the source that is missing")
    assert missing.popen.returncode == 1 and "no such file" in missing.output()
    source = ros.start("camera_source", "-p", f"source:={ros.picture()}")
    ros.wait(lambda: ros.node.count_publishers("/camera/image_raw") > 0)
    assert source.stop(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [("source:=987654", "camera 987654 cannot be opened"), ("rate_hz:=-5.0", "rate_hz: expected 0"),
     ("loop:=often", "loop: expected bool"), ("encoding:=nv12", "cannot be made here")],
)  # fmt: skip
def test_camera_source_refuses_by_name(ros: Client, setting: str, words: str) -> None:
    """And a camera's number, which reads as a number, is a source."""
    settings = [one for one in (f"source:={ros.picture()}", "rate_hz:=10") if one.partition(":")[0] != setting.partition(":")[0]]
    source = ros.start("camera_source", *[word for one in (*settings, setting) for word in ("-p", one)])
    ros.wait(lambda: not source.alive, what="end of the source")
    assert source.popen.returncode == 1 and words in source.output()
