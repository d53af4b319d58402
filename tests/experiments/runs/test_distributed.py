"""Two processes with two devices each train like one process with four devices."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from experiments.cli.main import main
from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.runs import checkpoint, distributed

TRAIN = [
    *("train", "--model", "mlp", "--method", "pugd", "--lr", "0.1", "--epochs", "2", "--batch", "16"),
    *("--train-size", "48", "--val-size", "40", "--checkpoint-every", "1", "--no-tensorboard"),
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(folder: Path, *options: str) -> list[subprocess.Popen]:
    """Start the two processes of one training run."""
    joint = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
        "PUGD_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),  # pyright: ignore
    }
    command = [sys.executable, "-m", "experiments", *TRAIN, "--distributed", "--out", str(folder), *options]
    places = [os.environ | joint | {"JAX_PROCESS_ID": str(i)} for i in range(2)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(command, env=place, **pipes) for place in places]  # pyright: ignore


def two_processes(folder: Path, *options: str) -> list[set[str]]:
    """Return the lines that the first and the second process print, after both have succeeded.

    They include messages of Gloo about its connections, which may be broken up, since several threads write at once.
    """
    started = start(folder, *options)
    printed = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return [set(text.splitlines()) for text in printed]


def numbers(folder: Path) -> list[dict[str, float]]:
    """Return the metrics of every epoch and the result, without times."""
    texts = [*(folder / "metrics.jsonl").read_text().splitlines(), (folder / "result.json").read_text()]
    keep = ("train_loss", "train_accuracy", "grad_norm", "cosine", "val_loss", "val_accuracy", "test_accuracy", "step")
    return [{k: v for k, v in json.loads(text).items() if k in keep} for text in texts]


@pytest.mark.slow
def test_two_processes_of_two_devices_are_one_of_four(tmp_path):
    first, second = two_processes(tmp_path / "two")
    table = {line for line in first if "pugd" in line or "accuracy" in line}
    assert table
    assert not any(line in text for line in table for text in second)
    assert main([*TRAIN, "--devices", "4", "--out", str(tmp_path / "one")]) == 0
    (two,), (one,) = (list((tmp_path / out).rglob("seed0")) for out in ("two", "one"))
    for found, expected in zip(numbers(two), numbers(one), strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_where_one_is_killed_the_other_ends_and_says_how_to_go_on(tmp_path):
    """The test takes half a minute, since the survivor waits that long for a heartbeat of the other process."""
    started = start(tmp_path / "two", "--epochs", "100000")
    (folder,) = wait_for(tmp_path / "two", "checkpoints/*/sha256.json", started)
    started[1].kill()
    said = [process.communicate(timeout=distributed.PATIENCE + 60)[1] for process in started]
    assert [text for text in said if distributed.PARTNER_LOST not in text] == []
    assert started[0].returncode != 0
    assert checkpoint.steps(folder)


def wait_for(root: Path, pattern: str, started: list[subprocess.Popen]) -> list[Path]:
    """Wait until a file matches the pattern, and return its run folders; no process may end before."""
    while not (found := list(root.glob(f"*/seed0/{pattern}"))):
        assert all(process.poll() is None for process in started)
        time.sleep(0.1)
    return list({path.parents[2] for path in found})


def test_what_fails_on_the_first_process_fails_on_all(monkeypatch):
    def fails():
        raise OSError("disk full")

    failing = distributed.first_alone(fails)
    with pytest.raises(OSError, match="disk full"):
        failing()
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    monkeypatch.setattr(distributed, "any_process", lambda flag: True)
    with pytest.raises(UsageError, match="fails failed on the first process, which says why"):
        failing()


def test_without_others_to_join_there_is_one_line(monkeypatch):
    monkeypatch.setenv("JAX_PROCESS_ID", "one")
    with pytest.raises(UsageError, match="JAX_PROCESS_ID=one"):
        distributed.join()
    with pytest.raises(UsageError, match="--out FOLDER"):
        Config(distributed=True)


def test_one_process_agrees_with_itself_and_writes():
    assert distributed.any_process(True)
    assert not distributed.any_process(False)
    assert distributed.first_alone(lambda x: x + 1)(1) == 2
