"""The packages of experiments/: imports point to lower layers only, and there is no import cycle."""

import ast
import functools
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = (
    ("config",),
    ("models", "files"),
    ("runs", "data"),
    ("training", "report"),
    ("bench",),
    ("claims",),
    ("compare",),
    ("cli",),
)
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of experiments/ by its dotted name."""
    paths = sorted((ROOT / "experiments").rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@functools.cache
def imports(name: str) -> frozenset[str]:
    """Return the modules of experiments/ that a module imports, including imports inside functions."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names <= modules().keys() else {*names, node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset((found & modules().keys()) - {name})


def package_of(name: str) -> str:
    """Return the package of a module: `training` for `experiments.training.step`."""
    return name.split(".")[1]


def test_there_is_no_import_cycle():
    graph = {name: imports(name) for name in modules()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules())


@pytest.mark.parametrize("name", [name for name in modules() if name.count(".") and package_of(name) in LEVEL])
def test_a_module_imports_from_lower_layers_only(name):
    wrong = [
        other
        for other in imports(name)
        if package_of(other) != package_of(name) and LEVEL[package_of(other)] >= LEVEL[package_of(name)]
    ]
    assert not wrong


def test_every_package_is_in_a_layer():
    assert {package_of(name) for name in modules() if name.count(".")} == {*LEVEL, "__main__"}
