"""Our code uses only what Humble, Jazzy and Kilted all have.

``api/*.txt`` list the interfaces of rclpy, launch and launch_ros (made by `scripts.ros_api` from public sources): branches humble
and jazzy at the end of 2024; for Kilted rclpy 9.1.2 of PyPI, and launch of rolling at the end of 2024, from which Kilted came.
Changes in behaviour cannot be seen here; for those tests/ros runs on the wheels of Jazzy and, where installed, of Kilted.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = ("humble", "jazzy", "kilted")
CODE = [
    *sorted((ROOT / "getok_drive/ros").glob("*.py")),
    *sorted((ROOT / "launch").glob("*.py")),
    *sorted((ROOT / "scripts").glob("demo*.py")),
]
TESTS = sorted((ROOT / "tests/ros").glob("*.py"))
PACKAGES = ("rclpy", "launch", "launch_ros")

# What our code calls its rclpy objects: pattern of the expression before the dot -> class.
RECEIVERS = (
    (r"(self\.)?_?(node|graph)", "rclpy.node.Node"),
    (r".*get_logger\(\)", "rclpy.impl.rcutils_logger.RcutilsLogger"),
    (r".*get_clock\(\)", "rclpy.clock.Clock"),
    (r".*get_clock\(\)\.now\(\)", "rclpy.time.Time"),
    (r"(self\.)?_?executor", "rclpy.executors.Executor"),
    (r"publisher|self\.(_scene|_markers|_grid|_overlay|_raw|_jpeg|_info|_diagnostics)", "rclpy.publisher.Publisher"),
    (r"Node", "rclpy.node.Node"),
    (r"LifecycleNodeMixin", "rclpy.lifecycle.node.LifecycleNodeMixin"),
    (r"Executor", "rclpy.executors.Executor"),
    (r"rclpy", "rclpy"),
)
BASES = {
    "Node": "rclpy.node.Node",
    "LifecycleNodeMixin": "rclpy.lifecycle.node.LifecycleNodeMixin",
    "Executor": "rclpy.executors.Executor",
}


class Interface:
    """One distribution's list."""

    def __init__(self, name: str) -> None:
        lines = (ROOT / "tests/ros/api" / f"{name}.txt").read_text().splitlines()
        self.signatures = {re.split(r"[( ]", line, maxsplit=1)[0]: line for line in lines}
        self.bases = {line.split(" < ")[0]: line.split(" < ")[1].split(", ") for line in lines if " < " in line}
        self.modules = {name.rpartition(".")[0] for name in self.signatures if name[name.rfind(".") + 1].isupper()}

    def find(self, path: str) -> str | None:
        """The line of a dotted path, looked for in base classes, too; None where the distribution has no such thing."""
        owner, _, name = path.rpartition(".")
        if path in self.signatures:
            return self.signatures[path]
        for base in self.bases.get(owner, ()):
            full = next((known for known in self.bases | self.signatures if known.endswith(f".{base.rpartition('.')[2]}")), None)
            if full and full != owner and (line := self.find(f"{full}.{name}")):
                return line
        return None


def accepts(line: str, keywords: set[str]) -> bool:
    """Whether a signature line takes these keyword arguments."""
    parameters = re.search(r"\((.*)\)", line)
    if parameters is None or "**" in parameters[1]:
        return True
    return keywords <= {word.strip().rstrip("=").lstrip("*") for word in parameters[1].split(",")}


@dataclass(frozen=True)
class Use:
    """Something of ROS that our code names: where, its dotted path, the keywords it is called with."""

    where: str
    path: str
    keywords: frozenset[str] = frozenset()


def imports(path: Path) -> Iterator[tuple[str, Use]]:
    """Names in the file, and what of ROS they are; not what a file can do without (``try: ... except ImportError``)."""
    tree = ast.parse(path.read_text())
    optional: set[ast.AST] = set()
    for block in (n for n in ast.walk(tree) if isinstance(n, ast.Try)):
        if any(handler.type is not None and ast.unparse(handler.type) == "ImportError" for handler in block.handlers):
            optional.update(block.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES and node not in optional:
            for alias in node.names:
                yield alias.asname or alias.name, Use(f"{path.name}:{node.lineno}", f"{node.module}.{alias.name}")


def uses(path: Path) -> Iterator[Use]:
    """Imports, constructor calls, and calls and attributes on the objects named in `RECEIVERS`."""
    tree = ast.parse(path.read_text())
    imported = {}
    for name, use in imports(path):
        imported[name] = use.path
        yield use
    own: dict[ast.AST, tuple[list[str], set[str]]] = {}  # nodes inside of classes that extend rclpy's -> (bases, own names)
    for kind in (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)):
        bases = [BASES[ast.unparse(b)] for b in kind.bases if ast.unparse(b) in BASES]
        names = {n.name for n in ast.walk(kind) if isinstance(n, ast.FunctionDef)}
        names |= {n.attr for n in ast.walk(kind) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        if bases:
            own.update(dict.fromkeys(ast.walk(kind), (bases, names)))
    calls = {n.func: frozenset(k.arg for k in n.keywords if k.arg) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    for node in ast.walk(tree):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Name) and node in calls and node.id in imported:
            yield Use(where, f"{imported[node.id]}.__init__", calls[node])
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            receiver = ast.unparse(node.value)
            if receiver == "self" and node in own and node.attr not in own[node][1]:
                yield Use(where, "|".join(f"{base}.{node.attr}" for base in own[node][0]), calls.get(node, frozenset()))
            elif receiver != "self":
                kind = next((known for pattern, known in RECEIVERS if re.fullmatch(pattern, receiver)), None)
                if kind:
                    yield Use(where, f"{kind}.{node.attr}", calls.get(node, frozenset()))


ALL = [use for path in CODE for use in uses(path)]
INTERFACES = {name: Interface(name) for name in DISTRIBUTIONS}
# Attributes that instances get in a constructor: a list of classes and methods does not show them.
INSTANCE = {"rclpy.lifecycle.node.LifecycleNodeMixin._state_machine"}
# Of our own nodes and executor, asked of them from outside.
OURS = {"params", "state", "enabled", "engine", "stopping", "cameras", "release", "finished", "drain"}


def problem(use: Use, interface: Interface) -> str:
    """What is wrong with a use in a distribution; empty when nothing is."""
    paths = use.path.split("|")
    if any(p in INSTANCE or p.rpartition(".")[2] in OURS for p in paths):
        return ""
    lines = [line for p in paths if (line := interface.find(unmangled(p)) or interface.find(homed(p, interface)))]
    if not lines:
        return "" if use.path.endswith(".__init__") else f"{use.where}: no {use.path}"
    if not any(accepts(line, set(use.keywords)) for line in lines):
        return f"{use.where}: {lines[0]} does not take {', '.join(sorted(use.keywords))}"
    return ""


def unmangled(path: str) -> str:
    """``_Class__name`` as the class itself writes it."""
    return re.sub(r"\._([A-Za-z]+)__(\w+)$", r".__\2", path)


def homed(path: str, interface: Interface) -> str:
    """The path of a re-exported name, e.g. ``launch_ros.actions.Node.__init__``, in the module that defines it."""
    owner, _, name = path.rpartition(".")
    package, kind = owner.split(".")[0], owner.rpartition(".")[2]
    homes = [p for p in interface.signatures if p.startswith(f"{package}.") and p.endswith(f".{kind}.{name}")]
    return homes[0] if homes else path


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_only_what_the_distribution_has_is_used(distribution: str) -> None:
    problems = {text for use in ALL if (text := problem(use, INTERFACES[distribution]))}
    assert not problems, "\n".join(sorted(problems))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_tests_import_only_what_the_distribution_has(distribution: str) -> None:
    found = [use for path in TESTS for _, use in imports(path)]
    problems = {text for use in found if (text := problem(use, INTERFACES[distribution]))}
    assert len(found) > 15 and not problems, "\n".join(sorted(problems))


def test_the_walk_finds_what_matters() -> None:
    """The test above could pass by seeing nothing."""
    seen = {use.path.split("|")[-1] for use in ALL}
    assert {
        "rclpy.node.Node.create_subscription",
        "rclpy.node.Node.get_publishers_info_by_topic",
        "rclpy.qos.QoSProfile.__init__",
    } <= seen
    assert {"rclpy.init", "launch_ros.actions.LifecycleNode", "launch.actions.OpaqueFunction.__init__"} <= seen
    assert any("throttle_duration_sec" in use.keywords for use in ALL)
    with_keywords = [use for use in ALL if use.keywords]
    assert len(ALL) > 120 and len(with_keywords) > 30


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("from rclpy.node import Node\nnode.create_timer(1.0, f, autostart=False)", "does not take autostart"),
        ("from rclpy.experimental import EventsExecutor", "no rclpy.experimental.EventsExecutor"),
        ("node.get_clients_info_by_service('x')", "no rclpy.node.Node.get_clients_info_by_service"),
        ("import rclpy\nrclpy.init(strict=True)", "does not take strict"),
        ("try:\n    pass\nexcept OSError:\n    from rclpy import event_handler", "no rclpy.event_handler"),
    ],
)
def test_what_humble_lacks_is_noticed(tmp_path: Path, source: str, complaint: str) -> None:
    path = tmp_path / "code.py"
    path.write_text(source)
    assert any(complaint in problem(use, INTERFACES["humble"]) for use in uses(path))


def test_the_list_of_the_installed_distribution_is_true() -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
    major = metadata.version("rclpy").split(".")[0]
    name = {"3": "humble", "7": "jazzy", "9": "kilted"}.get(major)
    if name is None:
        pytest.skip(f"rclpy {metadata.version('rclpy')} is of none of {', '.join(DISTRIBUTIONS)}")
    compared = 0
    for path, line in INTERFACES[name].signatures.items():
        if not path.startswith("rclpy.node.Node.") or path.endswith("__init__"):
            continue
        method = inspect.getattr_static(importlib.import_module("rclpy.node").Node, path.rpartition(".")[2], None)
        if inspect.isfunction(method):
            names = {p.name for p in inspect.signature(method).parameters.values()}
            listed = {word.strip().rstrip("=").lstrip("*") for word in re.search(r"\((.*)\)", line)[1].split(",")} - {""}
            assert names == listed, path
            compared += 1
    assert compared > 50
