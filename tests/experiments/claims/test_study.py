"""Studies: results at smoke scale, what all comparisons have in common, and the scale of the papers."""

import dataclasses
import io
import itertools
import signal
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.claims import budget, catalog, command, ledger, study
from experiments.claims.claim import Choice
from experiments.claims.ledger import Ledger, Line
from experiments.claims.rts import early, factorial, radius, settings, shortcuts, stability, timing
from experiments.claims.setting import Setting, at, grid, rates
from experiments.claims.variants import described
from experiments.claims.workspace import Trained, Workspace
from experiments.config import schedules
from experiments.config.errors import Stopped, UsageError
from experiments.config.schema import Config
from experiments.data import Dataset, Examples
from experiments.runs.signals import graceful_shutdown
from experiments.training import experiment, sweep

pytestmark = pytest.mark.xdist_group("study")  # one worker, so that cached results are computed once
FRESH = 7_000
SETTING = Setting("tiny", Config(model="mlp", epochs=1, train_size=50, val_size=50, devices=1), (rates(0.1),))
SMALL = [name for name in catalog.claims() if name.startswith(("rts.", "real."))]
TRAINED = [name for name in catalog.claims() if catalog.trained(name)]


def workspace_in(folder: Path) -> Workspace:
    return Workspace(folder, Ledger(folder / "ledger", "tiny"), None, Console(quiet=True))


@pytest.fixture(scope="module")
def smoke_workspace(tmp_path_factory):
    return workspace_in(tmp_path_factory.mktemp("trained"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_claim_at_smoke_scale(name, smoke_workspace):
    with jax.numpy_rank_promotion("allow"):
        finding = catalog.find(name, "smoke", FRESH, smoke_workspace)
    assert finding.conditions
    assert finding.reading
    for row in finding.rows.values():
        assert all(len(cells) == 2 and np.isfinite(cells).all() for cells in row.values())
    for panel in finding.panels:
        assert all(len(line.x) == len(line.y) for line in panel.lines)


def test_missing_data_are_reported_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("trained"))
    both = (SETTING, SETTING._replace(base=Config(dataset="mnist", devices=1)))
    made = early.STUDY._replace(settings={"smoke": both})
    with pytest.raises(UsageError, match="PUGD_DATA_DIR"):
        study.run(made, "smoke", FRESH, workspace_in(tmp_path))


def test_settings_that_need_data_are_left_out_where_there_are_none_unless_none_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "outcome_of", lambda variants, setting, *_: pytest.fail(setting.name))
    one = SETTING._replace(name="with data", base=Config(dataset="mnist", devices=1), optional=True)
    with pytest.raises(pytest.fail.Exception, match="tiny"):
        study.run(early.STUDY._replace(settings={"smoke": (one, SETTING)}), "smoke", FRESH, workspace_in(tmp_path))
    with pytest.raises(UsageError, match="PUGD_DATA_DIR"):
        study.run(early.STUDY._replace(settings={"smoke": (one,)}), "smoke", FRESH, workspace_in(tmp_path))


@pytest.mark.parametrize("scale", ["smoke", "full", "paper"])
@pytest.mark.parametrize("name", TRAINED)
def test_variants_are_distinct_and_share_their_grid(name, scale):
    for setting in catalog.claims()[name].STUDY.settings[scale]:
        variants = catalog.claims()[name].STUDY.variants(setting)
        assert len(set(variants.values())) == len(variants)
        for variant in variants.values():
            axes = grid(setting, variant)
            assert axes[: len(setting.axes)] == setting.axes
            values = [at(variant.config, axes, point) for point in itertools.product(*(axis.values for axis in axes))]
            assert len({ledger.key(config) for config in values}) == len(values)
            assert all(list(axis.values) == sorted(axis.values) for axis in axes)


@pytest.mark.parametrize("scale", ["smoke", "full", "paper"])
def test_claims_that_share_a_folder_of_runs_share_the_runs(scale):
    there = {}
    for name in TRAINED:
        made = catalog.claims()[name].STUDY
        for setting in made.settings[scale]:
            for variant in made.variants(setting).values():
                axes = grid(setting, variant)
                for point in itertools.product(*(axis.values for axis in axes)):
                    config = at(variant.config, axes, point)
                    assert there.setdefault((setting.name, described(config, setting.base)), config) == config, name


@pytest.mark.parametrize("name", TRAINED)
def test_full_scale_follows_the_protocol(name):
    for setting in catalog.claims()[name].STUDY.settings["full"]:
        (rate, decay), seeds = setting.axes, setting.choosing_seeds
        assert (rate.name, decay.name) == ("rate", "decay")
        assert len(rate.values) >= 5 <= seeds
        for variant in catalog.claims()[name].STUDY.variants(setting).values():
            assert all(len(axis.values) >= 3 for axis in variant.own)


@pytest.mark.parametrize("name", TRAINED)
def test_early_stopping_is_a_variant_where_labels_are_wrong(name):
    asked = name in ("rts.early", "rts.all", "lpg.noisy", "real.noisy")
    for setting in catalog.claims()[name].STUDY.settings["full"]:
        variants = catalog.claims()[name].STUDY.variants(setting).values()
        assert any(v.stopped for v in variants) == (asked and setting.base.noise != "none")


def test_radii_of_every_schedule_have_the_mean_of_the_constant():
    for label in radius.SCHEDULES:
        config = radius.STUDY.variants(SETTING)[label].config
        schedule = schedules.number(dict(config.parts.method.options)["radius"], steps=1000)
        assert callable(schedule)
        path = schedule(jnp.arange(1000))
        np.testing.assert_allclose(np.mean(path), 1, rtol=5e-3)
        assert np.max(path) <= 2


def test_controls_of_timing_cost_as_much():
    for plan in timing.PLANS:
        config = timing.STUDY.variants(SETTING)[f"{plan} 0.5"].config
        gate = schedules.gate(dict(config.parts.method.options)["when"], steps=1000)
        assert abs(np.mean(jax.vmap(gate)(jnp.arange(1000))) - 0.5) < 0.05


def test_longer_training_stretches_its_schedules():
    sgd, longer = (early.STUDY.variants(SETTING)[label].config for label in ("SGD", settings.LONGER))
    assert (longer.epochs, longer.lr) == (2 * sgd.epochs, sgd.lr)


def outcome_of(curves, choices=None, every=1):
    """Return an outcome with these validation curves in %, [epochs][seeds]; each ends with the test accuracy."""
    variants = {}
    for label, curve in curves.items():
        columns = np.transpose(np.asarray(curve, float) / 100)
        epochs = [every * (i + 1) for i in range(len(curve))]
        lines = [
            Line("", {}, 0, "", {}, "", {"last_test_accuracy": c[-1]}, {"epoch": epochs, "val_accuracy": list(c)})
            for c in columns
        ]
        variants[label] = Trained(Config(), lines)
    return study.Outcome(SETTING, variants, choices or {}, None)


def test_synergy_and_main_effects_of_known_gains():
    gains = {"PUGD": 0, "R": 1, "T": 2, "S": 4, "RT": 3, "RS": 5, "TS": 9, "RTS": 20}
    outcome = outcome_of({label: [[50 + gain, 60 + gain]] for label, gain in gains.items()})
    np.testing.assert_allclose(factorial.synergy(outcome, "TS"), [3, 3], atol=1e-9)
    np.testing.assert_allclose(factorial.synergy(outcome, "RTS"), [13, 13], atol=1e-9)
    np.testing.assert_allclose(factorial.main_effect(outcome, "R"), [(1 + 1 + 1 + 11) / 4] * 2, atol=1e-9)


def test_measures_of_stability_by_hand():
    curve = [[0, 0], [50, 0], [40, 0], [60, 0], [58, 30], [58, 30], [60, 30], [62, 34]]
    choice = Choice(
        "", "SGD", {"rate": [0.1, 0.3, 1.0]}, {"rate": 1.0}, ["rate"], [90, 92], [[1, 1], [88, 91], [90, 92]]
    )
    outcome = outcome_of({"SGD": curve}, {"SGD": choice})
    np.testing.assert_allclose(stability.over_seeds(outcome, "SGD"), [14, 14])
    np.testing.assert_allclose(stability.over_epochs(outcome, "SGD"), [1, 2])
    np.testing.assert_allclose(stability.largest_fall(outcome, "SGD"), [2, 0], atol=1e-9)
    np.testing.assert_allclose(stability.off_the_rate(outcome, "SGD"), [2, 1])


def test_a_variant_that_diverged_beside_its_rate_is_not_compared_there():
    choice = Choice("", "", {"rate": [0.1, 0.3, 1]}, {"rate": 0.3}, [], [90, 92], [[88, 91], [90, 92], [88, 91]])
    choices = {"SGD": choice, "PUGD": choice._replace(by_rate=[[88, 91], [90, 92], []]), "RTS": choice}
    outcome = outcome_of({label: [[50, 60], [60, 70]] for label in choices}, choices)
    beside = [c.statement for c in stability.STUDY.conditions(outcome) if "beside" in c.statement]
    assert beside == ["tiny: loss beside the chosen rate: RTS's is smaller"]


def test_a_seed_at_which_a_run_diverged_is_left_out_and_the_others_count():
    outcome = outcome_of({"SGD": [[10, 20, 30], [40, 50, 60]], "PUGD": [[9, 10, 20], [9, 40, 50]]}, every=2)
    outcome["PUGD"].runs[0] = Line("", {}, 0, "", {}, "", {}, {}, "the loss is nan")
    np.testing.assert_allclose(early._early(outcome["PUGD"]), [np.nan, 10, 20])
    assert early._summary(outcome) == "on the mean curve PUGD is last behind SGD in epoch 4 of 4."
    np.testing.assert_allclose(stability.over_seeds(outcome, "PUGD"), [np.nan, 5, 5])
    (line,) = outcome.curves("", outcome.only("PUGD")).lines
    assert line.x == [2, 4]


def test_tables_and_pictures_do_not_compare_times_of_runs_of_different_days():
    def found(*seconds):
        outcome = outcome_of({label: [[50, 60]] for label in shortcuts.shortcuts(SETTING._replace(tiny=True))})
        for variant, each in zip(outcome.variants.values(), itertools.cycle(seconds), strict=False):
            for line in variant.runs:
                more = dict.fromkeys(("test_accuracy", "val_accuracy", "steps", "gradient_evaluations"), 1)
                line.result.update(more, seconds=each)
        return repr((shortcuts.STUDY.table(outcome), shortcuts.STUDY.panels(outcome)))

    assert found(1.0, 2.0) == found(3.0, 1.0)


LAST = {
    "rts.early": "SGD, twice the epochs",
    "rts.radius": "half cosine, falls",
    "rts.timing": "late 0.25",
    "rts.scale": "s = cos(g, g*)",
    "rts.all": "RTS, paper's shapes",
    "rts.factorial": "RTS",
    "rts.stability": "RTS",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAST)
def test_variant_of_paper_scale_is_built_and_traced(name, monkeypatch):
    claim = catalog.claims()[name]
    setting = claim.STUDY.settings["paper"][list(LAST).index(name) % 2]
    classes = 200 if "imagenet" in setting.base.dataset else 10
    labels = np.repeat(np.arange(classes, dtype=np.int32), 20)
    examples = Examples(np.zeros((len(labels), 32, 32, 3), np.uint8), labels)
    monkeypatch.setattr(experiment, "load", lambda *_: Dataset(examples, examples, classes, "crop_flip"))
    prepared = experiment.prepare(claim.STUDY.variants(setting)[LAST[name]].config)
    assert prepared.config.epochs >= 200
    assert prepared.config.model == "resnet18"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label"), [("real.noisy", "LPG"), ("real.regularizers", "forward")])
def test_variant_of_real_scale_is_built_and_traced(name, label, monkeypatch):
    (setting,) = catalog.claims()[name].STUDY.settings["paper"]
    base = dataclasses.replace(setting.base, noise="none", val_size=50)
    labels = np.repeat(np.arange(10, dtype=np.int32), 60)
    examples = Examples(np.zeros((len(labels), 32, 32, 3), np.uint8), labels)
    monkeypatch.setattr(experiment, "load", lambda *_: Dataset(examples, examples, 10, "crop2_flip"))
    prepared = experiment.prepare(catalog.claims()[name].STUDY.variants(setting._replace(base=base))[label].config)
    assert (prepared.config.model, prepared.config.epochs) == ("fast", 10)


def test_what_an_accelerator_is_for_is_all_that_is_at_real_scale():
    assert sorted(command.ACCELERATOR) == [name for name in catalog.claims() if name.startswith("real.")]
    names, options = command._asked(command.Options(name="accelerator"))
    assert (names, options.scale) == (list(command.ACCELERATOR), "paper")


@pytest.mark.slow
def test_a_budget_stops_at_the_next_step_and_the_same_command_goes_on(tmp_path, monkeypatch):
    class Timer(threading.Thread):
        """A timer that calls its function once a run has finished more than two epochs."""

        def __init__(self, seconds, function):
            super().__init__()
            self.function, self.cancel = function, lambda: None

        def run(self):
            while not any(path.read_text().count("\n") > 2 for path in tmp_path.rglob("metrics.jsonl")):
                time.sleep(0.01)
            self.function()

    base = dataclasses.replace(SETTING.base, epochs=100_000, tensorboard=False)
    long = early.STUDY._replace(settings={"smoke": (SETTING._replace(base=base, tiny=True),)})
    monkeypatch.setattr(catalog.claims()["rts.early"], "STUDY", long)
    monkeypatch.setattr(budget.threading, "Timer", Timer)
    said = io.StringIO()
    with jax.numpy_rank_promotion("allow"):
        options = command.Options(name="rts.early", scale="smoke", out=tmp_path, budget_minutes=5)
        command.main(options, Console(file=said, width=120))
    assert "5 minutes are used up; run the same command again to continue" in said.getvalue()
    assert list(tmp_path.rglob("checkpoints/*/sha256.json"))
    assert not (tmp_path / "rts.early.json").exists()


def test_the_timer_of_a_budget_sends_sigterm():
    with budget.within(1e-4) as used_up, graceful_shutdown() as signals:
        while not signals:
            time.sleep(0.01)
        assert used_up()


def test_a_budget_that_is_used_up_after_another_signal_sends_none(monkeypatch):
    # The work is about to stop at its next step; a second SIGTERM would kill it while it writes its checkpoint.
    sent = []
    monkeypatch.setattr(budget.os, "kill", lambda *args: sent.append(args))
    with budget.within(2e-3) as used_up, graceful_shutdown() as signals:
        signals.append(signal.SIGINT)
        time.sleep(0.5)
        assert used_up()
    assert not sent


def test_a_budget_of_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--budget-minutes 0: expected more than 0"):
        command.main(command.Options(name="rts.early", out=tmp_path, budget_minutes=0), Console(quiet=True))


def test_trainings_side_by_side_as_requested(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(sweep, "run", lambda jobs, *_: asked.extend(config.jobs for _, config in jobs) or fail())

    def fail():
        raise Stopped("enough", signal.SIGTERM)

    options = command.Options(name="rts.early", scale="smoke", out=tmp_path, jobs=3)
    with pytest.raises(Stopped, match="enough"):
        command.main(options, Console(quiet=True))
    assert set(asked) == {3}
    with pytest.raises(UsageError, match="--jobs 0: expected at least 1"):
        command.main(dataclasses.replace(options, jobs=0), Console(quiet=True))
