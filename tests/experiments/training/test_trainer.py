"""What the trainer hands to the steps of an epoch."""

import json

import numpy as np

from experiments.config.schema import Config
from experiments.training import trainer
from experiments.training.experiment import prepare


def test_no_validation_loss_is_made_up_before_the_first_is_measured(tmp_path, monkeypatch):
    """A gap to a made-up 0 would be the reference of the trigger on the generalisation gap."""
    given, epoch = [], trainer.run_epoch

    def observed(experiment, state, source, key, val_loss, *rest):
        given.append(float(val_loss))
        return epoch(experiment, state, source, key, val_loss, *rest)

    monkeypatch.setattr(trainer, "run_epoch", observed)
    settings = {"train_size": 50, "val_size": 50, "devices": 1, "tensorboard": False, "checkpoint_every": 0}
    trainer.run(prepare(Config(model="mlp", epochs=3, lr="linear:0.1:0.0", **settings)), 0, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(given, [np.nan, *(line["val_loss"] for line in lines[:-1])], rtol=1e-6)
    rates = [line["lr"] for line in lines]  # of the last step of each epoch, here its only one
    np.testing.assert_allclose(rates, [0.1, 0.1 * 2 / 3, 0.1 / 3], rtol=1e-6)
