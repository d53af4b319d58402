"""Trainings of claims: fair arms, choices on validation data alone, runs that are kept, the scale of the papers."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.claims import command, study
from experiments.claims.rts import all, radius, scale, settings, timing
from experiments.config import specs
from experiments.config.errors import Diverged
from experiments.config.schema import Config
from experiments.data import Dataset, Examples
from experiments.training import experiment, sweep

pytestmark = pytest.mark.xdist_group("study")  # what the module builds is built once
FRESH = 7_000
SETTING = study.Setting("tiny", Config(model="mlp", epochs=1, train_size=50, val_size=50, devices=1), 2, 2)
RTS = ("rts.early", "rts.radius", "rts.timing", "rts.scale", "rts.all")


def lab_in(folder: Path) -> study.Lab:
    return study.Lab(folder, None, Console(quiet=True))


@pytest.fixture(scope="module")
def smoke_lab(tmp_path_factory):
    return lab_in(tmp_path_factory.mktemp("trained"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RTS)
def test_claim_at_smoke_scale(name, smoke_lab):
    with jax.numpy_rank_promotion("allow"):
        finding = command.find(name, "smoke", FRESH, smoke_lab)
    assert finding.checks
    assert finding.reading
    for row in finding.rows.values():
        assert all(len(cells) == 2 and np.isfinite(cells).all() for cells in row.values())
    for panel in finding.panels:
        assert all(len(line.x) == len(line.y) for line in panel.lines)


def trained_in(folder: Path, config: Config, validation: float, test: float) -> None:
    """A run folder as the trainer leaves it, with these accuracies."""
    named = study.described(config, SETTING.base)
    for seed in range(study.CHOOSING_SEED, study.CHOOSING_SEED + SETTING.choosing_seeds):
        place = folder / SETTING.name / named.replace(":", "_").replace(" ", "_") / f"seed{seed}"
        place.mkdir(parents=True)
        settings = {**vars(config), "label": named}
        about = {"config": settings, "title": named, "started": "", "seed": seed}
        (place / "run.json").write_text(json.dumps(about, default=str))
        lines = [json.dumps({"epoch": i + 1, "val_accuracy": validation}) for i in range(config.epochs)]
        (place / "metrics.jsonl").write_text("\n".join(lines))
        (place / "result.json").write_text(json.dumps({"last_test_accuracy": test}))


def test_choice_reads_validation_data_alone(tmp_path):
    candidates = study.grid(SETTING.base, lr=("0.1", "0.2"))
    for config, validation, test in zip(candidates, (0.8, 0.7), (0.1, 0.9), strict=True):
        trained_in(tmp_path, config, validation, test)
    assert study.choose(SETTING, {"SGD": candidates}, lab_in(tmp_path))["SGD"].lr == "0.1"


def test_every_arm_has_as_many_candidates(tmp_path):
    arms = {"SGD": study.grid(SETTING.base, lr=("0.1", "0.2")), "PUGD": [SETTING.base]}
    with pytest.raises(ValueError, match="as many candidates"):
        study.choose(SETTING, arms, lab_in(tmp_path))


def test_a_candidate_that_diverges_is_out(tmp_path):
    wild, tame = study.grid(SETTING.base, lr=("1e30", "0.1"))
    wild, tame = (dataclasses.replace(config, epochs=3) for config in (wild, tame))
    assert study.choose(SETTING, {"SGD": [wild, tame]}, lab_in(tmp_path))["SGD"] == tame
    with pytest.raises(Diverged, match="tiny: every candidate of SGD diverged; the setting wants smaller rates"):
        study.choose(SETTING, {"SGD": [wild, dataclasses.replace(wild, lr="1e31")]}, lab_in(tmp_path))


def test_same_configuration_is_trained_once(tmp_path, monkeypatch):
    first = study.train(SETTING, {"a": SETTING.base}, FRESH, lab_in(tmp_path))["a"]
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("trained again"))
    again = study.train(SETTING, {"b": SETTING.base}, FRESH, lab_in(tmp_path))["b"]
    np.testing.assert_array_equal(study.accuracy(first), study.accuracy(again))
    assert [run.seed for run in again.runs] == [FRESH, FRESH + 1]


def test_missing_data_are_met_before_training(tmp_path):
    settings = (SETTING, SETTING._replace(base=Config(dataset="mnist", devices=1)))
    with pytest.raises(experiment.UsageError, match="PUGD_DATA_DIR"):
        study.across(settings, lambda _: pytest.fail("started"), lab_in(tmp_path))


def test_radii_of_every_schedule_have_the_mean_of_the_constant():
    schedules = list(radius.shapes(Config(method="pugd")).values())[1:]
    for config in schedules:
        schedule = specs.schedule(dict(config.method_options)["radius"], steps=1000)
        assert callable(schedule)
        path = schedule(jnp.arange(1000))
        np.testing.assert_allclose(np.mean(path), 1, rtol=2e-3)
        assert np.max(path) <= 2


def test_controls_of_timing_cost_as_much():
    arms = timing.timed(study.method(SETTING.base, "pugd"), (0.5,))
    for plan in timing.PLANS:
        gate = specs.gate(dict(arms[f"{plan} 0.5"].method_options)["when"], steps=1000)
        assert abs(np.mean(jax.vmap(gate)(jnp.arange(1000))) - 0.5) < 0.05


def test_longer_training_stretches_its_schedules():
    sgd, _, longer = (configs[0] for configs in settings.references(SETTING).values())
    assert (longer.epochs, longer.lr) == (2 * sgd.epochs, sgd.lr)


ARMS = {
    "rts.early": lambda setting: settings.references(setting)["SGD, twice the epochs"][2],
    "rts.radius": lambda setting: radius.shapes(setting.base)["half cosine, falls"],
    "rts.timing": lambda setting: timing.timed(setting.base, (0.25,))["late 0.25"],
    "rts.scale": lambda setting: scale.weighted(setting.base)["s = cos(g, g*)"],
    "rts.all": lambda setting: all.rts(setting.base)["RTS, paper's shapes"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RTS)
def test_arm_of_paper_scale_is_built_and_traced(name, monkeypatch):
    setting = settings.SETTINGS["paper"][RTS.index(name) % 2]
    classes = 200 if "imagenet" in setting.base.dataset else 10
    labels = np.repeat(np.arange(classes, dtype=np.int32), 20)
    examples = Examples(np.zeros((len(labels), 32, 32, 3), np.uint8), labels)
    monkeypatch.setattr(experiment, "load", lambda *_: Dataset(examples, examples, classes, "crop_flip"))
    prepared = experiment.prepare(ARMS[name](setting))
    assert prepared.config.epochs >= 200
    assert prepared.config.model == "resnet18"
