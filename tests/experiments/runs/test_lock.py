"""A run folder is trained by one process at a time."""

import errno
import subprocess
import sys

import pytest

from experiments.cli.main import main
from experiments.config.errors import UsageError
from experiments.runs import lock
from experiments.runs.lock import held

fcntl = pytest.importorskip("fcntl")

SMALL = ["--model", "mlp", "--train-size", "80", "--val-size", "30", "--batch", "40", "--epochs", "1", "--devices", "1"]
HOLD = """
import signal, sys
from pathlib import Path
from experiments.runs.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


def test_a_folder_that_is_trained_is_refused_and_free_again_afterwards(tmp_path):
    with held(tmp_path / "run"):
        with pytest.raises(UsageError, match="run: another process is training there"), held(tmp_path / "run"):
            pytest.fail("two at once")
        with held(tmp_path / "another"):
            pass
    with held(tmp_path / "run"):
        pass


def test_the_lock_of_a_process_that_is_killed_is_free(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError), held(tmp_path):
            pass
        other.kill()
    with held(tmp_path):
        pass


def test_other_processes_of_a_training_follow_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "is_first", lambda: False)
    with held(tmp_path / "run"), held(tmp_path / "run"):
        assert not (tmp_path / "run").exists()
    monkeypatch.setattr(lock, "any_process", lambda taken: True)
    with pytest.raises(UsageError, match="another process"), held(tmp_path / "run"):
        pass


def test_a_file_system_without_locks_does_without(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with held(tmp_path), held(tmp_path):
        pass


def test_a_training_in_a_folder_that_is_trained_is_one_line_and_leaves_it_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "out" / "none" / "seed0"
    with held(folder):
        assert main(["train", *SMALL, "--out", "out"]) == 2
        assert main(["sweep", *SMALL, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert said.count("error: out/none/seed0: another process is training there") == said.count("\n") == 2
    assert [path.name for path in folder.iterdir()] == [lock.NAME]
