"""Choosing hyperparameters on validation data, with a grid that is extended at its edges; and statistical power."""

import numpy as np
import pytest
from rich.console import Console

from experiments.claims.claim import Choice
from experiments.claims.ledger import Ledger, Line
from experiments.claims.protocol import FEWEST, choose, seeds_for
from experiments.claims.setting import EXTENSIONS, Setting, Variant, decays, grid, option, rates
from experiments.claims.variants import method
from experiments.claims.workspace import Trained, Workspace
from experiments.config.errors import Diverged
from experiments.config.schema import Config
from experiments.data import load
from experiments.data.split import split

SETTING = Setting("tiny", Config(), (rates(0.01, 0.03, 0.1), decays(1e-4, 1e-3, 1e-2)), choosing_seeds=2)


class Told(Workspace):
    """A workspace that trains nothing: the function `told` gives the result of every configuration."""

    def train(self, setting, configs, half, seeds):
        assert half == "first"
        asked.extend(configs)
        return [Trained(config, [told(config, seed) for seed in seeds]) for config in configs]


asked: list[Config] = []
best = {"rate": 0.03, "decay": 1e-3}


def told(config: Config, seed: int) -> Line:
    rate = float(config.lr.split(":")[1])
    if rate > 2:
        return Line("", {}, seed, "", {}, "", {}, {}, "diverged")
    far = abs(np.log(rate / best["rate"])) + abs(np.log(config.weight_decay / best["decay"]))
    test = rate  # the choice must not follow it
    curve = {"val_accuracy": [0.99 - rate / 100, 0.9 - far / 100 + seed * 1e-4]}
    return Line("", {}, seed, "", {}, "", {"last_test_accuracy": test, "val_accuracy": curve["val_accuracy"][0]}, curve)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    asked.clear()
    monkeypatch.setitem(best, "rate", 0.03)
    return Told(tmp_path, Ledger(tmp_path, "tiny"), None, Console(quiet=True))


def test_choice_is_the_best_point_by_validation_accuracy(workspace):
    choice = choose(SETTING, {"SGD": Variant(Config())}, workspace)["SGD"]
    assert choice.chosen == {"rate": 0.03, "decay": 1e-3}
    assert choice.on_edge == []
    assert len(asked) == 9
    np.testing.assert_allclose(choice.validation, [91.0, 91.01])


def test_a_stopped_variant_chooses_by_its_peak(workspace):
    choices = choose(SETTING, {"SGD": Variant(Config()), "stopped": Variant(Config(), stopped=True)}, workspace)
    assert choices["SGD"].chosen["rate"] == 0.03
    assert choices["stopped"].chosen["rate"] < 0.03  # the choice was on an edge, so the grid was extended downwards


@pytest.mark.parametrize(("at", "rate"), [(1.0, 1.11), (0.0011, 0.00111)])
def test_a_choice_on_an_edge_extends_the_grid(workspace, monkeypatch, at, rate):
    monkeypatch.setitem(best, "rate", at)
    choice = choose(SETTING, {"SGD": Variant(Config())}, workspace)["SGD"]
    np.testing.assert_allclose(choice.chosen["rate"], rate, rtol=0.02)
    assert choice.on_edge == []
    assert len(choice.tried["rate"]) == 6


@pytest.mark.parametrize("extensions", [1, EXTENSIONS])
def test_extensions_are_bounded_and_the_edge_is_named(workspace, monkeypatch, extensions):
    monkeypatch.setitem(best, "rate", 1e-9)
    choice = choose(SETTING._replace(extensions=extensions), {"SGD": Variant(Config())}, workspace)["SGD"]
    assert choice.on_edge == ["rate"]
    assert len(choice.tried["rate"]) == 3 + extensions


def test_points_that_diverge_are_out(workspace, monkeypatch):
    monkeypatch.setitem(best, "rate", 1e3)
    wild = SETTING._replace(axes=(rates(1.0, 3.0), decays(1e-3)))
    assert choose(wild, {"SGD": Variant(Config())}, workspace)["SGD"].chosen["rate"] == 1.0
    with pytest.raises(Diverged, match="tiny: SGD diverged at every point of its grid; use smaller learning rates"):
        choose(SETTING._replace(axes=(rates(4.0, 5.0), decays(1e-3))), {"SGD": Variant(Config())}, workspace)


def test_own_hyperparameters_join_the_grid():
    variant = Variant(method(Config(), "pugd"), (option("radius", 0.5, 1.0, 2.0),))
    assert [axis.name for axis in grid(SETTING, variant)] == ["rate", "decay", "radius"]
    assert grid(SETTING._replace(tiny=True), variant)[-1].values == (0.5,)


def test_an_axis_ends_at_its_bound():
    axis = option("eps", 0.2, 0.4, below=0.9)
    assert axis.beyond(0.4).values == (0.2, 0.4, 0.8)
    assert axis.beyond(0.4).beyond(0.8).values == (0.2, 0.4, 0.8)


def test_a_single_point_trains_nothing(workspace):
    choice = choose(SETTING._replace(axes=(rates(0.1),)), {"SGD": Variant(Config())}, workspace)["SGD"]
    assert (choice.chosen, choice.validation, asked) == ({"rate": 0.1}, [], [])


@pytest.mark.parametrize(("sigma", "count"), [(1.0, 18), (0.01, FEWEST)])
def test_power_of_a_known_spread(sigma, count):
    # Half a width of 0.5: n = 18 has t(17) / sqrt(18) = 2.1098 / 4.2426 = 0.4973, n = 17 has 0.5142.
    differences = sigma * np.array([-1.0, 1.0]) / np.sqrt(2)
    validations = {"SGD": [90.0, 90.0], "PUGD": list(91 + differences)}
    choices = {label: Choice("", label, {}, {}, [], values) for label, values in validations.items()}
    spread, seeds = seeds_for(choices, 1.0)
    np.testing.assert_allclose(spread, sigma)
    assert seeds == count


@pytest.mark.parametrize("imbalance", ["none", "exp:10"])
def test_choosing_and_verdict_share_no_image(imbalance):
    dataset = load(Config().parts.dataset, None)
    dataset = dataset._replace(train=dataset.train._replace(rows=np.arange(1000)))
    used = {}
    for half in ("first", "second"):
        config = Config(half=half, train_size=300, val_size=150, imbalance=imbalance)
        parts = [split(config, dataset, seed)[:2] for seed in (1, 2)]
        used[half] = {int(row) for train_and_val in parts for part in train_and_val for row in part.rows}
    assert used["first"].isdisjoint(used["second"])
    assert all(150 < len(rows) <= 500 for rows in used.values())
