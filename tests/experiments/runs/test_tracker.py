"""What a tracker receives from a run: its settings, every line of metrics.jsonl, the result, and its end."""

import dataclasses
import importlib.machinery
import sys
import types
from typing import Any

import pytest

from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.runs import distributed, records, tracker
from experiments.training import trainer
from experiments.training.experiment import prepare

SMALL = Config(
    model="mlp", train_size=40, val_size=20, batch=20, epochs=2, devices=1, tensorboard=False, checkpoint_every=0
)


class FakeRun:
    """A run of a tracker that records what it receives."""

    def __init__(self, **given):
        self.given, self.lines, self.ended = given, [], False

    def log(self, line, step):
        self.lines.append((step, line))

    def finish(self):
        self.ended = True


class FakeClient:
    """A fake of MLflow's client with a single run."""

    run = FakeRun()

    def create_run(self, experiment_id, run_name):
        FakeClient.run = FakeRun(experiment=experiment_id, name=run_name, config={})
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="1"))

    def log_param(self, run_id, key, value):
        self.run.given["config"][key] = value

    def log_metric(self, run_id, key, value, step):
        self.run.lines.append((step, {key: value}))

    def set_terminated(self, run_id, status):
        self.run.ended = status == "FINISHED"


def install(monkeypatch, name):
    """Install a fake module of that name, and return a function that returns its only run."""
    made = []
    fake: Any = types.ModuleType(name)
    fake.__spec__ = importlib.machinery.ModuleSpec(name, None)
    fake.init = lambda **given: made.append(FakeRun(**given)) or made[-1]
    fake.MlflowClient = FakeClient
    fake.set_experiment = lambda name: types.SimpleNamespace(experiment_id=name)
    monkeypatch.setitem(sys.modules, name, fake)
    return (lambda: FakeClient.run) if name == "mlflow" else (lambda: made[0])


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_it_gets_settings_epochs_and_result(name, monkeypatch, tmp_path):
    run = install(monkeypatch, name)
    tracker.refuse_missing(name)
    config = dataclasses.replace(SMALL, tracker=name, sharpness=2, method="sam")
    result = trainer.run(prepare(config), 0, tmp_path / "run")
    told = run()
    assert told.ended
    assert told.given["config"]["method"] == "sam"
    assert told.given["config"]["seed"] == 0
    (folder,) = records.read(tmp_path)
    seen = {(step, key): value for step, line in told.lines for key, value in line.items()}
    for line in folder.metrics:
        assert seen[line["epoch"], "val_accuracy"] == line["val_accuracy"]
    assert [line.get("sharpness", 0) > 0 for line in folder.metrics] == [False, True]
    assert seen[max(step for step, _ in seen), "test_accuracy"] == result["test_accuracy"]


def test_one_that_fails_on_the_first_process_fails_on_all(monkeypatch, tmp_path):
    """Only the first process calls the tracker; if only it failed, the others would wait in a sum over devices."""
    install(monkeypatch, "wandb")
    monkeypatch.setattr(FakeRun, "log", lambda *args, **given: 1 / 0)
    agreed = []
    monkeypatch.setattr(distributed, "any_process", lambda flag: agreed.append(flag) or flag)
    with pytest.raises(ZeroDivisionError):
        trainer.run(prepare(dataclasses.replace(SMALL, tracker="wandb")), 0, tmp_path)
    assert agreed[-1]


def test_a_run_that_breaks_is_ended_as_such(monkeypatch, tmp_path):
    run = install(monkeypatch, "mlflow")
    with pytest.raises(ZeroDivisionError), tracker.tracked("mlflow", "x", {"epochs": 1}, tmp_path):
        raise ZeroDivisionError
    assert not run().ended


def test_a_package_that_is_missing_is_told_before_training(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--tracker wandb: the package is not installed. Fix: pip install wandb"):
        tracker.refuse_missing("wandb")
