"""CPU settings made before JAX starts: the number of devices, and whether freed memory is kept."""

import os
import subprocess
import sys

import pytest

from experiments.cli import cpu
from experiments.cli.cpu import devices
from experiments.config.errors import UsageError
from experiments.config.schema import Config


@pytest.mark.parametrize(
    ("configs", "count", "expected"),
    [
        ([Config(batch=128)], 4, 4),
        ([Config(batch=51)], 4, 3),
        ([Config(batch=53)], 4, 1),
        ([Config(batch=128, accumulate=64)], 4, 2),
        ([Config(batch=128, seeds=2)], 4, 1),
        ([Config(batch=128), Config(batch=128, method="sam")], 4, 1),
        ([Config(batch=128, seeds=2, devices=2)], 4, 2),
        ([Config(batch=128, devices=8)], 4, 8),
        ([Config(batch=128, parallel="shard_map")], 4, 1),
    ],
)
def test_devices_of_the_cpu(configs, count, expected):
    assert devices(configs, count) == expected


def test_more_devices_than_examples_of_a_batch_are_refused_before_they_are_made():
    with pytest.raises(UsageError, match="--devices 100000: more than the 50 examples of --batch"):
        devices([Config(seeds=2), Config(batch=50, devices=100_000)], 4)


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (Config(batch=50), False),
        (Config(dataset="fashion_mnist", batch=128), False),
        (Config(dataset="fashion_mnist", batch=256), True),
        (Config(dataset="cifar10", batch=128), True),
    ],
)
def test_memory_is_kept_for_large_steps_alone(config, kept, monkeypatch):
    asked = []
    monkeypatch.setattr(cpu, "keep_freed", lambda: asked.append(True))
    cpu.settle([Config(), config])
    assert bool(asked) == kept


@pytest.mark.slow
def test_the_command_line_makes_the_devices_that_are_asked_for(tmp_path):
    words = "import sys, jax; from experiments.cli.main import main; main(sys.argv[1:]); print(len(jax.devices()))"
    small = ["--model", "mlp", "--train-size", "60", "--val-size", "30", "--epochs", "1", "--batch", "30"]
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", words, "train", *small, "--devices", "3", "--out", str(tmp_path)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "3"
