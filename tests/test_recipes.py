"""The quickstarts and the cookbook: both sides of each diff run as scripts, and the stated line counts are right."""

import ast
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

PAGES = Path(__file__).parents[1] / "docs" / "pages"
BLOCK = re.compile(r"^\*\*Your script, (\d+) lines? changed\*\*\n\n^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

BRINGS = {
    ".": {"pugd_optax", "jax", "numpy", "optax"},
    "'.[flax]'": {"flax"},
    "'.[equinox]'": {"equinox"},
    "scikit-learn": {"sklearn"},
    "keras": {"keras"},
}
"""The packages that each word of an install command installs; words with extras include those of the dot."""


class Recipe(NamedTuple):
    """A diff of a page, the first lines of the page, and the line count stated above the diff."""

    name: str
    start: str
    diff: str
    count: str

    def side(self, drop: str) -> str:
        """One side of the diff: the script without the lines marked `drop`, and without the marks."""
        lines = self.diff.splitlines()
        return self.start + "\n".join(line[1:] for line in lines if not line.startswith(drop))


def recipes() -> list[Recipe]:
    found = []
    for page in (PAGES / "cookbook.md", *sorted((PAGES / "quickstart").glob("*.md"))):
        text = page.read_text()
        start = "".join(START.findall(text))
        for i, (count, diff) in enumerate(BLOCK.findall(text), 1):
            found.append(Recipe(f"{page.stem}-{i}", start, diff, count))
    return found


RECIPES = recipes()


@pytest.mark.slow
@pytest.mark.parametrize("side", ["yours", "ours"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_both_scripts_learn(recipe, side, monkeypatch):
    if recipe.name.startswith("keras"):
        if importlib.util.find_spec("keras") is None:
            pytest.skip("keras is not installed: pip install keras")
        monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    names: dict = {"__name__": "recipe"}
    with jax.numpy_rank_promotion("allow"):
        exec(compile(recipe.side("+" if side == "yours" else "-"), recipe.name, "exec"), names)
    assert names["accuracy"] > names.get("floor", 0.9)  # a language model is told by its own words


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_count_of_changed_lines(recipe):
    marks = [line[0] for line in recipe.diff.splitlines() if line]
    assert set(marks) == {" ", "+", "-"}
    assert int(recipe.count) == max(marks.count("+"), marks.count("-"))


@pytest.mark.parametrize("page", sorted((PAGES / "quickstart").glob("*.md")), ids=lambda page: page.stem)
def test_the_install_command_brings_what_the_scripts_import(page):
    (command,) = re.findall(r"^pip install (.+)$", page.read_text(), re.MULTILINE)
    words = [BRINGS[word] for word in command.split()]
    scripts = [recipe.side("-") for recipe in RECIPES if recipe.name.startswith(f"{page.stem}-")]
    nodes = [node for script in scripts for node in ast.walk(ast.parse(script))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    imported = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert imported <= BRINGS["."].union(*words)
    assert all(imported & word for word in words)
