"""The rooms of experiments/: imports point down only, and no module imports itself by a detour."""

import ast
import functools
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = (("config",), ("models", "files"), ("runs", "data"), ("training", "report"), ("bench",), ("claims",), ("cli",))
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of experiments/ by its dotted name."""
    paths = sorted((ROOT / "experiments").rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@functools.cache
def imports(name: str) -> frozenset[str]:
    """The modules of experiments/ that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names <= modules().keys() else {*names, node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset((found & modules().keys()) - {name})


def room(name: str) -> str:
    """`training` of `experiments.training.step`."""
    return name.split(".")[1]


def test_no_module_imports_itself_by_a_detour():
    graph = {name: imports(name) for name in modules()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules())


@pytest.mark.parametrize("name", [name for name in modules() if name.count(".") and room(name) in LEVEL])
def test_a_module_imports_from_lower_floors_alone(name):
    wrong = [other for other in imports(name) if room(other) != room(name) and LEVEL[room(other)] >= LEVEL[room(name)]]
    assert not wrong


def test_every_room_is_on_a_floor():
    assert {room(name) for name in modules() if name.count(".")} == {*LEVEL, "__main__"}
