"""A model declares what it is; nobody else asks."""

import ast
from pathlib import Path

import pytest

pytest.importorskip("torch")

from sparkrec.config import declaration, kinds

ROOT = Path(__file__).parents[1] / "sparkrec"
NAMES = kinds()
CLASSES = {declaration(kind).settings.__name__ for kind in NAMES}
CLASSES |= {module.__name__ for module in (declaration(kind).module for kind in NAMES) if module is not None}
CLASSES |= {"Recommender", "FieldModel", "SequenceModel", "ModelSettings", "NetworkSettings", "FieldNetworkSettings"}
CLASSES |= {"SequenceNetworkSettings"}


def questions(path):
    """Lines that ask what a model is: by its class, by the name of its kind, or for an attribute that it may have."""
    for node in ast.walk(ast.parse(path.read_text())):
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
        if called in ("isinstance", "issubclass"):
            asked = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
            if asked & CLASSES:
                yield node.lineno, ast.unparse(node)
        if called == "getattr" and "settings" in ast.unparse(node.args[0]) and len(node.args) == 3:
            yield node.lineno, ast.unparse(node)
        texts = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
        if isinstance(node, ast.Compare) and "kind" in ast.unparse(node) and not texts.isdisjoint(NAMES):
            yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_asks_what_a_model_is(path):
    if path == ROOT / "config" / "model.py":  # the registry
        return
    assert list(questions(path)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "spark").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_tasks_are_handed_to_the_runner(path):
    """Nobody else tells Spark to call a function on rows; a column expression of Spark ML's `transform` is no task."""
    if path in (ROOT / "spark" / "runner.py", ROOT / "spark" / "platform" / "before_spark_4.py"):
        return
    ways = {"mapInArrow", "applyInArrow", "mapInPandas", "applyInPandas", "udf", "mapPartitions"}
    called = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not called & ways
