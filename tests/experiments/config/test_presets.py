"""The papers' recipes: each resolves, builds its chain and is traced, without training."""

import dataclasses
import functools

import numpy as np
import pytest

from experiments.cli import options
from experiments.cli.main import main
from experiments.config import presets
from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.data import Dataset, Examples
from experiments.models import zoo
from experiments.models.functional import network
from experiments.models.resnet import WideResNet
from experiments.training import experiment
from tests.tiers import slow_but

PRESETS = presets.notes()
COSTS = {
    "asam": (1, 2),
    "f_gr": (1, 2),
    "fast_cifar10": (1, 1),
    "gnp": (1, 2),
    "ldam_drw_resnet32": (1, 1),
    "lpl": (1, 1),
    "noise_injection_resnet18": (1, 1),
    "pugd": (1, 2),
    "rts": (1, 2),
    "sam_wrn28_10": (1, 2),
}
"""Gradient evaluations of an idle step and of an active step, by preset."""


@pytest.fixture(autouse=True)
def black_images(monkeypatch):
    """Replace every data set by 6000 black images of the shape of CIFAR-10, 600 in each class."""
    labels = np.arange(6000, dtype=np.int32) % 10
    examples = Examples(np.zeros((6000, 32, 32, 3), np.uint8), labels)
    dataset = Dataset(examples, examples.take(slice(100)), 10, "crop_flip")
    monkeypatch.setattr(experiment, "load", lambda *args: dataset)


@pytest.fixture
def small_networks(monkeypatch):
    """Replace the networks by smaller ones of the same kind, which are traced in a second."""
    monkeypatch.setitem(zoo.MODELS, "wrn28_10", functools.partial(WideResNet, 10, 1))
    monkeypatch.setitem(zoo.MODELS, "resnet18", zoo.MODELS["resnet8"])
    monkeypatch.setitem(zoo.MODELS, "resnet32", zoo.MODELS["resnet8"])
    monkeypatch.setattr(experiment, "network", network.__wrapped__)  # bypass the cache of real networks


def test_the_recipes_of_the_papers_are_there():
    assert set(PRESETS) == set(COSTS)


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("name", slow_but(("fast_cifar10",), PRESETS))
def test_a_preset_is_traced(name):
    config = dataclasses.replace(presets.load(name), epochs=2, devices=1)
    made = experiment.prepare(config)
    assert made.config.preset == name
    assert made.optimizer.cost == COSTS[name]
    assert made.steps_per_epoch >= 1


@pytest.mark.parametrize("name", PRESETS)
def test_a_note_says_how_to_run_it_and_what_to_expect(name):
    note = PRESETS[name]
    assert f"python -m experiments train --preset {name}" in note
    for word in ("Hardware:", "Expected score:", "measured here"):
        assert word in note


def test_options_come_on_top_of_the_preset():
    config = options.train_config(["--preset", "asam", "--method.radius", "1.0", "--epochs=3"])
    assert config.method_options == (("radius", "1.0"), ("eta", "0.01"))
    assert (config.preset, config.epochs, config.loss) == ("asam", 3, "cross_entropy:0.1")


def test_another_method_leaves_the_options_of_the_presets_behind():
    config = options.train_config(["--preset", "asam", "--method", "sam"])
    assert (config.method, config.method_options) == ("sam", ())
    lpl = options.train_config(["--preset", "lpl", "--method", "none"])
    assert lpl.optimizer_options == (("nesterov", "true"),)


def test_without_a_preset_the_defaults_hold():
    assert dataclasses.replace(options.train_config([]), out=None, data_dir=None) == Config()


def test_an_unknown_preset_suggests_the_nearest():
    with pytest.raises(UsageError, match="unknown preset 'asm'; did you mean 'asam'"):
        options.train_config(["--preset", "asm"])


def test_the_command_lists_them_and_shows_a_note(capsys):
    assert main(["presets"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in PRESETS)
    assert main(["presets", "gnp"]) == 0
    assert "r 0.1, alpha 0.8" in capsys.readouterr().out
    assert main(["presets", "gpn"]) == 2
