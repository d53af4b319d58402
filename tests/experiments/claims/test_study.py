"""Studies: fair comparisons, choices on validation data alone, cached runs, the scale of the papers."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.claims import catalog, study
from experiments.claims.rts import early, radius, timing
from experiments.claims.variants import described, grid
from experiments.claims.workspace import CHOOSING_SEED, Setting, Workspace, choose, train
from experiments.config import schedules
from experiments.config.errors import Diverged, UsageError
from experiments.config.schema import Config
from experiments.data import Dataset, Examples
from experiments.training import experiment, sweep

pytestmark = pytest.mark.xdist_group("study")  # what the module builds is built once
FRESH = 7_000
SETTING = Setting("tiny", Config(model="mlp", epochs=1, train_size=50, val_size=50, devices=1), 2, 2)
RTS = [name for name in catalog.claims() if name.startswith("rts.")]
TRAINED = [name for name in catalog.claims() if catalog.trained(name)]


def workspace_in(folder: Path) -> Workspace:
    return Workspace(folder, None, Console(quiet=True))


@pytest.fixture(scope="module")
def smoke_workspace(tmp_path_factory):
    return workspace_in(tmp_path_factory.mktemp("trained"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RTS)
def test_claim_at_smoke_scale(name, smoke_workspace):
    with jax.numpy_rank_promotion("allow"):
        finding = catalog.find(name, "smoke", FRESH, smoke_workspace)
    assert finding.conditions
    assert finding.reading
    for row in finding.rows.values():
        assert all(len(cells) == 2 and np.isfinite(cells).all() for cells in row.values())
    for panel in finding.panels:
        assert all(len(line.x) == len(line.y) for line in panel.lines)


def trained_in(folder: Path, config: Config, validation: float, test: float) -> None:
    """A run folder as the trainer leaves it, with these accuracies."""
    named = described(config, SETTING.base)
    for seed in range(CHOOSING_SEED, CHOOSING_SEED + SETTING.choosing_seeds):
        place = folder / SETTING.name / named.replace(":", "_").replace(" ", "_") / f"seed{seed}"
        place.mkdir(parents=True)
        settings = {**vars(config), "label": named}
        about = {"config": settings, "title": named, "started": "", "seed": seed}
        (place / "run.json").write_text(json.dumps(about, default=str))
        lines = [json.dumps({"epoch": i + 1, "val_accuracy": validation}) for i in range(config.epochs)]
        (place / "metrics.jsonl").write_text("\n".join(lines))
        (place / "result.json").write_text(json.dumps({"last_test_accuracy": test}))


def test_choice_reads_validation_data_alone(tmp_path):
    candidates = grid(SETTING.base, lr=("0.1", "0.2"))
    for config, validation, test in zip(candidates, (0.8, 0.7), (0.1, 0.9), strict=True):
        trained_in(tmp_path, config, validation, test)
    assert choose(SETTING, {"SGD": candidates}, workspace_in(tmp_path))["SGD"].lr == "0.1"


def test_every_variant_needs_as_many_candidates(tmp_path):
    variants = {"SGD": grid(SETTING.base, lr=("0.1", "0.2")), "PUGD": [SETTING.base]}
    with pytest.raises(ValueError, match="as many candidates"):
        choose(SETTING, variants, workspace_in(tmp_path))


def test_a_candidate_that_diverges_is_out(tmp_path):
    wild, tame = grid(SETTING.base, lr=("1e30", "0.1"))
    wild, tame = (dataclasses.replace(config, epochs=3) for config in (wild, tame))
    assert choose(SETTING, {"SGD": [wild, tame]}, workspace_in(tmp_path))["SGD"] == tame
    with pytest.raises(Diverged, match="tiny: every candidate of SGD diverged; use smaller learning rates"):
        choose(SETTING, {"SGD": [wild, dataclasses.replace(wild, lr="1e31")]}, workspace_in(tmp_path))


def test_same_configuration_is_trained_once(tmp_path, monkeypatch):
    first = train(SETTING, {"a": SETTING.base}, FRESH, workspace_in(tmp_path))["a"]
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("trained again"))
    again = train(SETTING, {"b": SETTING.base}, FRESH, workspace_in(tmp_path))["b"]
    np.testing.assert_array_equal(first.accuracy, again.accuracy)
    assert [run.seed for run in again.runs] == [FRESH, FRESH + 1]


def test_missing_data_are_reported_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("trained"))
    settings = (SETTING, SETTING._replace(base=Config(dataset="mnist", devices=1)))
    made = early.STUDY._replace(settings={"smoke": settings})
    with pytest.raises(UsageError, match="PUGD_DATA_DIR"):
        study.run(made, "smoke", FRESH, workspace_in(tmp_path))


def test_settings_that_need_data_are_left_out_where_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("trained"))
    settings = (SETTING._replace(base=Config(dataset="mnist", devices=1), optional=True),)
    finding = study.run(early.STUDY._replace(settings={"smoke": settings}), "smoke", FRESH, workspace_in(tmp_path))
    assert finding.conditions == []


def candidates(claim, setting: Setting) -> dict[str, list[Config]]:
    """The candidates of every variant, where each stage has chosen the first."""
    found, chosen = {}, {}
    for stage in claim.STUDY.stages:
        made = stage(setting, chosen)
        found |= made
        chosen |= {label: configs[0] for label, configs in made.items()}
    return found


@pytest.mark.parametrize("scale", ["smoke", "full", "paper"])
@pytest.mark.parametrize("name", TRAINED)
def test_every_variant_of_a_stage_has_as_many_distinct_candidates(name, scale):
    for setting in catalog.claims()[name].STUDY.settings[scale]:
        chosen = {}
        for stage in catalog.claims()[name].STUDY.stages:
            made = stage(setting, chosen)
            assert {len(set(configs)) for configs in made.values()} <= {1} or {
                len(set(configs)) for configs in made.values()
            } == {setting.candidates}
            chosen |= {label: configs[0] for label, configs in made.items()}


def test_radii_of_every_schedule_have_the_mean_of_the_constant():
    for label in radius.SCHEDULES:
        (config,) = candidates(radius, SETTING)[label]
        schedule = schedules.number(dict(config.parts.method.options)["radius"], steps=1000)
        assert callable(schedule)
        path = schedule(jnp.arange(1000))
        np.testing.assert_allclose(np.mean(path), 1, rtol=2e-3)
        assert np.max(path) <= 2


def test_controls_of_timing_cost_as_much():
    for plan in timing.PLANS:
        (config,) = candidates(timing, SETTING)[f"{plan} 0.5"]
        gate = schedules.gate(dict(config.parts.method.options)["when"], steps=1000)
        assert abs(np.mean(jax.vmap(gate)(jnp.arange(1000))) - 0.5) < 0.05


def test_longer_training_stretches_its_schedules():
    sgd, _, longer = (configs[0] for configs in candidates(early, SETTING).values())
    assert (longer.epochs, longer.lr) == (2 * sgd.epochs, sgd.lr)


LAST = {
    "rts.early": "SGD, twice the epochs",
    "rts.radius": "half cosine, falls",
    "rts.timing": "late 0.25",
    "rts.scale": "s = cos(g, g*)",
    "rts.all": "RTS, paper's shapes",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAST)
def test_variant_of_paper_scaleis_built_and_traced(name, monkeypatch):
    claim = catalog.claims()[name]
    setting = claim.STUDY.settings["paper"][list(LAST).index(name) % 2]
    classes = 200 if "imagenet" in setting.base.dataset else 10
    labels = np.repeat(np.arange(classes, dtype=np.int32), 20)
    examples = Examples(np.zeros((len(labels), 32, 32, 3), np.uint8), labels)
    monkeypatch.setattr(experiment, "load", lambda *_: Dataset(examples, examples, classes, "crop_flip"))
    prepared = experiment.prepare(candidates(claim, setting)[LAST[name]][-1])
    assert prepared.config.epochs >= 200
    assert prepared.config.model == "resnet18"
