"""The message for a process that is killed or aborted; a process that ends by itself prints none."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.runs.last_words import KILLED

ROOT = Path(__file__).parents[3]
START = "import os, signal, sys; from experiments.runs.last_words import KILLED, last_words; last_words(KILLED); "
COMMAND = "import runpy, sys, types; sys.modules['experiments.cli.main'] = types.SimpleNamespace(main={}); "
COMMAND += "runpy.run_module('experiments', run_name='__main__')"


def said(script: str, *words: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True)
    return [line for line in ran.stderr.splitlines() if line.startswith("stopped: ")]


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_an_end_without_a_word_is_told(end):
    assert said(START + end) == [KILLED]


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "1 / 0"])
def test_an_exit_and_an_error_speak_for_themselves(end):
    assert said(START + end) == []


@pytest.mark.parametrize(
    ("words", "told"), [(["train"], True), (["sweep"], True), (["report"], False), (["train", "--distributed"], False)]
)
def test_trainings_have_last_words(words, told):
    """Distributed training prints another line, which says that one of its processes has died."""
    assert said(COMMAND.format("lambda words: __import__('os').abort()"), *words) == [KILLED] * told


def test_an_interrupt_while_the_program_starts_is_one_line():
    interrupted = COMMAND.format("lambda words: (_ for _ in ()).throw(KeyboardInterrupt)")
    ran = subprocess.run([sys.executable, "-c", interrupted, "report"], cwd=ROOT, capture_output=True, text=True)
    assert (ran.stderr, ran.returncode) == ("stopped\n", 130)
