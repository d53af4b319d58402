"""What the trainer hands to the steps of an epoch."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.config.schema import Config
from experiments.runs.state import Progress
from experiments.training import trainer
from experiments.training.experiment import prepare
from experiments.training.metrics import record

SMALL = {"train_size": 50, "val_size": 50, "devices": 1, "tensorboard": False, "checkpoint_every": 0}
THREE = Config(model="mlp", epochs=3, lr="linear:0.1:0.0", **SMALL)


def test_no_validation_loss_is_made_up_before_the_first_is_measured(tmp_path, monkeypatch):
    """The validation loss is NaN at first: a 0 would give the trigger on the generalisation gap a false reference."""
    given, epoch = [], trainer.run_epoch

    def observed(experiment, state, source, key, val_loss, *rest):
        given.append(float(val_loss))
        return epoch(experiment, state, source, key, val_loss, *rest)

    monkeypatch.setattr(trainer, "run_epoch", observed)
    trainer.run(prepare(THREE), 0, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(given, [np.nan, *(line["val_loss"] for line in lines[:-1])], rtol=1e-6)
    rates = [line["lr"] for line in lines]  # of the last step of each epoch, here the only one
    np.testing.assert_allclose(rates, [0.1, 0.1 * 2 / 3, 0.1 / 3], rtol=1e-6)


def test_an_epoch_is_recorded_by_the_steps_that_were_taken_and_active():
    """Of four steps one is skipped, as its loss is NaN, and one is idle."""
    numbers = {
        "loss": [4.0, 2.0, np.nan, 6.0],
        "accuracy": [0.5, 0.75, 0.0, 0.25],
        "active": [1.0, 0.0, 1.0, 1.0],
        "radius": [0.25, 0.5, 9.0, 0.75],
        "cosine": [0.5, -1.0, -1.0, 1.0],
        "grad_norm": [1.0, 50.0, 50.0, 2.0],
        "perturbed_grad_norm": [3.0, 50.0, 50.0, 6.0],
    }
    at = Progress(epoch=1, seconds=7.0, evaluations=6.5, skipped=1, metrics=numbers)
    experiment: Any = SimpleNamespace(steps_per_epoch=4, optimizer=SimpleNamespace(lr=[0.4, 0.3, 0.2, 0.1]))
    expected = {"epoch": 1, "step": 4, "gradient_evaluations": 6.5, "seconds": 7.0, "skipped": 1, "lr": 0.2}
    expected |= {"train_loss": 4.0, "train_accuracy": 0.5, "active": 0.5}
    expected |= {"radius": 0.5, "cosine": 0.75, "grad_norm": 1.5, "perturbed_grad_norm": 4.5}
    assert record(experiment, at) == expected
    idle = record(experiment, dataclasses.replace(at, metrics=numbers | {"active": [0.0] * 4}))
    assert idle == expected | {"active": 0.0} | dict.fromkeys(("radius", "cosine", "grad_norm", "perturbed_grad_norm"))


def test_every_epoch_has_an_order_of_its_own(tmp_path, monkeypatch):
    orders, epoch = [], trainer.run_epoch

    def observed(experiment, state, source, *rest):
        def read(rows, draw=()):
            orders.append(np.concatenate(rows, axis=None))
            return source.read(rows, draw)

        return epoch(experiment, state, source._replace(read=read), *rest)

    monkeypatch.setattr(trainer, "run_epoch", observed)
    trainer.run(prepare(THREE), 0, tmp_path / "run")
    assert [sorted(order) for order in orders] == [list(range(50))] * 3
    assert len({tuple(order) for order in orders}) == 3


def test_the_best_epoch_is_the_first_of_the_best_on_validation_data(tmp_path, monkeypatch):
    measured = iter([(1.0, 0.5), (1.0, 0.75), (1.0, 0.75), (1.0, 0.25)])  # in three epochs, and on the test set
    monkeypatch.setattr(trainer, "evaluate", lambda *args: next(measured))
    result = trainer.run(prepare(THREE), 0, tmp_path / "run")
    assert (result["best_epoch"], result["val_accuracy"], result["test_accuracy"]) == (2, 0.75, 0.25)


@pytest.mark.parametrize(
    ("side", "validation", "settings", "examples"),
    [
        *((32, 5000, {}, 1000), (32, 300, {}, 300), (32, 10, {}, 100), (8, 5000, {}, 1000)),
        *((224, 5000, {"batch": 64}, 64), (224, 5000, {"batch": 256, "accumulate": 8}, 32), (224, 10, {}, 50)),
        (224, 5000, {"batch": 8192}, 1000),
    ],
)
def test_evaluation_of_large_images_takes_no_more_at_a_time_than_a_step(side, validation, settings, examples):
    """A run would end at its first evaluation, hours after the first step has shown that there is memory enough."""
    assert trainer._examples_a_call(Config(**settings), (validation, side, side, 3)) == examples


def test_a_class_that_the_test_set_leaves_out_keeps_its_place(tmp_path):
    experiment = prepare(THREE)
    without = experiment.dataset.test.take(experiment.dataset.test.labels != 3)
    lacking = dataclasses.replace(experiment, dataset=experiment.dataset._replace(test=without))
    whole, some = (trainer.run(x, 0, tmp_path / name) for x, name in ((experiment, "whole"), (lacking, "some")))
    key = "last_test_accuracy_by_class"
    assert some[key] == [None if c == 3 else value for c, value in enumerate(whole[key])]
