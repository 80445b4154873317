"""The README's promise: no metric is computed by tests alone."""

import ast
from pathlib import Path

import training

ROOT = Path(training.__file__).parent


def test_every_public_metric_is_called_by_the_code():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py")}
    used = {
        node.id if isinstance(node, ast.Name) else node.attr
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    }
    public = {
        f"{path.stem}.{node.name}"
        for path, tree in trees.items()
        if path.parent.name == "metrics"
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    assert len(public) > 100
    assert {name for name in public if name.partition(".")[2] not in used} == set()
