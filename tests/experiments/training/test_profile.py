"""The profile of an epoch: what is executed is found in the trace, what is waited for is not."""

import dataclasses
import json
import time

import pytest

from experiments.cli.main import main
from experiments.config.schema import Config
from experiments.training import profile

SMALL = Config(model="mlp", train_size=64, val_size=40, batch=16, devices=1, epochs=2)


def test_a_profile_says_how_fast_and_how_idle(tmp_path, capsys):
    options = ["--model", "mlp", "--train-size", "64", "--val-size", "40", "--batch", "16", "--devices", "1"]
    assert main(["profile", *options, "--out", str(tmp_path)]) == 0
    assert "devices idle" in capsys.readouterr().out
    found = json.loads((tmp_path / "profile.json").read_text())
    assert found["steps"] == 4
    assert found["images_per_second"] == pytest.approx(64 / found["seconds"])
    assert 0 <= found["idle"] < 1


def test_waiting_for_data_is_idle_time(tmp_path, monkeypatch):
    def slow(blocks, draw=()):
        for block in blocks:
            time.sleep(0.2)
            yield block

    monkeypatch.setattr("experiments.data.pipeline.resident", slow)
    found = profile.profile(dataclasses.replace(SMALL, stream="off"), tmp_path)
    assert found.seconds - (1 - found.idle) * found.seconds > 4 * 0.2
