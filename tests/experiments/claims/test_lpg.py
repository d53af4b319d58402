"""Studies of LPG: results at smoke scale, settings that claims share, and the settings of the papers."""

import dataclasses

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.claims import catalog
from experiments.claims.ledger import Ledger
from experiments.claims.lpg import balanced, common, confusions, longtail, noisy, plugin
from experiments.claims.setting import at
from experiments.claims.workspace import Workspace
from experiments.config.schema import Config
from experiments.data import Dataset, Examples
from experiments.training import experiment

FRESH = 7_000
CLAIMS = {"balanced": balanced, "confusions": confusions, "longtail": longtail, "noisy": noisy, "plugin": plugin}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_claim_at_smoke_scale(name, tmp_path):
    workspace = Workspace(tmp_path, Ledger(tmp_path / "ledger", name), None, Console(quiet=True))
    with jax.numpy_rank_promotion("allow"):
        finding = catalog.find(f"lpg.{name}", "smoke", FRESH, workspace)
    assert finding.conditions
    assert finding.reading
    for label, row in finding.rows.items():
        assert all(len(cells) == 2 and np.isfinite(cells).all() for cells in row.values())
        of_the_last_epoch = {"balanced test %", "training %"} & row.keys()
        assert len(of_the_last_epoch) == (0 if "stopped early" in label else 2)
    for panel in finding.panels:
        assert all(len(line.x) == len(line.y) for line in panel.lines)


def test_settings_of_one_name_are_the_same():
    # Settings with the same name share a run folder.
    for scale in ("smoke", "full", "paper"):
        found = {}
        for claim in CLAIMS.values():
            for setting in claim.STUDY.settings[scale]:
                assert found.setdefault(setting.name, setting.base) == setting.base


def test_parts_hold_every_class_once():
    classes = np.arange(10)
    np.testing.assert_array_equal(np.concatenate([classes[part] for part in common.PARTS.values()]), classes)


def test_the_extended_grid_of_class_balanced_weights_stays_below_one():
    (axis,) = longtail.rivals(Config())[longtail.BALANCED].own
    texts = [axis.set(Config(), x).reweight for x in (1e-7, *axis.values)]
    assert texts == [f"class_balanced:{beta}" for beta in ("0.9999999", "0.9999", "0.999", "0.99")]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_variant_of_paper_scale_is_built_and_traced(name, monkeypatch):
    setting = CLAIMS[name].STUDY.settings["paper"][0]
    examples = Examples(np.zeros((10_000, 32, 32, 3), np.uint8), (np.arange(10_000) % 10).astype(np.int32))
    monkeypatch.setattr(experiment, "load", lambda *_: Dataset(examples, examples, 10, "crop_flip"))
    variant = list(CLAIMS[name].STUDY.variants(setting).values())[1]
    config = at(variant.config, variant.own, [axis.values[-1] for axis in variant.own])
    prepared = experiment.prepare(dataclasses.replace(config, val_size=1000, devices=1))
    assert prepared.config.epochs == 200
    assert prepared.steps_per_epoch > 1
