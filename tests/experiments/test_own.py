"""The pages "Add a claim", "Add a data set" and "Add a model" are followed literally, in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CACHE

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "pages"
BLOCK = re.compile(r'^```(\w+) title="(.+?)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:python -m )?((?:pytest|experiments) .*)$", re.MULTILINE)


@pytest.fixture
def copy(tmp_path):
    """Return a folder with a copy of the packages, tests and pages, without results."""
    skip = shutil.ignore_patterns("__pycache__", "results")
    for folder in ("pugd_optax", "experiments", "tests", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def follow(page: str, root: Path) -> None:
    """Write the files of a page, and add the lines of its diffs to existing files."""
    for kind, path, content in BLOCK.findall(page):
        if kind == "python":
            assert not (root / path).exists()
            (root / path).write_text(content)
            continue
        lines = content.splitlines(keepends=True)
        before, after = ("".join(x[1:] for x in lines if x[0] in kept) for kept in (" ", " +"))
        text = (root / path).read_text()
        assert text.count(before) == 1, f"{path} holds {before!r} once"
        (root / path).write_text(text.replace(before, after))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "files", "passed"), [("own_claim", 1, 2), ("own_data", 5, 5), ("own_model", 3, 3)])
def test_the_page_is_followed_literally(name, files, passed, copy):
    """The page names exactly as many files as expected, and all of its commands succeed."""
    page = (PAGES / f"{name}.md").read_text()
    assert len({path for _, path, _ in BLOCK.findall(page)}) == files
    follow(page, copy)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(copy), "JAX_COMPILATION_CACHE_DIR": CACHE}
    written = [path for kind, path, _ in BLOCK.findall(page) if kind == "python"]
    checks = [f"ruff check {' '.join(written)}", f"ruff format --check {' '.join(written)}"]
    for command in checks + COMMAND.findall(page):
        words = [sys.executable, "-m", *command.split()]
        words += ["-p", "no:cacheprovider", "--override-ini=testpaths="] if command.startswith("pytest") else []
        ran = subprocess.run(words, cwd=copy, capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        if command.startswith("pytest"):
            assert int(re.findall(r"(\d+) passed", ran.stdout)[-1]) >= passed
