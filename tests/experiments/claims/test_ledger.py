"""The ledger: what counts as the same run, what is kept, what survives a kill."""

import dataclasses
import json
import os
import shutil
import threading

import numpy as np
import pytest
from rich.console import Console

from experiments.claims import ledger
from experiments.claims.ledger import CURVES, POINTS, Ledger
from experiments.claims.setting import Setting, rates
from experiments.claims.workspace import Workspace
from experiments.config.errors import UsageError
from experiments.config.schema import ELSEWHERE, Config
from experiments.runs import records, run_dir
from experiments.runs.lock import wait_for
from experiments.training import sweep

CONFIG = Config(model="mlp", epochs=2, train_size=50, val_size=50, devices=1, tensorboard=False, checkpoint_every=0)
SETTING = Setting("tiny", CONFIG, (rates(0.1),))


def workspace(folder, name="one"):
    return Workspace(folder / "runs", Ledger(folder / "ledger", name), None, Console(quiet=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with the ledger of two runs, and the two runs."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, workspace(folder).train(SETTING, [CONFIG], "second", [7_000, 7_001])[0]


def test_nothing_is_trained_twice_by_another_claim_on_another_machine(trained, tmp_path, monkeypatch):
    folder, first = trained
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("trained again"))
    elsewhere = dataclasses.replace(workspace(folder, "two"), folder=tmp_path)
    renamed = dataclasses.replace(CONFIG, label="another name")
    (again,) = elsewhere.train(SETTING, [renamed], "second", [7_001, 7_000])
    np.testing.assert_array_equal(again.accuracy, first.accuracy[::-1])
    assert elsewhere.trainings == workspace(folder).trainings or elsewhere.trainings.count == 2


def test_only_missing_seeds_are_trained(trained, tmp_path, monkeypatch):
    folder, _ = trained
    asked = []
    run = sweep.run
    monkeypatch.setattr(
        sweep, "run", lambda jobs, *rest: asked.extend((c.first_seed, c.seeds) for _, c in jobs) or run(jobs, *rest)
    )
    copied = tmp_path / "ledger" / "one.jsonl"
    copied.parent.mkdir()
    copied.write_text((folder / "ledger" / "one.jsonl").read_text())
    (found,) = workspace(tmp_path).train(SETTING, [CONFIG], "second", range(6_999, 7_003))
    assert asked == [(6_999, 1), (7_002, 1)]
    assert [line.seed for line in found.runs] == [6_999, 7_000, 7_001, 7_002]
    assert len(ledger.read(copied)) == 4


def test_line_holds_what_a_study_reads(trained):
    _, found = trained
    line = found.runs[0]
    assert line.settings == {"model": "mlp", "epochs": 2, "train_size": 50, "val_size": 50, "half": "second"}
    assert line.result["steps"] == 2
    assert set(line.curve) <= set(CURVES)
    assert found.metric("val_accuracy").shape == (2, 2)
    np.testing.assert_allclose(found.peak, 100 * found.metric("val_accuracy").max(axis=0), atol=1e-3)
    assert np.isnan(found.metric("cosine")).all()  # plain training measures no cosine


def test_a_run_that_diverged_is_known_too(tmp_path):
    wild = dataclasses.replace(CONFIG, lr="1e30", epochs=3)
    (found,) = workspace(tmp_path).train(SETTING, [wild], "first", [100])
    assert found.diverged
    assert "lr" in found.runs[0].error
    assert np.isnan(found.accuracy).all()
    (again,) = dataclasses.replace(workspace(tmp_path), folder=tmp_path / "other").train(
        SETTING, [wild], "first", [100]
    )
    assert again.runs == found.runs


def test_a_long_curve_keeps_its_ends(trained, monkeypatch, tmp_path):
    folder, found = trained
    monkeypatch.setattr(ledger, "POINTS", 1)
    run = next((folder / "runs").rglob("seed7000"))
    config = dataclasses.replace(CONFIG, half="second")
    short = ledger._line(config, 7000, run)
    assert short.curve["epoch"] == [1]
    monkeypatch.setattr(ledger, "POINTS", 2)
    assert ledger._line(config, 7000, run).curve["epoch"] == [1, 2]
    assert POINTS == 40
    assert ledger._line(config, 7000, run).result == found.runs[0].result


def test_line_holds_the_flags_of_the_compiler(trained, monkeypatch):
    folder, found = trained
    run = next((folder / "runs").rglob("seed7000"))
    config, about = dataclasses.replace(CONFIG, half="second"), records.about(run)
    assert found.runs[0].xla_flags == (os.environ.get("XLA_FLAGS") or "")
    for flags, kept in (("--xla_cpu_x=true", "--xla_cpu_x=true"), (None, "")):
        monkeypatch.setattr(records, "about", lambda folder, flags=flags: about | {"xla_flags": flags})
        assert ledger._line(config, 7000, run).xla_flags == kept


def test_a_run_resumed_elsewhere_is_of_both_machines(trained, monkeypatch, tmp_path):
    folder, _ = trained
    run = next((folder / "runs").rglob("seed7000"))
    config, about = dataclasses.replace(CONFIG, half="second"), records.about(run)
    here = {name: about[name] for name in ("commit", "packages", "device")} | {"xla_flags": None}
    there = here | {"commit": "b", "device": "1 x H100 (gpu)", "xla_flags": "--xla_x"}
    turns = [{"epoch": 1, **there}, {"epoch": 2, **there, "commit": "c"}]
    monkeypatch.setattr(records, "about", lambda _: about | here | {"commit": "a", "resumed": turns})
    line = ledger._line(config, 7000, run)
    assert line.commits == ["a", "b", "c"]
    jax = about["packages"]["jax"]
    assert line.machine == f"{about['device']} with JAX {jax}, then 1 x H100 (gpu) with JAX {jax} and --xla_x"
    ledger._append(tmp_path / "one.jsonl", line)
    assert ledger.read(tmp_path / "one.jsonl") == [line]


def test_a_finding_says_on_which_machines_its_runs_were_trained(trained):
    folder, found = trained
    made = workspace(folder)
    line = found.runs[0]._replace(commit="a", device="1 x cpu (cpu)", versions={"jax": "0.10.2"}, xla_flags="")
    made.used.update({("a", i): line for i in range(3)})
    made.used["b", 0] = line._replace(commit="b", device="1 x H100 (gpu)", versions={"jax": "0.11.2"})
    assert made.trainings.commits == ["a", "b"]
    assert made.trainings.machines == {"1 x H100 (gpu) with JAX 0.11.2": 1, "1 x cpu (cpu) with JAX 0.10.2": 3}


def test_a_ledger_that_cannot_be_written_is_met_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/ledger"):
        lost = Workspace(tmp_path, Ledger(tmp_path / folder, "one"), None, Console(quiet=True))
        with pytest.raises(UsageError, match=r"--ledger .*: .*file cannot be written to; name another folder"):
            lost.train(SETTING, [CONFIG], "second", [7_000])


def test_what_another_process_has_trained_meanwhile_is_not_trained_again(trained, tmp_path, monkeypatch):
    folder, first = trained
    late = Workspace(tmp_path, Ledger(tmp_path / "ledger", "two"), None, Console(quiet=True))
    (tmp_path / "ledger").mkdir()
    shutil.copy(folder / "ledger" / "one.jsonl", tmp_path / "ledger")
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("trained again"))
    (again,) = late.train(SETTING, [CONFIG], "second", [7_000, 7_001])
    np.testing.assert_array_equal(again.accuracy, first.accuracy)


def test_a_run_that_another_claim_has_added_meanwhile_gets_no_second_line(trained, tmp_path):
    folder, _ = trained
    config, run = dataclasses.replace(CONFIG, half="second"), next((folder / "runs").rglob("seed7000"))
    one, two = (Ledger(tmp_path, name) for name in ("one", "two"))
    one.add(config, 7_000, run)
    two.add(config, 7_000, run)
    assert not two.path.exists()
    assert two.find(config, 7_000) == one.find(config, 7_000)


def test_half_a_line_of_a_killed_process_is_dropped(trained, tmp_path):
    folder, _ = trained
    path = tmp_path / "one.jsonl"
    whole = (folder / "ledger" / "one.jsonl").read_text()
    path.write_text(whole + whole[:50])
    before = ledger.read(path)
    assert sorted(line.seed for line in before) == [7_000, 7_001]  # the runs are side by side, and either may end first
    ledger._append(path, before[0]._replace(seed=1))
    assert ledger.read(path) == [*before, before[0]._replace(seed=1)]


def test_a_line_that_another_process_is_writing_is_kept(trained, tmp_path):
    _, found = trained
    path, (one, two) = tmp_path / "one.jsonl", found.runs
    text = json.dumps(one._asdict()) + "\n"
    with path.open("a") as file:
        wait_for(file)
        file.write(text[:50])
        file.flush()
        append = threading.Thread(target=ledger._append, args=(path, two))
        append.start()
        append.join(0.2)
        file.write(text[50:])
    append.join()
    assert ledger.read(path) == [one, two]


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "one.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"one\.jsonl: line 1 is not a record of a run"):
        Ledger(tmp_path, "two")


def test_key_is_of_the_settings_that_count():
    for name in (*ELSEWHERE, "label"):
        assert name not in run_dir.identity(Config())
    assert ledger.key(Config()) != ledger.key(Config(half="second"))
    assert json.loads(json.dumps(run_dir.identity(Config(lr="0.2", weight_decay=0.1)))) == {
        "lr": "0.2",
        "weight_decay": 0.1,
    }


def test_defaults_on_which_ledgers_rest_have_not_changed():
    # A line holds only what differs from the defaults, so a changed default would change the run of every line.
    texts = {"method": "none", "dataset": "digits", "model": "resnet8", "lr": "cosine:0.1:0.0", "optimizer": "sgd"}
    texts |= {"loss": "cross_entropy", "norm": "group", "dtype": "float32", "half": "both", "parallel": "jit"}
    texts |= dict.fromkeys(("reweight", "flooding", "noise", "imbalance"), "none") | {"second_batch": "1"}
    numbers = {"epochs": 20, "batch": 50, "momentum": 0.9, "weight_decay": 5e-4, "cutout": 0, "mixup": 0.0}
    now = dataclasses.asdict(Config())
    assert {name: now[name] for name in texts | numbers} == texts | numbers
