"""Claims about LPG: the command at smoke scale, fair arms, the settings of the papers."""

import dataclasses

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.claims import command, study
from experiments.claims.lpg import arms, balanced, longtail, noisy, plugin
from experiments.data import Dataset, Examples
from experiments.training import experiment

FRESH = 7_000
CLAIMS = {"balanced": balanced, "longtail": longtail, "noisy": noisy, "plugin": plugin}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_claim_at_smoke_scale(name, tmp_path):
    lab = study.Lab(tmp_path, None, Console(quiet=True))
    with jax.numpy_rank_promotion("allow"):
        finding = command.find(f"lpg.{name}", "smoke", FRESH, lab)
    assert finding.checks
    assert finding.reading
    for row in finding.rows.values():
        assert all(len(cells) == 2 and np.isfinite(cells).all() for cells in row.values())
        assert 0 <= np.mean(row["balanced test %"]) <= 100
    for panel in finding.panels:
        assert all(len(line.x) == len(line.y) for line in panel.lines)


@pytest.mark.parametrize("scale", ["smoke", "full", "paper"])
@pytest.mark.parametrize("name", CLAIMS)
def test_every_arm_chooses_among_as_many_distinct_candidates(name, scale):
    for setting in CLAIMS[name].SETTINGS[scale]:
        for arm in CLAIMS[name].candidates(setting).values():
            assert len(set(arm)) == setting.candidates


def test_settings_of_one_name_are_the_same():
    # Their runs share a folder.
    for scale in ("smoke", "full", "paper"):
        found = {}
        for claim in CLAIMS.values():
            for setting in claim.SETTINGS[scale]:
                assert found.setdefault(setting.name, setting.base) == setting.base


def test_parts_hold_every_class_once():
    classes = np.arange(10)
    np.testing.assert_array_equal(np.concatenate([classes[part] for part in arms.PARTS.values()]), classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_arm_of_paper_scale_is_built_and_traced(name, monkeypatch):
    setting = CLAIMS[name].SETTINGS["paper"][0]
    examples = Examples(np.zeros((10_000, 32, 32, 3), np.uint8), (np.arange(10_000) % 10).astype(np.int32))
    monkeypatch.setattr(experiment, "load", lambda *_: Dataset(examples, examples, 10, "crop_flip"))
    config = list(CLAIMS[name].candidates(setting).values())[1][-1]
    prepared = experiment.prepare(dataclasses.replace(config, val_size=1000, devices=1))
    assert prepared.config.epochs == 200
    assert prepared.steps_per_epoch > 1
