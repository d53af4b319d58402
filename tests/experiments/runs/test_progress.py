"""Progress in a log: a log that cannot be written to does not end the work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT, FULL = Path(__file__).parents[3], Path("/dev/full")
WORK = """
import sys
from rich.console import Console
from experiments.runs.progress import reporter

with reporter(Console(width=120), 2) as report:
    for epoch in (1, 2):
        report("sam, seed 0", 1, f"epoch {epoch}")
print("done", file=sys.stderr)
"""


def test_a_reader_of_the_log_that_has_ended_does_not_end_the_work():
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run([sys.executable, "-c", WORK], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ran.stderr, ran.returncode) == ("done\n", 0)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a full device")
def test_a_log_on_a_full_disk_does_not_end_the_work():
    with FULL.open("w") as full:
        ran = subprocess.run([sys.executable, "-c", WORK], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.stderr.startswith("done\n")
