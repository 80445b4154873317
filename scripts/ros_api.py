"""Write down the Python interface of one ROS 2 distribution; `tests/ros/test_distributions.py` compares our code with it.

    python -m scripts.ros_api humble rclpy=PATH/rclpy launch=PATH/launch launch_ros=PATH/launch_ros

The paths are package folders of a checkout or an installation of that distribution. They are read, never imported, so no ROS is
needed. The list has one line for each class, function and method: ``rclpy.node.Node.destroy_node(self)``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

LISTS = Path(__file__).resolve().parent.parent / "tests" / "ros" / "api"
# Only what a node or a launch file can meet; tests and implementation details are left out.
MODULES = {
    "rclpy": (
        "__init__", "callback_groups", "clock", "context", "duration", "executors", "impl.rcutils_logger", "lifecycle.__init__",
        "lifecycle.node", "node", "parameter", "parameter_service", "publisher", "qos", "serialization", "service", "signals",
        "subscription", "task", "time", "timer",
    ),
    "launch": (
        "__init__", "actions.__init__", "actions.declare_launch_argument", "actions.emit_event", "actions.execute_local",
        "actions.execute_process", "actions.opaque_function", "actions.register_event_handler",
        "actions.set_environment_variable", "events.__init__", "events.matchers", "launch_description",
        "substitutions.__init__", "substitutions.launch_configuration",
    ),
    "launch_ros": (
        "actions.__init__", "actions.lifecycle_node", "actions.node", "event_handlers.__init__",
        "event_handlers.on_state_transition", "events.lifecycle.__init__", "events.lifecycle.change_state",
    ),
}  # fmt: skip


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Parameter names; ``=`` where there is a default, stars as in the source."""
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    first_default = len(positional) - len(a.defaults)
    words = [arg.arg + ("=" if i >= first_default else "") for i, arg in enumerate(positional)]
    if a.vararg:
        words.append(f"*{a.vararg.arg}")
    elif a.kwonlyargs:
        words.append("*")
    words += [arg.arg + ("=" if default else "") for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    if a.kwarg:
        words.append(f"**{a.kwarg.arg}")
    return f"({', '.join(words)})"


def entries(body: list[ast.stmt], prefix: str, reexports: bool = False) -> Iterator[str]:
    """Lines for the classes, functions, methods, constants and, if asked for, imports of a module or class body."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            yield f"{prefix}{node.name}" + (f" < {', '.join(bases)}" if bases else "")
            yield from entries(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not any(ast.unparse(d).endswith(("overload", ".setter")) for d in node.decorator_list):
                yield f"{prefix}{node.name}{signature(node)}"
        elif isinstance(node, ast.ImportFrom) and reexports:
            yield from (f"{prefix}{alias.asname or alias.name}" for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (f"{prefix}{target.id}" for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.If | ast.Try):
            yield from entries(node.body, prefix, reexports)


def wanted(line: str) -> bool:
    """Public names; of private ones only constructors and the lifecycle mixin's, which the node stands in for."""
    path = line.split("(")[0].split(" ")[0]
    name = path.rpartition(".")[2]
    if path.startswith("rclpy.lifecycle.node.LifecycleNodeMixin."):
        return True
    return name == "__init__" or not (name.startswith("_") or "._" in path)


def main() -> None:
    """Command line."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    lines: set[str] = set()
    for tree in sys.argv[2:]:
        package, _, folder = tree.partition("=")
        for module in MODULES[package]:
            path = Path(folder, *module.split(".")).with_suffix(".py")
            name = f"{package}.{module}".removesuffix(".__init__")
            passes_on = module.endswith(("__init__", "clock"))  # what they import is part of their interface (clock: ClockType)
            lines.update(entries(ast.parse(path.read_text()).body, f"{name}.", passes_on))
    kept = sorted(filter(wanted, lines))
    out = LISTS / f"{sys.argv[1]}.txt"
    out.write_text("\n".join(kept) + "\n")
    print(f"{len(kept)} lines in {out}")


if __name__ == "__main__":
    main()
