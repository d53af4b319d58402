"""`python -m experiments` where the packages of its extra are missing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = "import runpy, sys; sys.modules[{0!r}] = None; runpy.run_module('experiments', run_name='__main__')"


def run_without(module):
    command = [sys.executable, "-c", RUN.format(module), "train", "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("missing", ["rich", "flax"])
def test_one_line_says_what_to_install(missing):
    ran = run_without(missing)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error: experiments needs {missing}")
    assert ran.stderr.endswith(". Fix: pip install '.[experiments]' in the clone.\n")
    assert (ran.stderr.count("\n"), ran.stdout) == (1, "")


def test_a_module_of_ours_that_is_missing_is_no_matter_of_installing():
    assert "ModuleNotFoundError: import of experiments.cli.main halted" in run_without("experiments.cli.main").stderr
