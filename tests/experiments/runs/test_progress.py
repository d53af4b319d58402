"""Progress: when the work will end, on a terminal; a log that cannot be written to does not end it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from experiments.runs.progress import reporter

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


CLOSED = """
import io, sys
from rich.console import Console
from experiments.runs.progress import reporter

class Terminal(io.StringIO):
    def write(self, text):
        if closed:
            raise OSError(5, "Input/output error")
        return super().write(text)

closed, console = [], Console(file=Terminal(), force_terminal=True, width=120)
with reporter(console, 2) as report:
    closed.append(True)
    report("sam, seed 0", 1, "")
console.print("a table")
print("done", file=sys.stderr)
"""


def test_a_terminal_that_closes_does_not_end_the_work():
    ran = subprocess.run([sys.executable, "-c", CLOSED], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0
    assert ran.stderr.endswith("done\n")


def shown(reports: list[tuple[int, int]], *, epochs: int) -> str:
    """Return what a terminal shows after a report every hundred seconds of epochs done and of epochs left out."""
    seconds, out = [0.0], io.StringIO()
    console = Console(file=out, force_terminal=True, width=140, get_time=lambda: seconds[0])
    with reporter(console, epochs) as report:
        for done, left_out in reports:
            seconds[0] += 100
            report("sam, seed 0", done, "", left_out)
    return out.getvalue()


def test_the_end_of_long_epochs_is_in_sight():
    assert "0:08:20" in shown([(1, 0), (1, 0), (1, 0)], epochs=8)


def test_epochs_of_a_failed_run_are_not_waited_for():
    assert "3/3" in shown([(1, 0), (0, 2), (1, 0), (1, 0)], epochs=5)
